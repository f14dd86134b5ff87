"""SSP: the noise of a single simple patch, through SRM filters into a ResNet-50.

    patch 32x32 (data/patches.py chooses it) -> normalise -> 256x256 -> 3 SRM filters, clipped -> ResNet-50

Source: Chen, Yao and Niu, "A Single Simple Patch is All You Need for AI-generated Image Detection", arXiv
2402.01123, and its code (networks/ssp.py, srm_conv.py): the paper scales the patch to the image's own size,
the code to 256.  23,510,306 parameters (225 of them the fixed filters), 321 state_dict entries.  Published
files score up = real; loading one turns the sign of its last layer.
"""

import argparse
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50

from common import UserError
from networks import register
from networks.base import DataConfig, Detector, Patches
from networks.cnndet import features

PATCH, UPSCALED = 32, 256
SELECTIONS = ("random64", "grid", "dense")
FREE = ("select", "stride", "vote")  # which patch is taken: an evaluation may choose otherwise than training
CLIP = 3.0
SRM_KERNELS = (  # (rows, divisor): KB, KV and the horizontal second order of the spatial rich model
    (((0, 0, 0, 0, 0), (0, -1, 2, -1, 0), (0, 2, -4, 2, 0), (0, -1, 2, -1, 0), (0, 0, 0, 0, 0)), 4),
    (((-1, 2, -2, 2, -1), (2, -6, 8, -6, 2), (-2, 8, -12, 8, -2), (2, -6, 8, -6, 2), (-1, 2, -2, 2, -1)), 12),
    (((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 1, -2, 1, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)), 2),
)


class SRM(nn.Module):
    """Three high-pass residuals, each summed over the colour channels, clipped to +-3; nothing is rounded.

    Source: Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 2012.
    """

    def __init__(self):
        super().__init__()
        kernels = torch.stack([torch.tensor(rows) / divisor for rows, divisor in SRM_KERNELS])
        kernels = kernels[:, None].repeat(1, 3, 1, 1)  # (filter, channel, 5, 5)
        self.kernel = nn.Parameter(kernels, requires_grad=False)

    def forward(self, x):
        """(B, 3, H, W) -> (B, 3, H, W), a channel per filter, in [-3, 3]; the border is padded with 0."""
        return F.conv2d(x, self.kernel, padding=2).clamp(-CLIP, CLIP)


@register("ssp")
class SSPDetector(Detector):
    """ResNet-50 on the SRM residuals of the image's simplest patch."""

    data_config = DataConfig(load_size=None, crop_size=None, patches=Patches(PATCH))
    trunk_prefix = "disc."

    def __init__(self, flags=None):
        """flags: of `flags`; None: the published setting."""
        super().__init__()
        given = vars(flags or self.flags(argparse.Namespace()))
        self.patch, self.upscaled = given[f"{self.arch}_patch"], given[f"{self.arch}_upscale"]
        chosen = {name: given[f"{self.arch}_{name}"] for name in FREE}
        self.data_config = replace(self.data_config, patches=Patches(self.patch, **chosen))
        self.srm = SRM()
        self.disc = resnet50(num_classes=1)

    @classmethod
    def add_arguments(cls, group):
        def add(name, **kwargs):
            group.add_argument(f"--{cls.arch}_{name}", **kwargs)

        add(
            "select",
            choices=SELECTIONS,
            default="random64",
            help="where the simplest patch is looked for: 64 random places (published), places side by side, "
            "or one every few pixels",
        )
        add("stride", type=_positive, default=8, metavar="N", help="pixels between two places of `dense`")
        add(
            "vote",
            type=_votes,
            default=1,
            metavar="N",
            help="average the logits of the N simplest patches that do not overlap",
        )
        add("patch", type=_side, default=PATCH, metavar="N", help="side of a patch in pixels")
        add(
            "upscale",
            type=_upscaled,
            default=UPSCALED,
            metavar="N",
            help="side to which patches are scaled up; smaller is faster",
        )

    @classmethod
    def from_options(cls, opt):
        return cls(cls.flags(opt))

    @classmethod
    def check_options(cls, opt):
        flags = vars(cls.flags(opt))
        if flags[f"{cls.arch}_stride"] != Patches.stride and flags[f"{cls.arch}_select"] != "dense":
            raise UserError(f"--{cls.arch}_stride concerns --{cls.arch}_select dense alone")

    @classmethod
    def evaluation_flags(cls):
        return tuple(f"{cls.arch}_{name}" for name in FREE)

    @property
    def enlargement(self):
        return (self.upscaled / self.patch) ** 2

    @classmethod
    def from_published(cls, state):
        """SSP's files have real = 1: the last layer's sign is turned, once."""
        turned = {
            name: -value if name in ("disc.fc.weight", "disc.fc.bias") else value
            for name, value in state.items()
        }
        return turned, "SSP's published files score up = real; the sign of the last layer was turned"

    def preprocess(self, images):
        """Patches (B, 3, P, P), RGB uint8 or float in [0, 1] -> SRM residuals (B, 3, U, U), float32."""
        return self.noise(self.normalise(images))

    def noise(self, x):
        """Normalised patches -> SRM residuals of the patches scaled up.  A whole image is scaled as well."""
        x = F.interpolate(x.float(), (self.upscaled, self.upscaled), mode="bilinear")
        with torch.autocast(device_type=x.device.type, enabled=False):  # bf16 would swallow the residuals
            return self.srm(x)

    def forward(self, images):
        """Patches (B, 3, P, P), or (B, N, 3, P, P) whose N logits are averaged -> logits (B,), float32."""
        if images.ndim == 5:
            return self(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1)
        return self.score(self.preprocess(images))

    def score(self, noise):
        """SRM residuals (B, 3, U, U) -> logits (B,), float32."""
        return self.logit(self.disc.fc, features(self.disc, noise))

    @property
    def cam_layer(self):
        return self.disc.layer4[-1]

    @property
    def configuration(self):
        """What the weights depend on; which patch is taken is recorded with the input."""
        built = {"patch": (self.patch, PATCH), "upscale": (self.upscaled, UPSCALED)}
        return {name: value for name, (value, usual) in built.items() if value != usual}

    def describe(self):
        return f"patches of {self.patch}x{self.patch} scaled up to {self.upscaled}x{self.upscaled}"


def _positive(text):
    return _whole(text, 1, 10_000)


def _votes(text):
    return _whole(text, 1, 64)


def _side(text):
    return _whole(text, 8, 1024)


def _upscaled(text):
    return _whole(text, 33, 1024)  # below, the last stage sees one pixel, which a lone image cannot normalise


def _whole(text, least, most):
    if not text.strip().isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
    return int(text)
