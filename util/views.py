"""What changes between the views of an evaluation: drops, the worst generators, verdicts that flip."""

import math

import numpy as np

from util import tables
from util.tables import Column, percent, points

METRICS = ("bal_acc", "ap", "auc", "r_acc", "f_acc")  # of a table with several views
ERRORS = ("fpr95", "eer", "brier", "nll", "ece", "ece_bal")  # the larger, the worse
COLUMNS = {
    "view": Column("view", str, "l"),
    "bal_acc": Column("bal. acc"),
    "bal_acc_drop": Column("change", points),
    "std": Column("std"),
    "min": Column("lowest"),
    "worst": Column("of", str, "l"),
    "ap": Column("AP %"),
    "ap_drop": Column("change", points),
    "auc": Column("AUC %"),
    "r_acc": Column("real %"),
    "f_acc": Column("fake %"),
    "r_flips": Column("reals flip", percent),
    "f_flips": Column("fakes flip", percent),
}


def text(rows):
    """The summary as a table for the terminal."""
    return tables.text(rows, COLUMNS)


def add_drops(rows, native):
    """Adds the change of balanced accuracy and AP from the rows of the view `native`."""
    before = {row["generator"]: row for row in native}
    for row in rows:
        for metric in ("bal_acc", "ap"):
            if metric in row and metric in before[row["generator"]]:
                change = row[metric] - before[row["generator"]][metric]
                row[f"{metric}_drop"] = None if math.isnan(change) else change


def worst_first(rows):
    """The rows by their first metric, the mean last; generators without a number before it."""
    *generators, mean = rows
    metric = next(name for name in generators[0] if name != "generator") if generators else ""
    sign = -1 if metric in ERRORS else 1
    return [*sorted(generators, key=lambda row: (math.isnan(row[metric]), sign * row[metric])), mean]


def summary(views, scores, shown, threshold):
    """A row per view: means, spread over generators, the lowest, and how many verdicts flip from the first.

    scores: {view: rows of scores.csv}; shown: {view: rows of its table}.
    """
    native = views[0]
    rows = []
    for view in views:
        *generators, mean = shown[view]
        row = {"view": view.name} | {name: mean[name] for name in COLUMNS if name in mean}
        values = {part["generator"]: part.get("bal_acc", math.nan) for part in generators}
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        if values:
            row["worst"] = min(values, key=values.get)
            row |= {"std": float(np.std(list(values.values()))), "min": values[row["worst"]]}
        if view != native:
            row["r_flips"], row["f_flips"] = flips(scores[native], scores[view], threshold)
        rows.append(row)
    return rows


def flips(first, second, threshold):
    """(share of reals, share of fakes) whose verdict differs, of the images in both lists of scores."""
    before = {row[0]: row[3] > threshold for row in first}
    changed = [[], []]
    for path, _, label, score, _ in second:
        if path in before:
            changed[label].append(before[path] != (score > threshold))
    return tuple(float(np.mean(part)) if part else math.nan for part in changed)
