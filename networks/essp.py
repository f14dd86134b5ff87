"""ESSP: SSP on a patch that is first checked (blurred? compressed?) and then restored accordingly.

    patch -> perception: P(blurred), P(compressed) -> guidance = sum of task embeddings weighted by these
          -> enhancement: U-Net, each level scaled and shifted by the guidance -> restored patch -> SSP

Source: summaries of Chen, Yao and Niu, arXiv 2402.01123: the two modules, what each predicts, the task
embeddings and their weights, training on synthetic blur and compression; sigma 0 to 1 and JPEG quality 90 to
100 are defaults of the published SSP code.  No code of ESSP was released; the rest is a choice made here: all
sizes, feature-wise scale and shift, the mean subtracted from the patch that is checked, a start close to
returning the patch unchanged, half of the images blurred and half compressed, L1 in grey levels (of 255), so
that it does not weigh too little, and the weights of the three losses.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from common import non_negative_float
from networks import register
from networks.base import Published, own_flags
from networks.ssp import SSPDetector

WIDTHS = (32, 64, 128)  # channels of the U-Net at full, half and quarter resolution
GUIDANCE = 64
TASKS = ("blurred", "compressed")  # entries of a training batch, fractions of 0 or 1
START_STD = 1e-3  # of the U-Net's last layer: it starts close to returning the patch


class Perception(nn.Module):
    """Patch (B, 3, H, W) in [0, 1], minus its mean -> logits (B, 2) of TASKS."""

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for out, stride in ((32, 1), (64, 2), (64, 2)):
            convolution = nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            width = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, len(TASKS))

    def forward(self, x):
        x = x - x.mean(dim=(2, 3), keepdim=True)  # the colour of a flat patch says nothing about its quality
        return self.head(self.body(x).mean(dim=(2, 3)))


class Guided(nn.Module):
    """Two 3x3 convolutions; the guidance scales and shifts what is between them (FiLM, AAAI 2018)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(GUIDANCE, 2 * outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x, guidance):
        scale, shift = self.film(guidance)[..., None, None].chunk(2, dim=1)
        x = F.relu(self.first(x) * (1 + scale) + shift)
        return F.relu(self.second(x))


class Enhancement(nn.Module):
    """U-Net: patch (B, 3, H, W) in [0, 1] and guidance (B, 64) -> restored patch."""

    def __init__(self):
        super().__init__()
        full, half, quarter = WIDTHS
        self.down1, self.down2 = Guided(3, full), Guided(full, half)
        self.bottom = Guided(half, quarter)
        self.up2, self.up1 = Guided(quarter + half, half), Guided(half + full, full)
        self.last = nn.Conv2d(full, 3, 3, padding=1)
        nn.init.normal_(self.last.weight, std=START_STD)
        nn.init.zeros_(self.last.bias)

    def forward(self, x, guidance):
        full = self.down1(x, guidance)
        half = self.down2(F.avg_pool2d(full, 2, ceil_mode=True), guidance)
        quarter = self.bottom(F.avg_pool2d(half, 2, ceil_mode=True), guidance)
        up = self.up2(_joined(quarter, half), guidance)
        up = self.up1(_joined(up, full), guidance)
        return x + self.last(up).float()


@register("essp")
class ESSPDetector(SSPDetector):
    """SSP behind a patch restoration that knows how likely blur and compression are."""

    data_config = replace(SSPDetector.data_config, clean_pair=True)
    signature = ("perception.head.weight", "enhancement.last.weight", "disc.fc.weight")

    def __init__(self, flags=None):
        """flags: a Namespace of this detector's flags; None: the defaults."""
        flags = flags or own_flags(type(self))
        super().__init__(flags)
        self.weights = {name: getattr(flags, f"essp_{name}_weight") for name in ("perception", "restoration")}
        self.perception = Perception()
        self.tasks = nn.Parameter(torch.randn(len(TASKS), GUIDANCE))
        self.enhancement = Enhancement()

    @classmethod
    def add_arguments(cls, group):
        super().add_arguments(group)
        for name, what in (("perception", "blur and compression"), ("restoration", "the clean patch")):
            words = f"weight of the loss about {what}"
            group.add_argument(f"--essp_{name}_weight", type=non_negative_float, default=1.0, help=words)

    @classmethod
    def from_published(cls, state, given):
        return Published(given, state)  # no sign to turn: fake = 1 here

    def restore(self, images):
        """Patches (B, 3, P, P), RGB uint8 or in [0, 1] -> (restored patches, logits (B, 2) of TASKS)."""
        x = self.unit(images)
        quality = self.perception(x)
        guidance = quality.float().sigmoid() @ self.tasks
        return self.enhancement(x, guidance), quality

    def preprocess(self, images):
        """Patches -> SRM residuals (B, 3, U, U) of the restored patches, float32."""
        return super().preprocess(self.restore(images)[0])

    def loss(self, batch):
        """Batch with `image`, `label`, `clean`, `blurred`, `compressed` -> the three terms and their sum.

        total = BCE of real and fake + BCE of what was done to the patch + L1, in grey levels, to the patch
        before that; the last two with their weights.
        """
        votes = batch["image"].shape[1] if batch["image"].ndim == 5 else 1
        images, clean = (batch[name].flatten(0, -4) for name in ("image", "clean"))
        restored, quality = self.restore(images)
        logits = self.score(super().preprocess(restored)).view(-1, votes).mean(1)
        known = torch.stack([batch[name].float() for name in TASKS], dim=1).repeat_interleave(votes, 0)
        terms = {
            "bce": F.binary_cross_entropy_with_logits(logits, batch["label"].float()),
            "perception": F.binary_cross_entropy_with_logits(quality.float(), known),
            "restoration": 255 * F.l1_loss(restored, self.unit(clean)),
        }
        weighted = (weight * terms[name] for name, weight in self.weights.items())
        total = sum(weighted, start=terms["bce"])
        parts = {name: value.detach() for name, value in terms.items()}
        return {"total": total, "logits": logits.detach(), **parts}


def _joined(x, larger):
    """The channels of both at the size of the larger."""
    return torch.cat([F.interpolate(x, larger.shape[-2:], mode="nearest"), larger], dim=1)
