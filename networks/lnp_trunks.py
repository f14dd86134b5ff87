"""The two trunks of DFIG's fusion (networks/lnp.py): ResNet-50 and MobileNetV2, under torchvision's names.

Source: DFIG's networks/resnet.py, mobilenetv2.py and trainer.py.
"""

from torch import nn

from networks import register, resnet50
from networks.base import init_convolutions
from networks.lnp import LNPDetector

# Indices in an inverted residual of the MobileNetV2 that DFIG copied -> those in torchvision's.
FIRST_BLOCK = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
LATER_BLOCKS = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
SPURIOUS = ("fc.weight", "fc.bias")


@register("res50")
class ResNetLNP(LNPDetector):
    """333 entries; 23,516,475 parameters, 23,516,976 in modes 1 and 2."""

    signature = ("DAB.body.0.weight", "layer4.2.conv3.weight", "fc.weight")

    def __init__(self, flags=None):
        super().__init__(flags)
        if self.attended:
            init_convolutions(self.DAB)

    def make_trunk(self, channels):
        resnet50.add_layers(self)
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        init_convolutions(self.conv1)
        resnet50.init_last_layer(self.fc)

    def classify(self, x):
        """Channels (B, C, H, W) -> logits (B,)."""
        return self.logit(self.fc, resnet50.features(self, x))

    @property
    def cam_layer(self):
        return self.layer4[-1]


@register("mobilev2")
class MobileNetLNP(LNPDetector):
    """Without dropout.  327 entries; 2,225,851 parameters, 2,226,352 in modes 1 and 2."""

    signature = ("DAB.body.0.weight", "features.0.0.weight")
    imagenet = ("MobileNet_V2_Weights.IMAGENET1K_V1", "")

    def make_trunk(self, channels):
        from torchvision.models import mobilenet_v2  # here, since it takes a second to import

        trunk = mobilenet_v2(num_classes=1, dropout=0.0)
        self.features, self.classifier = trunk.features, trunk.classifier
        self.features[0][0] = nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False)
        init_convolutions(self.features[0][0])

    @classmethod
    def from_published(cls, state, given):
        """Without the layer `fc` that the published training added next to the classifier and never used."""
        renamed = torchvision_names(state)
        kept = {name: value for name, value in renamed.items() if name not in SPURIOUS}
        notice = "its layer fc, which the published training adds and never uses, was left out"
        return super().from_published(kept, given)._replace(notice=notice * (len(kept) < len(state)))

    def classify(self, x):
        """Channels (B, C, H, W) -> logits (B,)."""
        return self.logit(self.classifier[1], self.features(x).mean(dim=(2, 3)))

    @property
    def cam_layer(self):
        return self.features[-1]


def torchvision_names(state):
    """The entries of a MobileNetV2 as DFIG copied it under torchvision's names; others as they are."""
    if "conv.0.weight" not in state:  # the last convolution: it has another name in torchvision's
        return state
    return {_torchvision_name(name): value for name, value in state.items()}


def _torchvision_name(name):
    first, *rest = parts = name.split(".")
    if first == "conv":
        return ".".join(["features.18", *rest])
    if first == "classifier" and len(parts) == 2:
        return f"classifier.1.{rest[0]}"
    if first == "features" and len(parts) == 5:  # features.<block>.conv.<index>.<entry>
        parts[3] = (FIRST_BLOCK if parts[1] == "1" else LATER_BLOCKS).get(parts[3], parts[3])
    return ".".join(parts)
