"""results.csv of an experiment: a row per cell (one variant trained with one seed), and views of it.

Columns: what a cell is (`cell`, `variant`, `seed`, `status`, `error`, the grid's `reference`, `description`,
`factors`, `setting`: what else differs from the published detector, `parameters`), its training (`epochs`;
`loss`, `val_acc`, `val_ap`: a value per epoch, separated by spaces; `scale_weights`, `scale_factor`: learned
fusion), its test (`<protocol>/<generator>/<metric>`: fractions; `reals`, `fakes`: counts), and its times in
seconds (`train_seconds`, `test_seconds`).  Empty: no value.
"""

import csv
import math

import numpy as np
import pandas as pd

from common import UserError, written_whole
from util.metrics import tabulate

FINISHED, FAILED = "finished", "failed"
TEST_METRICS = ("acc", "ap", "auc", "r_acc", "f_acc", "reals", "fakes")
FIRST = (
    "cell",
    "variant",
    "seed",
    "status",
    "error",
    "reference",
    "description",
    "factors",
    "setting",
    "parameters",
    "epochs",
    "loss",
    "val_acc",
    "val_ap",
    "scale_weights",
    "scale_factor",
)
LAST = ("train_seconds", "test_seconds")
SEPARATOR = "/"  # between protocol, generator and metric


class Sweep:
    """The rows of results.csv."""

    def __init__(self, rows, source="results.csv"):
        """rows: list of {column: text}, as csv reads them."""
        self.rows, self.source = rows, str(source)
        self.finished = [row for row in rows if row["status"] == FINISHED]
        self.failed = [row for row in rows if row["status"] == FAILED]

    @classmethod
    def read(cls, path):
        """Reads results.csv; ValueError where the file is of another kind."""
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = [name for name in FIRST if name not in (reader.fieldnames or ())]
                if missing:
                    raise UserError(f"no column {', '.join(missing)}")
                rows = list(reader)
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path} is no results.csv of an experiment: {error}") from None
        for number, row in enumerate(rows, start=2):
            _require_sound(row, f"{path}, line {number}")
        return cls(rows, path)

    @property
    def reference(self):
        """The variant that the grid compares with, "" where it has no finished cell."""
        return next((row["reference"] for row in self.finished if row["reference"] in self.variants), "")

    @property
    def variants(self):
        """Names of the variants with a finished cell, in the order of the grid."""
        return list(dict.fromkeys(row["variant"] for row in self.finished))

    @property
    def columns(self):
        """[(protocol, generator)] that were tested, in the order of the tables."""
        found = {}
        for row in self.finished:
            for name in row:
                if name.count(SEPARATOR) >= 2 and name.endswith(SEPARATOR + "acc"):
                    protocol, generator = name.removesuffix(SEPARATOR + "acc").split(SEPARATOR, 1)
                    found[protocol, generator] = None
        return list(found)

    @property
    def protocols(self):
        """Slugs of the protocols that were tested."""
        return list(dict.fromkeys(protocol for protocol, _ in self.columns))

    def values(self, metric="acc", protocol=None):
        """{variant: DataFrame} of a test metric: a row per seed, a column per (protocol, generator).

        Generators without a value in any cell are left out.
        """
        wanted = [pair for pair in self.columns if protocol in (None, pair[0])]
        if protocol is not None and not wanted:
            raise UserError(f"no protocol {protocol!r} in {self.source}; it has {', '.join(self.protocols)}")
        frames = {}
        for variant in self.variants:
            rows = [row for row in self.finished if row["variant"] == variant]
            table = [[_number(row, SEPARATOR.join((*pair, metric))) for pair in wanted] for row in rows]
            index = pd.Index([int(row["seed"]) for row in rows], name="seed")
            frames[variant] = pd.DataFrame(table, index, pd.MultiIndex.from_tuples(wanted), dtype=float)
        empty = [pair for pair in wanted if all(frame[pair].isna().all() for frame in frames.values())]
        return {variant: frame.drop(columns=empty) for variant, frame in frames.items()}

    def curves(self, column):
        """{variant: DataFrame} of `loss`, `val_acc` or `val_ap`: a row per seed, a column per epoch."""
        frames = {}
        for variant in self.variants:
            rows = {
                int(row["seed"]): [float(part) for part in row[column].split()]
                for row in self.finished
                if row["variant"] == variant
            }
            longest = max(map(len, rows.values()))  # a run that stopped early is shorter
            table = [curve + [float("nan")] * (longest - len(curve)) for curve in rows.values()]
            frames[variant] = pd.DataFrame(table, rows, range(1, longest + 1), dtype=float)
        return {variant: frame for variant, frame in frames.items() if frame.size}

    def factors(self):
        """{variant: its factors}; () for one without, such as a window or the plain image."""
        return {
            row["variant"]: tuple(float(part) for part in row["factors"].split()) for row in self.finished
        }

    def settings(self):
        """{variant: how it is built but for its factors and their fusion}."""
        return {row["variant"]: row["setting"] for row in self.finished}

    def scale_weights(self):
        """{variant: DataFrame} of learned fusion weights: a row per seed, a column per factor."""
        frames = {}
        for row in self.finished:
            pairs = dict(part.split(":") for part in row["scale_weights"].split())
            if pairs:
                weights = {float(factor): float(weight) for factor, weight in pairs.items()}
                frames.setdefault(row["variant"], {})[int(row["seed"])] = weights
        return {variant: pd.DataFrame.from_dict(rows, orient="index") for variant, rows in frames.items()}

    def confusion(self, variant):
        """[[reals called real, reals called fake], [fakes called real, called fake]], over all its cells."""
        total = np.zeros((2, 2))
        for label, (metric, count) in enumerate((("r_acc", "reals"), ("f_acc", "fakes"))):
            shares, counts = (self.values(name).get(variant) for name in (metric, count))
            right = (shares * counts).sum().sum()
            total[label, label], total[label, 1 - label] = right, counts.sum().sum() - right
        return np.rint(total).astype(int)


def tested(protocol, scores):
    """{"protocol/generator/metric": number or ""} from the rows of a scores.csv."""
    _, generators, labels, values, _ = zip(*scores, strict=True)
    columns = {}
    for line in tabulate(generators, labels, values)[:-1]:
        mine = [label for name, label in zip(generators, labels, strict=True) if name == line["generator"]]
        line |= {"reals": mine.count(0), "fakes": mine.count(1)}
        columns |= {
            SEPARATOR.join((protocol, line["generator"], name)): ""
            if line[name] != line[name]
            else line[name]
            for name in TEST_METRICS
        }
    return columns


def write_results(path, rows):
    """Writes results.csv whole, so that a reader or a kill never meets half of it."""
    tested = list(dict.fromkeys(name for row in rows for name in row if name not in (*FIRST, *LAST)))
    with written_whole(path) as file:
        writer = csv.DictWriter(file, [*FIRST, *tested, *LAST], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _require_sound(row, place):
    """ValueError where a line was damaged: too long or short, no numbers, shares beyond 0 and 1."""
    if None in row or None in row.values():
        raise UserError(f"{place} has not as many values as the heading has columns")
    if row["status"] not in (FINISHED, FAILED):
        raise UserError(f"{place}: status is {FINISHED} or {FAILED}, got {row['status']!r}")
    for name in ("seed", "parameters", "epochs") if row["status"] == FINISHED else ("seed",):
        if not row[name].isdecimal():
            raise UserError(f"{place}: {name} is a whole number, got {row[name]!r}")
    for name, value in row.items():
        if name.count(SEPARATOR) >= 2 and value:
            most = math.inf if name.endswith(("/reals", "/fakes")) else 1
            try:
                sound = 0 <= float(value) <= most
            except ValueError:
                sound = False
            if not sound:
                raise UserError(f"{place}: {name} is a number from 0 to {most}, got {value!r}")


def _number(row, column):
    return float(row[column]) if row.get(column) not in (None, "") else float("nan")
