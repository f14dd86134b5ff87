"""Training augmentation as a random chain of degradations, on crops of stored size.

    resize:0.4..1.3@0.7+blur:0..1.5@0.2+noise:0..3@0.2+jpeg/webp:30..95@0.85+jpeg/webp:30..95@0.3

A step is a name of data/perturb.py, or several joined by / to draw one from; LOW..HIGH, drawn
uniformly; and @ how often it happens (1 if left out).  Its option, a kernel or an encoder, is drawn as well.
"""

import math
from dataclasses import dataclass

from PIL import Image

from common import UserError
from data.perturb import PERTURBATIONS, View
from data.transforms import crop, mirrored

STEPS = "resize blur noise gamma sharpen jpeg webp".split()  # others change what is in the picture
PHASES = 8  # a crop begins anywhere in the blocks of a JPEG
FORM = "NAME[/NAME]:LOW..HIGH[@SHARE]"


@dataclass(frozen=True)
class RandomStep:
    """One of `names`, with a value from `low` to `high`, in a `share` of the images."""

    names: tuple[str, ...]
    low: float
    high: float
    share: float = 1.0

    def draw(self, rng):
        """A step of a View, or None.  The same number of draws in both cases."""
        happens, name = rng.random() < self.share, self.names[rng.integers(len(self.names))]
        known, place = PERTURBATIONS[name], rng.random()
        options = list(known.options) or [""]
        option = options[rng.integers(len(options))]
        whole = known.convert is int  # then both ends are as likely as what is between
        value = known.convert(self.low + place * (self.high - self.low + whole))
        return (name, value, option) if happens else None


def parse_chain(text):
    """The text of a random chain -> RandomSteps; UserError says what is wrong."""
    return tuple(_parse_step(part.strip()) for part in text.strip().lower().split("+"))


def _parse_step(text):
    names, _, rest = text.partition(":")
    names, (values, _, share) = tuple(names.split("/")), rest.partition("@")
    if unknown := [name for name in names if name not in STEPS]:
        raise UserError(f"expected steps {', '.join(STEPS)}, got {unknown[0]!r}")
    low, _, high = values.partition("..")
    try:
        step = RandomStep(names, float(low), float(high or low), float(share or 1))
    except ValueError:
        raise UserError(f"expected {FORM}, got {text!r}") from None
    if not 0 <= step.share <= 1 or step.low > step.high:
        raise UserError(f"expected {FORM} with LOW <= HIGH and a share from 0 to 1, got {text!r}")
    for known in map(PERTURBATIONS.get, names):
        if not known.lowest <= step.low <= step.high <= known.highest:
            raise UserError(f"{'/'.join(names)} takes {known.lowest:g} to {known.highest:g}, got {text!r}")
    return step


@dataclass(frozen=True)
class CropAugment:
    """The random part of training with --degrade: a piece of the image, degraded, cropped, turned.

    Everything is drawn before the image is looked at, so that images of one size and one generator state get
    the same draw.  Only the piece that the crop needs is degraded.
    """

    steps: tuple[RandomStep, ...]
    flip: bool = True
    rot90: bool = False
    degrades = True

    def training_view(self, image, geometry, rng):
        """RGB PIL image -> the crop that the network sees.  A smaller image is repeated."""
        drawn = tuple(filter(None, [step.draw(rng) for step in self.steps]))
        seed, places = int(rng.integers(2**32)), rng.random(4)
        mirror, turns = rng.random() < 0.5, int(rng.integers(4))
        scale = math.prod(value for name, value, _ in drawn if name == "resize")
        size = geometry.crop_size
        image = geometry.resized(image)
        if size is not None:
            image = _piece(image, math.ceil((size + PHASES) / scale) + 1, places[:2])
        image = geometry.tile(View("drawn", drawn)(image, (seed,)))
        if size is not None:
            image = _piece(image, size, places[2:])
        image = mirrored(image) if self.flip and mirror else image
        return image.transpose(TURNS[turns]) if self.rot90 and turns else image


TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def _piece(image, side, places):
    """A square of this side, or what the image has; places: (from left, from top), each in [0, 1)."""
    width, height = (min(side, length) for length in image.size)
    left, top = int(places[0] * (image.width - width + 1)), int(places[1] * (image.height - height + 1))
    return crop(image, left, top, width, height)
