"""NPR detector: a front, by default the NPR map, before the first stages of a ResNet-50.

    image -> front (npr.py) -> stem (conv1, bn1, relu, maxpool) -> stages (layer1, layer2) -> head (mean, fc1)

Every variant (variants.py) goes through the same few lines of `forward`.

Source: Tan et al., CVPR 2024 (NPR); He et al., CVPR 2016 (ResNet; the stride is in the 3x3 convolution).
Module names are those of the published weight files: 1,437,761 parameters, 146 state_dict entries.
"""

import copy
from dataclasses import replace

from torch import nn

from networks import fuse, register, variants
from networks.attention import ChannelAttention, SpatialAttention
from networks.base import DataConfig, Detector, Published, init_convolutions
from networks.color import SPACES
from networks.npr import FRONTS, FUSIONS
from networks.variants import ATTENTIONS, NORMS, STEMS, Variant

# Planes, blocks and stride of layer1 ... layer4.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
STEM_WIDTH, LAYER1_WIDTH = 64, 256


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
    """NPR maps, scaled by 2/3, into a ResNet-50 cut after its second stage; `variant` changes parts of it."""

    data_config = DataConfig(load_size=256, crop_size=224, min_side=2)
    signature = ("conv1.weight", "layer2.3.conv3.weight", "fc1.weight")
    folded = False  # whether conv1 takes pixels, and the front is a part of it

    def __init__(self, variant=None):
        self.variant = variant = variant or Variant()
        space = SPACES[variant.color]
        super().__init__(space)
        self.data_config = replace(self.data_config, min_side=variant.window or 2)
        fusion, scales = FUSIONS.get(variant.fusion), len(variant.factors)
        self.build_trunk(space.channels * scales if fusion and fusion.widens else space.channels)
        # Before fusion and attention are made: with one seed, a trunk of one shape is the same trunk.
        # Batch norm and fc1 keep PyTorch's defaults.
        init_convolutions(self)
        if fusion and fusion.build:
            fusion.build(self, scales, space.channels)
        self.build_attention()

    def build_trunk(self, inputs):
        """conv1 ... fc1 under their published names."""
        kernel, stride = STEMS[self.variant.stem]
        self.conv1 = nn.Conv2d(inputs, STEM_WIDTH, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width = STEM_WIDTH
        for number, (planes, blocks, stride) in enumerate(STAGES[: self.variant.stages], start=1):
            self.add_module(f"layer{number}", make_stage(width, planes, blocks, stride))
            width = planes * Bottleneck.expansion
        self.fc1 = nn.Linear(width, 1)

    def build_attention(self):
        """Attention in use, and attention that an older file holds without using it."""
        kinds = {*ATTENTIONS[self.variant.attention], *ATTENTIONS[self.variant.unused]}
        if "channel" in kinds:
            self.ca1 = ChannelAttention(STEM_WIDTH, self.variant.attention_form)
            self.ca2 = ChannelAttention(LAYER1_WIDTH, self.variant.attention_form)
        if "spatial" in kinds:
            self.spatial_att1, self.spatial_att2 = SpatialAttention(), SpatialAttention()

    def preprocess(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> what conv1 sees, float32.

        (B, C, H, W), C = 3 except for gray and concat; the published map loses an odd last row and column,
        and windows lose what does not fill one.
        """
        return fuse.pixels_of(images) if self.folded else self.front(self.unit(images))

    def front(self, x):
        """The front of an RGB image in [0, 1], in its colour space, normalised unless `--npr_norm none`."""
        x = SPACES[self.variant.color].convert(x)
        x = (x - self.mean) / self.std if NORMS[self.variant.norm] else x
        return FRONTS[self.variant.front](x, self)

    def fused(self):
        """The detector with its front and batch norms in its convolutions; see networks/fuse.py."""
        if reason := fuse.why_not(self.variant):
            network, what = super().fused()
            return network, f"{what}, but not the front: {reason}"
        network = copy.deepcopy(self).eval()
        network.conv1, network.bn1 = fuse.first_convolution(network), nn.Identity()
        network.folded = True
        return network, f"the front and {fuse.fold_batch_norms(network) + 1} batch norms"

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W), at least 2x2 -> logits (B,), float32."""
        x = self.stem(self.preprocess(images))  # (B, 64, H/4, W/4)
        x = self.stages(x)  # (B, 512, H/8, W/8)
        return self.logit(self.fc1, x.float().mean(dim=(2, 3)))

    def stem(self, x):
        return self.maxpool(self.attend(self.relu(self.bn1(self.conv1(x))), channel="ca1"))

    def stages(self, x):
        x = self.attend(self.layer1(x), channel="ca2", spatial="spatial_att1")
        x = self.attend(self.layer2(x), spatial="spatial_att2")
        for number in range(3, self.variant.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return x

    def attend(self, x, **modules):
        """x through those of the modules, named by kind of attention, whose kind the variant uses.

        Source: CVIMGDetection's networks/resnet.py; spatial attention: commented lines of its forward pass.
        """
        for kind, name in modules.items():
            if kind in ATTENTIONS[self.variant.attention]:
                x = getattr(self, name)(x)
        return x

    @property
    def cam_layer(self):
        return getattr(self, f"layer{self.variant.stages}")[-1]

    @property
    def config(self):
        return self.variant.changed

    add_arguments = Variant.add_arguments

    @classmethod
    def from_options(cls, opt):
        return cls(Variant.from_options(opt))

    @classmethod
    def from_published(cls, state, given):
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        return Published(variants.flags_from_keys(shapes, given), state)


def resnet50(num_classes=1):
    """The NPR detector under upstream's name.  It has one output, so num_classes must be 1."""
    if num_classes != 1:
        raise ValueError(f"the NPR detector has one logit (above 0 = fake), got num_classes={num_classes}")
    return NPRDetector()
