"""train_multiscale_experiment.py: cells, what is finished, failures, and a run that is killed."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, JobsInThisProcess, interrupt_after, make_tree

import train_multiscale_experiment as experiment
from common import UserError
from experiments import cells, report
from experiments.cells import Experiment
from experiments.grid import Cell
from experiments.options import ExperimentOptions
from experiments.results import Ledger
from util import run

EPOCHS = 3  # of the cells that are really trained
DEADLINE = 300  # seconds until a test that waits gives up
PROTOCOL = {
    "slug": "Toy",
    "generators": [{"name": "a", "family": "gan"}, {"name": "b", "family": "diffusion"}],
    "roots": ["test"],
}
TRAIN = {
    "no_resize": True,
    "cropSize": 32,
    "batch_size": 4,
    "niter": EPOCHS,
    "num_threads": 0,
    "device": "cpu",
}
VARIANTS = {"0.5": {"npr_factor": 0.5}, "two scales": {"npr_factors": [0.25, 0.5], "amp": "off"}}


def make_data(root):
    """Images to train, validate and test on, and a protocol for them."""
    make_tree(root / "data" / "train", ["one"], count=2)
    make_tree(root / "data" / "val", ["one"], count=2)
    make_tree(root / "data" / "test", ["a", "b"], count=2)
    (root / "row.yaml").write_text(yaml.safe_dump([PROTOCOL]))


def write_grid(root, **changes):
    """my.yaml in root; changes: keys of the grid.  Returns the flags that name it and its output."""
    content = {
        "question": "Is it so?",
        "train": {**TRAIN, "dataroot": str(root / "data")},
        "test": {"dataroot": str(root / "data"), "protocol_file": str(root / "row.yaml"), "num_threads": 0},
        "seeds": 1,
        "variants": VARIANTS,
    }
    (root / "my.yaml").write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return ["--grid", str(root / "my.yaml"), "--output", str(root / "out")]


def draw_nothing(monkeypatch):
    """Leaves out what takes long and is tested elsewhere: figures, and the intervals of the tables."""
    monkeypatch.setattr(report.figures, "draw_all", lambda *_: [])
    monkeypatch.setattr(report, "draw_examples", lambda *_: [])
    monkeypatch.setattr("util.stats.RESAMPLES", 100)


def rows_of(root):
    with open(root / "out" / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(row):
    return {name: value for name, value in row.items() if not name.endswith("_seconds")}


# --- end to end


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An experiment of two variants and one seed, really trained and tested: (folder, what was printed)."""
    root = tmp_path_factory.mktemp("done")
    make_data(root)
    said = io.StringIO()

    def visualize(words, **_):
        *words, flag, picture = words
        assert (words[:2], flag) == (["-m", "tools.visualize"], "--output")
        assert all(word.is_file() for word in words if isinstance(word, Path))
        picture.write_bytes(b"drawn by the test of the killed experiment")
        return subprocess.CompletedProcess(words, 0)

    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "run_command", visualize)
        patch.setattr(cells, "Jobs", JobsInThisProcess)
        patch.setattr("util.stats.RESAMPLES", 100)
        patch.setattr("util.pictures.DPI", 20)
        experiment.main([*write_grid(root), "--jobs", "1"])
    return root, said.getvalue()


def test_results_csv_has_a_row_per_cell(done):
    root, _ = done
    rows = rows_of(root)
    assert [(row["cell"], row["variant"], row["seed"]) for row in rows] == [
        ("0.5-seed100", "0.5", "100"),
        ("two_scales-seed100", "two scales", "100"),
    ]
    for row in rows:
        assert (row["status"], row["error"]) == ("finished", "")
        assert row["epochs"] == str(EPOCHS)
        assert all(len(row[name].split()) == EPOCHS for name in ("loss", "val_acc", "val_ap"))
        assert float(row["train_seconds"]) > 0
        assert float(row["test_seconds"]) > 0
        assert [row[f"Toy/{name}/{count}"] for name in "ab" for count in ("reals", "fakes")] == ["2"] * 4
        assert all(
            0 <= float(row[f"Toy/{name}/{metric}"]) <= 1 for name in "ab" for metric in ("acc", "ap", "auc")
        )


def test_a_cell_is_its_variant(done):
    one, two = rows_of(done[0])
    assert (one["factors"], one["scale_weights"], one["scale_factor"]) == ("0.5", "", "")
    assert two["factors"] == "0.25 0.5"
    weights = dict(part.split(":") for part in two["scale_weights"].split())
    assert list(weights) == ["0.25", "0.5"]
    assert sum(map(float, weights.values())) == pytest.approx(1, abs=1e-5)
    assert int(two["parameters"]) == int(one["parameters"]) + 3
    assert "fusion weights" in two["description"]


def test_results_csv_holds_the_numbers_of_both_scripts(done):
    root, _ = done
    for row in rows_of(root):
        with open(root / "out" / "tests" / row["cell"] / "Toy" / "scores.csv", newline="") as file:
            scores = [line for line in csv.DictReader(file) if line["generator"] == "a"]
        assert len(scores) == 4
        with open(root / "out" / "runs" / row["cell"] / "train.csv", newline="") as file:
            history = list(csv.DictReader(file))
        assert row["loss"] == " ".join(line["loss"] for line in history)
        right = [(float(line["score"]) > 0.5) == (int(line["label"]) == 1) for line in scores]
        assert float(row["Toy/a/acc"]) == pytest.approx(sum(right) / 4)


def test_there_are_a_report_a_table_and_figures(done):
    root, said = done
    report = (root / "out" / "report.md").read_text()
    assert report.startswith("# Is it so?\n")
    assert "two scales" in report
    assert "Failed cells" not in report
    with open(root / "out" / "table.csv", newline="") as file:
        assert [line["variant"] for line in csv.DictReader(file)] == ["0.5", "two scales"]
    drawn = {path.name for path in (root / "out" / "figures").iterdir()}
    assert {"heatmap_acc.png", "heatmap_ap.png", "learning_curves.png", "differences.png"} <= drawn
    assert {"npr_maps.png", "grad_cam.png"} <= drawn
    assert all(f"(figures/{name})" in report for name in drawn)
    assert "2 cells: 2 variants x 1 seeds" in said
    assert "one seed: no verdict" in said


def test_running_again_does_nothing_new(done, monkeypatch, capsys):
    root, _ = done
    before = {path: path.read_bytes() for path in (root / "out").glob("[!.]*.*")}
    assert {path.name for path in before} == {"results.csv", "report.md", "table.csv", "grid.json"}
    drawn = sorted((root / "out" / "figures").iterdir())
    monkeypatch.setattr(Experiment, "work", pytest.fail)
    monkeypatch.setattr(report.figures, "draw_all", lambda *_: drawn)
    monkeypatch.setattr(report, "draw_examples", lambda *_: [])
    monkeypatch.setattr("util.stats.RESAMPLES", 100)
    experiment.main(write_grid(root))
    assert "2 finished" in capsys.readouterr().out
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed <= {"report.md"}
    text = (root / "out" / "report.md").read_text()
    old = next(before[path] for path in before if path.name == "report.md").decode()
    assert text.partition("![")[0] == old.partition("![")[0]  # the list of figures has another order here


@pytest.mark.slow
def test_a_killed_experiment_resumes_to_the_same_results(done, tmp_path, monkeypatch):
    make_data(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # as in `done`, for equal sums
    flags = [*write_grid(tmp_path, variants={"0.5": VARIANTS["0.5"]}), "--jobs", "1"]
    command = [sys.executable, str(ROOT / "train_multiscale_experiment.py"), *flags]
    log = tmp_path / "out" / "logs" / "0.5-seed100.log"
    with open(tmp_path / "said", "w") as said:
        first = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        end = time.monotonic() + DEADLINE
        while Ledger(tmp_path / "out").epochs(Cell("0.5", 100)) < 1:
            assert first.poll() is None and time.monotonic() < end, (tmp_path / "said").read_text()
            time.sleep(0.01)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert not (tmp_path / "out" / "results.csv").exists()
    while True:  # until the cell that is left over has stopped by itself
        try:
            experiment.main(flags)
            break
        except UserError as error:
            assert "in use" in str(error) and time.monotonic() < end
            time.sleep(0.1)
    assert "the program that started this is gone" in log.read_text()
    [row] = rows_of(tmp_path)
    assert without_times(row) == without_times(rows_of(done[0])[0])
    assert {"npr_maps.png", "grad_cam.png"} <= {
        path.name for path in (tmp_path / "out" / "figures").iterdir()
    }


# --- with cells that only pretend


class Pretended:
    """Cells that leave a row at once.  `failing`: those that fail; `worked`: those tried."""

    def __init__(self):
        self.worked, self.failing, self.seconds = [], set(), 0

    def work(self, one, cell):
        self.worked.append(cell.name)
        time.sleep(self.seconds)
        if cell.name in self.failing:
            raise UserError("no luck today\nand more")
        row = {"description": "pretended", "factors": "0.5", "parameters": 1, "epochs": EPOCHS}
        values = {f"Toy/{name}/{metric}": 0.5 + cell.seed / 1000 for name in "ab" for metric in ("acc", "ap")}
        one.ledger.record(cell, status="finished", **row, **values, train_seconds=1.0, test_seconds=1.0)

    def take(self):
        """What was tried since the last time."""
        worked, self.worked = self.worked, []
        return worked


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    made = Pretended()

    def work(one, cell, execute):
        made.work(one, cell)

    make_data(tmp_path)
    monkeypatch.setattr(Experiment, "work", work)
    draw_nothing(monkeypatch)
    monkeypatch.setattr("experiments.cells.POLL_SECONDS", 0.02)
    return made


@pytest.fixture
def go(tmp_path):
    """go(flags..., key=value...) runs the experiment of my.yaml with these keys, cell after cell."""
    return lambda *flags, **changes: experiment.main(
        [*write_grid(tmp_path, **changes), "--jobs", "1", *flags]
    )


def test_cells_run_seed_after_seed(pretended, go, tmp_path):
    go("--seeds", "2")
    assert pretended.worked == ["0.5-seed100", "two_scales-seed100", "0.5-seed101", "two_scales-seed101"]
    assert [row["cell"] for row in rows_of(tmp_path)] == pretended.worked


def test_another_seed_trains_only_its_own_cells(pretended, go, tmp_path):
    go("--seeds", "100,")
    before = pretended.take()
    assert len(before) == 2
    go("--seeds", "100,7")
    assert pretended.take() == ["0.5-seed7", "two_scales-seed7"]
    assert [row["cell"] for row in rows_of(tmp_path)] == [*before, "0.5-seed7", "two_scales-seed7"]


def test_another_variant_trains_only_its_own_cells(pretended, go):
    go()
    pretended.take()
    go(variants={**VARIANTS, "new": {}})
    assert pretended.take() == ["new-seed100"]


def test_fewer_seeds_lose_no_results(pretended, go, tmp_path):
    go("--seeds", "2")
    pretended.take()
    go("--seeds", "1", variants={"0.5": VARIANTS["0.5"]})
    assert pretended.take() == []
    assert len(rows_of(tmp_path)) == 4


@pytest.mark.parametrize(
    ("flags", "changes", "told"),
    [
        (["--train_flags", "--lr 0.1"], {}, "train: .*--lr 0.1"),
        (["--test_flags", "--batch_size 3"], {}, "test: .*--batch_size 3"),
        ([], {"checkpoint": "best"}, "checkpoint: .*last.*best"),
        ([], {"variants": {**VARIANTS, "0.5": {"npr_factor": 0.25}}}, "variants.0.5"),
    ],
)
def test_another_experiment_is_refused_with_what_changed(pretended, go, tmp_path, flags, changes, told):
    go()
    before, record = (
        (tmp_path / "out" / "results.csv").read_bytes(),
        (tmp_path / "out" / "grid.json").read_bytes(),
    )
    with pytest.raises(UserError, match=rf"{told}.*--overwrite"):
        go(*flags, **changes)
    assert len(pretended.worked) == 2
    assert (tmp_path / "out" / "results.csv").read_bytes() == before
    assert (tmp_path / "out" / "grid.json").read_bytes() == record


def test_words_may_change(pretended, go, tmp_path):
    go()
    go(question="Is it not?", reference="two scales")
    assert len(pretended.worked) == 2
    report = (tmp_path / "out" / "report.md").read_text()
    assert report.startswith("# Is it not?\n")
    assert "## Against two scales\n" in report


def test_overwrite_starts_over(pretended, go, tmp_path):
    go("--seeds", "2")
    (tmp_path / "out" / "runs" / "old").mkdir(parents=True)
    pretended.take()
    go("--overwrite", checkpoint="best")
    assert pretended.take() == ["0.5-seed100", "two_scales-seed100"]
    assert len(rows_of(tmp_path)) == 2
    assert not (tmp_path / "out" / "runs").exists()
    assert json.loads((tmp_path / "out" / "grid.json").read_text())["checkpoint"] == "best"


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_folder_of_other_files_is_refused_and_left_alone(pretended, go, tmp_path, flags):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        go(*flags)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert pretended.worked == []


def test_a_failing_cell_is_recorded_and_tried_again(pretended, go, tmp_path, capsys):
    pretended.failing = {"0.5-seed100"}
    with pytest.raises(SystemExit) as stopped:
        go("--seeds", "2")
    assert stopped.value.code.startswith("error: 1 cells")  # exit status 1
    assert len(pretended.take()) == 4
    assert "0.5-seed100: failed: no luck today" in capsys.readouterr().out
    failed, *rest = rows_of(tmp_path)
    assert (failed["cell"], failed["status"], failed["error"]) == ("0.5-seed100", "failed", "no luck today")
    assert [row["status"] for row in rest] == ["finished"] * 3
    assert "* 0.5-seed100: no luck today" in (tmp_path / "out" / "report.md").read_text()
    pretended.failing = set()
    go("--seeds", "2")
    assert pretended.take() == ["0.5-seed100"]
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished"] * 4
    assert rows_of(tmp_path)[0]["error"] == ""
    assert "Failed cells" not in (tmp_path / "out" / "report.md").read_text()


def test_a_variant_that_failed_is_no_reference(pretended, go, tmp_path):
    pretended.failing = {"0.5-seed100"}
    with pytest.raises(SystemExit):
        go()
    report = (tmp_path / "out" / "report.md").read_text()
    assert "No cell of the reference 0.5 is finished: compared with two scales." in report
    assert "## Against two scales\n" in report


def test_when_all_cells_fail_the_first_reason_is_told(pretended, go, tmp_path):
    pretended.failing = {"0.5-seed100", "two_scales-seed100"}
    with pytest.raises(UserError, match="luck"):
        go()
    assert [row["status"] for row in rows_of(tmp_path)] == ["failed"] * 2


def test_the_log_of_a_cell_keeps_the_traceback_of_an_error_of_the_program(
    pretended, go, tmp_path, monkeypatch
):
    def work(one, cell, execute):
        if cell.variant == "0.5":
            raise ValueError("too many values to unpack")
        pretended.work(one, cell)

    monkeypatch.setattr(Experiment, "work", work)
    with pytest.raises(SystemExit):
        go()
    assert rows_of(tmp_path)[0]["error"] == "ValueError: too many values to unpack"
    log = (tmp_path / "out" / "logs" / "0.5-seed100.log").read_text()
    assert "Traceback" in log and 'raise ValueError("too' in log


def test_an_interrupted_experiment_keeps_what_is_finished_and_goes_on(pretended, go, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 0)
        pretended.seconds = 0.2
        with pytest.raises(run.Interrupted, match="command"):
            go("--seeds", "3")
    finished, pretended.seconds = pretended.take(), 0
    assert 1 <= len(finished) < 6
    go("--seeds", "3")
    assert not set(pretended.take()) & set(finished)
    assert [row["status"] for row in rows_of(tmp_path)] == ["finished"] * 6


@pytest.mark.parametrize(
    ("part", "message"),
    [("train", "data/train"), ("val", "data/val"), ("test", "Toy")],
)
def test_missing_images_are_refused_before_training(pretended, go, tmp_path, part, message):
    (tmp_path / "data" / part).rename(tmp_path / "data" / "elsewhere")
    with pytest.raises(UserError, match=message):
        go()
    assert pretended.worked == []


def test_a_dataroot_that_was_wrong_can_be_corrected(pretended, go, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        go(train={**TRAIN, "dataroot": str(tmp_path / "nowhere")})
    go()
    assert len(pretended.worked) == 2


def test_the_sample_is_made_where_it_is_not_there(pretended, go, tmp_path, monkeypatch):
    commands = []

    def made(words):
        commands.append(list(map(str, words)))
        (tmp_path / "sample").mkdir()
        (tmp_path / "sample" / "sample.json").write_text("{}")
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(cells, "run_command", made)
    go(sample=str(tmp_path / "sample"))
    go(sample=str(tmp_path / "sample"))
    assert commands == [["-m", "data.sample", "--output", str(tmp_path / "sample")]]


def test_a_sample_that_cannot_be_made_stops_the_experiment(pretended, go, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "run_command", lambda words: subprocess.CompletedProcess(words, 3))
    with pytest.raises(UserError, match="status 3"):
        go(sample=str(tmp_path / "sample"))
    assert pretended.worked == []


# --- one cell, command by command


@pytest.fixture
def work(tmp_path, monkeypatch):
    """work(flags...) -> (cell's folder, the commands of the first cell)."""
    make_data(tmp_path)
    monkeypatch.setattr(Experiment, "measure", lambda self, cell: {"epochs": 1})

    def go(*flags):
        named = write_grid(tmp_path, train={"dataroot": "data"}, test={})
        opt = ExperimentOptions().parse([*named, "--jobs", "1", *flags])
        one, commands = Experiment(opt.grid, opt, None), []
        one.work(opt.grid.cells[0], commands.append)
        assert one.ledger.status(opt.grid.cells[0]) == "finished"
        return [(Path(command[1]).name, command[2:]) for command in commands]

    return go


def test_a_cell_is_trained_and_tested_under_its_own_setting(work, tmp_path):
    (script, train), (other, test) = work()
    runs, tests = str(tmp_path / "out" / "runs"), str(tmp_path / "out" / "tests")
    assert (script, other) == ("train.py", "test.py")
    own = ["--name", "0.5-seed100", "--checkpoints_dir", runs, "--seed", "100"]
    assert train == ["--dataroot", "data", "--npr_factor", "0.5", *own]
    weights = f"{runs}/0.5-seed100/model_epoch_last.pth"
    assert test == ["--model_path", weights, "--name", "0.5-seed100", "--results_dir", tests, "--resume"]


def test_a_run_that_was_saved_goes_on(work, tmp_path):
    folder = tmp_path / "out" / "runs" / "0.5-seed100"
    folder.mkdir(parents=True)
    (folder / "model_epoch_last.pth").write_text("weights")
    (_, train), _ = work()
    assert train[-1] == "--continue_train"
    assert (folder / "model_epoch_last.pth").exists()


def test_a_run_stopped_before_it_was_saved_starts_anew(work, tmp_path):
    folder = tmp_path / "out" / "runs" / "0.5-seed100"
    folder.mkdir(parents=True)
    (folder / "model_epoch_last.pth.part").write_text("half")
    (_, train), _ = work()
    assert "--continue_train" not in train
    assert not folder.exists()


def test_cells_side_by_side_share_the_cores(work, monkeypatch):
    monkeypatch.setattr(cells, "CORES", 6)
    (_, train), (_, test) = work("--jobs", "2")
    assert train[-2:] == ["--num_threads", "2"]
    assert test[-3:] == ["--num_threads", "2", "--resume"]
    (_, train), (_, test) = work("--jobs", "8")
    assert train[-2:] == ["--num_threads", "0"]


@pytest.mark.parametrize("typed", ["--num_threads 3", "--num_threads=3"])
def test_the_loader_processes_of_the_grid_count(work, typed):
    (_, train), (_, test) = work(
        "--jobs", "2", f"--train_flags={typed} --lr 0.1", f"--test_flags={typed} --amp off"
    )
    assert sum(word.startswith("--num_threads") for word in train) == 1
    assert sum(word.startswith("--num_threads") for word in test) == 1


@pytest.mark.parametrize(
    ("flags", "slots"),
    [
        ("", [{"OMP_NUM_THREADS": "1"}] * 4),
        ("--jobs 1", [{}]),
        ("--jobs 2", [{"OMP_NUM_THREADS": "2"}] * 2),
        ("--jobs 9", [{"OMP_NUM_THREADS": "1"}] * 9),
        ("--gpus 3", [{"CUDA_VISIBLE_DEVICES": "3"}]),
        ("--gpus 0,5", [{"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": number} for number in "05"]),
        ("--gpus 4,5,6 --jobs 1", [{"CUDA_VISIBLE_DEVICES": "4"}]),
    ],
)
def test_a_slot_is_a_gpu_or_a_share_of_the_cores(monkeypatch, flags, slots):
    monkeypatch.setattr(cells, "CORES", 5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    opt = ExperimentOptions().parse(["--preset", "modes", "--seeds", "1", *flags.split()])
    assert Experiment(opt.grid, opt, None).slots() == slots


def test_a_single_gpu_has_one_cell_at_a_time(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    opt = ExperimentOptions().parse(["--preset", "modes"])
    assert Experiment(opt.grid, opt, None).slots() == [{}]


def test_epochs_are_counted_from_the_history(tmp_path):
    ledger, cell = Ledger(tmp_path), Cell("a", 1)
    assert ledger.epochs(cell) == 0
    (tmp_path / "runs" / cell.name).mkdir(parents=True)
    for text, epochs in (("", 0), ("epoch,loss\n", 0), ("epoch,loss\n0,1\n1,1\n", 2)):
        (tmp_path / "runs" / cell.name / "train.csv").write_text(text)
        assert ledger.epochs(cell) == epochs


@pytest.mark.parametrize("name", ["grid.json", "rows/a-seed1.json"])
@pytest.mark.parametrize("text", ["{}", "[]", '{"cell": "a', ""])
def test_a_damaged_record_is_named_with_the_remedy(tmp_path, name, text):
    ledger, cell = Ledger(tmp_path), Cell("a", 1)
    (tmp_path / "rows").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        ledger.require({"variants": {}, "train": []}, False) if name == "grid.json" else ledger.row(cell)


def test_a_variant_does_not_take_the_row_of_one_with_the_same_folder_name(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.record(Cell("two scales", 1), status="finished")
    assert ledger.status(Cell("two scales", 1)) == "finished"
    with pytest.raises(UserError, match="'two_scales'"):
        ledger.status(Cell("two_scales", 1))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert cells.visible_gpus((1, 0)) == ["7", "6"]
    with pytest.raises(UserError, match="--gpus 2"):
        cells.visible_gpus((0, 2))


def test_a_refused_folder_is_left_as_it_was(tmp_path, go, pretended):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lock").write_text("precious")
    with pytest.raises(UserError, match="lock"):
        go()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lock"]
    assert (tmp_path / "out" / "lock").read_text() == "precious"


def test_a_test_set_of_one_class_has_no_accuracy():
    scores = [
        ("x.png", "a", 0, 0.2, ""),
        ("y.png", "a", 0, 0.8, ""),
        ("z.png", "b", 1, 0.9, ""),
        ("w", "b", 0, 0.1, ""),
    ]
    columns = cells.tested("Toy", [(row[0], row[1], row[2], row[3], 0.0) for row in scores])
    assert columns["Toy/a/acc"] == columns["Toy/a/f_acc"] == ""
    assert (columns["Toy/a/r_acc"], columns["Toy/a/reals"], columns["Toy/a/fakes"]) == (0.5, 2, 0)
    assert (columns["Toy/b/acc"], columns["Toy/b/ap"]) == (1, 1)
