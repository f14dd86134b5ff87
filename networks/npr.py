"""The NPR layer, and everything else that can be put in front of the network: FRONTS and FUSIONS.

NPR is what is left of an image when its own down- and up-sampled copy is subtracted.  A new front or fusion
is a function here and a line in its dict; `--npr_front` and `--npr_fusion` then know it.

Source: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable
Deepfake Detection", CVPR 2024, section 3 and Table 7.  Other factors: CVIMGDetection, NPR-DeepfakeDetection.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from common import UserError
from networks.attention import ScaleAttention
from networks.color import weighted_sum

MODES = ("nearest", "bilinear", "bicubic", "area")
WINDOWS = (2, 3, 4)
GRADIENT_FLOOR = 1e-9  # added to the horizontal difference, so that it can be divided by
STEEPEST = 100  # a ratio of differences beyond it counts as 0


def references(window):
    """What a window can be compared with: its pixels w1 ... w(l*l), row by row, its mean or its maximum."""
    return (*(f"w{number}" for number in range(1, window * window + 1)), "mean", "max")


def window_residual(x, window=2, reference="w1"):
    """Every window of l x l pixels minus one of its own pixels, its mean or its maximum.

    x: (..., H, W), at least l x l.  Returns (..., H - H % l, W - W % l).  Source: NPR paper, equation 2 and
    Table 7; l = 2 with w1 is the published layer, x - up(down(x)) at factor 0.5, mode nearest: a quarter of
    it is exactly 0.
    """
    height, width = x.shape[-2:]
    if min(height, width) < window:
        raise UserError(f"NPR needs images of at least {window}x{window} pixels, got {width}x{height}")
    whole = x[..., : height - height % window, : width - width % window]
    windows = whole.unflatten(-1, (-1, window)).unflatten(-3, (-1, window))  # (..., H/l, l, W/l, l)
    if reference == "mean":
        compared = windows.mean(dim=(-3, -1), keepdim=True)
    elif reference == "max":
        compared = windows.amax(dim=(-3, -1), keepdim=True)
    else:
        row, column = divmod(int(reference[1:]) - 1, window)
        compared = windows[..., row : row + 1, :, column : column + 1]
    return (windows - compared).flatten(-4, -3).flatten(-2, -1)


def scaled(residual):
    """The residual times 2/3, the published scale before the first convolution; NPR.pth needs it.

    In two steps, as published: float32 x * 2 / 3 and x * (2 / 3) differ in the last bit.
    """
    return residual * 2 / 3


def index_map(length, factor, device=None):
    """For each of `length` pixels along an axis, the pixel that nearest-neighbour sampling puts there, int64.

    The axis shrinks to floor(length * factor) pixels, at least 1, and grows back; only whole numbers, so no
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


def local_gradient(x, _net=None):
    """Direction of the difference to the right and lower neighbour, from 0 to 1; 0.5 is horizontal or none.

    x: (..., H, W), padded with 0 after its last row and column.  Returns the same shape.
    Source: AIGDetection, networks/local_grad.py: arctan(dy / dx).
    """
    right, below = F.pad(x, (0, 1))[..., 1:], F.pad(x, (0, 0, 0, 1))[..., 1:, :]
    ratio = (below - x) / (right - x + GRADIENT_FLOOR)
    ratio = torch.where(ratio.abs() > STEEPEST, torch.zeros_like(ratio), ratio)
    return (torch.atan(ratio) / (math.pi / 2) + 1) / 2


def scale_maps(x, variant):
    """The NPR maps of an image (B, C, H, W), one per scale of the Variant, before the scale of 2/3."""
    if variant.window:
        return [window_residual(x, variant.window, variant.ref)]
    if variant.published_map:
        return [window_residual(x)]
    return [factor_residual(x, factor, variant.mode) for factor in variant.factors or (variant.factor,)]


def learned_weights(maps, _x, net):
    """One learned weight per scale (softmax), and a learned scale.  Source: CVIMGDetection."""
    return weighted_sum(maps, net.npr_weights.softmax(0)) * net.npr_scale_factor


def learn_weights(net, scales, _channels):
    """Parameters of `learned_weights`."""
    net.npr_weights = torch.nn.Parameter(torch.ones(scales))
    net.npr_scale_factor = torch.nn.Parameter(torch.tensor(2 / 3))  # the published scale, learned further


def weights_and_scale(net):
    """What `learned_weights` has learned."""
    return net.npr_weights.softmax(0), net.npr_scale_factor.item()


def attended(maps, x, net):
    """A weight per scale and image, from the image's channel means.  Source: NPR-DeepfakeDetection."""
    return scaled(weighted_sum(maps, net.scale_attention(x).T[..., None, None, None]))


def attend_to_scales(net, scales, channels):
    """The part that `attended` uses."""
    net.scale_attention = ScaleAttention(channels, scales)


def weights_of_mean_colour(net):
    """What `attended` has learned, for an image of the mean colour; its scale is the published one."""
    mean_colour = torch.zeros_like(net.mean) if net.variant.norm == "imagenet" else net.mean
    return net.scale_attention(mean_colour)[0], None


class Fusion(NamedTuple):
    """How the maps of several scales become the input of the first convolution."""

    fuse: Callable  # (maps, image in its colour space, network) -> (B, C', H, W)
    build: Callable | None = None  # (network, scales, channels): gives the network what it learns
    learned: Callable | None = None  # network -> a weight per scale, and the learned scale or None
    widens: bool = False  # C' is channels x scales


FUSIONS = {
    "weights": Fusion(learned_weights, learn_weights, weights_and_scale),
    "concat": Fusion(lambda maps, _x, _net: scaled(torch.cat(maps, dim=1)), widens=True),
    "average": Fusion(lambda maps, _x, _net: scaled(torch.stack(maps).mean(dim=0))),
    "scale_attention": Fusion(attended, attend_to_scales, weights_of_mean_colour),
}


@torch.no_grad()
def learned_scales(net):
    """({factor: weight}, scale) that fusion has learned; ({}, None) where it learns nothing."""
    fusion = FUSIONS.get(net.variant.fusion)
    if not fusion or not fusion.learned:
        return {}, None
    weights, scale = fusion.learned(net)
    return dict(zip(net.variant.factors, weights.tolist(), strict=True)), scale


def npr_front(x, net):
    """The NPR maps of the variant, fused where there are several, times the published 2/3."""
    maps = scale_maps(x, net.variant)
    if net.variant.fusion:
        return FUSIONS[net.variant.fusion].fuse(maps, x, net)
    return scaled(maps[0])


# Name -> function of the image in its colour space and the network, which gives what conv1 sees.
FRONTS = {"npr": npr_front, "local_grad": local_gradient, "none": lambda x, _net: x}
