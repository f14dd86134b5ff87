"""Detectors for evaluation: batch norms, and NPR's front, become part of the convolutions.

The published NPR map is linear and repeats every two pixels, and conv1 steps two pixels at a time.  So the
division by 255, the normalisation, the map, its scale of 2/3, conv1 and bn1 are together one convolution on
raw pixels: 4x4 with stride 2 for the published stem.  The numbers are the same up to rounding.
`for_evaluation` compares both orders before it gives the fused one.
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common import UserError
from networks.onnx import OnnxNetwork

TOLERANCE = 1e-5  # largest difference of a logit, times max(1, |logit|)
ENGINES = ("torch", "onnxruntime")
LINEAR_COLORS = ("rgb", "ycbcr", "gray")
CHECK_SIDES = ((64, 64), (97, 80))  # of the random images of the check; odd sides lose a row or column


class PixelConvolution(nn.Module):
    """One convolution on pixels from 0 to 255, (B, 3, H, W), in place of a front, conv1 and bn1.

    float32 under autocast too: its weights cancel on a flat image, and rounded ones would not.
    """

    stride = 2

    def __init__(self, weight, bias, padding):
        """weight: (out, 3, side, side); padding: rows and columns of zeros (before, after)."""
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.padding = padding

    def forward(self, pixels):
        height, width = pixels.shape[-2:]
        whole = pixels[..., : height - height % 2, : width - width % 2]
        with torch.autocast(pixels.device.type, enabled=False):
            return F.conv2d(F.pad(whole, self.padding * 2), self.weight, self.bias, self.stride)


def fold_batch_norms(network):
    """Folds every batch norm that directly follows a convolution into it; returns how many there were.

    network: in evaluation mode.  The layers of a ResNet or MobileNetV2 are registered in the order of use.
    """
    count = 0
    for module in network.modules():
        for (name, conv), (following, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, following, nn.Identity())
                count += 1
    return count


def why_not(variant):
    """What keeps the front of a Variant of NPR out of its first convolution; "" where nothing does."""
    if not (variant.published_map or (variant.window == 2 and variant.ref != "max")):
        return "only the published map and linear windows of 2x2 pixels repeat with the steps of conv1"
    if variant.color not in LINEAR_COLORS:
        return f"{variant.color} is not linear"
    return "" if variant.stem != "3x3s1" else "its first convolution steps one pixel at a time"


def first_convolution(detector):
    """The PixelConvolution that is an NPR detector's front, conv1 and bn1; see `why_not`."""
    exact = copy.deepcopy(detector).double()
    conv = exact.conv1
    before, after = conv.padding[0], conv.kernel_size[0] - 1 - conv.padding[0]
    before, after = before + before % 2, after + (after + 1) % 2  # whole pairs of pixels on both sides
    side = before + after + 1

    def response(pixels):
        """What conv1 gives where its centre is the pixel (before, before)."""
        maps = exact.front(pixels / 255)  # (1, C, side, side)
        at = before - conv.padding[0]
        seen = maps[..., at : at + conv.kernel_size[0], at : at + conv.kernel_size[0]]
        return F.conv2d(seen, conv.weight).flatten()

    flat = torch.zeros(1, 3, side, side, dtype=torch.float64)
    weight = torch.autograd.functional.jacobian(response, flat)[:, 0]  # linear: the same at every image
    scale = exact.bn1.weight / (exact.bn1.running_var + exact.bn1.eps).sqrt()
    weight, bias = weight * scale[:, None, None, None], exact.bn1.bias - exact.bn1.running_mean * scale
    return PixelConvolution(weight.detach().float(), bias.detach().float(), (before, max(0, after - 1)))


def pixels_of(images):
    """RGB uint8, or float in [0, 1], (B, 3, H, W) -> what a PixelConvolution takes, float32 from 0 to 255."""
    return images.float() if images.dtype == torch.uint8 else images.float() * 255


@torch.inference_mode()
def largest_difference(detector, fused):
    """Largest difference between the logits of two detectors on random images, over max(1, |logit|)."""
    config, rng = detector.data_config, torch.Generator().manual_seed(0)
    sides = [(config.patches.size,) * 2] if config.patches else CHECK_SIDES
    lowest, kind = (-128, torch.int16) if config.noise_bits == 16 else (0, torch.uint8)
    images = [torch.randint(lowest, lowest + 256, (2, 3, *side), dtype=kind, generator=rng) for side in sides]
    before, after = (torch.cat([network(part) for part in images]) for network in (detector, fused))
    return ((before - after).abs() / before.abs().clamp(min=1)).max().item()


def for_evaluation(detector, fuse=True, engine="torch"):
    """(a detector to score with, in evaluation mode; what it is, for records; a line that says so).

    detector: on the CPU.  fuse: False keeps the published order, and so do logits that differ by more than
    TOLERANCE.  engine: one of ENGINES; UserError where it cannot run the detector, or gives other logits.
    """
    network, name, why = detector.eval(), "published order", "nothing to fuse" if fuse else "--no_fuse"
    fused, what = detector.fused() if fuse else (detector, "")
    line = f"in the published order ({why})"
    if what:
        difference = largest_difference(detector, fused)
        line = f"in the published order (fused, logits differ by {difference:.0e})"
        if difference <= TOLERANCE:
            network, name, line = fused, "fused", f"fused ({what}); logits as before to {difference:.0e}"
    if engine == "torch":
        return network, name, f"network: {line}"
    network = OnnxNetwork(network)
    difference = largest_difference(detector, network)
    if not difference <= TOLERANCE:
        raise UserError(
            f"on ONNX Runtime logits differ by {difference:.0e}; --engine torch runs this detector"
        )
    return network, f"{name}, {engine}", f"network: {line}; on ONNX Runtime to {difference:.0e}"
