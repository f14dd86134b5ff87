"""SSP: the noise of a single simple patch, through SRM filters into a ResNet-50.

    patch 32x32 (data/patches.py chooses it) -> normalise -> 256x256 -> 3 SRM filters, clipped -> ResNet-50

Source: Chen, Yao and Niu, "A Single Simple Patch is All You Need for AI-generated Image Detection", arXiv
2402.01123, and its code, which scales the patch to 256; the paper: to the image's own size.  23,510,306
parameters (225 of them the fixed filters), 321 state_dict entries.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from common import whole_number
from networks import register
from networks.base import DataConfig, Detector, Patches, Published, differing, own_flags
from networks.resnet50 import add_layers, features

PATCH, UPSCALED, CLIP = 32, 256, 3.0
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
    signature = ("srm.kernel", "disc.conv1.weight", "disc.fc.weight")
    imagenet = (Detector.imagenet[0], "disc.")

    def __init__(self, flags=None):
        """flags: a Namespace of this detector's flags; None: the published setting."""
        super().__init__()
        flags = vars(flags or own_flags(type(self)))
        names = ("patch", "upscale", "select", "stride", "vote")
        self.patch, self.upscaled, *selection = (flags[f"{self.arch}_{name}"] for name in names)
        rule = Patches(self.patch, *selection)
        enlargement = (self.upscaled / self.patch) ** 2
        self.data_config = replace(self.data_config, patches=rule, enlargement=enlargement)
        self.srm = SRM()
        self.disc = add_layers(nn.Module())

    @classmethod
    def add_arguments(cls, group):
        def add(name, **kwargs):
            group.add_argument(f"--{cls.arch}_{name}", **kwargs)

        select = "candidates for the simplest patch: 64 random (published), side by side, or every few pixels"
        add("select", choices=("random64", "grid", "dense"), default="random64", help=select)
        add("stride", type=whole_number(1, 10_000), default=8, help="pixels between two of `dense`")
        vote = "average the logits of the N simplest patches that do not overlap"
        add("vote", type=whole_number(1, 64), default=1, help=vote)
        add("patch", type=whole_number(8, 1024), default=PATCH, help="side of a patch in pixels")
        # Below 33 the last stage sees one pixel, which batch norm cannot normalise for a single image.
        upscale = "side to which patches are scaled up; smaller is faster"
        add("upscale", type=whole_number(33, 1024), default=UPSCALED, help=upscale)

    @classmethod
    def from_options(cls, opt):
        return cls(own_flags(cls, opt))

    @classmethod
    def from_published(cls, state, given):
        entries = {name: -value if name.startswith("disc.fc.") else value for name, value in state.items()}
        notice = "SSP's published files score up = real; the sign of the last layer was turned"
        return Published(given, entries, notice)

    def preprocess(self, images):
        """Patches (B, 3, P, P), RGB uint8 or float in [0, 1] -> SRM residuals (B, 3, U, U), float32."""
        return self.noise(self.normalise(images))

    def noise(self, x):
        """Normalised patches -> SRM residuals of the patches scaled up.  A whole image is scaled as well."""
        x = F.interpolate(x.float(), (self.upscaled, self.upscaled), mode="bilinear")
        # bf16 is too coarse for the residuals.
        with torch.autocast(device_type=x.device.type, enabled=False):
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
    def config(self):
        """What the weights depend on; which patch is taken is recorded with the input."""
        build = {"patch": self.patch, "upscale": self.upscaled}
        return differing(build, {"patch": PATCH, "upscale": UPSCALED})
