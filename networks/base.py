"""The contract that every detector keeps: what it takes, what it returns, what scripts may ask of it."""

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common import as_typed
from networks.color import SPACES


@dataclass(frozen=True)
class Patches:
    """Which patches of an image a detector sees (data/patches.py).  Lengths in pixels."""

    size: int = 32
    # Which patches are candidates: random64, grid or dense.
    select: str = "random64"
    # Pixels between two candidates of `dense`.
    stride: int = 8
    # How many of the simplest are taken.
    vote: int = 1


@dataclass(frozen=True)
class DataConfig:
    """How a detector wants its images unless a flag or a protocol says otherwise.  Lengths in pixels."""

    # Side of the resize; None keeps the stored size.
    load_size: int | None = 256
    # Side of the crop, random in training and central in validation; None takes all.
    crop_size: int | None = 224
    # What has `load_size` after the resize: both sides ("square"), or the "shorter side".
    resize: str = "square"
    # A smaller image cannot be scored.
    min_side: int = 1
    # The detector sees patches of the image at its stored size.
    patches: Patches | None = None
    # Training samples carry `clean`, `blurred` and `compressed` as well.
    clean_pair: bool = False
    # Files hold noise patterns of so many bits a channel, 8 or 16; None: photographs.
    noise_bits: int | None = None
    # Where an evaluation takes resize and crop from unless a flag says so: the "protocol", the "training", or
    # "stored": images at their stored size.
    geometry_source: str = "protocol"
    # The same for a published file without a protocol, which has no training on record: "training" for
    # load_size and crop_size above, or "stored".
    published_geometry: str = "training"
    # Pixels that the network computes on for each pixel given, which decides how many images fit a pass.
    enlargement: float = 1.0


class Published(NamedTuple):
    """What a published weight file turned out to be."""

    options: dict  # of the detector's own flags
    entries: dict  # its state_dict with fake = 1 and this project's units
    notice: str = ""  # what was changed on loading


class Detector(nn.Module):
    """A binary detector: images in, one logit per image out; above 0 means fake.

    A subclass sets `data_config`, writes `preprocess` and `forward`, and may override the rest.
    It lives in one file under networks/ and is made known with `@register("name")`, which sets `arch`.
    """

    data_config = DataConfig()
    # Keys that every published file of this detector has; looked at before anything is built.
    signature: tuple[str, ...] = ()
    # Where --pretrained starts: torchvision's name of the weights, and the prefix of the trunk's names here.
    imagenet = ("ResNet50_Weights.IMAGENET1K_V1", "")

    def __init__(self, space=SPACES["rgb"]):
        """space: the colour space whose constants `normalise` uses; ImageNet's for RGB."""
        super().__init__()
        # {name: sha256} of files besides its weights that scores depend on; see `load_companions`.
        self.companions = {}
        self.register_buffer("mean", torch.tensor(space.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(space.std).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def add_arguments(cls, group):
        """Adds the detector's own flags, prefixed with its name, to an argparse group."""

    @classmethod
    def from_options(cls, opt):
        """Builds the detector that the parsed options describe; UserError where flags do not go together."""
        return cls()

    @classmethod
    def from_published(cls, state, given):
        """A state_dict that has the signature -> Published, or None if it is not this detector's.

        given: {option: value} that the user states about the file.  UserError where the keys contradict it,
        or where neither decides how the detector was built.
        """
        return Published(given, state) if shapes_of(state) == shapes_on_meta(cls) else None

    def load_companions(self):
        """Loads files that it needs besides its weights and fills in `companions`; UserError without them."""

    def unit(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> float32 in [0, 1] of the same shape."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"a detector takes RGB images (B, 3, H, W), got shape {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not images.is_floating_point():
            raise ValueError(f"a detector takes uint8 pixels or floats in [0, 1], got {images.dtype}")
        return images.float()

    def normalise(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> normalised float32 of the same shape.

        The order of operations is that of the published loaders, (u / 255 - mean) / std, so that a published
        weight file gets exactly the numbers that it was trained on.
        """
        return (self.unit(images) - self.mean) / self.std

    def preprocess(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> the float32 tensor that the trunk sees."""
        return self.normalise(images)

    def forward(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> logits (B,), float32, above 0 = fake."""
        raise TypeError(f"{type(self).__name__} must define forward(images) -> logits (B,)")

    def logit(self, fc, features):
        """Features (B, C) -> logits (B,), float32 under autocast too: bf16 logits tie and move AP."""
        with torch.autocast(device_type=features.device.type, enabled=False):
            return fc(features.float()).squeeze(1)

    def loss(self, batch):
        """Batch with `image` and `label` -> named scalar terms, `total` their sum, and the `logits`."""
        logits = self(batch["image"])
        bce = F.binary_cross_entropy_with_logits(logits, batch["label"].float())
        return {"total": bce, "bce": bce.detach(), "logits": logits.detach()}

    @property
    def cam_layer(self):
        """The module whose activations a class-activation map is drawn from."""
        raise TypeError(f"{type(self).__name__} names no layer for class-activation maps")

    @property
    def config(self):
        """{name: value} of what differs from the detector's default build and decides what weights mean."""
        return {}


def init_convolutions(module):
    """Kaiming-normal weights (fan_out) for every convolution in a module, in its order."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def describe(detector):
    """A detector's build in words, for a notice or a table: "npr, factor 0.25"; "npr, default options"."""
    named = {name: value for name, value in detector.config.items() if value not in (None, ())}
    changed = ", ".join(f"{name} {as_typed(value)}" for name, value in named.items())
    return f"{detector.arch}, {changed or 'default options'}"


def differing(build, published):
    """{name: value} of a build where it differs from the published one."""
    return {name: value for name, value in build.items() if value != published[name]}


def own_flags(cls, opt=None):
    """A Namespace of the detector's own flags in opt; those that are absent there have their defaults."""
    parser = argparse.ArgumentParser(add_help=False)
    cls.add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    return argparse.Namespace(**{name: getattr(opt, name, value) for name, value in defaults.items()})


def shapes_of(state):
    """{name: shape} of a state_dict."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shapes_on_meta(build):
    """{name: shape} of the state_dict of what build() makes, without memory or random numbers."""
    with torch.device("meta"):
        return shapes_of(build().state_dict())
