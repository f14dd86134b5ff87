"""NPR detector: the NPR layer in front of the first stages of a ResNet-50.  The place for ablations.

    front (npr.py) -> stem (conv1, bn1, relu, maxpool) -> stages (layer1, layer2) -> head (mean, fc1)

Every variant (variants.py) goes through the same few lines of `forward`.

Source: Tan et al., CVPR 2024 (NPR); He et al., CVPR 2016 (ResNet; the stride sits in the 3x3 convolution).
Module names are those of the published weight files: 1,437,761 parameters, 146 state_dict entries; with
`--npr_factors 0.25,0.5,0.75 --npr_attention channel --npr_unused spatial` CVIMGDetection's 1,446,665 and 154.
"""

from argparse import Namespace
from dataclasses import replace

import torch
from torch import nn

from networks import npr, register, variants
from networks.attention import ChannelAttention, ScaleAttention, SpatialAttention
from networks.base import DataConfig, Detector
from networks.color import SPACES
from networks.variants import STEMS, Variant

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # planes, blocks, stride of layer1 ... layer4
STEM_WIDTH, LAYER1_WIDTH = 64, 256  # channels where attention sits
SCALES = ("factor", "factors", "fusion")  # what an experiment about scales varies
START_SCALE = 2 / 3  # CVIMGDetection: the published scale, learned further


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

    def __init__(self, variant=None):
        self.variant = variant = variant or Variant()
        super().__init__(SPACES[variant.color])
        self.data_config = replace(self.data_config, min_side=variant.window or 2)
        channels = SPACES[variant.color].channels
        scales = len(variant.factors)
        inputs = channels * scales if variant.fusion == "concat" else channels
        self.build_trunk(inputs)
        self.init_weights()  # before attention is made: with one seed, a trunk of one shape is the same trunk
        if variant.fusion == "weights":
            self.npr_weights = nn.Parameter(torch.ones(scales))
            self.npr_scale_factor = nn.Parameter(torch.tensor(START_SCALE))
        elif variant.fusion == "scale_attention":
            self.scale_attention = ScaleAttention(channels, scales)
        self.build_attention()

    @staticmethod
    def add_arguments(group):
        variants.add_arguments(group)

    @classmethod
    def from_options(cls, opt):
        return cls(Variant.from_options(opt))

    @classmethod
    def check_options(cls, opt):
        Variant.from_options(opt)

    @classmethod
    def recognise(cls, state, given=None):
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if not {"conv1.weight", "layer2.3.conv3.weight", "fc1.weight"} <= shapes.keys():
            return None
        given = {name: value for name, value in (given or {}).items() if name.startswith("npr_")}
        flags = variants.flags_from_keys(shapes, given)
        detector = cls.from_options(Namespace(**flags))
        own = {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items()}
        differing = [name for name in {**shapes, **own} if own.get(name) != shapes.get(name)]
        if differing and given:
            raise variants.Undecided(
                f"does not hold what the flags say, {detector.describe()}: it differs in "
                f"{', '.join(sorted(differing)[:8])}"
            )
        return None if differing else flags

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
        """Attention in use, and attention that a published file holds without using it."""
        registered = self.variant.attention + "_" + self.variant.unused
        if "channel" in registered:
            self.ca1 = ChannelAttention(STEM_WIDTH, self.variant.attention_form)
            self.ca2 = ChannelAttention(LAYER1_WIDTH, self.variant.attention_form)
        if "spatial" in registered:
            self.spatial_att1 = SpatialAttention()
            self.spatial_att2 = SpatialAttention()

    def init_weights(self):
        """Kaiming-normal convolutions (fan_out), batch norm at 1 and 0; fc1 keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def preprocess(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> what conv1 sees, float32.

        (B, C, H, W), C = 3 but for gray and concat; the published map loses an odd last row and column, and
        windows lose what does not fill one.
        """
        return self.front(self.image(images))

    def image(self, images):
        """The image in its colour space, normalised or (`--npr_norm after`) in [0, 1]."""
        x = SPACES[self.variant.color].convert(self.unit(images))
        return (x - self.mean) / self.std if self.variant.norm == "before" else x

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W), at least 2x2 -> logits (B,), float32."""
        x = self.preprocess(images)
        x = self.stem(x)  # (B, 64, H/4, W/4)
        x = self.stages(x)  # (B, 512, H/8, W/8)
        return self.head(x)

    def front(self, x):
        """Image in its colour space -> what conv1 sees."""
        if self.variant.front == "none":
            return x
        if self.variant.front == "local_grad":
            return npr.local_gradient(x)
        if self.variant.fusion == "weights":
            return npr.weighted_sum(self.maps(x), self.npr_weights.softmax(0)) * self.npr_scale_factor
        return npr.scaled(self.fuse(self.maps(x), x))

    def fuse(self, maps, x):
        """The maps of several scales as one; the only map as it is."""
        if self.variant.fusion == "concat":
            return torch.cat(maps, dim=1)
        if self.variant.fusion == "average":
            return torch.stack(maps).mean(dim=0)
        if self.variant.fusion == "scale_attention":
            return npr.weighted_sum(maps, self.scale_attention(x).T[..., None, None, None])
        return maps[0]

    def maps(self, x):
        """The NPR maps that are fused, or the only one, before the scale of 2/3."""
        variant = self.variant
        if variant.published:
            return [npr.neighbour_residual(x)]
        if variant.window:
            return [npr.window_residual(x, variant.window, variant.ref)]
        return [npr.factor_residual(x, one, variant.mode) for one in variant.factors or (variant.factor,)]

    def stem(self, x):
        return self.maxpool(self.attend(self.relu(self.bn1(self.conv1(x))), "1"))

    def stages(self, x):
        x = self.attend(self.layer1(x), "2")
        for number in range(2, self.variant.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return x

    def attend(self, x, place):
        """Channel attention, then spatial attention, as far as the variant has them."""
        if "channel" in self.variant.attention:
            x = getattr(self, f"ca{place}")(x)
        if "spatial" in self.variant.attention:
            x = getattr(self, f"spatial_att{place}")(x)
        return x

    def head(self, x):
        return self.logit(self.fc1, x.float().mean(dim=(2, 3)))

    @torch.no_grad()
    def scale_weights(self):
        """{factor: weight} that fusion has learned, for an image of the mean colour where it depends on that.

        Empty where no weights are learned.
        """
        if self.variant.fusion == "weights":
            weights = self.npr_weights.softmax(0)
        elif self.variant.fusion == "scale_attention":
            image = torch.zeros_like(self.mean) if self.variant.norm == "before" else self.mean
            weights = self.scale_attention(image)[0]
        else:
            return {}
        return dict(zip(self.variant.factors, weights.tolist(), strict=True))

    def facts(self):
        variant, weights = self.variant, self.scale_weights()
        learned = self.npr_scale_factor.item() if variant.fusion == "weights" else ""
        factors = variant.factors or ([] if variant.factor is None else [variant.factor])
        setting = {name: value for name, value in variant.changed.items() if name not in SCALES}
        return {
            "factors": " ".join(map(str, factors)),
            "setting": " ".join(f"{name}={value}" for name, value in setting.items()),
            "scale_weights": " ".join(f"{factor}:{weight:.6f}" for factor, weight in weights.items()),
            "scale_factor": learned,
        }

    @property
    def cam_layer(self):
        return getattr(self, f"layer{self.variant.stages}")[-1]

    @property
    def unused_for_key_compat(self):
        kinds = self.variant.unused.split("_")
        prefixes = [name for kind, name in (("channel", "ca"), ("spatial", "spatial_att")) if kind in kinds]
        return tuple(name for name, _ in self.named_parameters() if name.startswith(tuple(prefixes)))

    @property
    def configuration(self):
        return self.variant.changed

    def describe(self):
        return self.variant.describe()


def resnet50(num_classes=1):
    """The NPR detector under upstream's name.  It has one output, so num_classes must be 1."""
    if num_classes != 1:
        raise ValueError(f"the NPR detector has one logit (above 0 = fake), got num_classes={num_classes}")
    return NPRDetector()
