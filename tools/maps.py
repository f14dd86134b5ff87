"""Pictures of single images as the detector sees them: NPR maps, and where a checkpoint finds its evidence.

Part of tools/visualize.py, which reads the options.
"""

from argparse import Namespace
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF

import data
import networks
from common import BadImage, UserError
from data.decode import decode
from data.patches import EVALUATION_SEED, patch_sample
from data.transforms import Limits, prepare, to_tensor
from networks import checkpoint
from networks.color import SPACES
from networks.npr import MODES, references
from networks.variants import CVIMG_FACTORS
from util.metrics import THRESHOLD
from util.plot import DPI, GREY, canvas, font_for, save, wrap

GAIN = 3.0  # display gain of an NPR map: the residual of a photograph is a few percent of its range
ZOOM = 24  # side in pixels of the detail that is shown enlarged
ROUNDING = 1e-4  # smaller values are rounding errors, not structure
PERCENTILE = 99  # of the absolute values of a map: what `maps` shows as white or black
LARGEST = 1024  # pixels of the centre crop of `maps`; 24 of them are drawn without loss
MOST_IMAGES = 6  # rows of a cam picture
EVIDENCE = "plasma"  # perceptually uniform, from blue over red to yellow, also in grey from dark to light
OVERLAY = 0.5  # share of the colour in an overlay; the rest is the image in grey
SCALE = (
    f"NPR by resizing method and factor, by colour space, by window; grey: no difference; white, black: "
    f"the {PERCENTILE}th percentile of a map's absolute values, written below it"
)
WARM = (
    'warm colours: evidence for "fake", Grad-CAM of the logit; blue: none. Every map runs from its own '
    "least place (0) to its strongest (1): compare places, not maps."
)


def draw_npr(opt):
    """A column per image: the image, its NPR map, an enlarged detail of both."""
    columns = npr_examples(opt.dataroot, opt.number)
    detector = networks.get("npr")()
    figure, axes = canvas(4, len(columns), width=2.15 * len(columns) + 0.3, height=8.8)
    for line, (title, path) in zip(axes.T, columns, strict=True):
        image = read_image(path)
        residual = detector.preprocess(to_tensor(image)[None])[0].permute(1, 2, 0).numpy()
        shown = np.clip(0.5 + GAIN * residual / 2, 0, 1)
        pixels, detail = np.asarray(image), _busiest_window(residual)
        for axis, picture in zip(line, (pixels, shown, pixels[detail], shown[detail]), strict=True):
            show(axis, picture)
        line[0].set_title(title, fontsize=11)
    heads = ("image", "NPR map", f"image, {ZOOM}x{ZOOM} detail", "NPR, same detail")
    for axis, head in zip(axes[:, 0], heads, strict=True):
        axis.set_ylabel(head, fontsize=10, color=GREY)
    return save(figure, opt.output)


def npr_examples(dataroot, number):
    """[(title, path)]: one real image, then one fake per generator."""
    scan = data.scan(dataroot, data.discover(dataroot))
    chosen = []
    for title, generator, label in [
        ("real", scan.generators()[0], 0),
        *((name, name, 1) for name in scan.generators()),
    ]:
        files = [
            sample.path for sample in scan.samples if (sample.generator, sample.label) == (generator, label)
        ]
        if number >= len(files):
            raise UserError(
                f"--number {number}: {generator} has {len(files)} {'fake' if label else 'real'} images"
            )
        chosen.append((title if label == 0 else f"fake: {title}", scan.root / files[number]))
    return chosen


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


def npr_map(pixels, flags):
    """What conv1 sees of uint8 pixels (3, H, W) with these flags, its neutral value at 0; (H', W', C)."""
    detector = networks.get("npr").from_options(Namespace(**flags))
    neutral = 0.5 if detector.variant.front == "local_grad" else 0
    return (detector.preprocess(pixels[None])[0] - neutral).permute(1, 2, 0).numpy()


def stretched(values):
    """(picture in [0, 1], limit): values from -limit to limit become black to white; limit by PERCENTILE.

    Where that percentile is 0 the largest value takes its place; it is at least ROUNDING, so that a map of
    zeros is grey.
    """
    size = np.abs(values)
    limit = max(float(np.percentile(size, PERCENTILE)) or float(size.max()), ROUNDING)
    picture = np.clip(0.5 + values / (2 * limit), 0, 1)
    return picture.repeat(3 // picture.shape[2], axis=2), limit


def draw_maps(opt):
    """One image and its maps by scale, mode, window and colour space, all stretched by one rule."""
    if opt.size > LARGEST:
        raise UserError(f"--size is at most {LARGEST}, got {opt.size}")
    image = read_image(opt.image)
    image = TF.center_crop(image, [min(opt.size, image.height), min(opt.size, image.width)])
    pixels = to_tensor(image)
    maps = {title: npr_map(pixels, flags) for title, flags in map_flags().items()}
    columns = len(references(2))
    rows = -(-(len(maps) + 1) // columns)
    cell = max(1.9, 1.05 * max(image.size) / DPI)  # every pixel of the maps gets a pixel of the picture
    font = font_for(columns * cell)
    figure, axes = canvas(rows, columns, columns * cell, rows * (cell + 3.2 * font / 72) + 4.5 * font / 72)
    show(axes[0, 0], np.asarray(image))
    axes[0, 0].set_title("image", fontsize=font)
    axes[0, 0].set_xlabel(f"{image.width}x{image.height}", fontsize=font, color=GREY)
    for axis, (title, values) in zip(axes.flat[1:], maps.items(), strict=True):
        picture, limit = stretched(values)
        show(axis, picture)
        axis.set_title(title, fontsize=font)
        axis.set_xlabel(f"\N{PLUS-MINUS SIGN}{limit:.2g}", fontsize=font, color=GREY)
    figure.suptitle(f"{wrap(opt.image.name, 80)}\n{wrap(SCALE, 105)}", fontsize=font)
    return save(figure, opt.output)


def draw_cam(opt):
    """A row per image: the image, then for every checkpoint where it sees evidence for "fake"."""
    require_grad_cam()
    examples, note = examples_of(opt)
    images = [(title, read_image(path), path) for title, path in examples]
    loaded = [checkpoint.load(path) for path in opt.model_path]
    width = max(5.0, 2.1 * (len(loaded) + 1) + 0.9)
    font = max(font_for(width), 9)
    letters = int(1.9 * 72 / (0.62 * font))
    alike = len({(geometry(one), one.detector.data_config.patches) for one in loaded}) == 1
    image_title = "image" if alike else "image as the first checkpoint gets it"
    titles = [wrap(title, letters) for title in (image_title, *run_titles(loaded))]
    height = 2.35 * len(images) + (6 + max(title.count("\n") for title in titles)) * 1.3 * font / 72
    figure, axes = canvas(len(images), len(loaded) + 1, width, height)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=font)
    for line, (title, image, path) in zip(axes, images, strict=True):
        line[0].set_ylabel(wrap(title, letters), fontsize=font)
        for axis, one in zip(line[1:], loaded, strict=True):
            pixels = prepared(image, one, path)
            evidence, logit = grad_cam(one.detector, pixels)
            drawn = show(axis, overlay(pixels, evidence))
            axis.set_xlabel(verdict(logit), fontsize=font)
        show(line[0], prepared(image, loaded[0], path).permute(1, 2, 0).numpy())
    drawn.set(cmap=EVIDENCE, clim=(0, 1))  # for the bar only: the overlays hold colours already
    bar = figure.colorbar(
        drawn, ax=axes.ravel().tolist(), location="bottom", fraction=0.04, pad=0.02, aspect=40
    )
    bar.ax.tick_params(labelsize=font)
    bar.set_label(wrap(f"{WARM} {note}", int(width * 72 / (0.6 * font))), fontsize=font)
    return save(figure, opt.output)


def examples_of(opt):
    """([(title, path)], a note): the files named, or one real image and a fake per generator."""
    if opt.images:
        if opt.number is not None:
            raise UserError("--number chooses from --dataroot; --images names its files")
        if len(opt.images) > MOST_IMAGES:
            raise UserError(f"--images takes at most {MOST_IMAGES} files, got {len(opt.images)}")
        return [("/\n".join(path.parts[-3:]), path) for path in opt.images], ""
    found = npr_examples(opt.dataroot, opt.number or 0)
    left_out = len(found) - MOST_IMAGES
    return found[:MOST_IMAGES], f"Left out: {left_out} more." if left_out > 0 else ""


def require_grad_cam():
    """The package's GradCAM class; ValueError with the way to install it where it is missing."""
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        raise UserError("cam needs the package grad-cam: pip install grad-cam") from error
    return GradCAM


def grad_cam(detector, pixels):
    """(evidence for "fake" from 0 to 1, (H, W), and the logit) of uint8 pixels (3, H, W).

    Gradient of the logit at detector.cam_layer, averaged over places, weighs the activations; what is
    negative counts as 0; then the least place becomes 0 and the strongest 1.
    Source: Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    method = require_grad_cam()(model=detector.eval(), target_layers=[detector.cam_layer])
    evidence = method(pixels[None], targets=[lambda logit: logit])[0]
    return evidence, float(method.outputs.detach()[0])


def geometry(loaded):
    """The geometry of a checkpoint's own validation, which predict.py uses too."""
    unset = dict.fromkeys(("loadSize", "cropSize", "resize_rule", "rz_interp"))
    asked = Namespace(**unset, no_resize=False, no_crop=False)
    return data.eval_geometry(asked, loaded.detector.data_config, trained=loaded.options)


def prepared(image, loaded, path):
    """The uint8 pixels (3, H, W) that predict.py would give to this checkpoint; of patches the first."""
    config, form = loaded.detector.data_config, geometry(loaded)
    if config.noise_bits == 16:
        raise UserError("cam draws over 8-bit pictures; this detector reads 16-bit noise")
    try:
        if config.patches:
            return patch_sample(image, form, replace(config.patches, vote=1), EVALUATION_SEED)["image"]
        return prepare(image, form, Limits(config.min_side))
    except BadImage as error:
        raise UserError(f"bad image {path}: {error}") from error


def overlay(pixels, evidence):
    """The image in grey with the evidence as colour on it, (H, W, 3) in [0, 1]."""
    import matplotlib

    grey = TF.rgb_to_grayscale(pixels / 255)[0].numpy()[..., None]
    return (1 - OVERLAY) * grey + OVERLAY * matplotlib.colormaps[EVIDENCE](evidence)[..., :3]


def verdict(logit):
    """The score and what it says, for the line below an overlay."""
    score = float(torch.tensor(logit).sigmoid())
    return f"score {score:.2f}: {'fake' if score > THRESHOLD else 'real'}"


def run_titles(loaded):
    """Run names; runs that share one are told apart by their file, then by its hash."""
    titles = [one.run_name for one in loaded]
    for extra in (lambda one: Path(one.path).stem, lambda one: one.sha256[:8]):
        shared = Counter(titles)
        titles = [
            f"{title} {extra(one)}" if shared[title] > 1 else title
            for title, one in zip(titles, loaded, strict=True)
        ]
    return titles


def read_image(path):
    """The RGB image of a file; ValueError with the path and the reason."""
    try:
        return decode(path)
    except BadImage as error:
        raise UserError(f"bad image {path}: {error}") from error


def show(axis, picture):
    """A picture without ticks."""
    axis.set(xticks=[], yticks=[])
    return axis.imshow(picture, interpolation="nearest")


def _busiest_window(residual):
    """Slices of the window, even-aligned, whose residual varies most: a flat sky would show nothing."""
    zoom = min(ZOOM, *residual.shape[:2])
    height, width = (side - side % zoom for side in residual.shape[:2])
    energy = np.abs(residual[:height, :width]).sum(axis=2)
    energy = energy.reshape(height // zoom, zoom, width // zoom, zoom).sum(axis=(1, 3))
    top, left = np.unravel_index(np.argmax(energy), energy.shape)
    return slice(top * zoom, (top + 1) * zoom), slice(left * zoom, (left + 1) * zoom)
