"""CNNDetection: a plain ResNet-50 on the normalised image.  The baseline, and the file to copy for a new one.

Source: Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020; its
networks/trainer.py.  23,510,081 parameters, 320 state_dict entries under torchvision's names.
"""

from networks import register, resnet50
from networks.base import DataConfig, Detector


@register("cnndet")
class CNNDetector(Detector):
    """torchvision's ResNet-50 with one logit."""

    # Its training resizes the shorter side; its demo.py takes images at their stored size.
    data_config = DataConfig(256, 224, resize="shorter side", published_geometry="stored")
    signature = ("conv1.weight", "layer4.2.conv3.weight", "fc.weight")

    def __init__(self):
        super().__init__()
        resnet50.add_layers(self)
        resnet50.init_last_layer(self.fc)

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> logits (B,), float32."""
        return self.logit(self.fc, resnet50.features(self, self.preprocess(images)))

    @property
    def cam_layer(self):
        return self.layer4[-1]
