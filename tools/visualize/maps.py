"""NPR maps: of a real image and a fake per generator, and of one image in all ways."""

from argparse import Namespace

import numpy as np
import torchvision.transforms.functional as TF

import networks
from data.transforms import to_tensor
from networks.color import SPACES
from networks.npr import MODES, references
from networks.variants import CVIMG_FACTORS
from tools.visualize.images import examples_below, read_image
from util import pictures
from util.pictures import DPI, GREY, PERCENTILE, font_for, npr_map, stretched, wrap

ZOOM = 24  # side in pixels of the detail that is shown enlarged
LARGEST = 1024  # pixels of the centre crop of `maps`; 24 of them are drawn without loss
SCALE = (
    f"NPR by resizing method and factor, by colour space, by window; grey: no difference; white, black: "
    f"the {PERCENTILE}th percentile of a map's absolute values, written below it"
)


def draw_npr(opt):
    """A column per image: the image, its NPR map, an enlarged detail of both."""
    examples = examples_below(opt.dataroot, opt.index or 0)
    detector = networks.get("npr")()
    columns = []
    for _, path in examples:
        image = read_image(path)
        residual = npr_map(detector, to_tensor(image))
        shown, pixels, detail = pictures.around_grey(residual), np.asarray(image), busiest_window(residual)
        columns.append((pixels, shown, pixels[detail], shown[detail]))
    names = ("image", "NPR map", f"image, {ZOOM}x{ZOOM} detail", "NPR, same detail")
    titles = [title for title, _ in examples]
    rows = zip(*columns, strict=True)
    figure, axes = pictures.grid(rows, titles, names, width=2.15 * len(columns) + 0.3, height=8.8, font=11)
    for axis in axes[:, 0]:
        axis.yaxis.label.set(fontsize=10, color=GREY)
    return figure


def busiest_window(residual):
    """Slices of the window, even-aligned, whose residual varies most: a flat sky would show nothing."""
    zoom = min(ZOOM, *residual.shape[:2])
    height, width = (side - side % zoom for side in residual.shape[:2])
    energy = np.abs(residual[:height, :width]).sum(axis=2)
    energy = energy.reshape(height // zoom, zoom, width // zoom, zoom).sum(axis=(1, 3))
    top, left = np.unravel_index(np.argmax(energy), energy.shape)
    return slice(top * zoom, (top + 1) * zoom), slice(left * zoom, (left + 1) * zoom)


def draw_maps(opt):
    """One image and its maps by scale, mode, window and colour space, all stretched by one rule."""
    image = read_image(opt.image)
    image = TF.center_crop(image, [min(opt.size, image.height), min(opt.size, image.width)])
    pixels = to_tensor(image)
    build = networks.get("npr").from_options
    maps = {title: npr_map(build(Namespace(**flags)), pixels) for title, flags in map_flags().items()}
    columns = len(references(2))
    rows = -(-(len(maps) + 1) // columns)
    # every pixel of the maps gets a pixel of the picture
    cell = max(1.9, 1.05 * max(image.size) / DPI)
    font = font_for(columns * cell)
    height = rows * (cell + 3.2 * font / 72) + 4.5 * font / 72
    figure, axes = pictures.canvas(rows, columns, columns * cell, height)
    cells = [("image", np.asarray(image), f"{image.width}x{image.height}")]
    for title, values in maps.items():
        picture, limit = stretched(values)
        cells.append((title, picture, f"\N{PLUS-MINUS SIGN}{limit:.2g}"))
    for axis, (title, picture, below) in zip(axes.flat, cells, strict=True):
        pictures.show(axis, picture)
        axis.set_title(title, fontsize=font)
        axis.set_xlabel(below, fontsize=font, color=GREY)
    figure.suptitle(f"{wrap(opt.image.name, 80)}\n{wrap(SCALE, 105)}", fontsize=font)
    return figure


def map_flags():
    """{title: flags of the detector}, six in a row: local gradient and colours, scales by mode, windows."""
    colours = {f"{name}, 0.5": {"npr_color": name} for name in SPACES if name != "rgb"}
    scales = {
        f"{mode}, {factor:g}": {"npr_factor": factor, "npr_mode": mode}
        for mode in MODES
        for factor in CVIMG_FACTORS
    }
    windows = {f"window 2, {ref}": {"npr_window": 2, "npr_ref": ref} for ref in references(2)}
    return {"local gradient": {"npr_front": "local_grad"}, **colours, **scales, **windows}
