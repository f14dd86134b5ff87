"""Trains a detector on each training set of a protocol and tests each on every generator: a matrix.

    python -m tools.matrix --dataroot ./datasets                      the 8x8 table of the SSP paper
    python -m tools.matrix --train_on sdv4 midjourney --train_flags '--niter 10' --gpus 0,1
    python -m tools.matrix --print_only                               what is finished and what is published

Sets are named as in the tables or by their folders (SDv1.4, sdv4, imagenet_ai_0419_sdv4).  Cells run as in
train_multiscale_experiment.py: the same command resumes what is unfinished and tries again what failed.
The published rows of a training set follow our row of that set.
Results: the tables here, <output>/{matrix.md, matrix.csv, results.csv}; runs/, tests/, logs/: the cells.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import csv
import math
import re
import shlex
from collections import defaultdict
from statistics import fmean

from common import Parser, UserError, file_path, names_list, written_whole
from data import protocols, published
from data.published import MEAN
from data.training import NO_VALIDATION
from experiments.cells import Experiment
from experiments.grid import CHECKPOINTS, Grid, argv, parsed, refuse_managed
from experiments.options import numbers, parse_running
from experiments.results import Ledger, Sweep
from networks import names as detector_names
from options import TestOptions, TrainOptions
from options.test_options import ALL, NO_COMPARISON
from util import run
from util.metrics import tabulate
from util.results import read_scores
from util.tables import fixed_width, markdown, percent

OURS, PROTOCOL = "ours", "GenImage-SSP"
SET_HERE = {  # besides grid.MANAGED
    "train": ("arch", "protocol", "classes"),
    "test": ("arch", "protocols", "protocol_file", "classes"),
}
COLUMNS = ("train_on", "test_on", "method", "seed", "acc", "ap")  # of matrix.csv
METRICS = {"acc": "Accuracy in percent", "ap": "AP in percent"}


def main(words=None):
    opt = parse(words)
    matrix = Matrix(opt)
    if opt.print_only:
        print(matrix.text(matrix.rows()))
    else:
        Experiment(matrix.grid, opt, matrix.write).run()


def parse(words):
    """The command line."""
    parser = Parser(prog="tools.matrix", description=__doc__.splitlines()[0])
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
    opt_train = parsed(TrainOptions(), train, "train.py")
    if opt.checkpoint == "best" and opt_train.val_split == NO_VALIDATION:
        raise UserError("--checkpoint best needs a validation set, and --val_split is none; use last")
    sets, columns = chosen(protocol, opt.train_on, "train"), chosen(protocol, opt.test_on, "test")
    test = {**shared, "protocols": [protocol.slug], "classes": columns, "published": NO_COMPARISON}
    test = [*argv(test), *opt.test_flags]
    parsed(TestOptions(), [*test, "--model_path", "weights"], "test.py")
    variants = {name: ["--classes", name] for name in sets}
    return Grid(variants, train, test, opt.seeds or (opt_train.seed,), sets[0], opt.checkpoint)


class Matrix:
    """A protocol's matrix: the grid, and the tables of what its folder holds."""

    def __init__(self, opt):
        self.opt, self.protocol = opt, protocols.get(opt.protocol)
        self.grid = make_grid(opt, self.protocol)
        self.columns = [*chosen(self.protocol, opt.test_on, "test"), MEAN]
        self.ledger = Ledger(opt.output)

    def write(self, _experiment):
        """Prints the tables and writes matrix.md and matrix.csv; a matrix has no verdicts."""
        rows, folder = self.rows(), self.ledger.folder
        print(self.text(rows))
        with written_whole(folder / "matrix.csv") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            for row in rows:
                numbers = {metric: row[metric] for metric in METRICS if not math.isnan(row[metric])}
                if numbers:
                    writer.writerow({**row, **dict.fromkeys(METRICS, ""), **numbers})
        with written_whole(folder / "matrix.md") as file:
            file.write(self.text(rows, in_markdown=True) + "\n")
        print(f"-> {folder} (matrix.md, matrix.csv)")

    def record(self):
        """(What the folder's results were made with, else this call's own; train.py's options)."""
        self.ledger.require({"variants": {}})
        made = self.grid.identity()
        made = self.ledger.identity(made) if self.ledger.path.is_file() else made
        opt = parsed(TrainOptions(), made["train"], self.ledger.path)
        if (opt.arch, opt.protocol) != (self.opt.arch, self.protocol.slug):
            raise UserError(f"{self.opt.output} holds {opt.arch} on {opt.protocol}; name another --output")
        return made, opt

    def rows(self):
        """A row per number, with the COLUMNS of matrix.csv: of finished cells, then the published ones."""
        self.made, self.train_opt = self.record()
        path = self.ledger.folder / "results.csv"
        self.sweep = Sweep.read(path) if path.is_file() else Sweep([])
        names = [*self.grid.variants, *(cell["variant"] for cell in self.sweep.finished)]
        self.sets = chosen(self.protocol, names, "train")
        # Methods named like the detector or the protocol come first.
        first = {self.opt.arch, *self.protocol.slug.lower().split("-")}
        methods = published.methods(self.protocol.slug)
        methods.sort(key=lambda method: method.lower().partition("-")[0] not in first)
        sources = {method: trained_on(method, self.protocol) for method in methods}
        self.methods = [(name, method) for name in self.sets for method in methods if sources[method] == name]
        rows = [row for cell in self.sweep.finished for row in self.scored(cell)]
        return rows + [row for pair in self.methods for row in self.printed(*pair)]

    def scored(self, cell):
        """Rows of a finished cell from its scores; the protocol averages over generators or over images."""
        path = self.ledger.folder / "tests" / cell["cell"] / self.protocol.slug / "scores.csv"
        _, generators, labels, scores, _ = zip(*read_scores(path), strict=True)
        same = {"train_on": cell["variant"], "method": OURS, "seed": cell["seed"]}
        rows = tabulate(generators, labels, scores, self.columns[:-1], self.protocol.average)
        return [{**row, **same, "test_on": row["generator"]} for row in rows]

    def printed(self, name, method):
        """Published rows; the mean only where all of its generators are shown."""
        theirs = published.lookup(self.protocol.slug, method)
        cells = {column: cell for column, cell in theirs.cells.items() if column in self.columns}
        if theirs.mean and len(self.columns) > len(self.protocol.generators):
            cells[MEAN] = theirs.mean
        same = {"train_on": name, "method": method}
        return [{**same, "test_on": column, **cell._asdict()} for column, cell in cells.items()]

    def text(self, rows, in_markdown=False):
        """Both tables and the notes."""
        parts = [f"# {self.opt.arch} on {self.protocol.slug}: trained on one set, tested on each"]
        for metric, title in METRICS.items():
            lines = self.table(rows, metric, in_markdown)
            if len(lines) > 1:
                align = "ll" + "r" * len(self.columns)
                table = markdown(lines, align, padded=True) if in_markdown else fixed_width(lines, align)
                parts += [f"## {title}", table]
        return "\n\n".join([*parts, "\n".join(f"* {note}" for note in self.notes(rows))])

    def table(self, rows, metric, in_markdown):
        """Lines of text, percent; what was trained on is bold, on the terminal starred."""
        marked, plain = ("**{}**", "{}") if in_markdown else ("{}*", "{} ")
        values = defaultdict(list)  # over the seeds
        for row in rows:
            if not math.isnan(row[metric]):
                values[row["train_on"], row["method"], row["test_on"]].append(row[metric])
        lines = [["trained on", "method", *(plain.format(name) for name in self.columns)]]
        for name in self.sets:
            for method, label in self.methods_of(name).items():
                cells = {column: values[name, method, column] for column in self.columns}
                if any(cells.values()) or method == OURS:
                    forms = [marked if cells[column] and column == name else plain for column in cells]
                    shown = [percent(fmean(cell or [math.nan])) for cell in cells.values()]
                    lines.append([name, label, *map(str.format, forms, shown)])
        return lines

    def methods_of(self, name):
        """{method: its label} of the lines of one training set: ours, then the published."""
        seeds = len([cell for cell in self.sweep.finished if cell["variant"] == name])
        label = OURS if seeds < 2 else f"{OURS}, mean of {seeds} seeds"
        labels = {OURS: label} if self.sweep.finished else {}
        return labels | {method: method for source, method in self.methods if source == name}

    def notes(self, rows):
        """What a reader of the tables has to know."""
        ours = [row for row in rows if row["method"] == OURS]
        notes = ["marked: tested on the generator that was trained on; -: no number", *missing(ours)]
        absent = [name for name in self.sets if name not in {row["train_on"] for row in ours}]
        notes += [f"not trained and tested here yet: {', '.join(absent)}"] if absent else []
        notes += [f"failed: {cell['cell']}: {cell['error']}" for cell in self.sweep.failed]
        if ours:
            notes.append(f"epoch of ours: {epoch(self.made['checkpoint'], self.train_opt)}")
            notes += [f"flags of {script}.py: {shlex.join(self.made[script])}" for script in SET_HERE]
        methods = [published.lookup(self.protocol.slug, method) for _, method in self.methods]
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
    sets = exact or close if suffix else protocol.train_on or names
    return sets[0] if len(sets) == 1 else None


if __name__ == "__main__":
    run.guard(main)
