"""The two trunks of DFIG's fusion (networks/lnp.py): ResNet-50 and MobileNetV2, under torchvision's names.

Parameters: 23,516,475 (mode 0) and 23,516,976 (modes 1, 2) in 333 entries on ResNet-50, 2,225,851 and
2,226,352 in 327 on MobileNetV2.  Source: DFIG's networks/resnet.py, mobilenetv2.py and trainer.py.
"""

import re

from torch import nn
from torchvision.models import mobilenet_v2, resnet50

from networks import register
from networks.cnndet import FC_STD, features
from networks.lnp import LNPDetector

# Places in an inverted residual of the MobileNetV2 that DFIG took over -> those in torchvision's.
FIRST_BLOCK = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}
LATER_BLOCKS = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}


@register("res50")
class ResNetLNP(LNPDetector):
    """DFIG on ResNet-50 with torchvision's names."""

    trunk_words = "ResNet-50"

    def make_trunk(self, channels):
        for name, module in resnet50(num_classes=1).named_children():
            self.add_module(name, module)
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=FC_STD)

    def start_attention(self):
        for module in self.DAB.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def classify(self, x):
        """Channels (B, C, H, W) -> logits (B,)."""
        return self.logit(self.fc, features(self, x))

    @property
    def cam_layer(self):
        return self.layer4[-1]


@register("mobilev2")
class MobileNetLNP(LNPDetector):
    """DFIG on MobileNetV2, without dropout, under torchvision's names."""

    trunk_words = "MobileNetV2"
    imagenet = "MobileNet_V2_Weights.IMAGENET1K_V1"

    def make_trunk(self, channels):
        trunk = mobilenet_v2(num_classes=1, dropout=0.0)
        self.features, self.classifier = trunk.features, trunk.classifier
        stem = nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        self.features[0][0] = stem

    @classmethod
    def renamed(cls, state):
        """Names of the MobileNetV2 that DFIG took over (conv, classifier, flat blocks) -> torchvision's."""
        if "conv.0.weight" not in state:  # the last convolution: it has another name in torchvision's
            return state
        return {_torchvision_name(name): value for name, value in state.items()}

    @classmethod
    def from_published(cls, state):
        """Without the layer `fc` that the published training added beside the classifier and never used."""
        state = cls.renamed(state)
        spurious = [name for name in ("fc.weight", "fc.bias") if name in state]
        kept = {name: value for name, value in state.items() if name not in spurious}
        notice = "its layer fc, which the published training adds and never uses, was left out"
        return kept, notice if spurious else ""

    def classify(self, x):
        """Channels (B, C, H, W) -> logits (B,)."""
        return self.logit(self.classifier[1], self.features(x).mean(dim=(2, 3)))

    @property
    def cam_layer(self):
        return self.features[-1]


def _torchvision_name(name):
    if name.startswith("conv."):
        return f"features.18.{name.removeprefix('conv.')}"
    if re.fullmatch(r"classifier\.(weight|bias)", name):
        return name.replace("classifier.", "classifier.1.")
    found = re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", name)
    if not found:
        return name
    block, place, entry = int(found[1]), int(found[2]), found[3]
    flat = FIRST_BLOCK if block == 1 else LATER_BLOCKS
    return f"features.{block}.conv.{flat[place]}.{entry}" if place in flat else name
