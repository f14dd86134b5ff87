"""NPR maps, Grad-CAM, and what all figures share: size, format, colours, names in lines, a legend.

Colours suit colour-blind readers; markers, line styles and hatches repeat what colour says, so that a grey
print can be read.  Text of FONT points or more stays readable when a figure is printed WIDTH inches wide.
"""

import re
from itertools import chain

import numpy as np
import torch

from common import UserError, require_package, written_whole

SUFFIXES = (".png", ".pdf")
DPI = 150
WIDTH, FONT = 7.0, 8  # inches of a printed page between its margins; points
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")  # Okabe and Ito, 2008
MARKERS, LINES = "osD^vPX*", ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx", "--", "++")
GREY, RULE = "0.4", "0.9"
PALE = {"framealpha": 0.8, "edgecolor": "none"}  # of a legend over lines
BLACK_ABOVE = 0.179  # luminance from which black has more contrast than white, WCAG 2.1
GAIN = 3.0  # display gain of an NPR map: the residual of a photograph is a few percent of its range
ROUNDING = 1e-4  # smaller values of a map are rounding errors, not structure
PERCENTILE = 99  # of the absolute values of a map: what `stretched` shows as white or black
EVIDENCE = "plasma"  # perceptually uniform, from blue over red to yellow, also in grey from dark to light
OVERLAY = 0.5  # share of the colour in an overlay; the rest is the image in grey

# ----- what a detector sees, and where it finds its evidence -----


def npr_map(detector, pixels):
    """What the first convolution of detector `npr` sees of uint8 pixels (3, H, W).

    Returns (H', W', C), the value of a flat area at 0.
    """
    flat = detector.preprocess(torch.full_like(pixels, 128)[None])[..., :1, :1]
    return (detector.preprocess(pixels[None]) - flat)[0].permute(1, 2, 0).numpy()


def around_grey(values, gain=GAIN):
    """A picture in [0, 1] of values around 0: 0 is grey, 1/gain white, -1/gain black."""
    return np.clip(0.5 + gain * values / 2, 0, 1)


def stretched(values):
    """(picture (H, W, 3) in [0, 1], limit): values (H, W, C) from -limit to limit, from black to white.

    The limit is PERCENTILE of the absolute values, the largest of them where that is 0, and at least
    ROUNDING, so that a map of zeros is grey.
    """
    size = np.abs(values)
    limit = max(float(np.percentile(size, PERCENTILE)) or float(size.max()), ROUNDING)
    picture = np.clip(0.5 + values / (2 * limit), 0, 1)
    return picture.repeat(3 // picture.shape[2], axis=2), limit


def grad_cam(detector, pixels):
    """Where a detector finds evidence for "fake" in uint8 pixels (3, H, W), and its logit.

    The gradient of the logit at detector.cam_layer, averaged over positions, weighs the activations; what is
    negative counts as 0.  Returns (evidence (H, W) stretched to [0, 1], logit).
    Source: Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    package = require_package("grad-cam", "Grad-CAM", "pytorch_grad_cam")
    method = package.GradCAM(model=detector.eval(), target_layers=[detector.cam_layer])
    evidence = method(pixels[None], targets=[lambda logit: logit])[0]
    return evidence, float(method.outputs.detach()[0])


def overlay(pixels, evidence):
    """uint8 pixels (3, H, W) in grey with the evidence (H, W) as colour on it: (H, W, 3) in [0, 1]."""
    import matplotlib
    from torchvision.transforms.functional import rgb_to_grayscale

    grey = rgb_to_grayscale(pixels / 255)[0].numpy()[..., None]
    return (1 - OVERLAY) * grey + OVERLAY * matplotlib.colormaps[EVIDENCE](evidence)[..., :3]


# ----- figures -----


def check_output(path):
    """UserError unless the path names a picture that can be written."""
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output names a picture, {' or '.join(SUFFIXES)}, got {path}")


def canvas(rows, columns, width, height, **options):
    """A figure of that size in inches and its axes, (rows, columns); pyplot and its state stay untouched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def show(axis, picture):
    """Draws a picture without ticks: an array (H, W) or (H, W, 3), or pixels of torch (3, H, W)."""
    axis.set(xticks=[], yticks=[])
    pixels = picture.permute(1, 2, 0).numpy() if torch.is_tensor(picture) else picture
    return axis.imshow(pixels, interpolation="nearest")


def grid(rows, heads, names, words=(), note="", cell=2.0):
    """Rows of pictures: a head above each column, a name left of each row, a note above all.

    words: a text below each picture, row by row; cell: inches of a picture's side.
    """
    width = cell * len(heads) + 0.6
    font = max(FONT + 1, font_for(width))
    letters, line = int(cell * 72 / (0.62 * font)), 1.5 * font / 72
    heads, names, words = ([wrap(text, letters) for text in texts] for texts in (heads, names, words))
    note = wrap(note, int(width * 72 / (0.6 * font)))
    above, below = (max((len(text.splitlines()) for text in texts), default=0) for texts in (heads, words))
    height = len(names) * (cell + below * line) + (above + len(note.splitlines()) + 1) * line
    figure, axes = canvas(len(names), len(heads), width, height)
    figure.suptitle(note, fontsize=font)
    for axis, picture in zip(axes.flat, chain.from_iterable(rows), strict=True):
        show(axis, picture)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=font)
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=font)
    for axis, text in zip(axes.flat, words, strict=False):
        axis.set_xlabel(text, fontsize=font, color=GREY)
    return figure


def save(figure, path):
    """Writes a figure, making its folder; returns the path."""
    check_output(path)
    suffix = path.suffix.lower()[1:]
    # without a date the same figure gives the same file
    metadata = {"CreationDate": None} if suffix == "pdf" else {}
    with written_whole(path, binary=True) as file:
        figure.savefig(file, dpi=DPI, format=suffix, metadata=metadata)
    return path


def font_for(width):
    """Points that are still FONT when a figure `width` inches wide is printed WIDTH inches wide."""
    return FONT * max(1.0, width / WIDTH)


def style(number):
    """Colour, marker and line style of the line with that number; the first 28 all differ."""
    return {"color": COLOURS[number % 7], "linestyle": LINES[number % 4], "marker": MARKERS[number % 8]}


def wrap(name, width=24):
    """A name in lines of that many characters, broken after _ - / or a space, else inside a word."""
    lines = [""]
    for word in re.split(r"(?<=[_/\s-])", str(name)):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.rstrip() for line in lines)


def ink(colour):
    """Black or white, whichever reads better on that colour, (red, green, blue, ...) in [0, 1]."""
    luminance = np.dot(np.power(colour[:3], 2.2), (0.2126, 0.7152, 0.0722))
    return "black" if luminance > BLACK_ABOVE else "white"


def legend_below(figure, axis, title=None):
    """The axis' legend under the whole figure, in as many columns as its names leave room for."""
    handles, labels = axis.get_legend_handles_labels()
    if not labels:
        return
    longest = max(len(line) for label in labels for line in label.split("\n"))
    room = int(figure.get_figwidth() / (0.062 * longest + 0.55))
    columns = max(1, min(room, len(labels)))
    text = {"title": title, "title_fontsize": FONT, "fontsize": FONT, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **text)
