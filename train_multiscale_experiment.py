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

import torch
from tqdm import tqdm

from data import protocols
from data.protocol import locate_all
from data.training import training_scans
from networks import checkpoint
from options import ExperimentOptions, TestOptions, TrainOptions
from util import figures, run
from util.answers import write_report
from util.jobs import CommandFailed, Jobs, held
from util.record import read_scores
from util.stats import compare
from util.sweep import FAILED, FINISHED, SEPARATOR, Sweep, tested, write_results

EXAMPLES = 6  # images and variants in the picture of Grad-CAM
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_JOBS = 8  # on a CPU, unless --jobs says otherwise
GRID, LOCK = "grid.json", "lock"
HERE = Path(__file__).resolve().parent
COUNTED = ("loss", "val_acc", "val_ap")  # columns of train.csv that results.csv keeps, a value per epoch


def main(argv=None):
    options = ExperimentOptions()
    opt = options.parse(argv)
    experiment = Experiment(options.grid, Path(opt.output), opt)
    with run.StopSignal("the same command (without --overwrite) goes on") as stop:
        with held(experiment.folder / LOCK, stop.check, print) as lock:
            experiment.require_folder()
            experiment.make_sample()
            experiment.require_images()
            experiment.take_folder()
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
        alone = torch.cuda.is_available() or torch.backends.mps.is_available()  # one device: one cell
        self.jobs = opt.jobs or len(opt.gpus) or (1 if alone else min(CORES, len(grid.cells), MOST_JOBS))

    def require_folder(self):
        """Refuses a folder that holds another experiment, or files of another kind."""
        record = self.folder / GRID
        if self.contents() and not record.is_file():
            raise ValueError(
                f"{self.folder} holds {', '.join(self.contents()[:3])}, no experiment; name another --output"
            )
        if self.opt.overwrite or not record.is_file():
            return
        known, wanted = json.loads(record.read_text(encoding="utf-8")), self.grid.as_dict()
        changed = [name for name in wanted if name != "variants" and wanted[name] != known[name]]
        changed += [f"variant {name!r}" for name, flags in known["variants"].items()
                    if wanted["variants"].get(name, flags) != flags]  # fmt: skip
        if changed:
            raise ValueError(
                f"{self.folder} holds an experiment with other {', '.join(changed)}; "
                "--overwrite starts over, --output names another folder"
            )

    def take_folder(self):
        """Writes down what the folder holds; --overwrite empties it first."""
        record, wanted = self.folder / GRID, self.grid.as_dict()
        if self.opt.overwrite:
            for name in self.contents():
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif record.is_file():  # variants of earlier calls stay
            wanted["variants"] = (
                json.loads(record.read_text(encoding="utf-8"))["variants"] | wanted["variants"]
            )
        run.write_json(record, wanted)

    def contents(self):
        """What stands in the folder beside the files that say what it is."""
        own = (LOCK, GRID, f"{GRID}.part")
        return sorted(path.name for path in self.folder.iterdir() if path.name not in own)

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
        located, absent = locate_all(options.rows, test.dataroot, options.asked)
        self.test_roots = {row.slug: root for row, root in located}
        if absent:
            print("\n".join(["not found, left out of the tests:", *absent]))

    def train_and_test(self, stop, lock):
        """All cells that are not finished; results.csv is written anew after each."""
        cells = [cell for cell in self.grid.cells if self.status(cell) != FINISHED]
        total = sum(self.epochs.values()) + len(self.grid.cells)
        print(f"{len(self.grid.cells)} cells: {len(self.grid.variants)} variants x {len(self.grid.seeds)} "
              f"seeds, {min(self.epochs.values())} epochs; {len(self.grid.cells) - len(cells)} finished; "
              f"{self.jobs} at a time")  # fmt: skip
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
        threads = {"OMP_NUM_THREADS": str(max(1, CORES // self.jobs))} if self.jobs > 1 else {}
        gpus = self.opt.gpus or [None] * self.jobs
        return [
            threads if gpu is None else {**threads, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: self.jobs]
        ]

    def share(self, words):
        """Loader processes for a cell that is not alone, unless the grid says how many."""
        given = self.jobs == 1 or any(word.startswith("--num_threads") for word in words)
        return words if given else [*words, "--num_threads", str(max(1, CORES // self.jobs) - 1)]

    def work(self, cell, execute):
        """Trains one cell, tests it, and leaves its row."""
        folder = self.runs / cell.name
        words = self.grid.train_argv(cell, self.runs)
        if (folder / "model_epoch_last.pth").is_file():
            words.append("--continue_train")
        elif folder.exists():  # stopped before anything was saved
            shutil.rmtree(folder)
        execute([sys.executable, str(HERE / "train.py"), *self.share(words)])
        start = time.monotonic()
        words = self.grid.test_argv(cell, self.runs, self.tests)
        execute([sys.executable, str(HERE / "test.py"), *self.share(words), "--resume"])
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
            row.update(tested(scores.parent.name, read_scores(scores)))
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
        """Tables, verdicts and figures from results.csv, and pictures of a few test images."""
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
        drawn += self.draw_examples(sweep)
        print(write_report(self.folder, sweep, reference, families, self.grid.question, drawn))
        print(f"-> {self.folder} (results.csv, report.md, table.csv, figures/)")

    def draw_examples(self, sweep):
        """NPR maps of a test image, Grad-CAM of every variant's first seed; returns what could be drawn."""
        cells = [next(row for row in sweep.finished if row["variant"] == name) for name in sweep.variants]
        found = [name for name in sweep.protocols if name in self.test_roots]
        scores = [self.tests / row["cell"] / name / "scores.csv" for row in cells for name in found[:1]]
        if not scores or not scores[0].is_file():
            print("no pictures of test images: none of those that were scored are there")
            return []
        protocol, rows = found[0], read_scores(scores[0])
        first = {(generator, label): path for path, generator, label, *_ in reversed(rows)}
        fakes = [path for (_, label), path in first.items() if label == 1]
        shown = [path for (_, label), path in first.items() if label == 0][:1] + fakes
        shown = [str(self.test_roots[protocol].resolve() / path) for path in shown[:EXAMPLES]]
        weights = [str((self.runs / row["cell"] / f"model_epoch_{self.grid.checkpoint}.pth").resolve())
                   for row in cells[:EXAMPLES]]  # fmt: skip
        wanted = {"npr_maps": ["maps", "--image", shown[-1]],
                  "grad_cam": ["cam", "--model_path", *weights, "--images", *shown]}  # fmt: skip
        drawn = []
        for name, words in wanted.items():
            path = (self.folder / "figures" / f"{name}.{self.opt.figures}").resolve()
            command = [sys.executable, "-m", "tools.visualize", *words, "--output", str(path)]
            done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"no {path.name}: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
            else:
                drawn.append(self.folder / "figures" / path.name)
        return drawn


def epochs_in(folder):
    """Epochs that a run has finished."""
    try:
        with open(folder / "train.csv", encoding="utf-8") as file:
            return max(0, sum(1 for _ in file) - 1)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    run.guard(main)
