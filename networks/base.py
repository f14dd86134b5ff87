"""The contract that every detector keeps: what it takes, what it returns, what scripts may ask of it."""

import argparse
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from networks.color import SPACES


@dataclass(frozen=True)
class Patches:
    """Which patches of an image a detector sees (data/patches.py).  Lengths in pixels."""

    size: int = 32
    select: str = "random64"  # the places that are looked at: random64, grid, dense
    stride: int = 8  # between two places of `dense`
    vote: int = 1  # how many of the simplest are taken


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


class Detector(nn.Module):
    """A binary detector: images in, one logit per image out; above 0 means fake.

    A subclass sets `data_config`, writes `preprocess` and `forward`, and may override the rest.
    It lives in one file under networks/ and is made known with `@register("name")`.
    """

    data_config = DataConfig()
    unused_for_key_compat: tuple[str, ...] = ()  # parameters that exist only so that a published file loads
    trunk_prefix = ""  # what stands before torchvision's names of a ResNet-50 in the state_dict
    enlargement = 1  # pixels that the trunk sees for each pixel given
    recipe = None  # name of its published settings, where that is not its own name
    imagenet = "ResNet50_Weights.IMAGENET1K_V1"  # torchvision's name of what --pretrained starts from
    companions = {}  # {name: sha256} of files beside its weights that scores depend on, once `ready`

    def __init__(self, space=SPACES["rgb"]):
        """space: the colour space whose constants `normalise` uses; ImageNet's for RGB."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(space.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(space.std).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def add_arguments(cls, group):
        """Adds the detector's own flags, prefixed with its name, to an argparse group."""

    @classmethod
    def from_options(cls, opt):
        """Builds the detector that the parsed options describe."""
        return cls()

    @classmethod
    def flags(cls, opt):
        """The detector's own flags in opt; those that are absent there have their defaults."""
        parser = argparse.ArgumentParser(add_help=False)
        cls.add_arguments(parser)
        known = parser.parse_args([])
        return argparse.Namespace(**{name: getattr(opt, name, value) for name, value in vars(known).items()})

    @classmethod
    def evaluation_flags(cls):
        """Names of its options that an evaluation may set otherwise than the training did."""
        return ()

    @classmethod
    def check_options(cls, opt):
        """ValueError where the detector's own flags do not go together."""

    @classmethod
    def recognise(cls, state, given=None):
        """The options of a foreign state_dict, or None if it is not this detector's.

        given: {option: value} that the user states about it.  ValueError where keys contradict it, or where
        neither decides.
        """
        with torch.device("meta"):  # shapes alone: no memory, no random numbers
            own = {name: tensor.shape for name, tensor in cls().state_dict().items()}
        return dict(given or {}) if own == {name: one.shape for name, one in state.items()} else None

    @classmethod
    def from_published(cls, state):
        """(the entries of a published file with fake = 1 and this project's units, a notice or "")."""
        return state, ""

    @classmethod
    def renamed(cls, state):
        """Entries of a file from elsewhere under the names that they have here."""
        return state

    def ready(self):
        """Fetches what it needs beside its weights, so that a lack shows before any work is done."""

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

        The order of operations is the one of the published loaders, (u / 255 - mean) / std, so that a
        published weight file meets the very numbers it was trained on.
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
    def configuration(self):
        """{name: value} of what differs from the detector's default build; pins down a record of results."""
        return {}

    def describe(self):
        """The build in words, for a notice or a table."""
        return "with its default options"

    def facts(self):
        """{name: text} of what an experiment's results.csv tells of a detector beside its words."""
        setting = {"arch": self.arch, **self.configuration}
        return {"factors": "", "setting": " ".join(f"{name}={value}" for name, value in setting.items())}

    def fused(self):
        """An equivalent module for inference; the detector itself unless it knows a faster form."""
        return self
