"""What a report says of one results folder: its tables, and a verdict in plain words."""

import math
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

from common import UserError, read_table
from data.folder import Sample
from data.perturb import NATIVE, parse_view
from data.published import Published, lookup
from util import calibrate, tables, views
from util.evaluate import Task, calibrated_note, rows_of
from util.identity import file_list_sha256, read_side_file
from util.metrics import add_recall
from util.results import file_for, finished_scores
from util.tables import Column, count, percent, points

REMEDY = "evaluate again with --overwrite"
NEEDED = ("protocol", "checkpoint", "checkpoint_sha256", "counts", "finished", "bad_files")  # of meta.json
METRICS = ("acc", "bal_acc", "ap", "auc", "r_acc", "f_acc", "tpr5", "eer", "brier", "ece_bal")
HEADS = {"bal_acc": "balanced accuracy", "f_acc": "recall", "r_acc": "accuracy of reals"}
LEVEL = 95
INTERVAL = "95 % interval"
OTHERS = (
    "generator acc cal_acc r_acc f_acc ap ap_low ap_high auc auc_low auc_high tpr5 eer brier cal_brier "
    "ece_bal cal_ece_bal"
).split()
CHANCE = 0.5
UNTAPPED = 0.1  # AUC above balanced accuracy from which the threshold, not the features, is in the way


@dataclass
class Evaluation:
    """A results folder and the numbers of it, computed from its scores as test.py does."""

    folder: Path
    meta: dict
    threshold: float
    scores: dict = field(default_factory=dict)  # View -> rows of its scores.csv
    rows: dict = field(default_factory=dict)  # View -> rows of its table
    changes: list = field(default_factory=list)  # of views.summary
    calibration: calibrate.Calibration | None = None
    published: Published | None = None

    @property
    def title(self):
        """Run and protocol."""
        return f"{self.folder.resolve().parent.name} on {self.meta['protocol']}"

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


def folders_of(path):
    """The results folders that a path names: itself, or those of its protocols."""
    path = Path(path)
    if list(path.glob("scores*.csv")):
        return [path]
    below = sorted({file.parent for file in path.glob("*/scores*.csv")})
    if not below:
        raise UserError(f"{path} holds no scores; expected results/NAME/PROTOCOL or results/NAME")
    return below


def read(folder, method, threshold, models):
    """The Evaluation of a results folder.

    method: whose published numbers are compared; models: {sha256: Loaded}, for the calibration of weights.
    """
    meta = read_side_file(folder / "meta.json", REMEDY, NEEDED)
    found = Evaluation(folder, meta, threshold, published=lookup(meta["protocol"], method))
    if loaded := models.get(meta["checkpoint_sha256"]):
        found.calibration = calibrate.of(loaded)
    stored = stored_rows(folder)
    order = [row["generator"] for row in stored[:-1]] or list(meta["counts"])
    task = Task(meta["protocol"], order, average=meta.get("protocol_row", {}).get("average", "macro"))
    # What test.py would be asked for; only the interval of the first view is shown.
    opt = Namespace(metrics=METRICS, threshold=threshold, only=meta.get("only"), ci=LEVEL)
    for name, record in {NATIVE: meta, **meta.get("views", {})}.items():
        if not record["finished"]:
            continue
        view = parse_view(name)
        scores = finished_scores(folder / file_for(view, "scores.csv"), record, REMEDY)
        theirs = None if view.steps else found.published
        rows = rows_of(opt, task, scores, theirs, found.calibration, several=False)
        add_recall(rows, threshold)
        opt.ci = None
        if not found.rows and not found.calibration:
            add_stored(rows, stored)
        if found.rows and not found.first[0].steps:
            views.add_drops(rows, found.first[1])
        found.scores[view], found.rows[view] = scores, rows
    if not found.rows:
        raise UserError(f"{folder} has no finished generator")
    if len(found.rows) > 1:
        found.changes = views.summary(list(found.rows), found.scores, found.rows, threshold)
    return found


def stored_rows(folder):
    """The rows of table.csv; none where there is no such file, as after an interruption."""
    path = folder / "table.csv"
    return read_table(path, ("generator",)) if path.is_file() else []


def add_stored(rows, stored):
    """Adds the calibrated numbers that table.csv has: without the weights they cannot be computed."""
    known = {row["generator"]: row for row in stored}
    for row in rows:
        for name in ("cal_acc", "cal_bal_acc"):
            if text := known.get(row["generator"], {}).get(name):
                row[name] = float(text)


def main_table(found):
    """(rows, columns) of the table that the report is about: a column per view, then how sure it is."""
    rows, metric = found.first[1], found.metric
    calibrated = "cal_bal_acc" if "cal_bal_acc" in rows[0] else "cal_acc"
    columns = {"generator": tables.RESULTS["generator"]}
    columns |= {view.name: Column(f"{view.name} %") for view in found.rows}
    columns |= {"calibrated": Column("calibrated %"), "interval": Column(INTERVAL, str)}
    if found.published and found.published.accuracy != metric:
        columns[found.published.accuracy] = tables.RESULTS[found.published.accuracy]
    names = ("published_acc", "diff_acc", "published_ap", "diff_ap", "images", "reason")
    columns |= {name: tables.RESULTS[name] for name in names}
    lines = []
    for position, row in enumerate(rows):
        line = row | {view.name: part[position][metric] for view, part in found.rows.items()}
        line["calibrated"] = row.get(calibrated) if metric == "bal_acc" else None
        line["interval"] = between(row, metric)
        lines.append(line)
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
    if found.published:
        ours = tables.RESULTS[found.published.accuracy].heading
        about += f"; published: {found.published.method}, {'; '.join(found.published.sources)}"
        about += f" (diff: {ours.removesuffix(' %')} minus published)"
    found_tables = [("accuracy", about, *main_table(found))]
    others = {name: tables.RESULTS[name] for name in OTHERS}
    found_tables.append(("metrics", f"Other metrics of the view {view.name}, {least}", rows, others))
    if found.changes:
        changes = f"What changes between views; a verdict flips when it differs from that of {view.name}"
        found_tables.append(("views", changes, found.changes, views.COLUMNS))
    return found_tables


def notes(found):
    """The lines below the tables: what the evaluation says, the published numbers, the calibration."""
    lines = [*found.meta.get("notes", ()), *(found.published.notes if found.published else ())]
    if found.calibration:
        scores = found.scores[found.first[0]]
        digest = file_list_sha256(Sample(*row[:3]) for row in scores)
        lines += calibrated_note(found.calibration, scores, digest).splitlines()
    return lines


def overview(evaluations):
    """(rows, columns) of a table with a row per results folder."""
    columns = {"title": Column("evaluation", str, "l"), "interval": Column(INTERVAL, str), **views.COLUMNS}
    columns = {
        name: columns[name] for name in ("title", "bal_acc", "interval", "ap", "auc", "r_acc", "f_acc")
    }
    rows = []
    for found in evaluations:
        mean = found.first[1][-1]
        rows.append({"title": found.title, "interval": between(mean, "bal_acc"), **mean})
    return rows, columns


def others_of(found, metric):
    """{view's name: mean} of the views after the first that have a number."""
    means = {view.name: rows[-1][metric] for view, rows in list(found.rows.items())[1:]}
    return {name: value for name, value in means.items() if not math.isnan(value)}


# ----- in words -----


def verdict(found):
    """The sentences of the verdict."""
    view, rows = found.first
    *generators, mean = rows
    metric, scores = found.metric, found.scores[view]
    reals = sum(row[2] == 0 for row in scores)
    scored = [row for row in generators if row["images"]]
    images = f"{count(reals)} real and {count(len(scores) - reals)} fake images of {len(scored)} generators"
    if len(scored) == 1:
        images = images[:-1]
    if math.isnan(mean[metric]):
        return [f"{images}: no generator has enough images of both classes, so there is no mean."]
    seen = "on the files as they are stored" if not view.steps else f"under the view {view.name}"
    sentences = [f"Mean {HEADS[metric]} is {percent(mean[metric])} % {seen}, over {images}."]
    if interval := between(mean, metric):
        sentences.append(
            f"For other images and generators of this kind, expect {interval} % (95 % interval)."
        )
    values = {row["generator"]: row[metric] for row in scored if not math.isnan(row[metric])}
    if len(values) > 1:
        lowest = min(values, key=values.get)
        sentences.append(f"The lowest generator is {lowest} with {percent(values[lowest])} %.")
    sentences += [*about_views(found), *about_threshold(found, mean)]
    if metric == "bal_acc" and mean.get("bal_acc_low", 1) <= CHANCE:
        sentences.append("The interval reaches 50 %, so this may be chance.")
    return sentences


def about_views(found):
    """What is left under the other views."""
    if others := others_of(found, found.metric):
        before = found.first[1][-1][found.metric]
        parts = [
            f"{percent(mean)} % ({name}, {points(mean - before)} points)" for name, mean in others.items()
        ]
        yield f"Under other views it is {', '.join(parts)}."


def about_threshold(found, mean):
    """What another threshold gives."""
    if found.metric != "bal_acc":
        yield "A set of one class says nothing about the errors on the other."
        return
    if mean["auc"] - mean["bal_acc"] > UNTAPPED:
        yield (
            f"AUC is {percent(mean['auc'])} %: the scores order the images better than the threshold "
            f"{found.threshold:g} cuts them ({percent(mean['r_acc'])} % of reals and "
            f"{percent(mean['f_acc'])} % of fakes are called right)."
        )
    for name, words in (("cal_bal_acc", "balanced accuracy"), ("cal_acc", "accuracy")):
        if name in mean:
            yield f"With the calibration of the weights, {words} is {percent(mean[name])} %."
            return
