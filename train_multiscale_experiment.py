"""Trains and tests every variant of a grid with several seeds, and says which differences are real.

    python train_multiscale_experiment.py --preset sample
    python train_multiscale_experiment.py --preset factors --jobs 2 --gpus 0,1
    python train_multiscale_experiment.py --grid my.yaml --seeds 5 --train_flags '--niter 10'

Each cell (a variant with a seed) is trained under its own setting by train.py and tested by test.py, in
processes of their own; a cell that fails is recorded and the others go on.  The same command goes on with
what is unfinished.  Grids are YAML files (options/grid.py); presets are those in experiments/.
Results: <output>/{results.csv, report.md, table.csv, figures/}; runs/, tests/, logs/ have a part per cell.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from data import protocols
from data.protocol import locate_all
from data.training import training_scans
from networks import checkpoint
from options import ExperimentOptions, TestOptions, TrainOptions
from util import figures, run
from util.answers import write_report
from util.jobs import CommandFailed, Jobs, held
from util.metrics import tabulate
from util.record import read_scores
from util.stats import compare
from util.sweep import FAILED, FINISHED, SEPARATOR, TEST_METRICS, Sweep, write_results

HERE = Path(__file__).resolve().parent
COUNTED = ("loss", "val_acc", "val_ap")  # columns of train.csv that results.csv keeps, a value per epoch


def main(argv=None):
    options = ExperimentOptions()
    opt = options.parse(argv)
    experiment = Experiment(options.grid, Path(opt.output), opt)
    with run.StopSignal("the same command (without --overwrite) goes on") as stop:
        with held(experiment.folder / "lock", stop.check, print) as lock:
            experiment.open()
            experiment.make_sample()
            experiment.require_images()
            experiment.train_and_test(stop, lock)
        experiment.conclude()
    if experiment.failed:
        sys.exit(f"error: {len(experiment.failed)} cells failed; the same command tries them again")


class Experiment:
    """A grid, its folder and what is finished of it."""

    def __init__(self, grid, folder, opt):
        self.grid, self.folder, self.opt = grid, folder, opt
        self.runs, self.tests, self.rows = folder / "runs", folder / "tests", folder / "rows"
        parsed = {cell: TrainOptions().parse(grid.train_argv(cell, self.runs)) for cell in grid.cells}
        self.train_options = parsed[grid.cells[0]]
        self.epochs = {cell: opt.niter for cell, opt in parsed.items()}

    def open(self):
        """Makes the folder; refuses one that holds another experiment, or files of another kind."""
        record = self.folder / "grid.json"
        others = [path.name for path in self.folder.iterdir() if path.name not in ("lock", "grid.json")]
        if others and not record.is_file():
            raise ValueError(f"{self.folder} holds {', '.join(sorted(others)[:3])} and no experiment; "
                             "name another --output")  # fmt: skip
        if self.opt.overwrite:
            for name in others:
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        wanted = self.grid.as_dict()
        if known and not self.opt.overwrite:
            wanted["variants"] = {**known["variants"], **wanted["variants"]}
            changed = [name for name in wanted if name != "variants" and wanted[name] != known[name]]
            changed += [f"variant {name!r}" for name, flags in known["variants"].items()
                        if wanted["variants"][name] != flags]  # fmt: skip
            if changed:
                raise ValueError(f"{self.folder} holds an experiment with other {', '.join(changed)}; "
                                 "--overwrite starts over, --output names another folder")  # fmt: skip
        run.write_json(record, wanted)

    def make_sample(self):
        """The sample dataset, where the grid asks for it and it is not there."""
        if self.grid.sample and not (Path(self.grid.sample) / "sample.json").is_file():
            command = [sys.executable, "-m", "data.sample", "--output", str(Path(self.grid.sample).resolve())]
            status = subprocess.run(command, cwd=HERE, check=False).returncode
            if status:
                raise ValueError(f"could not make the sample dataset at {self.grid.sample} (status {status})")

    def require_images(self):
        """ValueError before hours of training where the images to train or to test on are not there."""
        training_scans(self.train_options)
        options = TestOptions()
        test = options.parse(self.grid.test_argv(self.grid.cells[0], self.runs, self.tests))
        _, absent = locate_all(options.rows, test.dataroot, options.asked)
        if absent:
            print("\n".join(["not found, left out of the tests:", *absent]))

    def train_and_test(self, stop, lock):
        """All cells that are not finished; results.csv is written anew after each."""
        cells = [cell for cell in self.grid.cells if self.status(cell) != FINISHED]
        total = sum(self.epochs.values()) + len(self.grid.cells)
        print(f"{len(self.grid.cells)} cells: {len(self.grid.variants)} variants x {len(self.grid.seeds)} "
              f"seeds, {min(self.epochs.values())} epochs; {len(self.grid.cells) - len(cells)} finished; "
              f"{self.opt.jobs} at a time")  # fmt: skip
        jobs = Jobs(self.slots(), self.folder / "logs", [lock])
        with tqdm(total=total, initial=self.done(), unit="epoch", smoothing=0, dynamic_ncols=True) as bar:

            def look():
                bar.update(self.done() - bar.n)
                stop.check()

            for cell, error in jobs.run(cells, self.work, look):
                if error is not None:
                    self.note_failure(cell, error)
                tqdm.write(f"{cell.name}: {self.sketch(cell)}")
                self.write_results()
        self.write_results()

    def slots(self):
        """Environment variables of each cell that runs at the same time."""
        jobs, cores = self.opt.jobs, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
        gpus = self.opt.gpus or [None] * jobs
        return [threads if gpu is None else {**threads, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:jobs]]

    def work(self, cell, execute):
        """Trains one cell, tests it, and leaves its row."""
        folder = self.runs / cell.name
        words = self.grid.train_argv(cell, self.runs)
        if (folder / "model_epoch_last.pth").is_file():
            words.append("--continue_train")
        elif folder.exists():  # stopped before anything was saved
            shutil.rmtree(folder)
        if self.opt.jobs > 1 and "--num_threads" not in words:
            words += ["--num_threads", "1"]
        execute([sys.executable, str(HERE / "train.py"), *words])
        start = time.monotonic()
        words = self.grid.test_argv(cell, self.runs, self.tests)
        execute([sys.executable, str(HERE / "test.py"), *words, "--resume"])
        run.write_json(
            self.row_path(cell), self.row(cell) | {"test_seconds": round(time.monotonic() - start, 1)}
        )

    def row(self, cell):
        """A finished cell in numbers."""
        loaded = checkpoint.load(self.runs / cell.name / f"model_epoch_{self.grid.checkpoint}.pth")
        with open(self.runs / cell.name / "train.csv", newline="", encoding="utf-8") as file:
            history = list(csv.DictReader(file))
        row = {"cell": cell.name, "variant": cell.variant, "seed": cell.seed, "status": FINISHED, "error": ""}
        row["description"] = loaded.detector.describe()
        row["parameters"] = sum(one.numel() for one in loaded.detector.parameters())
        row["epochs"] = len(history)
        row.update(loaded.detector.facts())
        row.update({name: " ".join(line[name] for line in history if name in line) for name in COUNTED})
        for scores in sorted((self.tests / cell.name).glob("*/scores.csv")):
            row.update(test_columns(scores.parent.name, read_scores(scores)))
        return row | {"train_seconds": round(sum(float(line["seconds"]) for line in history), 1)}

    def note_failure(self, cell, error):
        kind = "" if isinstance(error, (CommandFailed, ValueError, OSError)) else f"{type(error).__name__}: "
        row = {"cell": cell.name, "variant": cell.variant, "seed": cell.seed, "status": FAILED}
        run.write_json(self.row_path(cell), row | {"error": kind + run.one_line(error)})

    def sketch(self, cell):
        """A cell's row in a few words."""
        row = self.saved(cell)
        if row["status"] == FAILED:
            return f"failed: {row['error']}"
        values = [value for name, value in row.items() if name.endswith(SEPARATOR + "acc") and value != ""]
        mean = f"{100 * sum(values) / len(values):.1f}" if values else "-"
        return f"accuracy {mean}, trained {row['train_seconds']:.0f} s, tested {row['test_seconds']:.0f} s"

    def row_path(self, cell):
        return self.rows / f"{cell.name}.json"

    def saved(self, cell):
        path = self.row_path(cell)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def status(self, cell):
        return self.saved(cell).get("status")

    def done(self):
        """Epochs trained and tests finished so far."""
        return sum(
            epochs + 1 if self.status(cell) == FINISHED else epochs_in(self.runs / cell.name)
            for cell, epochs in self.epochs.items()
        )

    def write_results(self):
        """results.csv: the cells of this grid in its order, then those of earlier calls."""
        rows = [row for cell in self.grid.cells if (row := self.saved(cell))]
        names = {row["cell"] for row in rows}
        others = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.rows.glob("*.json"))
                  if path.stem not in names] if self.rows.is_dir() else []  # fmt: skip
        write_results(self.folder / "results.csv", rows + others)

    @property
    def failed(self):
        return [cell for cell in self.grid.cells if self.status(cell) == FAILED]

    def conclude(self):
        """Tables, verdicts and figures from results.csv alone."""
        sweep = Sweep.read(self.folder / "results.csv")
        if not sweep.finished:
            raise ValueError(f"no cell finished; first: {sweep.failed[0]['error']}")
        reference = self.grid.reference if self.grid.reference in sweep.variants else sweep.variants[0]
        test = TestOptions().parse(self.grid.test_argv(self.grid.cells[0], self.runs, self.tests))
        families = {(row.slug, one.name): one.family for row in protocols.known(test.protocol_file).values()
                    for one in row.generators}  # fmt: skip
        comparisons = compare(sweep.values("acc"), reference)
        drawn = figures.draw_all(
            sweep, families, comparisons, self.folder / "figures", f".{self.opt.figures}"
        )
        print(write_report(self.folder, sweep, reference, families, self.grid.question, drawn))
        print(f"-> {self.folder} (results.csv, report.md, table.csv, figures/)")


def test_columns(protocol, scores):
    """{"protocol/generator/metric": number or ""} from the rows of a scores.csv."""
    _, generators, labels, values, _ = zip(*scores, strict=True)
    columns = {}
    for line in tabulate(generators, labels, values)[:-1]:
        mine = [label for name, label in zip(generators, labels, strict=True) if name == line["generator"]]
        line |= {"reals": mine.count(0), "fakes": mine.count(1)}
        columns |= {SEPARATOR.join((protocol, line["generator"], name)): "" if line[name] != line[name]
                    else line[name] for name in TEST_METRICS}  # fmt: skip
    return columns


def epochs_in(folder):
    """Epochs that a run has finished."""
    try:
        with open(folder / "train.csv", encoding="utf-8") as file:
            return max(0, sum(1 for _ in file) - 1)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    run.guard(main)
