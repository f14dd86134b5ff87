"""Published numbers, to be compared with your own.

The CSV files of this folder hold percent, exactly as printed; the functions return fractions.  notes.csv says
where sources contradict each other; series.csv holds validation accuracies per epoch.
"""

import csv
import functools
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from common import UserError

# How the column `note` begins where acc is not the accuracy: the metric of ours that it is.
MEASURES = {"balanced accuracy": "bal_acc", "recall": "f_acc"}
MEAN = "Mean"  # in the column `generator`: the printed mean


class Cell(NamedTuple):
    """One row of a table: fractions, NaN where nothing is published."""

    acc: float = math.nan
    ap: float = math.nan
    r_acc: float = math.nan
    f_acc: float = math.nan


@dataclass(frozen=True)
class Published:
    """What is published of one method on one protocol."""

    protocol: str
    method: str
    cells: dict[str, Cell]  # by generator, without the mean
    mean: Cell | None
    average: str  # of the printed mean: "macro" (over generators) or "micro" (over images)
    sources: tuple[str, ...]
    notes: list[str]
    accuracy: str = "acc"  # the metric (util/metrics.py) that its `acc` is


def methods(protocol=None) -> list[str]:
    """The names of all methods, or of those with numbers on one protocol; sorted."""
    return sorted({row["method"] for row in _rows() if protocol in (None, row["protocol"])})


def lookup(protocol, method) -> Published | None:
    """The published numbers of one method on one protocol; None where there are none."""
    rows = [row for row in _rows() if (row["protocol"], row["method"]) == (protocol, method)]
    if not rows:
        return None
    cells = {row["generator"]: Cell(*(_fraction(row[name]) for name in Cell._fields)) for row in rows}
    mean = cells.pop(MEAN, None)
    average = next((row["average"] for row in rows if row["generator"] == MEAN), "") or "macro"
    sources = tuple(sorted({row["source"] for row in rows}))
    notes = _notes(protocol, method)
    measured = [metric for words, metric in MEASURES.items() if rows[0]["note"].startswith(words)]
    return Published(protocol, method, cells, mean, average, sources, notes, *measured)


def _notes(protocol, method):
    remarks = [row for row in _read("notes.csv") if row["protocol"] == protocol]
    return [row["note"] for row in remarks if method in row["methods"].split()]


def method_named(name, protocols) -> str:
    """The method of this name in upper or lower case; UserError lists those of the given protocols."""
    names = {method.lower(): method for method in methods()}
    if name.lower() not in names:
        known = ", ".join(sorted(set().union(*map(methods, protocols))))
        raise UserError(f"unknown method {name!r}; published on {', '.join(protocols)}: {known or 'none'}")
    return names[name.lower()]


def _rows():
    files = sorted({path.name for path in Path(__file__).parent.glob("*.csv")} - {"notes.csv", "series.csv"})
    return [row for file in files for row in _read(file)]


@functools.cache
def _read(name):
    with open(Path(__file__).with_name(name), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _fraction(percent):
    return float(Decimal(percent) / 100) if percent else math.nan
