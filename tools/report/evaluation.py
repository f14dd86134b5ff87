"""What a report says of one results folder: its tables, and a verdict in plain words."""

import math
from argparse import Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path

from common import UserError, read_table
from data.folder import Sample
from data.perturb import parse_view
from data.published import lookup
from util import calibrate, tables, views
from util.evaluate import Task, calibrated_note, tables_of
from util.identity import file_list_sha256
from util.metrics import THRESHOLD
from util.results import read_meta, read_views, reals_of
from util.significance import add_intervals
from util.tables import Column, count, percent, points

NEEDED = ("protocol", "checkpoint", "checkpoint_sha256", "counts", "finished", "bad_files")  # of meta.json
PRINTED = {"threshold": THRESHOLD, "published": "NPR", "reals_from": None}  # where meta.json does not say
METRICS = ("acc", "bal_acc", "ap", "auc", "r_acc", "f_acc", "tpr5", "eer", "brier", "ece_bal")
HEADS = {"bal_acc": "balanced accuracy", "f_acc": "recall", "r_acc": "accuracy of reals"}
LEVEL = 0.95
INTERVAL = "95 % interval"
OTHERS = (
    "generator acc cal_acc r_acc f_acc fpr ap ap_low ap_high auc auc_low auc_high tpr5 eer brier cal_brier "
    "ece_bal cal_ece_bal"
).split()
CHANCE = 0.5
UNTAPPED = 0.1  # AUC above balanced accuracy from which the threshold, not the features, is in the way


@dataclass
class Evaluation:
    """A results folder and the numbers of it, computed from its scores as test.py does."""

    folder: Path
    meta: dict
    task: Task
    threshold: float
    calibration: calibrate.Calibration | None
    scores: dict  # View -> rows of its scores.csv
    notes: list  # below the tables
    rows: dict = field(default_factory=dict)  # View -> rows of its table

    @property
    def title(self):
        """Run and protocol."""
        return f"{self.folder.resolve().parent.name} on {self.task.name}"

    @property
    def slug(self):
        """The same for the name of a file or an anchor."""
        return "-".join(self.folder.resolve().parts[-2:])

    @property
    def first(self):
        """The first view, `native` wherever it was scored, and the rows of its table."""
        return next(iter(self.rows.items()))

    @property
    def metric(self):
        """What the table is about: balanced accuracy, or what a set of one class has."""
        rows = self.first[1]
        return next((name for name in HEADS if not all(math.isnan(row[name]) for row in rows)), "bal_acc")


def read(folder, models, method=None, threshold=None):
    """The Evaluation of a results folder.

    models: {sha256: Loaded}, for the calibration of weights.  method: whose published numbers are compared;
    this and the threshold are by default those that the evaluation's own tables were printed with.
    """
    meta = read_meta(folder, NEEDED)
    printed = PRINTED | meta.get("printed", {})
    threshold = printed["threshold"] if threshold is None else threshold
    path = folder / "table.csv"  # absent after an interruption
    stored = {row["generator"]: row for row in (read_table(path, ("generator",)) if path.is_file() else ())}
    order = [name for name in stored if name != "Mean"] or list(meta["counts"])
    row = meta.get("protocol_row", {})
    theirs = lookup(meta["protocol"], printed["published"] if method is None else method)
    if theirs and len(order) < len(row.get("generators", ())):
        theirs = replace(theirs, mean=None)  # it covers generators that ours leaves out
    task = Task(meta["protocol"], order, average=row.get("average", "macro"), published=theirs)
    by_name, notes = read_views(folder, meta)
    scores = {parse_view(name): [row for row in rows if row[1] in order] for name, rows in by_name.items()}
    if not any(scores.values()):
        raise UserError(f"{folder} has no finished generator; {'; '.join(notes)}".removesuffix("; "))
    try:
        reals = reals_of(printed["reals_from"], meta, scores) if printed["reals_from"] else {}
    except UserError as error:  # they may have been moved, or scored again
        reals, notes = {}, [*notes, f"no FPR of other reals: {error}"]
    loaded = models.get(meta["checkpoint_sha256"])
    found = Evaluation(folder, meta, task, threshold, loaded and calibrate.of(loaded), scores, notes)
    opt = Namespace(metrics=METRICS, threshold=threshold, only=meta.get("only"), ci=None, order="published")
    found.rows = tables_of(opt, task, scores, found.calibration, reals)
    view, rows = found.first
    add_intervals(rows, scores[view], threshold, LEVEL, task.average)
    if not found.calibration:
        add_stored(rows, stored)
    found.notes += [*meta.get("notes", ()), *(theirs.notes if theirs else ())]
    if found.calibration:
        digest = file_list_sha256(Sample(*row[:3]) for row in scores[view])
        found.notes += calibrated_note(found.calibration, scores[view], digest).splitlines()
    return found


def add_stored(rows, stored):
    """Adds the calibrated numbers that table.csv has: without the weights they cannot be computed."""
    for row in rows:
        for name in ("cal_acc", "cal_bal_acc"):
            if text := stored.get(row["generator"], {}).get(name):
                row[name] = float(text)


def main_table(found):
    """(rows, columns) of the table that the report is about: a column per view, then how sure it is."""
    rows, metric, theirs = found.first[1], found.metric, found.task.published
    calibrated = "cal_bal_acc" if "cal_bal_acc" in rows[0] else "cal_acc"
    columns = {"generator": tables.RESULTS["generator"]}
    columns |= {view.name: Column(f"{view.name} %") for view in found.rows}
    columns |= {"calibrated": Column("calibrated %"), "interval": Column(INTERVAL, str)}
    names = [theirs.accuracy] if theirs and theirs.accuracy != metric else []
    names += ["published_acc", "diff_acc", "published_ap", "diff_ap", "images", "reason"]
    columns |= {name: tables.RESULTS[name] for name in names}
    lines = []
    for row, *of_views in zip(rows, *found.rows.values(), strict=True):
        values = {view.name: part[metric] for view, part in zip(found.rows, of_views, strict=True)}
        of_threshold = row.get(calibrated) if metric == "bal_acc" else None
        lines.append({**row, **values, "calibrated": of_threshold, "interval": between(row, metric)})
    return lines, columns


def between(row, metric):
    """An interval in percent, "" where there is none."""
    low, high = (row.get(f"{metric}_{side}", math.nan) for side in ("low", "high"))
    return "" if math.isnan(row[metric] + low + high) else f"{percent(low)} to {percent(high)}"


def all_tables(found):
    """[(slug, caption, rows, columns)] of a report."""
    view, rows = found.first
    metric, least = HEADS[found.metric], f"threshold {found.threshold:g}"
    about = f"{metric.capitalize()} under each view, {least}"
    about += f"; the interval is that of {view.name}" if len(found.rows) > 1 else ""
    if theirs := found.task.published:
        ours = tables.RESULTS[theirs.accuracy].heading.removesuffix(" %")
        about += f"; published: {theirs.method}, {'; '.join(theirs.sources)} (diff: {ours} minus published)"
    found_tables = [("accuracy", about, *main_table(found))]
    others = {name: tables.RESULTS[name] for name in OTHERS}
    found_tables.append(("metrics", f"Other metrics of the view {view.name}, {least}", rows, others))
    if len(found.rows) > 1:
        changes = f"What changes between views; a verdict flips when it differs from that of {view.name}"
        summed = views.summary(list(found.rows), found.scores, found.rows, found.threshold)
        found_tables.append(("views", changes, summed, views.COLUMNS))
    return found_tables


def overview(evaluations):
    """(rows, columns) of a table with a row per results folder."""
    columns = {"title": Column("evaluation", str, "l"), "bal_acc": tables.RESULTS["bal_acc"]}
    columns["interval"] = Column(INTERVAL, str)
    columns |= {name: tables.RESULTS[name] for name in ("ap", "auc", "r_acc", "f_acc")}
    means = [(found.title, found.first[1][-1]) for found in evaluations]
    return [{"title": title, "interval": between(mean, "bal_acc"), **mean} for title, mean in means], columns


# ----- in words -----


def verdict(found):
    """The sentences of the verdict."""
    view, rows = found.first
    *generators, mean = rows
    metric, labels = found.metric, [row[2] for row in found.scores[view]]
    scored = [row for row in generators if row["images"]]
    reals, fakes = (count(labels.count(label)) for label in (0, 1))
    images = f"{reals} real and {fakes} fake images of {len(scored)} generator{'s' * (len(scored) > 1)}"
    if math.isnan(mean[metric]):
        return [f"{images}: no generator has enough images of both classes, so there is no mean."]
    seen = "on the files as they are stored" if not view.steps else f"under the view {view.name}"
    sentences = [f"Mean {HEADS[metric]} is {percent(mean[metric])} % {seen}, over {images}."]
    if interval := between(mean, metric):
        sentences.append(f"For other images and generators of this kind, expect {interval} % ({INTERVAL}).")
    values = {row["generator"]: row[metric] for row in scored if not math.isnan(row[metric])}
    if len(values) > 1:
        lowest = min(values, key=values.get)
        sentences.append(f"The lowest generator is {lowest} with {percent(values[lowest])} %.")
    others = [
        f"{percent(part[-1][metric])} % ({other.name}, {points(part[-1][metric] - mean[metric])} points)"
        for other, part in found.rows.items()
        if other != view and not math.isnan(part[-1][metric])
    ]
    if others:
        sentences.append(f"Under other views it is {', '.join(others)}.")
    if metric != "bal_acc":
        return [*sentences, "A set of one class says nothing about the errors on the other."]
    return [*sentences, *about_threshold(found, mean)]


def about_threshold(found, mean):
    """What another threshold gives, and whether this one is above chance."""
    if mean["auc"] - mean["bal_acc"] > UNTAPPED:
        yield (
            f"AUC is {percent(mean['auc'])} %: the scores order the images better than the threshold "
            f"{found.threshold:g} cuts them ({percent(mean['r_acc'])} % of reals and "
            f"{percent(mean['f_acc'])} % of fakes are called right)."
        )
    for name, words in (("cal_bal_acc", "balanced accuracy"), ("cal_acc", "accuracy")):
        if name in mean:
            yield f"With the calibration of the weights, {words} is {percent(mean[name])} %."
            break
    if mean.get("bal_acc_low", 1) <= CHANCE:
        yield "The interval reaches 50 %, so this may be chance."
