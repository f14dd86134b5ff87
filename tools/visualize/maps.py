"""NPR maps: of a real image and a fake per generator, and of one image in all ways."""

from argparse import Namespace

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF

import networks
from networks.color import SPACES
from networks.npr import MODES, references
from networks.variants import CVIMG_FACTORS
from tools.visualize.images import examples, read_pixels
from util.pictures import DPI, PERCENTILE, around_grey, grid, npr_map, stretched

ZOOM = 24  # side in pixels of the detail that is shown enlarged
LARGEST = 1024  # pixels of the centre crop of `maps`; 24 of them are drawn without loss
COLUMNS = 6  # of `maps`
SCALE = (
    f"NPR by resizing method and factor, by colour space, by window; grey: no difference; white, black: "
    f"the {PERCENTILE}th percentile of a map's absolute values, written below it"
)


def draw_npr(opt):
    """A column per image: the image, its NPR map, an enlarged detail of both."""
    chosen = examples(opt)
    detector = networks.get("npr")()
    columns = []
    for _, path in chosen:
        pixels = read_pixels(path)
        residual = npr_map(detector, pixels)
        shown, (down, across) = around_grey(residual), busiest_window(residual)
        columns.append((pixels, shown, pixels[:, down, across], shown[down, across]))
    names = ("image", "NPR map", f"image, {ZOOM}x{ZOOM} detail", "NPR, same detail")
    return grid(zip(*columns, strict=True), [title for title, _ in chosen], names)


def busiest_window(residual):
    """Slices of the window, even-aligned, whose residual varies most: a flat sky would show nothing."""
    zoom = min(ZOOM, *residual.shape[:2])
    energy = F.avg_pool2d(torch.from_numpy(residual).abs().sum(dim=2)[None], zoom)[0]
    top, left = (zoom * int(number) for number in divmod(int(energy.argmax()), energy.shape[1]))
    return slice(top, top + zoom), slice(left, left + zoom)


def draw_maps(opt):
    """One image and its maps by scale, mode, window and colour space, all stretched by one rule."""
    pixels = read_pixels(opt.image)
    pixels = TF.center_crop(pixels, [min(opt.size, side) for side in pixels.shape[1:]])
    height, width = pixels.shape[1:]
    pictures, words = [pixels], [f"image, {width}x{height}"]
    for title, flags in map_flags().items():
        picture, limit = stretched(npr_map(networks.get("npr").from_options(Namespace(**flags)), pixels))
        pictures.append(picture)
        words.append(f"{title}: \N{PLUS-MINUS SIGN}{limit:.2g}")
    # every pixel of the maps gets a pixel of the picture
    cell = max(1.9, 1.05 * max(height, width) / DPI)
    rows = [pictures[start : start + COLUMNS] for start in range(0, len(pictures), COLUMNS)]
    return grid(rows, [""] * COLUMNS, [""] * len(rows), words, f"{opt.image.name}: {SCALE}", cell)


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
