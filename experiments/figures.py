"""Figures of an experiment, each from a Sweep (results.csv): a .png or .pdf, by the suffix of its path.

A function returns the path it wrote, or None where the sweep has nothing to show.  `families` is
{(protocol, generator): family}, such as "gan" or "diffusion".
"""

import math

import numpy as np

from experiments.results import pandas
from util.pictures import FONT, GREY, HATCHES, RULE, WIDTH, canvas, ink, legend_below, save, style, wrap
from util.stats import summarise

METRICS = {"acc": "accuracy", "ap": "average precision"}
OTHER = "other"  # family of a generator that `families` does not name
# Variants without a single factor are in a strip at the right of the factor axis.
STRIP, STEP = 1.14, 0.12  # where it starts, and the distance of two variants
LABEL = 28  # characters in a line of a name on an axis


def split_by_family(frame, families):
    """{family: the columns of its generators}, in the order of the columns."""
    names = frame.columns.map(lambda pair: families.get(pair) or OTHER)
    return {family: frame.loc[:, names == family] for family in names.unique()}


def factor_table(sweep, families, metric="acc"):
    """A row per variant with factors and family: the mean over its generators in percent and its interval.

    Columns: variant, factor, family, mean, low, high.  `factor` is NaN, and not drawn on the line, where the
    variant has several or an earlier variant has the same one.
    """
    rows, drawn = [], set()
    for variant, frame in sweep.values(metric).items():
        factors = sweep.factors[variant]
        if not factors:
            continue
        factor = math.nan if len(factors) > 1 or factors in drawn else factors[0]
        drawn.add(factors)
        for family, group in split_by_family(frame, families).items():
            total = summarise(group)
            rows.append((variant, factor, family, total.mean, total.low, total.high))
    columns = ["mean", "low", "high"]
    table = pandas().DataFrame(rows, columns=["variant", "factor", "family", *columns])
    table[columns] *= 100
    return table.dropna(subset="mean").reset_index(drop=True)


def by_factor(sweep, families, path):
    """Accuracy (above) and AP against the factor, a line per family with 95 % intervals.

    Variants without one factor of their own are in a strip at the right.
    """
    tables = [factor_table(sweep, families, metric) for metric in METRICS]
    if tables[0].factor.isna().all():
        return None
    extra = dict.fromkeys(tables[0][tables[0].factor.isna()].variant)
    strip = {variant: STRIP + STEP * number for number, variant in enumerate(extra)}
    drawn = list(dict.fromkeys(tables[0].family))
    below = 0.07 * _longest_line(wrap(name, LABEL) for name in extra)
    figure, axes = canvas(2, 1, WIDTH, 2 * (2.7 + below))
    for axis, table, title in zip(axes.flat, tables, METRICS.values(), strict=True):
        for number, family in enumerate(drawn):
            rows = table[table.family == family]
            rows = rows.assign(
                x=rows.factor.fillna(rows.variant.map(strip)) + 0.014 * (number - (len(drawn) - 1) / 2)
            )
            name = family if drawn != [OTHER] else "all"
            single = rows.factor.notna()
            _errorbar(axis, rows[single].sort_values("factor"), number, label=name)
            _errorbar(axis, rows[~single], number, linestyle="none")
        factors = sorted(table.factor.dropna().unique())
        names = [*(f"{factor:g}" for factor in factors), *(wrap(name, LABEL) for name in strip)]
        axis.set_xticks([*factors, *strip.values()], names, rotation=90)
        axis.set_xlim(-0.02, max([1.02, *(position + 0.08 for position in strip.values())]))
        if strip:
            axis.axvspan(1.05, axis.get_xlim()[1], color="0.95", zorder=0)
        _finish(axis, f"{title} in %", "factor", grid="y")
    legend_below(figure, axes.flat[0], "generators: mean over them and over seeds, 95 % interval")
    return save(figure, path)


def _errorbar(axis, rows, number, **options):
    """Means of `rows` at their x with their intervals; a mean without an interval is only a point."""
    length = np.maximum([rows["mean"] - rows.low, rows.high - rows["mean"]], 0)
    look = {**style(number), "markersize": 4, "capsize": 2, "linewidth": 1.2, **options}
    axis.errorbar(rows.x, rows["mean"], yerr=length, **look)


def _finish(axis, title, x_label="", grid=None):
    """Title, label and text size of an axis; grid: "x", "y" or "both"."""
    axis.set_title(title, fontsize=FONT + 2)
    axis.set_xlabel(x_label, fontsize=FONT)
    axis.tick_params(labelsize=FONT)
    if grid:
        axis.grid(axis=grid, color=RULE)
        axis.set_axisbelow(True)


def heatmap_table(sweep, metric="acc"):
    """Percent, mean over seeds: a row per (protocol, generator), a column per variant; None without a value.

    The last row, ("", "mean"), runs over the generators that every variant has.
    """
    means = {variant: frame.mean() for variant, frame in sweep.values(metric).items()}
    table = 100 * pandas().DataFrame(means)
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
    rows = []  # (protocol, generator); without a generator a heading, without a protocol the mean
    for protocol, generator in table.index:
        if protocol and (protocol, "") not in rows:
            rows.append((protocol, ""))
        rows.append((protocol, generator))
    numbers = table.reindex(rows).to_numpy()
    label = 0.065 * max(len(generator or protocol) for protocol, generator in rows)
    cell = min(1.0, max(0.39, (WIDTH - label - 0.7) / len(table.columns)))
    names = [wrap(name, LABEL) for name in table.columns]
    height = 0.185 * len(rows) + 0.4 + 0.07 * _longest_line(names)
    figure, ((axis,),) = canvas(1, 1, max(4.0, label + cell * len(table.columns) + 0.7), height)
    norm = matplotlib.colors.Normalize(min(95, 5 * math.floor(np.nanmin(numbers) / 5)), 100)
    image = axis.imshow(numbers, aspect="auto", cmap="cividis", norm=norm, interpolation="nearest")
    for (row, column), value in np.ndenumerate(numbers):
        if rows[row][1]:
            _write(axis, image, row, column, "-" if math.isnan(value) else f"{value:.1f}")
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(rows)), [generator or protocol for protocol, generator in rows])
    _finish(axis, f"{METRICS[metric]} in %, mean over seeds")
    for row, tick in enumerate(axis.get_yticklabels()):
        if not all(rows[row]):
            tick.set_fontweight("bold")
            axis.axhline(row - 0.5, color="black", linewidth=1)
    bar = figure.colorbar(image, ax=axis, aspect=6 * height, pad=0.02, fraction=0.03)
    bar.ax.tick_params(labelsize=FONT)
    return save(figure, path)


def _write(axis, image, row, column, text):
    """Text in the middle of a cell, in black or white as the colour of the image there allows."""
    value = image.get_array()[row, column]
    colour = "black" if np.ma.is_masked(value) else ink(image.cmap(image.norm(value)))
    axis.text(column, row, text, ha="center", va="center", fontsize=FONT, color=colour)


def learning_curves(sweep, path):
    """Training loss (left) and validation accuracy over epochs: mean over seeds, band from least to most."""
    loss, accuracy = sweep.curves("loss"), sweep.curves("val_acc")
    names = [name for name in sweep.variants if name in loss or name in accuracy]
    if not names:
        return None
    figure, (axes,) = canvas(1, 2, WIDTH, 3.0 + 0.2 * math.ceil(len(names) / 3))
    panels = (("training loss", loss, 1), ("validation accuracy in %", accuracy, 100))
    for axis, (title, frames, unit) in zip(axes, panels, strict=True):
        for number, name in enumerate(names):
            frame = unit * frames.get(name, pandas().DataFrame(dtype=float))
            look = {**style(number), "markersize": 3, "linewidth": 1.2}
            axis.plot(frame.columns, frame.mean(), label=wrap(name, 34), **look)
            band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
            axis.fill_between(list(frame.columns), frame.min(), frame.max(), **band)
        axis.xaxis.get_major_locator().set_params(integer=True)
        _finish(axis, title, "epoch", grid="both")
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
    for axis in axes.flat[len(counts) :]:
        axis.set_axis_off()
    for axis, (variant, matrix) in zip(axes.flat, counts.items(), strict=False):
        shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            _write(axis, image, row, column, f"{matrix[row, column]:,}\n{share:.1f} %")
        axis.set_xticks([0, 1], ["real", "fake"])
        axis.set_yticks([0, 1], ["real", "fake"])
        axis.set_ylabel("is", fontsize=FONT)
        _finish(axis, wrap(variant, 24), "called")
    figure.suptitle("images, and % of those of their class", fontsize=FONT + 1, color=GREY)
    return save(figure, path)


def scale_weights(sweep, path):
    """Learned weight of every factor: bars are means over seeds, points are seeds; a group per variant."""
    frames = sweep.scale_weights()
    if not frames:
        return None
    factors = sorted({factor for frame in frames.values() for factor in frame.columns})
    names = [wrap(name, LABEL) for name in frames]
    figure, ((axis,),) = canvas(1, 1, max(4.0, min(WIDTH, 1.2 * len(frames) + 2)), 4)
    width = 0.8 / len(factors)
    for number, factor in enumerate(factors):
        centres = np.arange(len(frames)) + width * (number - (len(factors) - 1) / 2)
        columns = [frame.get(factor, pandas().Series(dtype=float)) for frame in frames.values()]
        means = [column.mean() for column in columns]
        look = {"color": style(number)["color"] + "99", "edgecolor": "black", "hatch": HATCHES[number % 6]}
        axis.bar(centres, means, 0.92 * width, label=f"factor {factor:g}", **look)
        for centre, column in zip(centres, columns, strict=True):
            spread = centre + 0.25 * width * np.linspace(-1, 1, len(column)) * (len(column) > 1)
            axis.plot(spread, column, "o", color="white", markeredgecolor="black", markersize=4)
    axis.set_xticks(range(len(names)), names, rotation=90)
    title = "learned weights of the scales; a point is a seed"
    if any("scale_attention" in row["description"] for row in sweep.finished):
        title += "\n(scale attention: of an image of the mean colour)"
    _finish(axis, title)
    legend_below(figure, axis)
    return save(figure, path)


def differences(comparisons, path, what="accuracy"):
    """A forest plot: difference of every variant from the reference in points, interval, verdict."""
    if not comparisons:
        return None
    figure, ((axis,),) = canvas(1, 1, WIDTH, 1.2 + 0.34 * len(comparisons))
    looks = {"better": (style(0)["color"], "^", "black"), "worse": (style(3)["color"], "v", "black")}
    text = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": FONT}
    for number, row in enumerate(comparisons):
        colour, marker, written = looks.get(row.verdict, ("0.55", "o", GREY))
        axis.plot([100 * row.low, 100 * row.high], [number, number], color=colour, linewidth=2)
        axis.plot(100 * row.difference, number, marker, color=colour, markersize=7)
        points = "" if math.isnan(row.difference) else f"{100 * row.difference:+z.1f}  "
        axis.text(1.02, number, points + row.verdict, color=written, **text)
    axis.axvline(0, color="black", linewidth=1, zorder=1)
    axis.set_yticks(range(len(comparisons)), [wrap(row.variant, 34) for row in comparisons])
    axis.set_ylim(len(comparisons) - 0.5, -0.5)
    title = wrap(f"{what}: difference from {comparisons[0].reference}", 60)
    _finish(axis, title, "points, mean over seeds and generators, with its 95 % interval", grid="x")
    return save(figure, path)


def draw_all(sweep, families, comparisons, folder, suffix=".png"):
    """Every figure that the sweep has data for, into the folder; returns their paths."""
    drawn = [by_factor(sweep, families, folder / f"by_factor{suffix}")]
    drawn += [heatmap(sweep, folder / f"heatmap_{metric}{suffix}", metric) for metric in METRICS]
    for draw in (learning_curves, confusion, scale_weights):
        drawn.append(draw(sweep, folder / f"{draw.__name__}{suffix}"))
    drawn.append(differences(comparisons, folder / f"differences{suffix}"))
    return [path for path in drawn if path is not None]


def _longest_line(names):
    return max((len(line) for name in names for line in name.split("\n")), default=0)
