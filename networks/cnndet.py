"""CNNDetection: a plain ResNet-50 on the normalised image.  The baseline, and the file to copy for a new one.

Source: Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020; its
networks/trainer.py.  23,510,081 parameters, 320 state_dict entries under torchvision's names.
"""

from torch import nn
from torchvision.models import resnet50

from networks import register
from networks.base import DataConfig, Detector

FC_STD = 0.02  # of the new last layer's weights (--init_gain of the published options)


@register("cnndet")
class CNNDetector(Detector):
    """torchvision's ResNet-50 with one logit."""

    # Its training resizes the shorter side; its demo.py takes images at their stored size.
    data_config = DataConfig(256, 224, resize="shorter side", published_geometry="stored")

    def __init__(self):
        super().__init__()
        for name, module in resnet50(num_classes=1).named_children():
            self.add_module(name, module)
        nn.init.normal_(self.fc.weight, std=FC_STD)

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> logits (B,), float32."""
        return self.logit(self.fc, features(self, self.preprocess(images)))

    @property
    def cam_layer(self):
        return self.layer4[-1]


def features(trunk, x):
    """(B, 3, H, W) -> (B, 2048) through a module with the layers of torchvision's ResNet-50."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
    x = trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(x))))
    return trunk.avgpool(x).flatten(1)
