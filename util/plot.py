"""What all pictures share: their size and format, colours, names in lines, a legend below the axes.

Colours suit colour-blind readers; markers, line styles and hatches repeat what colour says, so that a grey
print can be read.  Text of FONT points or more stays readable when a figure is printed WIDTH inches wide.
"""

import re

from common import UserError

SUFFIXES = (".png", ".pdf")
DPI = 150
WIDTH, FONT = 7.0, 8  # inches of a printed page between its margins; points
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")  # Okabe and Ito, 2008
MARKERS, LINES = "osD^vPX*", ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx", "--", "++")
GREY, RULE = "0.4", "0.9"
BLACK_ABOVE = 0.179  # luminance from which black has more contrast than white; WCAG 2.1's formula


def check_suffix(path):
    """ValueError unless the path names a picture that can be written; returns the path."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"a picture is written as {' or '.join(SUFFIXES)}, got {path}")
    return path


def canvas(rows, columns, width, height, **options):
    """A figure of that size in inches and its axes, (rows, columns); pyplot and its state stay untouched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure, path):
    """Writes a figure, making its folder; returns the path."""
    form = check_suffix(path).suffix.lower()[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {"CreationDate": None} if form == "pdf" else {}  # the same figure gives the same file
    figure.savefig(path, dpi=DPI, format=form, metadata=undated)
    return path


def font_for(width):
    """Points that are still FONT when a figure `width` inches wide is printed WIDTH inches wide."""
    return FONT * max(1.0, width / WIDTH)


def style(number):
    """Colour, marker and line style of the line with that number; the first 28 all differ."""
    return {"color": COLOURS[number % 7], "linestyle": LINES[number % 4], "marker": MARKERS[number % 8]}


def wrap(name, width=24):
    """A name in lines of that many characters, broken after _, - or a space, inside a word where it must."""
    lines = [""]
    for word in re.split(r"(?<=[_\s-])", str(name)):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.rstrip() for line in lines)


def ink(colour):
    """Black or white, whichever reads better on that colour, (red, green, blue, ...) in [0, 1]."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > BLACK_ABOVE else "white"


def legend_below(figure, axis, title=None):
    """The axis' legend under the whole figure, in as many columns as its names leave room for."""
    handles, labels = axis.get_legend_handles_labels()
    if not labels:
        return
    longest = max(len(line) for label in labels for line in label.split("\n"))
    room = int(figure.get_figwidth() / (0.062 * longest + 0.55))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, min(room, len(labels))),
        title=title,
        title_fontsize=FONT,
        fontsize=FONT,
        frameon=False,
    )
