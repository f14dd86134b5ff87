"""Figures of an ablation, each from a Sweep (results.csv): a .png or .pdf, by the suffix of its path.

A function returns the path it wrote, or None where the sweep has nothing to show.  What is plotted comes from
`factor_table` and `heatmap_table` below, or straight from the Sweep.
`families` is {(protocol, generator): family}, such as "gan" or "diffusion".
"""

import math

import numpy as np
import pandas as pd

from util.pictures import (
    COLOURS,
    FONT,
    GREY,
    HATCHES,
    RULE,
    WIDTH,
    canvas,
    ink,
    legend_below,
    save,
    style,
    wrap,
)
from util.stats import summarise

METRICS = {
    "acc": "accuracy",
    "ap": "average precision",
    "auc": "ROC AUC",
    "r_acc": "reals called real",
    "f_acc": "fakes called fake",
}
OTHER = "other"  # family of a generator that `families` does not name
STRIP, STEP = 1.14, 0.12  # where points without a place on the factor axis start, and their distance
LABEL = 20  # characters in a line of their names
BESIDE = 3  # so many of them fit where accuracy and AP stand side by side


def factor_table(sweep, families, metric="acc"):
    """A row per variant with factors and family: the mean over its generators in percent and its interval.

    Columns: variant, label, factor, family, mean, low, high.  `factor` is NaN where the variant has several,
    or where an earlier variant has the same one: it gets no place on the line.
    """
    rows, taken, factors = [], set(), sweep.factors()
    for variant, frame in _values(sweep, metric).items():
        fused = len(factors[variant]) > 1
        if not factors[variant]:
            continue
        factor = math.nan if fused or factors[variant][0] in taken else factors[variant][0]
        taken.add(factor)
        groups = {}
        for pair in frame.columns:
            groups.setdefault(families.get(pair) or OTHER, []).append(pair)
        for family, pairs in groups.items():
            found = summarise(frame[pairs])
            if not math.isnan(found.mean):
                numbers = (100 * number for number in (found.mean, found.low, found.high))
                rows.append((variant, _fused_name(variant) if fused else variant, factor, family, *numbers))
    return pd.DataFrame(rows, columns=["variant", "label", "factor", "family", "mean", "low", "high"])


def by_factor(sweep, families, path):
    """Accuracy (left) and AP against the factor, a line per family with 95 % intervals.

    Variants without a place on the factor axis stand in a strip at its right; where they are many, AP comes
    below accuracy instead of beside it.
    """
    tables = [factor_table(sweep, families, metric) for metric in ("acc", "ap")]
    if tables[0].factor.isna().all():
        return None
    extra = list(dict.fromkeys(tables[0][tables[0].factor.isna()].label))
    families_drawn = list(dict.fromkeys(tables[0].family))
    below = 0.07 * max((len(line) for name in extra for line in wrap(name, LABEL).split("\n")), default=0)
    stacked = len(extra) > BESIDE
    figure, axes = canvas(1 + stacked, 2 - stacked, WIDTH, (1 + stacked) * (2.5 + below) + 0.6)
    for axis, table, title in zip(axes.flat, tables, ("accuracy", "average precision"), strict=True):
        place = {label: STRIP + STEP * number for number, label in enumerate(extra)}
        for number, family in enumerate(families_drawn):
            rows = table[table.family == family]
            dodge = 0.014 * (number - (len(families_drawn) - 1) / 2)
            line, rest = rows[rows.factor.notna()].sort_values("factor"), rows[rows.factor.isna()]
            name = family if families_drawn != [OTHER] else "all"
            _errorbar(axis, line.factor + dodge, line, number, label=name)
            _errorbar(axis, rest.label.map(place).astype(float) + dodge, rest, number, linestyle="none")
        _factor_ticks(axis, sorted(table.factor.dropna().unique()), place)
        axis.set_title(f"{title} in %", fontsize=FONT + 2)
    legend_below(figure, axes.flat[0], "generators: mean over them and over seeds, 95 % interval")
    return save(figure, path)


def heatmap_table(sweep, metric="acc"):
    """Percent, mean over seeds: a row per (protocol, generator), a column per variant; None without a value.

    The last row, ("", "mean"), runs over the generators that every variant has.
    """
    frames = _values(sweep, metric)
    table = 100 * pd.DataFrame({variant: frame.mean() for variant, frame in frames.items()})
    if table.empty:
        return None
    common = table.dropna()
    left_out = "" if len(common) == len(table) else f" of {len(common)} common"
    table.loc[("", "mean" + left_out), :] = common.mean()
    return table


def heatmap(sweep, path, metric="acc"):
    """Generators, grouped by protocol, against variants: percent as colour and as number, the mean last."""
    import matplotlib

    table = heatmap_table(sweep, metric)
    if table is None:
        return None
    lines = _heatmap_lines(table)
    label = 0.065 * max(len(name) for name, _, _ in lines)
    cell = min(1.0, max(0.39, (WIDTH - label - 0.7) / len(table.columns)))
    names = [wrap(name, int(cell / 0.07)) for name in table.columns]
    flat = cell > 0.7 and max(name.count("\n") for name in names) < 3
    names = names if flat else [wrap(name, 28) for name in table.columns]
    below = 0.4 if flat else 0.07 * max(len(line) for name in names for line in name.split("\n"))
    height = 0.185 * len(lines) + 0.4 + below
    figure, ((axis,),) = canvas(1, 1, max(4.0, label + cell * len(table.columns) + 0.7), height)
    numbers = np.array([values for _, values, _ in lines])
    norm = matplotlib.colors.Normalize(min(95, 5 * math.floor(np.nanmin(numbers) / 5)), 100)
    drawn = axis.imshow(numbers, aspect="auto", cmap="cividis", norm=norm, interpolation="nearest")
    for row, column in np.ndindex(numbers.shape):
        if lines[row][2] != "head":
            value = numbers[row, column]
            colour = ink(drawn.cmap(norm(value))) if not math.isnan(value) else "black"
            text = "-" if math.isnan(value) else f"{value:.1f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=FONT, color=colour)
    axis.set_yticks(range(len(lines)), [name for name, _, _ in lines], fontsize=FONT)
    for row, (tick, (_, _, kind)) in enumerate(zip(axis.get_yticklabels(), lines, strict=True)):
        if kind != "plain":
            tick.set_fontweight("bold")
            axis.axhline(row - 0.5, color="black", linewidth=1)
    axis.set_xticks(range(len(names)), names, rotation=0 if flat else 90, fontsize=FONT)
    axis.tick_params(length=0)
    bar = figure.colorbar(drawn, ax=axis, aspect=6 * height, pad=0.02, fraction=0.03)
    bar.ax.tick_params(labelsize=FONT)
    axis.set_title(f"{METRICS.get(metric, metric)} in %, mean over seeds", fontsize=FONT + 2)
    return save(figure, path)


def learning_curves(sweep, path):
    """Training loss (left) and validation accuracy over epochs: mean over seeds, band from least to most."""
    loss, accuracy = sweep.curves("loss"), sweep.curves("val_acc")
    names = [name for name in sweep.variants if name in loss or name in accuracy]
    if not names:
        return None
    figure, (axes,) = canvas(1, 2, WIDTH, 3.0 + 0.2 * math.ceil(len(names) / 3))
    for axis, frames, unit in ((axes[0], loss, 1), (axes[1], accuracy, 100)):
        for number, name in enumerate(names):
            frame = unit * frames.get(name, pd.DataFrame(dtype=float))
            look = {**style(number), "markersize": 3, "linewidth": 1.2}
            axis.plot(frame.columns, frame.mean(), label=wrap(name, 34), **look)
            axis.fill_between(
                list(frame.columns), frame.min(), frame.max(), color=look["color"], alpha=0.15, linewidth=0
            )
        axis.set_xlabel("epoch", fontsize=FONT)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.tick_params(labelsize=FONT)
        axis.grid(color=RULE)
    axes[0].set_title("training loss", fontsize=FONT + 2)
    axes[1].set_title("validation accuracy in %", fontsize=FONT + 2)
    legend_below(figure, axes[0], "mean over seeds; the band runs from the lowest to the highest seed")
    return save(figure, path)


def confusion(sweep, path):
    """A 2x2 matrix per variant, summed over seeds and generators: images, and percent of their row."""
    counts = {variant: sweep.confusion(variant) for variant in sweep.variants} if sweep.columns else {}
    counts = {variant: matrix for variant, matrix in counts.items() if matrix.sum()}
    if not counts:
        return None
    columns = min(4, len(counts))
    rows = math.ceil(len(counts) / columns)
    figure, axes = canvas(rows, columns, max(3.0, 1.75 * columns), 2.05 * rows + 0.3)
    for number, axis in enumerate(axes.flat):
        if number >= len(counts):
            axis.set_axis_off()
            continue
        variant, matrix = list(counts.items())[number]
        shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        drawn = axis.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        for row, column in np.ndindex(2, 2):
            text = f"{matrix[row, column]:,}\n{shares[row, column]:.1f} %"
            colour = ink(drawn.cmap(drawn.norm(shares[row, column])))
            axis.text(column, row, text, ha="center", va="center", fontsize=FONT, color=colour)
        axis.set_xticks([0, 1], ["real", "fake"], fontsize=FONT)
        axis.set_yticks([0, 1], ["real", "fake"], fontsize=FONT, rotation=90, va="center")
        axis.set_xlabel("called", fontsize=FONT)
        axis.set_title(wrap(variant, 24), fontsize=FONT + 1)
    for axis in axes[:, 0]:
        axis.set_ylabel("is", fontsize=FONT)
    figure.suptitle("images, and % of those of their class", fontsize=FONT + 1, color=GREY)
    return save(figure, path)


def scale_weights(sweep, path):
    """Learned weight of every factor: bars are means over seeds, points are seeds; a group per variant."""
    frames = sweep.scale_weights()
    if not frames:
        return None
    factors = sorted({factor for frame in frames.values() for factor in frame.columns})
    names = [wrap(name, 16) for name in frames]
    figure, ((axis,),) = canvas(1, 1, max(4.0, min(WIDTH, 1.2 * len(frames) + 2)), 3.4)
    bar = 0.8 / len(factors)
    for number, factor in enumerate(factors):
        places = np.arange(len(frames)) + bar * (number - (len(factors) - 1) / 2)
        columns = [frame[factor] if factor in frame else pd.Series(dtype=float) for frame in frames.values()]
        axis.bar(
            places,
            [column.mean() for column in columns],
            0.92 * bar,
            label=f"factor {factor:g}",
            color=COLOURS[number % 7] + "99",
            edgecolor="black",
            hatch=HATCHES[number % 6],
        )
        for place, column in zip(places, columns, strict=True):
            spread = place + 0.25 * bar * np.linspace(-1, 1, len(column)) * (len(column) > 1)
            axis.plot(spread, column, "o", color="white", markeredgecolor="black", markersize=4)
    turned = max(len(line) for name in names for line in name.split("\n")) * len(names) > 80
    axis.set_xticks(range(len(names)), names, fontsize=FONT, rotation=90 if turned else 0)
    title = "learned weights of the scales; a point is a seed"
    if any("scale_attention" in row["description"] for row in sweep.finished):
        title += "\n(scale attention: of an image of the mean colour)"
    axis.set_title(title, fontsize=FONT + 2)
    axis.tick_params(labelsize=FONT)
    legend_below(figure, axis)
    return save(figure, path)


def differences(sweep, comparisons, path, what="accuracy"):
    """A forest plot: difference of every variant from its reference in points, interval, verdict."""
    order = {variant: number for number, variant in enumerate(sweep.variants)}
    rows = sorted(comparisons, key=lambda one: order.get(one.variant, len(order)))
    if not rows:
        return None
    references = list(dict.fromkeys(one.reference for one in rows))
    names = [one.variant if len(references) == 1 else f"{one.variant} - {one.reference}" for one in rows]
    figure, ((axis,),) = canvas(1, 1, WIDTH, 1.2 + 0.34 * len(rows))
    for place, one in enumerate(rows):
        colour, marker = {"better": (COLOURS[0], "^"), "worse": (COLOURS[3], "v")}.get(
            one.verdict, ("0.55", "o")
        )
        axis.plot([100 * one.low, 100 * one.high], [place, place], color=colour, linewidth=2)
        axis.plot(100 * one.difference, place, marker, color=colour, markersize=7)
        numbers = "" if math.isnan(one.difference) else f"{100 * one.difference:+z.1f}  "
        axis.text(
            1.02,
            place,
            numbers + one.verdict,
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize=FONT,
            color="black" if one.verdict in ("better", "worse") else GREY,
        )
    axis.axvline(0, color="black", linewidth=1, zorder=1)
    axis.set_yticks(range(len(rows)), [wrap(name, 34) for name in names])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(labelsize=FONT)
    axis.grid(axis="x", color=RULE)
    axis.set_axisbelow(True)
    figure.suptitle(wrap(f"{what}: difference from {' or '.join(references)}", 80), fontsize=FONT + 2)
    axis.set_xlabel("points, mean over seeds and generators, with its 95 % interval", fontsize=FONT)
    return save(figure, path)


def draw_all(sweep, families, comparisons, folder, suffix=".png"):
    """Every figure that the sweep has data for, into the folder; returns their paths."""
    drawn = [
        by_factor(sweep, families, folder / f"by_factor{suffix}"),
        heatmap(sweep, folder / f"heatmap_acc{suffix}", "acc"),
        heatmap(sweep, folder / f"heatmap_ap{suffix}", "ap"),
        learning_curves(sweep, folder / f"learning_curves{suffix}"),
        confusion(sweep, folder / f"confusion{suffix}"),
        scale_weights(sweep, folder / f"scale_weights{suffix}"),
        differences(sweep, comparisons, folder / f"differences{suffix}"),
    ]
    return [path for path in drawn if path is not None]


def _values(sweep, metric):
    """The sweep's frames of a metric; {} where nothing was tested."""
    return sweep.values(metric) if sweep.columns else {}


def _errorbar(axis, places, rows, number, label=None, **options):
    """Means of `rows` with their intervals; a mean without an interval is a point alone."""
    mean = rows["mean"].to_numpy()
    length = np.maximum([mean - rows.low, rows.high - mean], 0)
    look = {**style(number), "markersize": 4, "capsize": 2, "linewidth": 1.2, **options}
    axis.errorbar(places.to_numpy(), mean, yerr=length, label=label, **look)


def _factor_ticks(axis, factors, place):
    """Factors on the axis from 0 to 1, and right of it a column for each name in {name: place}."""
    crowded = min(np.diff(factors), default=1) < 0.1
    names = [*(f"{one:g}" for one in factors), *(wrap(name, LABEL) for name in place)]
    axis.set_xticks([*factors, *place.values()], names)
    for number, tick in enumerate(axis.get_xticklabels()):
        tick.set_rotation(90 if number >= len(factors) or crowded else 0)
    axis.set_xlim(-0.02, max([1.02, *(one + 0.08 for one in place.values())]))
    if place:
        axis.axvspan(1.05, axis.get_xlim()[1], color="0.95", zorder=0)
    axis.annotate(
        "factor",
        (0.5, 0),
        (0, -36 if crowded else -20),
        axis.get_xaxis_transform(),
        "offset points",
        ha="center",
        va="top",
        fontsize=FONT,
    )
    axis.tick_params(labelsize=FONT)
    axis.grid(axis="y", color=RULE)


def _fused_name(variant):
    return variant if variant.startswith("fus") else f"fused: {variant}"


def _heatmap_lines(table):
    """[(name, numbers, kind)] from top to bottom: a protocol's "head", its "plain" rows, ..., the "mean"."""
    lines, protocol = [], None
    for (name, generator), numbers in table.iterrows():
        if name not in (protocol, ""):
            lines.append((name, np.full(len(numbers), math.nan), "head"))
        protocol = name
        lines.append((generator, numbers.to_numpy(), "plain" if name else "mean"))
    return lines
