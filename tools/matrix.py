"""Trains a detector on each training set of a protocol and tests each on every generator: a matrix.

    python -m tools.matrix --dataroot ./datasets                      the 8x8 table of the SSP paper
    python -m tools.matrix --train_on sdv4 midjourney --train_flags '--niter 10' --gpus 0,1
    python -m tools.matrix --print_only                               what is finished and what is published

Sets are named as in the tables or by their folders (SDv1.4, sdv4, imagenet_ai_0419_sdv4).  Cells run as in
train_multiscale_experiment.py: the same command goes on with what is unfinished and tries again what failed.
Under each of our rows stand the published ones of the same training set.
Results: the tables here, <output>/{matrix.md, matrix.csv, results.csv}; runs/, tests/, logs/: the cells.
"""

import argparse
import csv
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

import networks
from common import Parser, UserError, file_path, names_list, non_negative_int, positive_int, written_whole
from data import protocols, published
from data.published import MEAN
from data.training import NO_VALIDATION
from options import TestOptions, TrainOptions
from options.grid import CHECKPOINTS, LARGEST_SEED, MANAGED, Grid, argv, flag_names, parsed
from options.test_options import ALL, NO_COMPARISON
from train_multiscale_experiment import Experiment
from util import run
from util.metrics import tabulate
from util.record import read_scores
from util.sweep import Sweep

OURS, PROTOCOL = "ours", "GenImage-SSP"
SET_HERE = {
    "train": ("arch", "protocol", "classes"),
    "test": ("arch", "protocols", "protocol_file", "classes"),
}
COLUMNS = ("train_on", "test_on", "method", "seed", "acc", "ap")  # of matrix.csv
METRICS = {"acc": "Accuracy in percent", "ap": "AP in percent"}


def main(words=None):
    opt = parse(words)
    row = protocols.get(opt.protocol)
    matrix = Matrix(make_grid(opt, row), opt, row)
    if opt.print_only:
        print(matrix.text(*matrix.lines()))
    else:
        matrix.carry_out()


def parse(words):
    """The command line."""
    parser = Parser(prog="tools.matrix", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--protocol", default=PROTOCOL, help=f"benchmark with a training part [default: {PROTOCOL}]")
    add("--arch", choices=networks.names(), default="ssp", help="detector [default: ssp]")
    for part in ("train", "test"):
        add(f"--{part}_on", nargs="+", default=[ALL], metavar="NAME", help="sets, or all [default: all]")
    add("--dataroot", type=file_path, default="./datasets", help="folder of the images [default: ./datasets]")
    add("--output", type=file_path, help="folder of the matrix [default: results/matrix-ARCH]")
    add("--seeds", type=numbers, metavar="N,N", help="the seeds themselves [default: the protocol's]")
    add("--checkpoint", choices=CHECKPOINTS, default="best", help="epoch that is tested [default: best]")
    for part in ("train", "test"):
        add(
            f"--{part}_flags",
            type=shlex.split,
            default=(),
            metavar="'--X Y'",
            help=f"flags of {part}.py for all cells, as in --{part}_flags='--num_threads 2'",
        )
    add("--jobs", type=positive_int, help="cells at a time [default: as train_multiscale_experiment.py]")
    add("--gpus", type=numbers, default=(), metavar="N,N", help="numbers of CUDA devices, one cell each")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--overwrite", action="store_true", help="start over; without it, finished cells are kept")
    add("--print_only", action="store_true", help="train nothing, print what is finished and published")
    opt = parser.parse_args(words)
    opt.output = opt.output or str(Path("results", f"matrix-{opt.arch}"))
    opt.gpus = tuple(map(str, opt.gpus))
    if opt.gpus and opt.jobs and opt.jobs > len(opt.gpus):
        parser.error(f"--jobs {opt.jobs} is more than the {len(opt.gpus)} devices of --gpus")
    return opt


def numbers(text):
    """'42,43' -> (42, 43)."""
    found = tuple(non_negative_int(part) for part in names_list(text))
    if not found or len(set(found)) < len(found) or max(found) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"expected different whole numbers such as 0,1, got {text!r}")
    return found


def chosen(row, names, part):
    """The generators of a part that the names of --train_on or --test_on mean, in the paper's order."""
    names = [name for text in names for name in names_list(text)]
    try:
        found = row.pick(() if [name.lower() for name in names] == [ALL] else names or ["(none given)"], part)
    except UserError as error:
        raise UserError(f"--{part}_on: {error}; or all") from None
    order = {one.name: place for place, one in enumerate(row.generators)}
    return sorted(found, key=lambda one: order.get(one.name, len(order)))


def make_grid(opt, row):
    """The Grid of the matrix, a variant per training set; ValueError for flags that a script refuses."""
    flags = {f"{part}_flags": words_of(part, getattr(opt, f"{part}_flags")) for part in SET_HERE}
    common = {"arch": opt.arch, "dataroot": opt.dataroot}
    train = {**common, "protocol": row.slug}
    opt_train = parsed(TrainOptions(), [*argv(train), *flags["train_flags"]], "train.py")
    if opt.checkpoint == "best" and opt_train.val_split == NO_VALIDATION:
        raise UserError("--checkpoint best needs a validation set, and --val_split is none; legal: last")
    sets, tested = ([one.name for one in chosen(row, getattr(opt, f"{part}_on"), part)] for part in SET_HERE)
    test = {**common, "protocols": [row.slug], "classes": tested, "published": NO_COMPARISON}
    parsed(TestOptions(), [*argv(test), *flags["test_flags"], "--model_path", "weights"], "test.py")
    variants, seeds = {name: {"classes": name} for name in sets}, opt.seeds or (opt_train.seed,)
    return Grid("tools.matrix", variants, train, test, seeds, sets[0], checkpoint=opt.checkpoint, **flags)


def words_of(part, words):
    """--train_flags or --test_flags; ValueError where they set what is set here."""
    taken = [f"--{name}" for name in flag_names(words) if name in (*SET_HERE[part], *MANAGED[part])]
    if taken:
        raise UserError(f"--{part}_flags: the matrix itself sets {', '.join(taken)} of {part}.py")
    return tuple(words)


@dataclass(frozen=True)
class Line:
    """A row of the tables; acc and ap are {generator or Mean: fraction} as far as there are numbers."""

    train_on: str
    method: str
    acc: dict
    ap: dict
    seed: str = ""
    reasons: dict = field(default_factory=dict)  # why numbers are not there


class Matrix(Experiment):
    """A protocol's matrix, its folder and what is finished of it."""

    def __init__(self, grid, opt, row):
        super().__init__(grid, Path(opt.output), opt)
        self.protocol, self.tested = row, chosen(row, opt.test_on, "test")
        self.columns = [*(one.name for one in self.tested), MEAN]

    def require_images(self):
        super().require_images()
        root = self.test_roots[self.protocol.slug]
        if not any(self.protocol.find(root, one) for one in self.tested):
            raise UserError(f"no folder below {root} to test on, of {', '.join(self.columns[:-1])}")

    def conclude(self, _stop):
        """Tables here, in matrix.md and in matrix.csv; a matrix has no verdicts."""
        ours, theirs = self.lines()
        print(self.text(ours, theirs))
        with written_whole(self.folder / "matrix.csv") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *long_form([*ours, *theirs])])
        with written_whole(self.folder / "matrix.md") as file:
            file.write(self.text(ours, theirs, markdown=True) + "\n")
        print(f"-> {self.folder} (matrix.md, matrix.csv)")

    def record(self):
        """(What the folder's results were made with, else this call's own; train.py's options)."""
        self.ledger.require({"variants": {}}, False)
        path = self.ledger.record
        record = json.loads(path.read_text("utf-8")) if path.is_file() else self.grid.as_dict()
        opt = parsed(TrainOptions(), record["train"], path)
        if (opt.arch, opt.protocol) != (self.opt.arch, self.protocol.slug):
            raise UserError(f"{self.folder} holds {opt.arch} on {opt.protocol}; name another --output")
        return record, opt

    def lines(self):
        """([a Line per finished cell], [a Line per published row]) of the training sets that are shown."""
        self.record()  # another matrix is refused
        path = self.folder / "results.csv"
        self.sweep = Sweep.read(path) if path.is_file() else Sweep([])
        ours = [self.scored(cell) for cell in self.sweep.finished]
        sets = [*self.grid.variants, *(line.train_on for line in ours)]
        self.sets = [one.name for one in chosen(self.protocol, sets, "train")]
        methods = [(trained_on(name, self.protocol), name) for name in published.methods(self.protocol.slug)]
        first = {self.opt.arch, *self.protocol.slug.lower().split("-")}
        methods.sort(key=lambda pair: pair[1].lower().partition("-")[0] not in first)
        return ours, [self.printed(*pair) for name in self.sets for pair in methods if pair[0] == name]

    def scored(self, cell):
        """A finished cell from its scores."""
        path = self.tests / cell["cell"] / self.protocol.slug / "scores.csv"
        _, generators, labels, scores, _ = zip(*read_scores(path), strict=True)
        rows = tabulate(generators, labels, scores, self.columns[:-1], self.protocol.average)
        acc, ap = (
            {one["generator"]: one[name] for one in rows if one[name] == one[name]} for name in METRICS
        )
        why = {one["generator"]: one["reason"] for one in rows}
        return Line(cell["variant"], OURS, acc, ap, cell["seed"], why)

    def printed(self, name, method):
        """A published row; its mean only where all of its generators are shown."""
        theirs = published.lookup(self.protocol.slug, method)
        found = {one: cell for one, cell in theirs.cells.items() if one in self.columns}
        whole = theirs.mean and len(self.tested) == len(self.protocol.generators)
        found |= {MEAN: theirs.mean} if whole else {}
        acc, ap = (
            {one: value for one, cell in found.items() if (value := getattr(cell, metric)) == value}
            for metric in METRICS
        )
        return Line(name, method, acc, ap)

    def text(self, ours, theirs, markdown=False):
        """Both tables and the notes."""
        parts, lines = [f"# {self.opt.arch} on {self.protocol.slug}: trained on one set, tested on each"], []
        for name in self.sets:
            mine = [line for line in ours if line.train_on == name]
            label = OURS if len(mine) < 2 else f"{OURS}, mean of {len(mine)} seeds"
            means = (pd.DataFrame(getattr(line, one) for line in mine).mean().to_dict() for one in METRICS)
            lines += [Line(name, label, *means)] if ours else []
            lines += [line for line in theirs if line.train_on == name]
        for metric, title in METRICS.items():
            shown = [line for line in lines if getattr(line, metric) or line not in theirs]
            parts += [f"## {title}", table(shown, self.columns, metric, markdown)] if shown else []
        return "\n\n".join([*parts, "\n".join(f"* {note}" for note in self.notes(ours, theirs))])

    def notes(self, ours, theirs):
        """What a reader of the tables has to know."""
        record, opt = self.record()
        reasons = {name: why for line in ours for name, why in line.reasons.items() if name != MEAN}
        means = dict.fromkeys(line.reasons[MEAN] or "over generators" for line in ours)
        found = [published.lookup(self.protocol.slug, line.method) for line in theirs]
        absent = [name for name in self.sets if name not in {line.train_on for line in ours}]
        return [
            "marked: tested on the generator that was trained on; -: no number",
            *(
                f"{why} to test on: {', '.join(name for name in reasons if reasons[name] == why)}"
                for why in dict.fromkeys(filter(None, reasons.values()))
            ),
            *(f"mean of ours: {why}" for why in means),
            *(f"not trained and tested here yet: {', '.join(absent)}" for _ in absent[:1]),
            *(f"failed: {cell['cell']}: {cell['error']}" for cell in self.sweep.failed),
            *(f"epoch of ours: {epoch(record['checkpoint'], opt)}" for _ in ours[:1]),
            *(f"flags of {part}.py: {shlex.join(record[part])}" for part in SET_HERE if ours),
            *dict.fromkeys(f"published: {source}" for one in found for source in one.sources),
            *dict.fromkeys(note for one in found for note in one.notes),
        ]


def epoch(checkpoint, opt):
    """How the epoch of our rows was chosen."""
    if checkpoint != "best":
        return f"the {checkpoint} one"
    if opt.select_on_test:
        return "the best on the test images (--select_on_test), so accuracy is optimistic"
    held = f"{100 * opt.val_fraction:g} % of the training" if opt.val_fraction else "the validation"
    return f"the best on {held} images, which were not trained on"


def trained_on(method, row):
    """The training set that a method's name says (SSP-MJ; SSP: the protocol's published one), or None."""
    _, _, suffix = method.partition("-")
    names = [one.name for one in row.training]
    letters = ".*".join(map(re.escape, suffix))  # MJ: Midjourney
    alike = [name for name in names if re.match(letters, name, re.IGNORECASE)]
    exact = [name for name in alike if len(name) == len(suffix)]
    found = exact or alike if suffix else row.train_on or names
    return found[0] if len(found) == 1 else None


def table(lines, columns, metric, markdown):
    """Percent with one decimal, fixed width; what was trained on is bold, on the terminal starred."""
    mark, plain = ("**{}**", "{}") if markdown else ("{}*", "{} ")
    rows = [["trained on", "method", *(plain.format(name) for name in columns)]]
    for line in lines:
        found = {name: f"{100 * value:.1f}" for name, value in getattr(line, metric).items()}
        forms = {name: mark if name == line.train_on and name in found else plain for name in columns}
        words = [form.format(found.get(name, "-")) for name, form in forms.items()]
        rows.append([line.train_on, line.method, *words])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [
        [row[0].ljust(widths[0]), row[1].ljust(widths[1]), *map(str.rjust, row[2:], widths[2:])]
        for row in rows
    ]
    ends = ["-", "-", *(":" if markdown else "-" for _ in columns)]
    rows.insert(1, ["-" * (width - 1) + end for width, end in zip(widths, ends, strict=True)])
    return "\n".join(f"| {' | '.join(row)} |" if markdown else "  ".join(row).rstrip() for row in rows)


def long_form(lines):
    """Rows of matrix.csv: fractions, a row per cell that is there."""
    for line in lines:
        for column in dict.fromkeys([*line.acc, *line.ap]):
            values = line.acc.get(column, ""), line.ap.get(column, "")
            yield line.train_on, column, line.method, line.seed, *values


if __name__ == "__main__":
    run.guard(main)
