"""What ESSP's enhancement makes of a patch: clean, degraded and restored side by side."""

from dataclasses import replace

import numpy as np
import torch
import torchvision.transforms.functional as TF

from common import UserError
from data.patches import EVALUATION_SEED, cut
from data.transforms import Degradation
from networks import checkpoint
from tools.visualize.images import examples, read_pixels
from util.pictures import around_grey, grid

DAMAGES = (Degradation(sigma=1.0), Degradation(quality=90), Degradation(sigma=1.0, quality=90))
GAIN = 10.0  # display gain of what differs from the clean patch
HEADS = ("clean", "degraded", "restored", f"degraded - clean, x{GAIN:g}", f"restored - clean, x{GAIN:g}")


def draw_restoration(opt):
    """A row per image and degradation; PSNR against the clean patch and the two probabilities below."""
    loaded = checkpoint.load(opt.model_path)
    if not hasattr(loaded.detector, "restore"):
        raise UserError(f"{opt.model_path} holds detector {loaded.arch!r}; only essp restores patches")
    rows, names, words = [], [], []
    for title, path in examples(opt):
        for damage in DAMAGES:
            clean, degraded, restored, quality = patches(loaded.detector.eval(), read_pixels(path), damage)
            differences = [around_grey(picture - clean, GAIN) for picture in (degraded, restored)]
            rows.append([clean, degraded, restored, *differences])
            names.append(f"{title}, {damage.describe()}")
            words += ["", f"{psnr(degraded, clean)}, {quality}", psnr(restored, clean), "", ""]
    return grid(rows, HEADS, names, words)


def patches(detector, pixels, damage):
    """(clean, degraded, restored) as (P, P, 3) in [0, 1], and what the perception says of the degraded one.

    The patch is the simplest of the degraded image at its stored size, the one that test.py scores.
    """
    rule, image = replace(detector.data_config.patches, vote=1), TF.to_pil_image(pixels)
    degraded, clean = cut([damage.apply(image), image], rule, EVALUATION_SEED)
    with torch.no_grad():
        restored, quality = detector.restore(degraded[None])
    blurred, compressed = quality[0].sigmoid().tolist()
    shown = (clean / 255, degraded / 255, restored[0].clamp(0, 1))
    pictures = [patch.permute(1, 2, 0).numpy() for patch in shown]
    return *pictures, f"blurred {blurred:.2f}, compressed {compressed:.2f}"


def psnr(picture, clean):
    """PSNR in words; pictures in [0, 1]."""
    error = np.mean((picture - clean) ** 2)
    return "identical" if error == 0 else f"{-10 * np.log10(error):.1f} dB"
