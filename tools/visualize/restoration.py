"""What ESSP's enhancement makes of a patch: clean, degraded and restored side by side."""

from dataclasses import replace

import numpy as np
import torch

from common import UserError
from data.patches import EVALUATION_SEED, cut
from data.transforms import Degradation
from networks import checkpoint
from tools.visualize.images import examples_of, read_image
from util.pictures import GREY, around_grey, font_for, grid, wrap

DAMAGES = (Degradation(sigma=1.0), Degradation(quality=90), Degradation(sigma=1.0, quality=90))
GAIN = 10.0  # display gain of what differs from the clean patch
HEADS = ("clean", "degraded", "restored", f"degraded - clean, x{GAIN:g}", f"restored - clean, x{GAIN:g}")


def draw_restoration(opt):
    """A row per image and degradation; PSNR against the clean patch and the two probabilities below."""
    loaded = checkpoint.load(opt.model_path)
    if not hasattr(loaded.detector, "restore"):
        raise UserError(f"{opt.model_path} holds detector {loaded.arch!r}; only essp restores patches")
    examples, note = examples_of(opt)
    detector = loaded.detector.eval()
    rows, names, below = [], [], []
    for title, path in examples:
        for damage in DAMAGES:
            clean, degraded, restored, quality = patches(detector, read_image(path), damage)
            differences = [around_grey(picture - clean, GAIN) for picture in (degraded, restored)]
            rows.append((clean, degraded, restored, *differences))
            names.append(f"{wrap(title, 22)}\n{damage.describe()}")
            below.append((f"{psnr(degraded, clean)}\n{quality}", psnr(restored, clean)))
    width = 1.75 * len(HEADS) + 0.9
    font = font_for(width)
    figure, axes = grid(rows, HEADS, names, width, 2.15 * len(rows) + 0.6, font)
    for line, words in zip(axes, below, strict=True):
        for axis, text in zip(line[1:3], words, strict=True):
            axis.set_xlabel(text, fontsize=font, color=GREY)
    if note:
        figure.suptitle(note, fontsize=font)
    return figure


def patches(detector, image, damage):
    """(clean, degraded, restored) as (P, P, 3) in [0, 1], and what the perception says of the degraded one.

    The patch is the simplest of the degraded image at its stored size, the one that test.py scores.
    """
    rule = replace(detector.data_config.patches, vote=1)
    degraded, clean = cut([damage.apply(image), image], rule, EVALUATION_SEED)
    with torch.no_grad():
        restored, quality = detector.restore(degraded[None])
    blurred, compressed = quality[0].sigmoid().tolist()
    shown = (clean / 255, degraded / 255, restored[0].clamp(0, 1))
    pictures = [one.permute(1, 2, 0).numpy() for one in shown]
    return *pictures, f"blurred {blurred:.2f}, compressed {compressed:.2f}"


def psnr(picture, clean):
    """PSNR in words; pictures in [0, 1]."""
    error = np.mean((picture - clean) ** 2)
    return "identical" if error == 0 else f"{-10 * np.log10(error):.1f} dB"
