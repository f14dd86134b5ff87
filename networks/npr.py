"""The NPR layer: what is left of an image when its own down- and up-sampling is taken away.

Pure functions on (..., C, H, W) tensors; networks/variants.py says how they may be combined.

Source: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable
Deepfake Detection", CVPR 2024, section 3 and Table 7.  Other factors: CVIMGDetection and
NPR-DeepfakeDetection.  Local gradient: AIGDetection.
"""

import math

import torch
import torch.nn.functional as F

# Published scale of the residual before the first convolution; NPR.pth is only valid with it.
# Written as two steps because float32 x * 2 / 3 and x * (2 / 3) differ in the last bit.
SCALE_NUMERATOR, SCALE_DENOMINATOR = 2.0, 3.0

MODES = ("nearest", "bilinear", "bicubic", "area")
WINDOWS = (2, 3, 4)
MEAN, MAX = "mean", "max"

GRADIENT_FLOOR = 1e-9  # added to the horizontal difference, so that it can be divided by
STEEPEST = 100  # a ratio beyond this counts as 0 (AIGDetection, networks/local_grad.py)


def references(window):
    """What a window can be compared with: its pixels w1 ... w(l*l), row by row, its mean or its maximum."""
    return (*(f"w{number}" for number in range(1, window * window + 1)), MEAN, MAX)


def trim(x, multiple):
    """Drops the last rows and columns of (..., H, W) that fill no whole window."""
    height, width = x.shape[-2:]
    return x[..., : height - height % multiple, : width - width % multiple]


def window_residual(x, window=2, reference="w1"):
    """Every window of l x l pixels minus one of its own pixels, its mean or its maximum.

    x: (..., H, W), at least l x l.  Returns (..., H - H % l, W - W % l).  Source: NPR paper, equation 2 and
    Table 7; l = 2 with w1 is the published layer, x - up(down(x)) at factor 0.5, mode nearest.
    """
    if min(x.shape[-2:]) < window:
        raise ValueError(
            f"NPR needs images of at least {window}x{window} pixels, got {x.shape[-1]}x{x.shape[-2]}"
        )
    windows = trim(x, window).unflatten(-1, (-1, window)).unflatten(-3, (-1, window))  # (..., H/l, l, W/l, l)
    if reference == MEAN:
        compared = windows.mean(dim=(-3, -1), keepdim=True)
    elif reference == MAX:
        compared = windows.amax(dim=(-3, -1), keepdim=True)
    else:
        row, column = divmod(int(reference[1:]) - 1, window)
        compared = windows[..., row : row + 1, :, column : column + 1]
    return (windows - compared).flatten(-4, -3).flatten(-2, -1)


def neighbour_residual(x):
    """The published layer: every 2x2 block minus its own top-left pixel.

    x: (..., H, W), at least 2x2.  Returns (..., H - H % 2, W - W % 2); a quarter of it is exactly 0.
    """
    return window_residual(x, 2, "w1")


def scaled(residual):
    """The residual times 2/3, as the published network feeds it to its first convolution."""
    return residual * SCALE_NUMERATOR / SCALE_DENOMINATOR


def index_map(length, factor, device=None):
    """For each of `length` pixels along an axis, the pixel that nearest-neighbour sampling puts there, int64.

    The axis shrinks to floor(length * factor) pixels, at least 1, and grows back; whole numbers alone, so no
    rounding error moves a pixel.  Equal to the published layers where those run: 0,0,0,0,4,4,4,4 at factor
    0.25; 0,0,2,2 at 0.5; 0,0,1,2,4,4,5,6 at 0.75.
    """
    small = shrunk(length, factor)
    return torch.arange(length, device=device) * small // length * length // small


def shrunk(length, factor):
    """floor(length * factor), at least 1; 100 * 0.29 is 29, though not in floating point."""
    return max(1, math.floor(round(length * factor, 9)))


def factor_residual(x, factor, mode="nearest"):
    """x minus its own copy that was shrunk by `factor` in (0, 1) and resized back to the size of x.

    x: (B, C, H, W) of any size.  Returns the same shape.
    """
    height, width = x.shape[-2:]
    if mode == "nearest":
        rows, columns = (index_map(length, factor, x.device) for length in (height, width))
        return x - x.index_select(-2, rows).index_select(-1, columns)
    small = F.interpolate(x, size=(shrunk(height, factor), shrunk(width, factor)), mode=mode)
    return x - F.interpolate(small, size=(height, width), mode=mode)


def weighted_sum(maps, weights):
    """Sum of maps (B, C, H, W), each times its weight: a number, or (B, 1, 1, 1)."""
    return sum(weight * one for weight, one in zip(weights, maps, strict=True))


def local_gradient(x):
    """Direction of the difference to the right and lower neighbour, from 0 to 1; 0.5 is horizontal or none.

    x: (..., H, W); beyond its last row and column lies 0.  Returns the same shape.
    Source: AIGDetection, networks/local_grad.py: arctan(dy / dx).
    """
    right, below = F.pad(x, (0, 1))[..., 1:], F.pad(x, (0, 0, 0, 1))[..., 1:, :]
    ratio = (below - x) / (right - x + GRADIENT_FLOOR)
    ratio = torch.where(ratio.abs() > STEEPEST, torch.zeros_like(ratio), ratio)
    return (torch.atan(ratio) / (math.pi / 2) + 1) / 2
