"""Attention over channels, over positions, and over the scales of an NPR layer.

Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, and CVIMGDetection, whose files
have these module names; attention over scales: NPR-DeepfakeDetection.
"""

import torch
from torch import nn

REDUCTION = 16
SPATIAL_KERNEL = 7
HIDDEN = 16  # width of the scale attention's hidden layer
# Name -> weight of a channel, from what its mean and its maximum say.
FORMS = {
    # CVIMGDetection's code: from 0 to 2.
    "sum": lambda mean, largest: mean.sigmoid() + largest.sigmoid(),
    # The paper and CVIMGDetection's report: from 0 to 1.
    "cbam": lambda mean, largest: (mean + largest).sigmoid(),
}


class ChannelAttention(nn.Module):
    """Weighs the channels of (B, C, H, W) by their mean and maximum, each through the same two layers f.

    form: of FORMS, how the two become one weight per channel.
    """

    def __init__(self, channels, form="sum"):
        super().__init__()
        self.gate = FORMS[form]
        hidden = channels // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)
        )

    def forward(self, x):
        mean, largest = self.fc(x.mean(dim=(2, 3))), self.fc(x.amax(dim=(2, 3)))
        return x * self.gate(mean, largest)[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs the positions of (B, C, H, W), from 0 to 1, by the mean and maximum over their channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.conv(summary).sigmoid()


class ScaleAttention(nn.Module):
    """A weight per scale, summing to 1, from an image's channel means: (B, C, H, W) -> (B, scales).

    It sees only the mean colour, so it can express little more than constant weights.
    """

    def __init__(self, channels, scales):
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(channels, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, scales)
        )

    def forward(self, image):
        return self.attention(image.mean(dim=(2, 3))).softmax(dim=1)
