"""The contract that every detector keeps: what it takes, what it returns, what scripts may ask of it."""

import argparse
import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common import UserError, as_typed
from networks.color import SPACES
from networks.fuse import fold_batch_norms


@dataclass(frozen=True)
class Patches:
    """Which patches of an image a detector sees (data/patches.py).  Lengths in pixels."""

    size: int = 32
    select: str = "random64"  # which patches are candidates: random64, grid or dense
    stride: int = 8  # between two candidates of `dense`
    vote: int = 1  # how many of the simplest are taken


@dataclass(frozen=True)
class DataConfig:
    """How a detector wants its images unless a flag or a protocol says otherwise.  Lengths in pixels."""

    load_size: int | None = 256  # side of the resize; None keeps the stored size
    crop_size: int | None = 224  # side of the crop, random in training, central in validation; None takes all
    resize: str = "square"  # what has `load_size` after the resize: both sides, or the "shorter side"
    min_side: int = 1  # a smaller image cannot be scored
    patches: Patches | None = None  # the detector sees patches of the image at its stored size
    clean_pair: bool = False  # training samples carry `clean`, `blurred` and `compressed` as well
    noise_bits: int | None = None  # of a channel in files of noise patterns, 8 or 16; None: photographs
    # Where an evaluation takes resize and crop from unless a flag says so: the "protocol", the "training", or
    # "stored": images at their stored size.  Then the same for a published file without a protocol, which has
    # no training on record: "training" is load_size and crop_size above.
    geometry_source: str = "protocol"
    published_geometry: str = "training"
    enlargement: float = 1.0  # pixels that the network computes on for each pixel given


class Published(NamedTuple):
    """A published weight file as a detector of this project takes it."""

    options: dict  # of the detector's own flags
    entries: dict  # its state_dict with fake = 1 and this project's units
    notice: str = ""  # what was changed on loading


class Detector(nn.Module):
    """A binary detector: images in, one logit per image out; above 0 means fake.

    A subclass writes `forward(images)`, which takes what `preprocess` takes and returns logits (B,), float32,
    and the property `cam_layer`, the module whose activations a class-activation map is drawn from; it may
    override the rest.  It is one file under networks/, known by `@register("name")`, which sets `arch`.
    """

    data_config = DataConfig()
    signature: tuple[str, ...] = ()  # keys that every published file of this detector has
    remark = ""  # follows its description where training starts: what its name may be mistaken for
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
        """A state_dict that has the signature, and {option: value} given by the user -> Published.

        UserError where both contradict each other, or do not decide how the detector was built.
        """
        return Published(given, state)

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
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> normalised float32 of the same shape."""
        # In the order of the published loaders: their weights get exactly the numbers they were trained on.
        return (self.unit(images) - self.mean) / self.std

    def preprocess(self, images):
        """RGB uint8, or float in [0, 1], (B, 3, H, W) -> the float32 tensor that the trunk sees."""
        return self.normalise(images)

    def logit(self, fc, features):
        """Features (B, C) -> logits (B,), float32 under autocast too: bf16 logits tie and move AP."""
        with torch.autocast(device_type=features.device.type, enabled=False):
            return fc(features.float()).squeeze(1)

    def loss(self, batch):
        """Batch with `image` and `label` -> named scalar terms, `total` their sum, and the `logits`."""
        logits = self(batch["image"])
        bce = F.binary_cross_entropy_with_logits(logits, batch["label"].float())
        return {"total": bce, "bce": bce.detach(), "logits": logits.detach()}

    def fused(self):
        """(a copy for evaluation with the same logits in fewer steps, what was fused in words or "")."""
        network = copy.deepcopy(self).eval()
        count = fold_batch_norms(network)
        return network, f"{count} batch norms" if count else ""

    @property
    def config(self):
        """{name: value} of what differs from the detector's default build and decides what weights mean."""
        return {}


def init_convolutions(module):
    """Kaiming-normal weights (fan_out) for every convolution in a module, in its order."""
    for layer in module.modules():
        if (
            isinstance(layer, nn.Conv2d) and not layer.weight.is_meta
        ):  # there torch imports its compiler, a second
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
    """A Namespace of the detector's own flags in opt, or their defaults; UserError for an unknown choice."""
    parser = argparse.ArgumentParser(add_help=False)
    cls.add_arguments(parser)
    flags = argparse.Namespace()
    for action in parser._actions:
        value = getattr(opt, action.dest, action.default)
        if action.choices and value != action.default and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            raise UserError(f"{action.option_strings[0]} is one of {known}, got {value!r}")
        setattr(flags, action.dest, value)
    return flags
