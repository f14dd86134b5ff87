"""Balanced accuracy under ever stronger degradations, from results of --views sweep (or of any views)."""

import math
from dataclasses import dataclass

import numpy as np

from common import UserError
from data.perturb import AS_STORED, PERTURBATIONS, VIEWS, parse_view
from util import tables
from util.metrics import THRESHOLD
from util.pictures import FONT, GREY, RULE, canvas, legend_below, style, wrap
from util.results import read_meta, read_views
from util.significance import interval, over_generators, resampled_accuracy
from util.tables import Column

COLUMNS, WIDE, HIGH = 4, 2.3, 2.1  # panels in a row, and the inches of one
SPREAD = 0.03  # of a panel, between the marks of two detectors, so that no interval hides another
LETTERS = 24  # of all names below a panel; longer ones are turned
LETTER = 0.07  # inches
OTHERS = "other views"  # the panel of named views and of chains, which have no order
MEANING = {
    "jpeg": "quality",
    "webp": "quality",
    "blur": "sigma, pixels",
    "noise": "sigma, grey levels",
    "resize": "factor",
    "fit": "longer side, pixels",
    "crop": "share of each side",
    "gamma": "exponent",
    "sharpen": "percent",
    "screenshot": "factor",
}


@dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy, mean over generators, and its 95 % interval over images and generators."""

    mean: float
    low: float
    high: float


def draw_robustness(opt):
    """A panel per family of steps with a line per detector; prints the area under each line."""
    folders = [folder.resolve() for folder in opt.results]
    metas = [read_meta(folder) for folder in folders]
    found = [scores_of(folder, meta) for folder, meta in zip(folders, metas, strict=True)]
    views, thresholds = shared_views(folders, found), list(map(threshold_of, metas))
    measured = {
        name: {view: accuracy(scores[view], folder, threshold) for view in views}
        for name, folder, scores, threshold in zip(names_of(folders), folders, found, thresholds, strict=True)
    }
    families = families_of(views)
    rows = areas(families, measured)
    columns = {name: Column(name) for name in rows[0]} | {"detector": Column("detector", str, "l")}
    print("area under each curve: mean balanced accuracy of native and the curve's other values, %\n")
    print(tables.text(rows, columns))
    return figure_of(families, measured, note_of(thresholds))


def scores_of(folder, meta):
    """{View: rows of its scores} of a results folder; says which views are left out, and why."""
    found, left_out = read_views(folder, meta)
    print("".join(f"{line}\n" for line in left_out), end="")
    return {parse_view(name): rows for name, rows in found.items()}


def threshold_of(meta):
    """The threshold that the tables of an evaluation were printed with last."""
    return meta.get("printed", {}).get("threshold", THRESHOLD)


def note_of(thresholds):
    """What the numbers of a figure are."""
    values = ", ".join(f"{value:g}" for value in dict.fromkeys(thresholds))
    return (
        f"Balanced accuracy at threshold {values}, mean over generators; "
        "bars: 95 % interval over images and generators"
    )


def shared_views(folders, present):
    """The views of which every folder has scores, in the order of the first; says which are left out.

    present: scores by View, of each folder.
    """
    shared = [view for view in present[0] if all(view in other for other in present)]
    if AS_STORED not in shared or len(shared) < 2:
        names = ", ".join(map(str, folders))
        raise UserError(
            f"{names}: scores of native and of another view are needed; see test.py --views sweep"
        )
    left_out = dict.fromkeys(view.name for views in present for view in views if view not in shared)
    if left_out:
        print(f"left out, not every result has them: {', '.join(left_out)}")
    return shared


def names_of(folders):
    """What each results/<name>/<protocol> is called: its name, both, or its path if those are equal."""
    names = [folder.parent.name for folder in folders]
    if len({folder.name for folder in folders}) > 1:
        names = [f"{folder.parent.name}, {folder.name}" for folder in folders]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def accuracy(rows, folder, threshold=THRESHOLD):
    """The Accuracy of rows of scores.csv; generators of one class are left out."""
    counts = {}  # generator -> for reals and for fakes [right, all]
    for _, generator, label, score, _ in rows:
        count = counts.setdefault(generator, np.zeros((2, 2), int))
        count[label] += (score > threshold) == label, 1
    complete = [count for count in counts.values() if count[:, 1].all()]
    if not complete:
        raise UserError(f"{folder}: no generator has reals and fakes")
    mean = np.mean([right / total for count in complete for right, total in count])
    drawn = [resampled_accuracy(*count.T, seed=number) for number, count in enumerate(complete)]
    return Accuracy(float(mean), *interval(over_generators(drawn)))


def families_of(views):
    """{title of a panel: its views}, native first, then ever stronger; OTHERS is the last."""
    families = {}
    for view in sorted(views, key=strength):
        if view != AS_STORED:
            families.setdefault(family(view), [AS_STORED]).append(view)
    order = dict.fromkeys(map(family, views))  # as listed by the user
    order = sorted((title for title in order if title in families), key=OTHERS.__eq__)
    return {title: families[title] for title in order}


def family(view):
    """The title of the panel that a view belongs to."""
    if view.name in VIEWS or len(view.steps) != 1:
        return OTHERS
    ((name, value, option),) = view.steps
    known = PERTURBATIONS[name]
    title = name if option == next(iter(known.options), "") else f"{name}, {option}"
    if known.lowest < known.harmless < known.highest:
        title += f" {'>' if value > known.harmless else '<'} {known.harmless:g}"
    return title


def strength(view):
    """How far the value of a single step is from doing no harm; 0 for other views."""
    if family(view) == OTHERS:
        return 0
    ((name, value, _),) = view.steps
    harmless = PERTURBATIONS[name].harmless
    return -value if math.isinf(harmless) else abs(value - harmless)


def areas(families, measured):
    """A row per detector: its accuracy on native, and its mean over the values of each curve."""
    rows = []
    for name, of_view in measured.items():
        row = {"detector": name, "native": of_view[AS_STORED].mean}
        curves = {title: views for title, views in families.items() if title != OTHERS}
        row |= {title: float(np.mean([of_view[view].mean for view in curves[title]])) for title in curves}
        rows.append(row)
    return rows


def figure_of(families, measured, title):
    """The figure; every panel has the same scale."""
    columns = min(COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    turned = LETTER * max(len(view.name) for view in families.get(OTHERS, [AS_STORED]))
    figure, axes = canvas(rows, columns, WIDE * columns + 0.4, HIGH * rows + 0.4 + turned, sharey=True)
    figure.suptitle(wrap(title, 30 * columns), fontsize=FONT + 1)
    for axis, (name, views) in zip(axes.flat, families.items(), strict=False):
        draw_panel(axis, name, views, measured)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("balanced accuracy, %", fontsize=FONT)
    legend_below(figure, axes.flat[0])
    return figure


def draw_panel(axis, title, views, measured):
    """The accuracies of each detector under these views, with their intervals."""
    position = np.arange(len(views))
    for number, (name, of_view) in enumerate(measured.items()):
        mean, low, high = (
            100 * np.array([getattr(of_view[view], part) for view in views])
            for part in ("mean", "low", "high")
        )
        look = style(number) | ({"linestyle": "none"} if title == OTHERS else {})
        shift = SPREAD * len(views) * (number - (len(measured) - 1) / 2)
        bars = {"yerr": [mean - low, high - mean], "elinewidth": 0.8, "capsize": 2}
        axis.errorbar(position + shift, mean, **bars, markersize=4, label=wrap(name), **look)
    axis.axhline(50, color=GREY, linewidth=0.8, linestyle=":")
    ticks = ["native", *(tick(view, title) for view in views[1:])]
    axis.set_xticks(position, ticks, fontsize=FONT)
    if sum(map(len, ticks)) > LETTERS:
        axis.tick_params(axis="x", labelrotation=90)
    axis.set_xlim(-0.5, len(views) - 0.5)
    axis.tick_params(labelsize=FONT)
    axis.set_title(title, fontsize=FONT + 1)
    axis.set_xlabel(MEANING.get(views[1].steps[0][0], "") if title != OTHERS else "", fontsize=FONT)
    axis.grid(color=RULE)


def tick(view, title):
    """What a view is called below its mark: its value, of OTHERS its name."""
    return view.name if title == OTHERS else f"{view.steps[0][1]:g}"
