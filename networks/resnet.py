"""NPR detector: the NPR layer in front of the first two stages of a ResNet-50.  The place for ablations.

    front (npr.py) -> stem (conv1, bn1, relu, maxpool) -> stages (layer1, layer2) -> head (mean, fc1)

Source: Tan et al., CVPR 2024 (NPR); He et al., CVPR 2016 (ResNet; the stride sits in the 3x3 convolution).
Module names are those of the published weight files: 1,437,761 parameters, 146 state_dict entries.
"""

import torch
from torch import nn

from networks import register
from networks.base import DataConfig, Detector
from networks.npr import scaled_residual

STAGES = (
    (64, 3, 1),
    (128, 4, 2),
)  # planes, blocks, stride of layer1 and layer2: the depth that was published


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, each with batch norm, around an identity or a projection."""

    expansion = 4

    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        out_planes = planes * self.expansion
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_planes != out_planes:
            projection = nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_planes))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + identity)


def make_stage(in_planes, planes, blocks, stride):
    """One ResNet stage: the first block changes width and stride, the others keep them."""
    first = Bottleneck(in_planes, planes, stride)
    rest = [Bottleneck(planes * Bottleneck.expansion, planes) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


@register("npr")
class NPRDetector(Detector):
    """NPR on the normalised image, scaled by 2/3, into a ResNet-50 cut after its second stage."""

    data_config = DataConfig(load_size=256, crop_size=224, min_side=2)
    assumed_for_foreign_files = "NPR factor 0.5, nearest, scale 2/3 (a published file does not say)"

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width = 64
        for number, (planes, blocks, stride) in enumerate(STAGES, start=1):
            self.add_module(f"layer{number}", make_stage(width, planes, blocks, stride))
            width = planes * Bottleneck.expansion
        self.fc1 = nn.Linear(width, 1)
        self.init_weights()

    def init_weights(self):
        """Kaiming-normal convolutions (fan_out), batch norm at 1 and 0; fc1 keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def preprocess(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> NPR * 2/3, (B, 3, H - H % 2, W - W % 2), float32."""
        return scaled_residual(self.normalise(images))

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W), at least 2x2 -> logits (B,), float32."""
        x = self.preprocess(images)
        x = self.stem(x)  # (B, 64, H/4, W/4)
        x = self.stages(x)  # (B, 512, H/8, W/8)
        return self.head(x)

    def stem(self, x):
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stages(self, x):
        return self.layer2(self.layer1(x))

    def head(self, x):
        # Outside autocast: bf16 logits tie and move AP.
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.fc1(x.float().mean(dim=(2, 3))).squeeze(1)

    @property
    def cam_layer(self):
        return self.layer2[-1]


def resnet50(num_classes=1):
    """The NPR detector under upstream's name.  It has one output, so num_classes must be 1."""
    if num_classes != 1:
        raise ValueError(f"the NPR detector has one logit (above 0 = fake), got num_classes={num_classes}")
    return NPRDetector()
