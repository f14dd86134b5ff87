"""torchvision's ResNet-50 as a trunk, for cnndet.py, ssp.py and lnp_trunks.py; NPR's own is in resnet.py."""

from torch import nn

FC_STD = 0.02  # standard deviation of a new last layer's weights: --init_gain of CNNDetection's options


def add_layers(module):
    """Gives a module the layers of torchvision's ResNet-50 with one output, random weights; returns it."""
    from torchvision.models import resnet50  # here, since it takes a second to import

    for name, layer in resnet50(num_classes=1).named_children():
        module.add_module(name, layer)
    return module


def init_last_layer(fc):
    """Normal weights of the last layer, as in CNNDetection and DFIG; the bias keeps PyTorch's default."""
    nn.init.normal_(fc.weight, std=FC_STD)


def features(trunk, x):
    """(B, C, H, W) -> (B, 2048) through a module with the layers of torchvision's ResNet-50."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
    x = trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(x))))
    return trunk.avgpool(x).flatten(1)
