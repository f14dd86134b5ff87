"""Trains a detector on each training set of a protocol and tests each on every generator: a matrix.

    python -m tools.matrix --dataroot ./datasets                      the 8x8 table of the SSP paper
    python -m tools.matrix --train_on sdv4 midjourney --train_flags '--niter 10' --gpus 0,1
    python -m tools.matrix --print_only                               what is finished and what is published

Sets are named as in the tables or by their folders (SDv1.4, sdv4, imagenet_ai_0419_sdv4).  Cells run as in
train_multiscale_experiment.py: the same command resumes what is unfinished and tries again what failed.
The published rows of a training set follow our row of that set.
Results: the tables here, <output>/{matrix.md, matrix.csv, results.csv}; runs/, tests/, logs/: the cells.
"""

import csv
import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from common import Parser, UserError, file_path, names_list, written_whole
from data import protocols, published
from data.published import MEAN
from data.training import NO_VALIDATION
from experiments.cells import Experiment
from experiments.grid import CHECKPOINTS, MANAGED, Grid, argv, parsed, refuse_managed
from experiments.options import add_running, check_jobs, numbers
from experiments.results import Ledger, Sweep
from networks import names as detector_names
from options import TestOptions, TrainOptions
from options.test_options import ALL, NO_COMPARISON
from util import run
from util.metrics import tabulate
from util.record import read_scores
from util.tables import fixed_width, markdown

OURS, PROTOCOL = "ours", "GenImage-SSP"
SET_HERE = {  # besides MANAGED
    "train": ("arch", "protocol", "classes"),
    "test": ("arch", "protocols", "protocol_file", "classes"),
}
COLUMNS = ("train_on", "test_on", "method", "seed", "acc", "ap")  # of matrix.csv
METRICS = {"acc": "Accuracy in percent", "ap": "AP in percent"}


def main(words=None):
    opt = parse(words)
    matrix = Matrix(opt)
    if opt.print_only:
        print(matrix.text(*matrix.lines()))
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
    add_running(parser)
    add("--print_only", action="store_true", help="train nothing, print what is finished and published")
    opt = parser.parse_args(words)
    check_jobs(parser, opt)
    if opt.overwrite and opt.print_only:
        parser.error("--print_only removes nothing; leave out --overwrite")
    opt.output = opt.output or str(Path("results", f"matrix-{opt.arch}"))
    return opt


def chosen(protocol, names, part):
    """The generators of a part that the names of --train_on or --test_on mean, in the paper's order."""
    names = [name for text in names for name in names_list(text)]
    wanted = () if [name.lower() for name in names] == [ALL] else names or ["(none given)"]
    try:
        generators = protocol.pick(wanted, part)
    except UserError as error:
        raise UserError(f"--{part}_on: {error}; or all") from None
    order = {generator.name: number for number, generator in enumerate(protocol.generators)}
    return sorted(generators, key=lambda generator: order.get(generator.name, len(order)))


def make_grid(opt, protocol):
    """The Grid of the matrix, a variant per training set; UserError for flags that a script refuses."""
    typed = {"train": opt.train_flags, "test": opt.test_flags}
    for script, words in typed.items():
        refuse_managed(words, script, f"--{script}_flags", SET_HERE[script] + MANAGED[script])
    shared = {"arch": opt.arch, "dataroot": opt.dataroot}
    train = [*argv({**shared, "protocol": protocol.slug}), *opt.train_flags]
    opt_train = parsed(TrainOptions(), train, "train.py")
    if opt.checkpoint == "best" and opt_train.val_split == NO_VALIDATION:
        raise UserError("--checkpoint best needs a validation set, and --val_split is none; use last")
    sets, columns = (
        [row.name for row in chosen(protocol, getattr(opt, f"{part}_on"), part)] for part in typed
    )
    test = {**shared, "protocols": [protocol.slug], "classes": columns, "published": NO_COMPARISON}
    test = [*argv(test), *opt.test_flags]
    parsed(TestOptions(), [*test, "--model_path", "weights"], "test.py")
    variants = {name: ["--classes", name] for name in sets}
    return Grid(variants, train, test, opt.seeds or (opt_train.seed,), sets[0], opt.checkpoint)


@dataclass(frozen=True)
class Line:
    """A row of the tables; acc and ap are {generator or Mean: fraction} as far as there are numbers."""

    train_on: str
    method: str
    acc: dict
    ap: dict
    seed: str = ""
    reasons: dict = field(default_factory=dict)  # why numbers are missing


class Matrix:
    """A protocol's matrix: the grid, and the tables of what its folder holds."""

    def __init__(self, opt):
        self.opt, self.protocol = opt, protocols.get(opt.protocol)
        self.grid = make_grid(opt, self.protocol)
        self.columns = [*(row.name for row in chosen(self.protocol, opt.test_on, "test")), MEAN]
        self.ledger = Ledger(opt.output)

    def write(self, _experiment):
        """Prints the tables and writes matrix.md and matrix.csv; a matrix has no verdicts."""
        ours, theirs = self.lines()
        print(self.text(ours, theirs))
        with written_whole(self.ledger.folder / "matrix.csv") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *long_form([*ours, *theirs])])
        with written_whole(self.ledger.folder / "matrix.md") as file:
            file.write(self.text(ours, theirs, in_markdown=True) + "\n")
        print(f"-> {self.ledger.folder} (matrix.md, matrix.csv)")

    def record(self):
        """(What the folder's results were made with, else this call's own; train.py's options)."""
        self.ledger.require({"variants": {}}, overwrite=False)
        made = self.grid.identity()
        made = self.ledger.identity(made) if self.ledger.path.is_file() else made
        opt = parsed(TrainOptions(), made["train"], self.ledger.path)
        if (opt.arch, opt.protocol) != (self.opt.arch, self.protocol.slug):
            raise UserError(f"{self.opt.output} holds {opt.arch} on {opt.protocol}; name another --output")
        return made, opt

    def lines(self):
        """([a Line per finished cell], [a Line per published row]) of the training sets that are shown."""
        self.record()  # another matrix is refused
        path = self.ledger.folder / "results.csv"
        self.sweep = Sweep.read(path) if path.is_file() else Sweep([])
        ours = [self.scored(cell) for cell in self.sweep.finished]
        sets = [*self.grid.variants, *(line.train_on for line in ours)]
        self.sets = [generator.name for generator in chosen(self.protocol, sets, "train")]
        # Methods named like the detector or the protocol come first.
        first = {self.opt.arch, *self.protocol.slug.lower().split("-")}
        methods = published.methods(self.protocol.slug)
        methods.sort(key=lambda method: method.lower().partition("-")[0] not in first)
        sources = {method: trained_on(method, self.protocol) for method in methods}
        theirs = [
            self.printed(name, method) for name in self.sets for method in methods if sources[method] == name
        ]
        return ours, theirs

    def scored(self, cell):
        """A finished cell from its scores; the protocol averages over generators or over images."""
        path = self.ledger.folder / "tests" / cell["cell"] / self.protocol.slug / "scores.csv"
        _, generators, labels, scores, _ = zip(*read_scores(path), strict=True)
        rows = tabulate(generators, labels, scores, self.columns[:-1], self.protocol.average)
        acc, ap = (numbers_of({row["generator"]: row[metric] for row in rows}) for metric in METRICS)
        return Line(
            cell["variant"], OURS, acc, ap, cell["seed"], {row["generator"]: row["reason"] for row in rows}
        )

    def printed(self, name, method):
        """A published row; its mean only where all of its generators are shown."""
        theirs = published.lookup(self.protocol.slug, method)
        cells = {generator: cell for generator, cell in theirs.cells.items() if generator in self.columns}
        if theirs.mean and len(self.columns) > len(self.protocol.generators):
            cells[MEAN] = theirs.mean
        acc, ap = (
            numbers_of({column: getattr(cells[column], metric) for column in cells}) for metric in METRICS
        )
        return Line(name, method, acc, ap)

    def text(self, ours, theirs, in_markdown=False):
        """Both tables and the notes."""
        lines = []
        for name in self.sets:
            cells = [line for line in ours if line.train_on == name]
            label = OURS if len(cells) < 2 else f"{OURS}, mean of {len(cells)} seeds"
            if ours:
                lines.append(
                    Line(name, label, *(mean_of(getattr(line, m) for line in cells) for m in METRICS))
                )
            lines += [line for line in theirs if line.train_on == name]
        parts = [f"# {self.opt.arch} on {self.protocol.slug}: trained on one set, tested on each"]
        for metric, title in METRICS.items():
            shown = [line for line in lines if getattr(line, metric) or line not in theirs]
            parts += [f"## {title}", table(shown, self.columns, metric, in_markdown)] if shown else []
        return "\n\n".join([*parts, "\n".join(f"* {note}" for note in self.notes(ours, theirs))])

    def notes(self, ours, theirs):
        """What a reader of the tables has to know."""
        made, opt = self.record()
        reasons = {name: reason for line in ours for name, reason in line.reasons.items() if name != MEAN}
        notes = ["marked: tested on the generator that was trained on; -: no number"]
        for reason in dict.fromkeys(filter(None, reasons.values())):
            notes.append(
                f"{reason} to test on: {', '.join(name for name in reasons if reasons[name] == reason)}"
            )
        for mean in dict.fromkeys(line.reasons[MEAN] or "over generators" for line in ours):
            notes.append(f"mean of ours: {mean}")
        absent = [name for name in self.sets if name not in {line.train_on for line in ours}]
        if absent:
            notes.append(f"not trained and tested here yet: {', '.join(absent)}")
        notes += [f"failed: {cell['cell']}: {cell['error']}" for cell in self.sweep.failed]
        if ours:
            notes.append(f"epoch of ours: {epoch(made['checkpoint'], opt)}")
            notes += [f"flags of {script}.py: {shlex.join(made[script])}" for script in SET_HERE]
        methods = [published.lookup(self.protocol.slug, line.method) for line in theirs]
        notes += dict.fromkeys(f"published: {source}" for method in methods for source in method.sources)
        return [*notes, *dict.fromkeys(note for method in methods for note in method.notes)]


def numbers_of(values):
    """The entries that are not NaN."""
    return {name: value for name, value in values.items() if not math.isnan(value)}


def mean_of(rows):
    """{column: mean over the rows that have it}."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


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


def table(lines, columns, metric, in_markdown):
    """Percent with one decimal; what was trained on is bold, on the terminal starred."""
    marked, plain = ("**{}**", "{}") if in_markdown else ("{}*", "{} ")
    rows = [["trained on", "method", *(plain.format(name) for name in columns)]]
    for line in lines:
        values = getattr(line, metric)
        cells = [f"{100 * values[name]:.1f}" if name in values else "-" for name in columns]
        own = [name == line.train_on and name in values for name in columns]
        cells = [(marked if mark else plain).format(cell) for mark, cell in zip(own, cells, strict=True)]
        rows.append([line.train_on, line.method, *cells])
    align = "ll" + "r" * len(columns)
    return markdown(rows, align, padded=True) if in_markdown else fixed_width(rows, align)


def long_form(lines):
    """Rows of matrix.csv: fractions, a row per cell that is there."""
    for line in lines:
        for column in dict.fromkeys([*line.acc, *line.ap]):
            values = line.acc.get(column, ""), line.ap.get(column, "")
            yield line.train_on, column, line.method, line.seed, *values


if __name__ == "__main__":
    run.guard(main)
