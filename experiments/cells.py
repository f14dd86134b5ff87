"""The cells of an experiment: each is trained by train.py and tested by test.py, in processes of its own.

The experiment's folder holds:

    grid.json     the variants and flags that its results depend on
    runs/ tests/  what train.py and test.py leave, a folder per cell
    logs/         the output of both, a file per cell
    rows/         a JSON file per cell that has ended; results.csv is made from them
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

from common import UserError, held_locks, owned, read_table
from data.protocol import locate_all
from data.training import training_scans
from experiments.results import FAILED, FINISHED, SEPARATOR, Ledger, tested
from networks import checkpoint, describe
from networks.npr import learned_scales
from options import TestOptions, TrainOptions
from util import run
from util.results import read_scores
from util.tables import percent

CORES = run.usable_cores()
MOST_JOBS = 8  # on a CPU, unless --jobs says otherwise
ROOT = Path(__file__).resolve().parent.parent
PER_EPOCH = ("loss", "val_acc", "val_ap")  # columns of train.csv that results.csv keeps, a value per epoch
SCALES = ("factor", "factors", "fusion")  # what an experiment about scales varies
POLL_SECONDS = 0.5
GRACE_SECONDS = 60  # for a command to save and stop


def run_command(words, **options):
    """Runs `python WORDS...` in the root of the repository; it holds this process's locks while it runs."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, check=False, pass_fds=held_locks(), **options)


class Experiment:
    """A grid, its folder and what is finished of it."""

    def __init__(self, grid, opt, conclude):
        """conclude: called with this object once no cell is left to run; it writes tables and figures."""
        self.grid, self.opt, self.conclude = grid, opt, conclude
        self.folder = Path(opt.output)
        self.ledger = Ledger(self.folder)
        self.runs, self.tests = self.ledger.runs, self.folder / "tests"
        self.training = {}
        for cell in grid.cells[: len(grid.variants)]:  # the seeds of a variant share its options
            self.training[cell.variant] = TrainOptions().parse(grid.train_argv(cell, self.runs))
        # All cells are tested on the same images.
        self.test_options = TestOptions()
        self.testing = self.test_options.parse(grid.test_argv(grid.cells[0], self.runs, self.tests))
        self.gpus = visible_gpus(opt.gpus)
        single = torch.cuda.is_available() or torch.backends.mps.is_available()  # one device: one cell
        self.jobs = opt.jobs or len(opt.gpus) or (1 if single else min(CORES, len(grid.cells), MOST_JOBS))
        self.cores = max(1, CORES // self.jobs)  # of each cell

    def run(self):
        """Runs the cells that are not finished, then concludes; exit status 1 where a cell failed."""
        overwrite = self.opt.overwrite
        with run.StopSignal("the same command (without --overwrite) resumes") as stop, owned(self.folder):
            identity = self.ledger.require(self.grid.identity(), overwrite)
            self.make_sample(stop)
            self.require_images()
            self.ledger.start(identity, overwrite)
            self.run_cells(stop)
            self.conclude(self)
        failed = [self.ledger.status(cell) for cell in self.grid.cells].count(FAILED)
        if failed:
            sys.exit(f"error: {failed} cells failed; the same command tries them again")

    def make_sample(self, stop):
        """The sample dataset, where the grid asks for it and it is not there."""
        if self.grid.sample and not (Path(self.grid.sample) / "sample.json").is_file():
            done = run_command(["-m", "data.sample", "--output", Path(self.grid.sample).resolve()])
            stop.check()
            if done.returncode:
                raise UserError(f"could not make {self.grid.sample} (status {done.returncode})")

    def require_images(self):
        """UserError before hours of training where the images to train or to test on are not there."""
        keys = ("dataroot", "classes", "train_split", "val_split", "protocol", "model_path", "init_weights")
        different = {tuple(getattr(opt, key) for key in keys): opt for opt in self.training.values()}
        for opt in different.values():
            training_scans(opt)
            for path in filter(None, (opt.model_path, opt.init_weights)):
                checkpoint.read(path)
        opt = self.testing
        located, absent = locate_all(self.test_options.rows, opt.dataroot, self.test_options.asked)
        self.test_roots, found = {row.slug: root for row, root in located}, []
        for row, root in located:
            for generator in row.pick(opt.classes):
                present = row.find(root, generator)
                (found if present else absent).append(f"{row.slug}: no folder for {generator.name}")
        if not found:
            raise UserError(f"nothing to test on below {opt.dataroot}: {'; '.join(absent)}")
        if absent:
            print("\n".join(["not found, left out of the tests:", *absent]))

    def run_cells(self, stop):
        """Runs the cells that are not finished; results.csv is written again after each."""
        grid, ledger = self.grid, self.ledger
        cells = [cell for cell in grid.cells if ledger.status(cell) != FINISHED]
        epochs = [opt.niter for opt in self.training.values()]
        print(
            f"{len(grid.cells)} cells: {len(grid.variants)} variants x {len(grid.seeds)} seeds, "
            f"{min(epochs)} epochs; {len(grid.cells) - len(cells)} finished; {self.jobs} at a time"
        )
        total = sum(epochs) * len(grid.seeds) + len(grid.cells)
        with tqdm(total=total, initial=self.done(), unit="epoch", smoothing=0, dynamic_ncols=True) as bar:

            def look():
                bar.update(self.done() - bar.n)
                if sys.stderr.isatty():  # the clock
                    bar.refresh()
                stop.check()

            for cell, error in Jobs(self.slots(), self.folder / "logs").run(cells, self.work, look):
                if error is not None:
                    self.record_failure(cell, error)
                tqdm.write(f"{cell.name}: {summary(ledger.row(cell))}")
                ledger.write_results(grid.cells, grid.reference)
        ledger.write_results(grid.cells, grid.reference)

    def done(self):
        """Epochs trained and tests finished so far."""
        ledger = self.ledger
        return sum(
            self.training[cell.variant].niter + 1 if ledger.status(cell) == FINISHED else ledger.epochs(cell)
            for cell in self.grid.cells
        )

    def slots(self):
        """Environment variables of each cell that runs at the same time."""
        threads = {"OMP_NUM_THREADS": str(self.cores)} if self.jobs > 1 else {}
        gpus = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus[: self.jobs]]
        return [threads | gpu for gpu in gpus or [{}] * self.jobs]

    def command(self, script, words):
        """A cell's command with its part of the machine: its GPU, and loader processes unless given."""
        words = [sys.executable, str(ROOT / script), *words]
        words += ["--device", "cuda"] if self.gpus else []
        given = self.jobs == 1 or any(word.startswith("--num_threads") for word in words)
        return words if given else [*words, "--num_threads", str(self.cores - 1)]

    def work(self, cell, execute):
        """Trains one cell, tests it, and leaves its row.  execute: runs a command, see Jobs.run."""
        folder = self.runs / cell.name
        words = self.grid.train_argv(cell, self.runs)
        if (folder / "model_epoch_last.pth").is_file():
            words.append("--continue_train")
        elif folder.exists():  # stopped before anything was saved
            shutil.rmtree(folder)
        execute(self.command("train.py", words))
        start = time.monotonic()
        words = self.grid.test_argv(cell, self.runs, self.tests)
        execute([*self.command("test.py", words), "--resume"])
        seconds = round(time.monotonic() - start, 1)
        self.ledger.record(cell, status=FINISHED, **self.measure(cell), test_seconds=seconds)

    def measure(self, cell):
        """A finished cell in numbers: the columns of results.csv."""
        detector = checkpoint.load(self.grid.weights(cell.name, self.runs)).detector
        history = read_table(self.runs / cell.name / "train.csv", ("loss", "seconds"))
        for line in history:
            line["loss"] = line.get("loss_bce") or line["loss"]
        row = {
            "description": describe(detector),
            "parameters": sum(parameter.numel() for parameter in detector.parameters()),
            **facts(detector),
            "epochs": len(history),
            "train_seconds": round(sum(float(line["seconds"]) for line in history), 1),
        }
        row |= {name: " ".join(line[name] for line in history if name in line) for name in PER_EPOCH}
        for scores in sorted((self.tests / cell.name).glob("*/scores.csv")):
            row |= tested(scores.parent.name, read_scores(scores))
        return row

    def record_failure(self, cell, error):
        """Keeps the last line in the cell's row; its log has the traceback, of an error here as well."""
        reason = run.one_line(error)
        if not isinstance(error, (UserError, OSError)):
            reason = f"{type(error).__name__}: {reason}"
            (self.folder / "logs").mkdir(exist_ok=True)
            with open(self.folder / "logs" / f"{cell.name}.log", "a", encoding="utf-8") as log:
                traceback.print_exception(error, file=log)
        self.ledger.record(cell, status=FAILED, error=reason)


def facts(detector):
    """{column: text} of what results.csv says about a detector besides its description."""
    row, setting = {}, {"arch": detector.arch, **detector.config}
    if variant := getattr(detector, "variant", None):
        setting = {name: value for name, value in detector.config.items() if name not in SCALES}
        weights, learned = learned_scales(detector)
        factors = variant.factors or (variant.factor,)
        row = {
            "factors": " ".join(str(factor) for factor in factors if factor is not None),
            "scale_weights": " ".join(f"{factor}:{weight:.6f}" for factor, weight in weights.items()),
            "scale_factor": "" if learned is None else learned,
        }
    return {**row, "setting": " ".join(f"{name}={value}" for name, value in setting.items())}


def summary(row):
    """The row of a cell in a few words."""
    if row["status"] == FAILED:
        return f"failed: {row['error']}"
    values = [value for name, value in row.items() if name.endswith(f"{SEPARATOR}acc") and value != ""]
    mean = percent(fmean(values or [math.nan]))
    return f"accuracy {mean}, trained {row['train_seconds']:.0f} s, tested {row['test_seconds']:.0f} s"


def visible_gpus(numbers):
    """What CUDA_VISIBLE_DEVICES calls the devices of --gpus; UserError for one that is not there."""
    present = torch.cuda.device_count()
    absent = [str(number) for number in numbers if number >= present]
    if absent:
        raise UserError(f"--gpus {','.join(absent)}: torch sees {present} CUDA devices, numbered from 0")
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(present)))
    return [names.split(",")[number].strip() for number in numbers]


class Jobs:
    """Runs cells, at most one per slot at once; a slot is a dict of environment variables."""

    def __init__(self, slots, logs):
        self.slots, self.logs, self.stopping = list(slots), Path(logs), False

    def run(self, cells, work, look):
        """Calls work(cell, execute) for every cell; yields (cell, error or None) as they end.

        Args:
            work: uses execute([argument, ...]) for each of its commands; an exception is the cell's result.
            look: called twice a second; what it raises stops all cells, and then is raised here.
        """

        def run_cell(cell):
            slot = self.slots.pop()
            try:
                work(cell, partial(self._execute, cell, slot))
            finally:
                self.slots.append(slot)

        pool = ThreadPoolExecutor(len(self.slots))
        waiting = {pool.submit(run_cell, cell): cell for cell in cells}
        try:
            while waiting:
                done, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.exception()
                look()
        finally:
            self.stopping = True
            pool.shutdown(cancel_futures=True)

    def _execute(self, cell, slot, command):
        """Runs one command to its end; its output goes to the cell's log."""
        if self.stopping:
            raise UserError("stopped")
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{cell.name}.log"
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TQDM_DISABLE": "1", run.PARENT: str(os.getpid()), **slot},
                # If this process is killed, the folder stays in use until the command has ended.
                pass_fds=held_locks(),
                start_new_session=True,  # Ctrl-C reaches it once, from here
            )
            status = self._wait(process)
        if status:
            reason = last_line(path, start).removeprefix("error: ") or "no output"
            raise UserError(f"{reason} (status {status}; {path})")

    def _wait(self, process):
        """The exit status; when the experiment stops, the command is asked to stop, later killed."""
        while not self.stopping:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
        process.terminate()
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # it hangs; its session is its own
            return process.wait()


def last_line(path, start=0):
    """The last line with text in a log, from the byte `start` on."""
    lines = Path(path).read_bytes()[start:].decode("utf-8", errors="replace").splitlines()
    return next(filter(None, map(str.strip, reversed(lines))), "")
