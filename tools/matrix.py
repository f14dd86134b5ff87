"""Trains a detector on each training set of a protocol and tests each on every generator: a matrix.

    python -m tools.matrix --dataroot ./datasets                      the 8x8 table of the SSP paper
    python -m tools.matrix --train_on sdv4 midjourney --train_flags '--niter 10' --gpus 0,1
    python -m tools.matrix --print_only                               what is finished and what is published

Sets are named as in the tables or by their folders (SDv1.4, sdv4, imagenet_ai_0419_sdv4).  Cells run as in
train_multiscale_experiment.py: the same command resumes what is unfinished and tries again what failed.
Results: the tables here, <output>/{matrix.md, matrix.csv, results.csv}; runs/, tests/, logs/: the cells.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import math
import re
import shlex
from collections import defaultdict
from statistics import fmean

from common import Parser, UserError, file_path, names_list, written_whole
from data import protocols, published
from data.published import MEAN
from experiments.cells import Experiment
from experiments.grid import CHECKPOINTS, Grid, argv, parsed, refuse_managed, training_options
from experiments.options import numbers, parse_running
from experiments.results import Ledger, Sweep
from networks import names as detector_names
from options import TestOptions, TrainOptions
from options.test_options import ALL, NO_COMPARISON
from util import run
from util.results import read_scores, tabulate_scores
from util.tables import markdown, percent, write_csv

OURS, PROTOCOL = "ours", "GenImage-SSP"
SET_HERE = {  # besides grid.MANAGED
    "train": ("arch", "protocol", "classes"),
    "test": ("arch", "protocols", "protocol_file", "classes"),
}
COLUMNS = ("train_on", "test_on", "method", "seed", "acc", "ap")  # of matrix.csv
METRICS = {"acc": "Accuracy in percent", "ap": "AP in percent"}


def main(words=None):
    """Trains and tests what is missing of the matrix, then prints and writes it."""
    opt = parse(words)
    protocol = protocols.get(opt.protocol)
    grid = make_grid(opt, protocol)
    if opt.print_only:
        print(Matrix(opt, protocol, grid).text())
    else:
        Experiment(grid, opt, lambda _: Matrix(opt, protocol, grid).write()).run()


def parse(words):
    """The command line."""
    parser = Parser(prog="python -m tools.matrix", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--protocol", default=PROTOCOL, help="benchmark with a training part")
    add("--arch", choices=detector_names(), default="ssp", help="detector")
    for part in ("train", "test"):
        add(f"--{part}_on", nargs="+", default=[ALL], metavar="NAME", help="sets, or all; default: all")
    add("--dataroot", type=file_path, default="./datasets", help="folder of the images")
    add("--output", type=file_path, help="folder of the matrix; default: results/matrix-ARCH")
    add("--seeds", type=numbers, metavar="N,N", help="the seeds themselves; default: the protocol's")
    add("--checkpoint", choices=CHECKPOINTS, default="best", help="epoch that is tested")
    add("--print_only", action="store_true", help="train nothing, print what is finished and published")
    opt = parse_running(parser, words)
    if opt.overwrite and opt.print_only:
        parser.error("--print_only removes nothing; leave out --overwrite")
    opt.output = opt.output or str(Path("results", f"matrix-{opt.arch}"))
    return opt


def chosen(protocol, names, part):
    """Names of the generators of a part that --train_on or --test_on means, in the paper's order."""
    names = [name for text in names for name in names_list(text)]
    wanted = () if [name.lower() for name in names] == [ALL] else names or ["(none given)"]
    try:
        generators = [generator.name for generator in protocol.pick(wanted, part)]
    except UserError as error:
        raise UserError(f"--{part}_on: {error}; or all") from None
    order = [generator.name for generator in protocol.generators]
    return sorted(generators, key=lambda name: order.index(name) if name in order else len(order))


def make_grid(opt, protocol):
    """The Grid of the matrix, a variant per training set; UserError for flags that a script refuses."""
    refuse_managed(opt.train_flags, "train", SET_HERE["train"])
    refuse_managed(opt.test_flags, "test", SET_HERE["test"])
    shared = {"arch": opt.arch, "dataroot": opt.dataroot}
    train = [*argv({**shared, "protocol": protocol.slug}), *opt.train_flags]
    opt_train = training_options(train, opt.checkpoint)
    sets, columns = chosen(protocol, opt.train_on, "train"), chosen(protocol, opt.test_on, "test")
    test = {**shared, "protocols": [protocol.slug], "classes": columns, "published": NO_COMPARISON}
    test = [*argv(test), *opt.test_flags]
    parsed(TestOptions(), [*test, "--model_path", "weights"], "test.py")
    variants = {name: ["--classes", name] for name in sets}
    return Grid(variants, train, test, opt.seeds or (opt_train.seed,), sets[0], opt.checkpoint)


def shown(cells, trained_on):
    """Percent, means over the seeds, of {column: fractions}; that of `trained_on` is bold."""
    means = {column: percent(fmean(cell or [math.nan])) for column, cell in cells.items()}
    if cells.get(trained_on):
        means[trained_on] = f"**{means[trained_on]}**"
    return means.values()


class Matrix:
    """What a folder holds of a protocol's matrix, next to the published rows."""

    def __init__(self, opt, protocol, grid):
        self.opt, self.protocol, self.folder = opt, protocol, Path(opt.output)
        self.columns = [*chosen(protocol, opt.test_on, "test"), MEAN]
        # What the results were made with.
        self.made = Ledger(opt.output).made(grid.identity())
        self.train_opt = parsed(TrainOptions(), self.made["train"], opt.output)
        here = self.train_opt.arch, self.train_opt.protocol
        if here != (opt.arch, protocol.slug):
            raise UserError(f"{opt.output} holds {' on '.join(here)}; name another --output")
        path = self.folder / "results.csv"
        self.sweep = Sweep.read(path) if path.is_file() else Sweep([])
        # {training set: what is published of it}; methods named like the detector or the protocol come first.
        names = [*grid.variants, *(cell["variant"] for cell in self.sweep.finished)]
        self.published = {name: [] for name in chosen(protocol, names, "train")}
        first = {opt.arch, *protocol.slug.lower().split("-")}
        methods = published.methods(protocol.slug)
        for method in sorted(methods, key=lambda method: method.lower().partition("-")[0] not in first):
            if (name := trained_on(method, protocol)) in self.published:
                self.published[name].append(published.lookup(protocol.slug, method))
        # Rows with COLUMNS, one per number.
        self.ours = [row for cell in self.sweep.finished for row in self.scored(cell)]
        self.theirs = [row for name in self.published for row in self.printed(name)]

    def scored(self, cell):
        """Rows of a finished cell from its scores; the protocol averages over generators or over images."""
        path = self.folder / "tests" / cell["cell"] / self.protocol.slug / "scores.csv"
        same = {"train_on": cell["variant"], "method": OURS, "seed": cell["seed"]}
        rows = tabulate_scores(read_scores(path), self.columns[:-1], self.protocol.average)
        return [{**row, **same, "test_on": row["generator"]} for row in rows]

    def printed(self, name):
        """Published rows of a training set; means only where all of their generators are shown."""
        whole = len(self.columns) > len(self.protocol.generators)
        for theirs in self.published[name]:
            cells = {**theirs.cells, MEAN: theirs.mean if whole else None}
            for column in self.columns:
                if cell := cells.get(column):
                    yield {"train_on": name, "method": theirs.method, "test_on": column, **cell._asdict()}

    def write(self):
        """Prints the tables and writes matrix.md and matrix.csv; a matrix has no verdicts."""
        text = self.text()
        with written_whole(self.folder / "matrix.md") as file:
            file.write(text + "\n")
        lines = []
        for row in (*self.ours, *self.theirs):
            numbers = {metric: row[metric] for metric in METRICS if not math.isnan(row[metric])}
            if numbers:
                lines.append({**row, **dict.fromkeys(METRICS), **numbers})
        write_csv(self.folder / "matrix.csv", lines, COLUMNS)
        print(f"{text}\n-> {self.folder} (matrix.md, matrix.csv)")

    def text(self):
        """Both tables and the notes, as Markdown."""
        parts = [f"# {self.opt.arch} on {self.protocol.slug}: trained on one set, tested on each"]
        for metric, title in METRICS.items():
            lines = self.table(metric)
            if len(lines) > 1:
                parts += [f"## {title}", markdown(lines, "ll" + "r" * len(self.columns), padded=True)]
        return "\n\n".join([*parts, "\n".join(f"* {note}" for note in self.notes())])

    def table(self, metric):
        """Lines of text, percent, means over the seeds; what was trained on is bold."""
        values = defaultdict(list)
        for row in (*self.ours, *self.theirs):
            if not math.isnan(row[metric]):
                values[row["train_on"], row["method"], row["test_on"]].append(row[metric])
        lines = [["trained on", "method", *self.columns]]
        for name, methods in self.published.items():
            seeds = len([cell for cell in self.sweep.finished if cell["variant"] == name])
            labels = {OURS: OURS if seeds < 2 else f"{OURS}, mean of {seeds} seeds"} if self.ours else {}
            labels |= {theirs.method: theirs.method for theirs in methods}
            for method, label in labels.items():
                cells = {column: values[name, method, column] for column in self.columns}
                if any(cells.values()) or method == OURS:
                    lines.append([name, label, *shown(cells, name)])
        return lines

    def notes(self):
        """What a reader of the tables has to know."""
        notes = ["bold: tested on the generator that was trained on; -: no number", *missing(self.ours)]
        absent = [name for name in self.published if name not in {row["train_on"] for row in self.ours}]
        notes += [f"not trained and tested here yet: {', '.join(absent)}"] if absent else []
        notes += [f"failed: {cell['cell']}: {cell['error']}" for cell in self.sweep.failed]
        if self.ours:
            notes.append(f"epoch of ours: {epoch(self.made['checkpoint'], self.train_opt)}")
            notes += [f"flags of {script}.py: {shlex.join(self.made[script])}" for script in SET_HERE]
        methods = [theirs for methods in self.published.values() for theirs in methods]
        notes += dict.fromkeys(f"published: {source}" for method in methods for source in method.sources)
        return [*notes, *dict.fromkeys(note for method in methods for note in method.notes)]


def missing(rows):
    """Notes on generators without a number, and on what our means are over."""
    reasons = {row["test_on"]: row["reason"] for row in rows if row["test_on"] != MEAN}
    for reason in dict.fromkeys(filter(None, reasons.values())):
        yield f"{reason} to test on: {', '.join(name for name in reasons if reasons[name] == reason)}"
    means = dict.fromkeys(row["reason"] or "over generators" for row in rows if row["test_on"] == MEAN)
    yield from (f"mean of ours: {mean}" for mean in means)


def epoch(checkpoint, opt):
    """How the epoch of our rows was chosen."""
    if checkpoint != "best":
        return f"the {checkpoint} one"
    if opt.select_on_test:
        return "the best on the test images (--select_on_test), so accuracy is optimistic"
    images = f"{100 * opt.val_fraction:g} % of the training" if opt.val_fraction else "the validation"
    return f"the best on {images} images, which were not trained on"


def trained_on(method, protocol):
    """The training set that a method's name says (SSP-MJ; SSP: the protocol's published one), or None."""
    suffix = method.partition("-")[2]
    names = [generator.name for generator in protocol.training]
    letters = ".*".join(map(re.escape, suffix))  # MJ: Midjourney
    close = [name for name in names if re.match(letters, name, re.IGNORECASE)]
    exact = [name for name in close if len(name) == len(suffix)]
    sets = exact or close if suffix else protocol.train_on
    return sets[0] if len(sets) == 1 else None


if __name__ == "__main__":
    run.guard(main)
