"""experiments/cells.py: commands side by side, slots, logs, failures, interruptions."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from conftest import ROOT

from common import LOCK, UserError, held_locks, owned
from experiments import cells
from experiments.cells import Jobs, last_line
from util import run

DEADLINE = 60  # seconds until a test that waits gives up


@dataclass(frozen=True)
class Cell:
    name: str


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Looks every 0.02 s in place of 0.5 s."""
    monkeypatch.setattr(cells, "POLL_SECONDS", 0.02)


def python(code):
    return [sys.executable, "-c", code]


def some(count):
    return [Cell(f"c{number}") for number in range(count)]


def run_all(jobs, cells, work, look=lambda: None):
    """{name: error or None} of all cells."""
    return {cell.name: error for cell, error in jobs.run(cells, work, look)}


# --- cells and slots


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_cells_run_at_once_than_there_are_slots(tmp_path, slots):
    lock, running, most = threading.Lock(), set(), []

    def work(cell, execute):
        with lock:
            running.add(cell)
            most.append(len(running))
        time.sleep(0.03)
        with lock:
            running.remove(cell)

    done = run_all(Jobs([{}] * slots, tmp_path), some(7), work)
    assert done == {f"c{number}": None for number in range(7)}
    assert max(most) == slots


def test_every_cell_at_a_time_has_a_slot_of_its_own(tmp_path):
    slots = [{"CUDA_VISIBLE_DEVICES": number, "OMP_NUM_THREADS": "1"} for number in "34"]
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.2)"
    run_all(Jobs(slots, tmp_path), some(2), lambda cell, execute: execute(python(code)))
    assert sorted(last_line(tmp_path / f"c{number}.log") for number in (0, 1)) == ["3", "4"]


def test_a_command_knows_its_parent_and_draws_no_bars(tmp_path):
    code = "import os; print(os.environ['NPR_LAB_PARENT'], os.getppid(), os.environ['TQDM_DISABLE'])"
    run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(python(code)))
    assert last_line(tmp_path / "c0.log") == f"{os.getpid()} {os.getpid()} 1"


def test_a_command_reads_nothing_from_the_terminal(tmp_path):
    code = "import sys; print(repr(sys.stdin.read()))"
    run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(python(code)))
    assert last_line(tmp_path / "c0.log") == "''"


# --- logs and failures


def test_a_failing_command_gives_its_last_line_and_others_go_on(tmp_path):
    def work(cell, execute):
        execute(python("print('fine')"))
        if cell.name == "c1":
            execute(python("import sys; print('words'); sys.exit('error: no such thing')"))
        execute(python("print('after')"))

    done = run_all(Jobs([{}], tmp_path / "logs"), some(3), work)
    log = tmp_path / "logs" / "c1.log"
    assert (done["c0"], done["c2"]) == (None, None)
    assert isinstance(done["c1"], UserError)
    assert str(done["c1"]) == f"no such thing (status 1; {log})"
    assert "words" in log.read_text()
    assert "after" not in log.read_text()


def test_a_failing_command_without_output_is_not_given_the_line_of_another(tmp_path):
    def work(cell, execute):
        execute(python("print('of the first command')"))
        execute(python("raise SystemExit(3)"))

    [error] = run_all(Jobs([{}], tmp_path), some(1), work).values()
    assert str(error) == f"no output (status 3; {tmp_path / 'c0.log'})"


def test_a_command_killed_from_outside_is_a_failure(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    [error] = run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(python(code))).values()
    assert isinstance(error, UserError)
    assert "status -15" in str(error)


def test_any_exception_is_a_cell_s_result(tmp_path):
    def work(cell, execute):
        if cell.name == "c0":
            raise KeyError("column")

    done = run_all(Jobs([{}], tmp_path), some(2), work)
    assert isinstance(done["c0"], KeyError)
    assert done["c1"] is None


def test_a_command_that_is_no_program_fails_its_cell(tmp_path):
    [error] = run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(["/no/program"])).values()
    assert isinstance(error, FileNotFoundError)


def test_a_log_holds_commands_and_both_streams_of_all_attempts(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    for _ in range(2):
        run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(python(code)))
    lines = (tmp_path / "c0.log").read_text().splitlines()
    assert [line for line in lines if line in ("out", "err")] == ["out", "err"] * 2
    assert sum(line.startswith(f"$ {sys.executable} -c") for line in lines) == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", ""), (b"\n \n", ""), (b"a\nb \n\n", "b"), (b"a\r\nb", "b"), (b"x\n\xff\xfe!\n", "��!")],
)
def test_last_line_with_text(tmp_path, content, line):
    (tmp_path / "log").write_bytes(content)
    assert last_line(tmp_path / "log") == line


def test_last_line_from_a_byte_on(tmp_path):
    (tmp_path / "log").write_text("first\nsecond\n")
    assert last_line(tmp_path / "log", 6) == "second"
    assert last_line(tmp_path / "log", 13) == ""


# --- interruptions


WAITS_FOR_SIGTERM = """
import signal, sys, time
def stop(*_):
    print("asked to stop", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open({ready!r}, "w").close()
time.sleep({seconds})
"""


def test_an_interruption_stops_what_runs_and_starts_nothing_more(tmp_path):
    started, ended, ready = [], [], tmp_path / "ready"

    def work(cell, execute):
        started.append(cell.name)
        execute(python(WAITS_FOR_SIGTERM.format(ready=str(ready), seconds=DEADLINE)))
        execute(python("print('the second command')"))

    def look():
        if ready.exists():
            raise run.Interrupted("stopped by SIGINT", 130)

    began = time.monotonic()
    with pytest.raises(run.Interrupted, match="SIGINT"):
        for cell, _ in Jobs([{}], tmp_path).run(some(3), work, look):
            ended.append(cell)
    assert time.monotonic() - began < DEADLINE / 2
    assert (started, ended) == (["c0"], [])
    assert last_line(tmp_path / "c0.log") == "asked to stop"
    assert not (tmp_path / "c1.log").exists()


def test_what_ended_before_an_interruption_is_told(tmp_path):
    done = []

    def work(cell, execute):
        if cell.name != "c0":
            execute(python(f"import time; time.sleep({DEADLINE})"))

    def look():
        if done:
            raise run.Interrupted("enough", 130)

    with pytest.raises(run.Interrupted):
        for cell, error in Jobs([{}, {}], tmp_path).run(some(3), work, look):
            done.append((cell.name, error))
    assert done == [("c0", None)]


# --- the folder of an experiment


KILLED = """
import os, signal, subprocess, sys
import common
with common.owned(sys.argv[1]):
    code = "print('up', flush=True); import time; time.sleep(600)"
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, pass_fds=common.held_locks(), start_new_session=True, stdout=-1)
    child.stdout.readline()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_command_holds_the_lock_of_the_folder(tmp_path):
    with owned(tmp_path / "x"):
        [lock] = held_locks()
        code = (
            f"import os; print(os.path.samestat(os.fstat({lock}), os.stat({str(tmp_path / 'x' / LOCK)!r})))"
        )
        run_all(Jobs([{}], tmp_path), some(1), lambda cell, execute: execute(python(code)))
    assert last_line(tmp_path / "c0.log") == "True"


def test_run_command_runs_python_in_the_root_with_the_locks_of_this_process(tmp_path):
    with owned(tmp_path / "x"):
        code = f"import os; os.fstat({held_locks()[0]}); print(os.getcwd())"
        done = cells.run_command(["-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(ROOT))


def test_a_folder_is_in_use_until_the_commands_of_a_killed_experiment_have_ended(tmp_path):
    command = [*python(KILLED), str(tmp_path / "x")]
    owner = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert owner.returncode == -signal.SIGKILL
    try:
        with pytest.raises(UserError, match="in use"), owned(tmp_path / "x"):
            pass
    finally:
        os.kill(int(owner.stdout), signal.SIGKILL)
    end = time.monotonic() + DEADLINE
    while True:
        try:
            with owned(tmp_path / "x"):
                return
        except UserError:
            assert time.monotonic() < end
            time.sleep(0.02)


# --- a parent that is gone


@pytest.mark.parametrize("parent", [None, "mine", "another"])
def test_a_run_stops_when_the_program_that_started_it_is_gone(monkeypatch, parent):
    monkeypatch.delenv(run.PARENT, raising=False)
    if parent:
        monkeypatch.setenv(run.PARENT, str(os.getppid() + (parent == "another")))
    with run.StopSignal("start it again") as stop:
        if parent == "another":
            with pytest.raises(run.Interrupted, match="again") as stopped:
                stop.check()
            assert stopped.value.status == 143
        else:
            stop.check()


def test_the_variable_has_the_name_that_users_may_meet():
    assert run.PARENT == "NPR_LAB_PARENT"
