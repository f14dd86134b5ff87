"""Where checkpoints find evidence for "fake": Grad-CAM over the images as each of them gets them."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch

import data
from common import UserError
from data.patches import EVALUATION_SEED, patch_sample
from data.transforms import Limits, prepare
from networks import checkpoint
from tools.visualize.images import examples_of, naming, read_image
from util.metrics import THRESHOLD
from util.pictures import EVIDENCE, font_for, grad_cam, grid, overlay, require_grad_cam, wrap

WARM = (
    'warm colours: evidence for "fake", Grad-CAM of the logit; blue: none. Every map runs from its own '
    "weakest point (0) to its strongest (1): compare positions, not maps."
)


def draw_cam(opt):
    """A row per image: the image, then for every checkpoint where it sees evidence for "fake"."""
    require_grad_cam()
    examples, note = examples_of(opt)
    images = [(read_image(path), path) for _, path in examples]
    loaded = [checkpoint.load(path) for path in opt.model_path]
    rows, verdicts = [], []  # of pictures; of words below them, picture by picture
    for image, path in images:
        inputs = [prepared(image, one, path) for one in loaded]
        maps = [grad_cam(one.detector, pixels) for one, pixels in zip(loaded, inputs, strict=True)]
        overlays = [overlay(pixels, evidence) for pixels, (evidence, _) in zip(inputs, maps, strict=True)]
        rows.append([inputs[0].permute(1, 2, 0).numpy(), *overlays])
        verdicts += ["", *(verdict(logit) for _, logit in maps)]

    width = max(5.0, 2.1 * (len(loaded) + 1) + 0.9)
    font = max(font_for(width), 9)
    letters = int(1.9 * 72 / (0.62 * font))
    same_input = len({(geometry(one), one.detector.data_config.patches) for one in loaded}) == 1
    image_title = "image" if same_input else "image as the first checkpoint gets it"
    heads = [wrap(title, letters) for title in (image_title, *run_titles(loaded))]
    label = wrap(f"{WARM} {note}", int(width * 72 / (0.6 * font)))
    lines = 7 + max(head.count("\n") for head in heads) + label.count("\n")
    height = 2.5 * len(rows) + lines * 1.3 * font / 72
    names = [wrap(title, letters) for title, _ in examples]
    figure, axes = grid(rows, heads, names, width, height, font)
    for axis, words in zip(axes.flat, verdicts, strict=True):
        axis.set_xlabel(words, fontsize=font)
    colours = axes[-1, -1].images[0]
    colours.set(cmap=EVIDENCE, clim=(0, 1))  # for the bar only: the overlays hold colours already
    bar = figure.colorbar(
        colours, ax=axes.ravel().tolist(), location="bottom", fraction=0.04, pad=0.02, aspect=40
    )
    bar.ax.tick_params(labelsize=font)
    bar.set_label(label, fontsize=font)
    return figure


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
    with naming(path):
        if config.patches:
            return patch_sample(image, form, replace(config.patches, vote=1), EVALUATION_SEED)["image"]
        return prepare(image, form, Limits(config.min_side))


def verdict(logit):
    """The score and what it says, for the line below an overlay."""
    score = float(torch.tensor(logit).sigmoid())
    return f"score {score:.2f}: {'fake' if score > THRESHOLD else 'real'}"


def run_titles(loaded):
    """Run names; with the names of the files where some are equal, with their hashes where those are, too."""
    names = [one.run_name for one in loaded]
    with_file = [f"{one.run_name} {Path(one.path).stem}" for one in loaded]
    with_hash = [f"{name} {one.sha256[:8]}" for name, one in zip(with_file, loaded, strict=True)]
    distinct = [titles for titles in (names, with_file) if len(set(titles)) == len(titles)]
    return [*distinct, with_hash][0]
