"""Trains and tests every variant of a grid with several seeds, and says which differences are real.

    python train_multiscale_experiment.py --preset sample
    python train_multiscale_experiment.py --preset factors --jobs 2 --gpus 0,1
    python train_multiscale_experiment.py --grid my.yaml --seeds 5 --train_flags '--niter 10'

Each cell (a variant with a seed) is trained under its own setting by train.py and tested by test.py, in
processes of their own; a cell that fails is recorded and the others go on.  The same command goes on with
what is unfinished.  Grids are YAML files (options/grid.py); presets are those in experiments/.
Results: <output>/{results.csv, report.md, table.csv, figures/}; runs/, tests/, logs/ have a part per cell.
"""

if __name__ == "__main__":  # until `guard`, Ctrl-C ends the program without a traceback
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import csv
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
from tqdm import tqdm

from common import UserError
from data import protocols
from data.protocol import locate_all
from data.training import training_scans
from networks import checkpoint
from options import ExperimentOptions, TestOptions, TrainOptions
from util import figures, run
from util.answers import write_report
from util.jobs import CommandFailed, Jobs, held
from util.ledger import Ledger
from util.record import read_scores
from util.stats import compare
from util.sweep import FAILED, FINISHED, SEPARATOR, Sweep, tested

EXAMPLES = 6  # images and variants in the picture of Grad-CAM
CORES = run.usable_cores()
MOST_JOBS = 8  # on a CPU, unless --jobs says otherwise
HERE = Path(__file__).resolve().parent
COUNTED = ("loss", "val_acc", "val_ap")  # columns of train.csv that results.csv keeps, a value per epoch


def main(argv=None):
    options = ExperimentOptions()
    opt = options.parse(argv)
    Experiment(options.grid, Path(opt.output), opt).carry_out()


class Experiment:
    """A grid, its folder and what is finished of it."""

    def __init__(self, grid, folder, opt):
        self.grid, self.folder, self.opt = grid, folder, opt
        self.ledger = Ledger(folder)
        self.runs, self.tests = self.ledger.runs, self.ledger.tests
        self.parsed = {cell: TrainOptions().parse(grid.train_argv(cell, self.runs)) for cell in grid.cells}
        self.epochs = {cell: opt.niter for cell, opt in self.parsed.items()}
        self.gpus = visible_gpus(opt.gpus)
        alone = torch.cuda.is_available() or torch.backends.mps.is_available()  # one device: one cell
        self.jobs = opt.jobs or len(opt.gpus) or (1 if alone else min(CORES, len(grid.cells), MOST_JOBS))

    def carry_out(self):
        """What is not finished, then `conclude`; exit status 1 where a cell failed."""
        ledger, wanted, overwrite = self.ledger, self.grid.as_dict(), self.opt.overwrite
        ledger.require(wanted, overwrite)
        with (
            run.StopSignal("the same command (without --overwrite) goes on") as stop,
            held(ledger.lock, stop.check, print) as lock,
        ):
            ledger.require(wanted, overwrite)
            self.make_sample(lock, stop)
            self.require_images()
            ledger.take(wanted, overwrite)
            self.train_and_test(stop, lock)
            self.conclude(stop)
        failed = [cell for cell in self.grid.cells if ledger.failed(cell)]
        if failed:
            sys.exit(f"error: {len(failed)} cells failed; the same command tries them again")

    def make_sample(self, lock, stop):
        """The sample dataset, where the grid asks for it and it is not there."""
        if self.grid.sample and not (Path(self.grid.sample) / "sample.json").is_file():
            command = [sys.executable, "-m", "data.sample", "--output", str(Path(self.grid.sample).resolve())]
            status = subprocess.run(command, cwd=HERE, check=False, pass_fds=[lock]).returncode
            stop.check()
            if status:
                raise UserError(f"could not make the sample dataset at {self.grid.sample} (status {status})")

    def require_images(self):
        """ValueError before hours of training where the images to train or to test on are not there."""
        for opt in self.different_training():
            training_scans(opt)
            for path in filter(None, (opt.model_path, opt.init_weights)):
                checkpoint.read(path)
        options = TestOptions()
        test = options.parse(self.grid.test_argv(self.grid.cells[0], self.runs, self.tests))
        located, absent = locate_all(options.rows, test.dataroot, options.asked)
        self.test_roots = {row.slug: root for row, root in located}
        absent += [
            f"{row.slug}: no folder for {one.name}"
            for row, root in located
            for one in row.pick(test.classes)
            if not row.find(root, one)
        ]
        if absent:
            print("\n".join(["not found, left out of the tests:", *absent]))

    def different_training(self):
        """Options of one cell for each set of training images and start weights."""
        keys = ("dataroot", "classes", "train_split", "val_split", "protocol", "model_path", "init_weights")
        return {tuple(getattr(opt, key) for key in keys): opt for opt in self.parsed.values()}.values()

    def train_and_test(self, stop, lock):
        """All cells that are not finished; results.csv is written anew after each."""
        cells = [cell for cell in self.grid.cells if not self.ledger.finished(cell)]
        total = sum(self.epochs.values()) + len(self.grid.cells)
        print(
            f"{len(self.grid.cells)} cells: {len(self.grid.variants)} variants x {len(self.grid.seeds)} "
            f"seeds, {min(self.epochs.values())} epochs; {len(self.grid.cells) - len(cells)} finished; "
            f"{self.jobs} at a time"
        )
        jobs = Jobs(self.slots(), self.folder / "logs", [lock])
        with tqdm(total=total, initial=self.done(), unit="epoch", smoothing=0, dynamic_ncols=True) as bar:

            def look():
                done = self.done()  # it reads a file per cell
                if done > bar.n:
                    bar.update(done - bar.n)
                elif sys.stderr.isatty():
                    bar.refresh()
                stop.check()

            for cell, error in jobs.run(cells, self.work, look):
                if error is not None:
                    self.note_failure(cell, error)
                tqdm.write(f"{cell.name}: {self.sketch(cell)}")
                self.ledger.write_results(self.grid.cells, self.grid.reference)
        self.ledger.write_results(self.grid.cells, self.grid.reference)

    def slots(self):
        """Environment variables of each cell that runs at the same time."""
        threads = {"OMP_NUM_THREADS": str(max(1, CORES // self.jobs))} if self.jobs > 1 else {}
        gpus = self.gpus or [None] * self.jobs
        return [
            threads if gpu is None else {**threads, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: self.jobs]
        ]

    def share(self, words):
        """A cell's flags with its part of the machine: its GPU, and loader processes unless given."""
        words = [*words, *(["--device", "cuda"] if self.gpus else [])]
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
        seconds = round(time.monotonic() - start, 1)
        self.ledger.note(cell, status=FINISHED, **self.row(cell), test_seconds=seconds)

    def row(self, cell):
        """A finished cell in numbers."""
        loaded = checkpoint.load(self.runs / cell.name / f"model_epoch_{self.grid.checkpoint}.pth")
        with open(self.runs / cell.name / "train.csv", newline="", encoding="utf-8") as file:
            history = list(csv.DictReader(file))
        row = {"description": loaded.detector.describe()}
        row["parameters"] = sum(one.numel() for one in loaded.detector.parameters())
        row["epochs"] = len(history)
        row.update(loaded.detector.facts())
        history = [{**line, "loss": line.get("loss_bce") or line["loss"]} for line in history]
        row.update({name: " ".join(line[name] for line in history if name in line) for name in COUNTED})
        for scores in sorted((self.tests / cell.name).glob("*/scores.csv")):
            row.update(tested(scores.parent.name, read_scores(scores)))
        return row | {"train_seconds": round(sum(float(line["seconds"]) for line in history), 1)}

    def note_failure(self, cell, error):
        kind = ""
        if not isinstance(error, (CommandFailed, ValueError, OSError)):  # our own fault: keep all of it
            kind = f"{type(error).__name__}: "
            log = self.folder / "logs" / f"{cell.name}.log"
            log.parent.mkdir(exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                file.writelines(traceback.format_exception(error))
        self.ledger.note(cell, status=FAILED, error=kind + run.one_line(error))

    def sketch(self, cell):
        """A cell's row in a few words."""
        row = self.ledger.row(cell)
        if row["status"] == FAILED:
            return f"failed: {row['error']}"
        values = [value for name, value in row.items() if name.endswith(SEPARATOR + "acc") and value != ""]
        mean = f"{100 * sum(values) / len(values):.1f}" if values else "-"
        return f"accuracy {mean}, trained {row['train_seconds']:.0f} s, tested {row['test_seconds']:.0f} s"

    def done(self):
        """Epochs trained and tests finished so far."""
        return sum(
            epochs + 1 if self.ledger.finished(cell) else self.ledger.epochs(cell)
            for cell, epochs in self.epochs.items()
        )

    def conclude(self, stop):
        """Tables, verdicts and figures from results.csv, and pictures of a few test images."""
        sweep = Sweep.read(self.folder / "results.csv")
        if not sweep.finished:
            raise UserError(f"no cell finished; first: {sweep.failed[0]['error']}")
        reference, notes = self.grid.reference, []
        if reference not in sweep.variants:
            notes = [f"No cell of the reference {reference} is finished: compared with {sweep.variants[0]}."]
            reference = sweep.variants[0]
        test = TestOptions().parse(self.grid.test_argv(self.grid.cells[0], self.runs, self.tests))
        families = {
            (row.slug, one.name): one.family
            for row in protocols.known(test.protocol_file).values()
            for one in row.generators
        }
        comparisons = compare(sweep.values("acc"), reference)
        drawn = figures.draw_all(
            sweep, families, comparisons, self.folder / "figures", f".{self.opt.figures}"
        )
        drawn += self.draw_examples(sweep)
        stop.check()
        print(write_report(self.folder, sweep, reference, families, self.grid.question, drawn, notes))
        print(f"-> {self.folder} (results.csv, report.md, table.csv, figures/)")

    def draw_examples(self, sweep):
        """NPR maps of a test image, Grad-CAM of a cell per variant; returns what could be drawn."""
        weights = {}
        for row in sweep.finished:
            path = self.runs / row["cell"] / f"model_epoch_{self.grid.checkpoint}.pth"
            if path.is_file():
                weights.setdefault(row["variant"], path.resolve())
        found = [name for name in sweep.protocols if name in self.test_roots]
        scores = [
            path
            for row in sweep.finished
            for name in found[:1]
            if (path := self.tests / row["cell"] / name / "scores.csv").is_file()
        ]
        if not scores or not weights:
            print("no pictures of test images: the images or weights are no longer there")
            return []
        root, rows = self.test_roots[found[0]].resolve(), read_scores(scores[0])
        first = {(generator, label): str(root / path) for path, generator, label, *_ in reversed(rows)}
        reals, fakes = ([path for (_, label), path in first.items() if label == one] for one in (0, 1))
        shown = [*reals[:1], *fakes][:EXAMPLES]
        models = [str(path) for path in weights.values()][:EXAMPLES]
        wanted = {
            "npr_maps": ["maps", "--image", shown[-1]],
            "grad_cam": ["cam", "--model_path", *models, "--images", *shown],
        }
        drawn = []
        for name, words in wanted.items():
            path = (self.folder / "figures" / f"{name}.{self.opt.figures}").resolve()
            command = [sys.executable, "-m", "tools.visualize", *words, "--output", str(path)]
            done = subprocess.run(
                command, cwd=HERE, check=False, capture_output=True, text=True, start_new_session=True
            )
            if done.returncode:
                print(f"no {path.name}: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
            else:
                drawn.append(self.folder / "figures" / path.name)
        return drawn


def visible_gpus(numbers):
    """What CUDA_VISIBLE_DEVICES calls the devices of --gpus; ValueError for one that is not there."""
    present = torch.cuda.device_count()
    absent = [number for number in numbers if int(number) >= present]
    if absent:
        raise UserError(f"--gpus {','.join(absent)}: torch sees {present} CUDA devices, numbered from 0")
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(present)))
    return [names.split(",")[int(number)].strip() for number in numbers]


if __name__ == "__main__":
    run.guard(main)
