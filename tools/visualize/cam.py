"""Where checkpoints find evidence for "fake": Grad-CAM over the images as each of them gets them."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch

from common import UserError
from data import eval_geometry
from data.patches import EVALUATION_SEED
from data.transforms import Limits
from networks import checkpoint
from tools.visualize.images import examples, read_pixels
from util.metrics import THRESHOLD
from util.pictures import grad_cam, grid, overlay

NOTE = (
    'Grad-CAM of the logit: evidence for "fake", from blue (the weakest point of a map, or none) over red to '
    "yellow (its strongest); compare positions, not maps."
)


def draw_cam(opt):
    """A row per image: the image, then for every checkpoint where it sees evidence for "fake"."""
    chosen = examples(opt)
    models = [checkpoint.load(path) for path in opt.model_path]
    rows, words = [], []
    for _, path in chosen:
        inputs = [prepared(path, loaded) for loaded in models]
        maps = [grad_cam(loaded.detector, pixels) for loaded, pixels in zip(models, inputs, strict=True)]
        overlays = [overlay(pixels, evidence) for pixels, (evidence, _) in zip(inputs, maps, strict=True)]
        rows.append([inputs[0], *overlays])
        words += ["", *(verdict(logit) for _, logit in maps)]
    image = "image as the first checkpoint gets it" if len(models) > 1 else "image"
    names = [title for title, _ in chosen]
    return grid(rows, [image, *run_titles(models)], names, words, NOTE)


def prepared(path, loaded):
    """The uint8 pixels (3, H, W) that predict.py would give to this checkpoint; of patches the first."""
    config = loaded.detector.data_config
    if config.noise_bits == 16:
        raise UserError("cam draws over 8-bit pictures; this detector reads 16-bit noise")
    geometry = eval_geometry(Namespace(crops=1), config, trained=loaded.options)
    patches = config.patches and replace(config.patches, vote=1)
    rules = {"noise_bits": config.noise_bits, "patches": patches, "seed": EVALUATION_SEED}
    return read_pixels(path, geometry, Limits(config.min_side), **rules)


def verdict(logit):
    """The score and what it says, for the line below an overlay."""
    score = float(torch.tensor(logit).sigmoid())
    return f"score {score:.2f}: {'fake' if score > THRESHOLD else 'real'}"


def run_titles(models):
    """Run names, with the names of the files where some are equal."""
    names = [loaded.run_name for loaded in models]
    if len(set(names)) == len(names):
        return names
    return [f"{loaded.run_name} {Path(loaded.path).stem}" for loaded in models]
