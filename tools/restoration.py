"""What ESSP's enhancement makes of a patch: clean, degraded and restored side by side.

Part of tools/visualize.py, which reads the options.
"""

from dataclasses import replace

import numpy as np
import torch

from common import UserError
from data.patches import EVALUATION_SEED, cut
from data.transforms import Degradation
from networks import checkpoint
from tools.maps import examples_of, read_image, show
from util.plot import GREY, canvas, font_for, save, wrap

KINDS = (Degradation(sigma=1.0), Degradation(quality=90), Degradation(sigma=1.0, quality=90))
GAIN = 10.0  # display gain of what differs from the clean patch
HEADS = ("clean", "degraded", "restored", f"degraded - clean, x{GAIN:g}", f"restored - clean, x{GAIN:g}")


def draw_restoration(opt):
    """A row per image and degradation; PSNR against the clean patch and the two probabilities below."""
    loaded = checkpoint.load(opt.model_path)
    if not hasattr(loaded.detector, "restore"):
        raise UserError(
            f"{opt.model_path} holds detector {loaded.arch!r}; patches are restored by essp alone"
        )
    examples, note = examples_of(opt)
    detector = loaded.detector.eval()
    rows = [
        (f"{wrap(title, 22)}\n{kind.describe()}", *patches(detector, read_image(path), kind))
        for title, path in examples
        for kind in KINDS
    ]
    width = 1.75 * len(HEADS) + 0.9
    font = font_for(width)
    figure, axes = canvas(len(rows), len(HEADS), width, 2.15 * len(rows) + 0.6)
    for axis, head in zip(axes[0], HEADS, strict=True):
        axis.set_title(head, fontsize=font)
    for line, (title, clean, degraded, restored, judged) in zip(axes, rows, strict=True):
        differences = [np.clip(0.5 + GAIN * (one - clean) / 2, 0, 1) for one in (degraded, restored)]
        for axis, picture in zip(line, (clean, degraded, restored, *differences), strict=True):
            show(axis, picture)
        line[0].set_ylabel(title, fontsize=font)
        line[1].set_xlabel(f"{psnr(degraded, clean)}\n{judged}", fontsize=font, color=GREY)
        line[2].set_xlabel(psnr(restored, clean), fontsize=font, color=GREY)
    if note:
        figure.suptitle(note, fontsize=font)
    return save(figure, opt.output)


def patches(detector, image, kind):
    """(clean, degraded, restored) as (P, P, 3) in [0, 1], and what the perception says of the degraded one.

    The patch is the simplest of the degraded image at its stored size, the one that test.py scores.
    """
    rule = replace(detector.data_config.patches, vote=1)
    degraded, clean = cut([kind.apply(image), image], rule, EVALUATION_SEED)
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
