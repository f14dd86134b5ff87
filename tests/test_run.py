"""What surrounds a run: precision, device, seeds, records, signals and the one-line errors."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

import common
from common import UserError, write_json
from networks import checkpoint
from networks.resnet import NPRDetector
from util import run

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


# --- precision


@pytest.fixture
def machine(monkeypatch):
    """Sets what torch and the processor say about bf16."""

    def say(cuda, cpu):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: cuda)
        monkeypatch.setattr(run, "_cpu_flags", lambda: ["sse", "amx_bf16"] if cpu else ["sse"])

    return say


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
@pytest.mark.parametrize(("amp", "expected"), [("bf16", "bf16"), ("off", "fp32")])
def test_a_precision_asked_for_is_taken(machine, amp, device, expected):
    for able in (False, True):
        machine(cuda=able, cpu=able)
        for deterministic in (False, True):
            assert run.choose_precision(amp, device, deterministic) == expected


@pytest.mark.parametrize(
    ("device", "cuda", "cpu", "expected"),
    [
        (CUDA, True, False, "bf16: this GPU has bf16 instructions"),
        (CUDA, False, True, "fp32: this GPU has no bf16 instructions"),
        (CPU, False, True, "bf16: this CPU has amx_bf16"),
        (CPU, True, False, "fp32: this CPU has no bf16 instructions"),
        (MPS, True, True, "fp32: bf16 is not used on mps"),
    ],
)
def test_auto_takes_bf16_where_that_device_has_it_and_says_why(machine, device, cuda, cpu, expected):
    machine(cuda, cpu)
    assert run.choose_precision("auto", device) == expected
    assert run.is_bf16(expected) == expected.startswith("bf16")
    assert run.choose_precision("auto", device, deterministic=True) == "fp32: --deterministic"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512_bf16 avx2\nbugs\t: x\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse avx512f avx2\nbugs\t: amx_bf16\n", False),
        ("processor\t: 0\nflags\t\t: fpu xavx512_bf16x\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", False),
        (FileNotFoundError, False),
    ],
)
def test_the_processors_flags_decide_about_bf16(monkeypatch, text, expected):
    def read_text(*_, **__):
        if text is FileNotFoundError:
            raise text
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    assert run.is_bf16(run.choose_precision("auto", CPU)) is expected


# --- device


@pytest.fixture
def devices(monkeypatch):
    """Sets how many CUDA devices and whether MPS torch sees."""

    def see(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return see


def pick(device="auto"):
    return str(run.pick_device(SimpleNamespace(device=device)))


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (0, False, "cpu"),
        (0, True, "mps"),
        (1, False, "cuda"),
        (2, True, "cuda"),
    ],
)
def test_auto_takes_cuda_then_mps_then_cpu(devices, cuda, mps, expected):
    devices(cuda, mps)
    assert pick() == expected


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_the_device_asked_for_is_taken(devices, device):
    devices(cuda=2)
    assert pick(device) == device


@pytest.mark.parametrize(
    ("device", "cuda", "token"),
    [("cuda", 0, "0 CUDA"), ("cuda:2", 2, "2 CUDA"), ("meta", 2, "cpu"), ("privateuseone", 0, "cpu")],
)
def test_a_device_that_is_not_there_is_refused(devices, device, cuda, token):
    devices(cuda)
    with pytest.raises(UserError, match=f"--device {device}.*{token}"):
        pick(device)


@pytest.mark.parametrize(
    ("wanted", "cores", "expected"), [(0, 4, 0), (3, 1, 3), (20, 4, 20), (None, 2, 2), (None, 64, 8)]
)
def test_loader_processes_are_as_asked_for_else_one_per_core_up_to_8(monkeypatch, wanted, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert run.worker_count(wanted) == expected


# --- seeds


@pytest.fixture
def torch_settings(monkeypatch):
    """Puts back what seeding sets globally, and records calls for deterministic kernels."""
    calls = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    return calls


def draw():
    return random.random(), np.random.random(), torch.rand(3).tolist()


def test_a_seed_fixes_python_numpy_and_torch(torch_settings):
    run.seed_everything(5)
    first = draw()
    run.seed_everything(5)
    assert draw() == first
    run.seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize(("deterministic", "calls"), [(False, []), (True, [True])])
def test_deterministic_kernels_are_asked_for_only_if_wanted(torch_settings, deterministic, calls):
    run.seed_everything(5, deterministic)
    assert torch_settings == calls
    assert torch.backends.cudnn.benchmark is not deterministic


def test_the_state_of_the_generators_comes_back():
    state = run.rng_state()
    first = torch.rand(5)
    run.set_rng_state(state)
    assert torch.equal(torch.rand(5), first)


# --- records


def test_the_environment_holds_only_strings():
    environment = run.environment(CPU)
    assert {type(value) for value in environment.values()} == {str}
    assert json.loads(json.dumps(environment)) == environment


def test_the_environment_comes_back_from_a_checkpoint(tmp_path):
    path = tmp_path / "a.pth"
    checkpoint.save(path, NPRDetector(), options={}, env=run.environment(CPU), rng=run.rng_state())
    content = checkpoint.read(path)
    assert content["env"]["torch"] == str(torch.__version__)
    assert torch.equal(content["rng"]["cpu"], torch.get_rng_state())


def test_the_environment_names_machine_versions_and_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "--name", "a b"])
    environment = run.environment(CPU)
    assert environment["argv"] == "train.py --name a b"
    assert environment["device"] == "cpu"
    assert environment["torch"].startswith(torch.__version__.split("+")[0])
    assert environment["cpu_threads"] == str(torch.get_num_threads())
    assert {"time", "git", "python", "platform", "accelerator", "numpy"} <= set(environment)


def test_without_git_the_commit_is_empty(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert run.environment(CPU)["git"] == ""


def test_a_package_that_is_not_installed_is_absent():
    assert run._version("no-such-package-anywhere") == "absent"


def test_start_seeds_picks_and_records(torch_settings):
    opt = SimpleNamespace(device="cpu", seed=5, deterministic=False)
    assert run.start(opt) == CPU
    first = draw()
    run.seed_everything(5)
    assert draw() == first
    assert opt.environment["device"] == "cpu"


def test_json_is_written_readably_into_a_new_folder(tmp_path):
    content = {"name": "größer", "lr": 2e-4, "classes": ["car"], "none": None}
    write_json(tmp_path / "a" / "b.json", content)
    text = (tmp_path / "a" / "b.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "größer" in text and text.endswith("}\n")


def test_json_replaces_an_older_file_and_leaves_no_part(tmp_path):
    for number in (1, 2):
        write_json(tmp_path / "a.json", {"number": number})
    assert json.loads((tmp_path / "a.json").read_text()) == {"number": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_content_that_is_no_json_leaves_the_old_file_and_no_part(tmp_path):
    write_json(tmp_path / "a.json", {"number": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"number": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_json(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"number": 1})

    class Full(io.TextIOWrapper):
        def write(self, text):
            super().write(text[:3])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(common, "open", lambda path, *_, **__: Full(io.FileIO(path, "w")), raising=False)
    with pytest.raises(OSError, match=r"a\.json"):
        write_json(tmp_path / "a.json", {"number": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# --- signals


@pytest.fixture
def handlers():
    """The handlers of before, which must be back afterwards."""
    before = {number: signal.getsignal(number) for number in run.STOP_SIGNALS}
    yield before
    found = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == before


def test_every_signal_that_asks_a_process_to_end_is_known():
    names = {signal.Signals(number).name for number in run.STOP_SIGNALS}
    assert names == {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGQUIT"}


@pytest.mark.parametrize("number", run.STOP_SIGNALS)
def test_a_signal_stops_at_the_next_check_with_hint_and_status(handlers, number):
    with run.StopSignal("resume it") as stop:
        stop.check()
        os.kill(os.getpid(), number)
        name = signal.Signals(number).name
        with pytest.raises(run.Interrupted, match=name) as caught:
            stop.check()
    assert caught.value.status == 128 + number


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(handlers, second):
    with pytest.raises(KeyboardInterrupt), run.StopSignal("hint"):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), second)
        for _ in range(1000):  # the handler runs within the next few byte codes
            pass


@pytest.mark.parametrize("noticed", [True, False])
def test_however_many_signals_come_a_save_is_finished(handlers, noticed):
    with run.StopSignal("hint") as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        if noticed:
            with pytest.raises(run.Interrupted):
                stop.check()
        with nullcontext() if noticed else stop.save():
            for _ in range(1000):
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(run.Interrupted, match="SIGTERM"):
            stop.check()


def test_a_signal_ends_the_wait_for_a_batch_that_never_comes(handlers):
    def loader():
        yield 1
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with run.StopSignal("hint") as stop, pytest.raises(run.Interrupted):
        list(stop.watch(loader()))


def test_a_signal_between_two_batches_stops_before_the_next_is_asked_for(handlers):
    seen = []
    with run.StopSignal("hint") as stop, pytest.raises(run.Interrupted):
        for batch in stop.watch([1, 2, 3]):
            seen.append(batch)
            os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [1]


def test_nohup_is_respected(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with run.StopSignal("hint") as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        stop.check()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, handlers[signal.SIGHUP])


def test_handlers_are_changed_inside_and_put_back_after_an_error(handlers):
    with pytest.raises(RuntimeError), run.StopSignal("hint"):
        assert all(signal.getsignal(number) != handler for number, handler in handlers.items())
        raise RuntimeError
    assert all(signal.getsignal(number) == handler for number, handler in handlers.items())


def test_without_a_signal_nothing_is_raised(handlers):
    with run.StopSignal("hint") as stop:
        assert list(stop.watch([1, 2])) == [1, 2]
        stop.check()
    stop.check()


# --- errors for people


def raiser(error):
    def main():
        raise error

    return main


def guarded(error):
    with pytest.raises(SystemExit) as stopped:
        run.guard(raiser(error))
    return stopped.value.code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no weight file at a.pth"), "error: no weight file at a.pth"),
        (UserError("first\nsecond"), "error: first"),
        (UserError("\n  indented\nsecond"), "error: indented"),
        (UserError(), "error: UserError"),
        (
            FileNotFoundError(2, "No such file or directory", "a"),
            "error: No such file or directory: a",
        ),
        (MemoryError(), "error: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "error: CUDA out of memory. Tried"),
    ],
)
def test_what_a_user_can_mend_becomes_one_line(error, line):
    assert guarded(error) == line


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (run.Interrupted("stopped", 143), 143)]
)
def test_an_interruption_ends_with_its_status(error, status):
    assert guarded(error) == status


def test_an_interruption_prints_its_message_on_stderr(capsys):
    guarded(run.Interrupted("stopped by SIGTERM; go on with --resume", 143))
    captured = capsys.readouterr()
    assert captured.err.strip() == "stopped by SIGTERM; go on with --resume"
    assert captured.out == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too many values to unpack"),
        KeyError("a"),
        TypeError("b"),
        RuntimeError("c"),
        AssertionError("d"),
    ],
)
def test_a_bug_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        run.guard(raiser(error))
    assert caught.value is error


def test_a_status_that_main_itself_asks_for_is_kept():
    assert guarded(SystemExit(2)) == 2


def test_a_main_that_returns_ends_quietly(capsys):
    run.guard(lambda: None)
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_ends_a_script_quietly():
    code = "from util import run; run.guard(lambda: print('a' * 100_000))"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        streams = {"stdout": output, "stderr": subprocess.PIPE}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, **streams)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


class NotebookStream(io.StringIO):
    """Standard output as notebooks replace it: without `reconfigure`."""


@pytest.mark.parametrize("stream", [None, NotebookStream(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_a_script_runs_whatever_standard_output_is(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    run.guard(lambda: print("größer", "\udcff") if stream is not None else print("x"))
    assert sys.stdout.writable()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("DataLoader worker (pid 3) is killed by signal: Bus error", "--num_threads 0"),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\n  File\n"
            "RuntimeError: unable to allocate shared memory(shm) for file",
            "error: RuntimeError: unable to allocate shared memory.*--num_threads 0",
        ),
    ],
)
def test_too_small_a_shared_memory_is_one_line_with_the_remedy(error, line):
    assert re.search(line, guarded(RuntimeError(error)))


def test_ctrl_c_is_as_before_after_a_guarded_main():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        run.guard(lambda: None)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run.guard(check_ignored)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def check_ignored():
    with run.StopSignal("resume") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        stop.check()
