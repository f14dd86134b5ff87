"""Image degradations: of training augmentation, and the views of an evaluation.

A view is a chain of steps joined by +, each NAME:VALUE or NAME:VALUE:OPTION, or a name of VIEWS:

    web      jpeg:75      resize:0.5:lanczos+jpeg:60      crop:0.5+noise:2

To add a step, write a function (image, value) -> image and give it a line in PERTURBATIONS.
Source of blur and JPEG as augmentation: Wang et al., "CNN-generated images are surprisingly easy to spot...
for now", CVPR 2020, section 3.2.
"""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image, ImageFilter

from common import BadImage, UserError

MAX_ENLARGED_PIXELS = 100_000_000
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

# ----- of arrays, RGB uint8 (H, W, 3) -----


def gaussian_blur(pixels, sigma):
    """Gaussian blur of each channel; sigma in pixels, 0 leaves the image as it is."""
    if sigma == 0:
        return pixels
    from scipy.ndimage import gaussian_filter  # here, since it takes long to import

    return gaussian_filter(pixels, sigma=(sigma, sigma, 0))


def jpeg_cv2(pixels, quality):
    """JPEG round trip through OpenCV's encoder, chroma 4:2:0; quality 1 to 100."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def jpeg_pil(pixels, quality):
    """JPEG round trip through Pillow's encoder, chroma 4:2:0; quality 1 to 100."""
    return np.array(encoded(Image.fromarray(pixels), "JPEG", quality=quality))


JPEG_METHODS = {"cv2": jpeg_cv2, "pil": jpeg_pil}

# ----- of RGB PIL images -----


def encode(image, container, **options):
    """The bytes of a file, written by Pillow; comments, profiles and the like stay behind."""
    buffer = io.BytesIO()
    if image.info:
        image = image.copy()
        image.info.clear()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def encoded(image, container, **options):
    """The image after a round trip through an encoder of Pillow."""
    with Image.open(io.BytesIO(encode(image, container, **options))) as decoded:
        decoded.load()
        return decoded if decoded.mode == "RGB" else decoded.convert("RGB")


def jpeg(image, quality, method):
    """JPEG of this quality, chroma 4:2:0."""
    return method(image, quality)


def _jpeg_by_pillow(image, quality):
    return encoded(image, "JPEG", quality=quality)


def _jpeg_by_opencv(image, quality):
    return Image.fromarray(jpeg_cv2(np.array(image), quality))


def webp(image, quality):
    """Lossy WebP of this quality, which has chroma 4:2:0 always."""
    return encoded(image, "WEBP", quality=quality)


def blur(image, sigma):
    """Gaussian blur; sigma in pixels."""
    return Image.fromarray(gaussian_blur(np.array(image), sigma))


def noise(image, sigma, rng):
    """Gaussian noise, a draw per pixel and channel; sigma in grey levels."""
    noisy = np.array(image) + rng.normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def resize(image, factor, kernel):
    """Both sides times `factor`, rounded; BadImage where that would be a giant."""
    width, height = (max(1, round(side * factor)) for side in image.size)
    if width * height > MAX_ENLARGED_PIXELS:
        raise BadImage(f"{image.width}x{image.height}, resized by {factor:g}, is {width}x{height}")
    return image.resize((width, height), kernel)


def fit(image, longest, kernel):
    """Shrunk until the longer side is `longest`; smaller images stay as they are."""
    factor = longest / max(image.size)
    return resize(image, factor, kernel) if factor < 1 else image


def crop(image, share):
    """The centre: `share` of each side, rounded."""
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def gamma(image, exponent):
    """Values in [0, 1] to the power of `exponent`: above 1 darker, below 1 brighter."""
    return image.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)


def sharpen(image, percent):
    """Unsharp mask of radius 1 pixel and this strength."""
    return image.filter(ImageFilter.UnsharpMask(radius=1, percent=percent, threshold=0))


@dataclass(frozen=True)
class Perturbation:
    """A function of PERTURBATIONS and its legal values; `options` are the choices of a second argument.

    The further a value is from `harmless`, the more of the image is lost; encoders get better for ever.
    """

    function: Callable
    lowest: float
    highest: float
    options: dict = field(default_factory=dict)  # the first is the default
    convert: type = float
    default: float | None = None  # of a step without a value
    harmless: float = math.inf
    random: bool = False  # takes a numpy Generator


BICUBIC_FIRST = {"bicubic": INTERPOLATIONS["bicubic"], **INTERPOLATIONS}
PERTURBATIONS = {
    "jpeg": Perturbation(jpeg, 1, 100, {"pil": _jpeg_by_pillow, "cv2": _jpeg_by_opencv}, convert=int),
    "webp": Perturbation(webp, 1, 100, convert=int),
    "blur": Perturbation(blur, 0, 100, harmless=0),
    "noise": Perturbation(noise, 0, 255, random=True, harmless=0),
    "resize": Perturbation(resize, 0.01, 16, BICUBIC_FIRST, harmless=1),
    "fit": Perturbation(fit, 8, 65_536, BICUBIC_FIRST, convert=int),
    "crop": Perturbation(crop, 0.01, 1, harmless=1),
    "gamma": Perturbation(gamma, 0.1, 10, harmless=1),
    "sharpen": Perturbation(sharpen, 1, 500, convert=int, default=100, harmless=0),
    # A screen at 125 % scaling, saved without loss.
    "screenshot": Perturbation(
        resize, 0.01, 16, {"bilinear": INTERPOLATIONS["bilinear"]}, default=1.25, harmless=1
    ),
}

# ----- views -----

NATIVE = "native"
SHARED = "resize:0.8:lanczos+sharpen:100+jpeg:75"
VIEWS = {
    NATIVE: "",
    "aligned": "jpeg:96",  # DDA, arXiv 2505.14359, aligns to this quality
    "web": "fit:768+jpeg:60",
    "hard": "fit:512+jpeg:40",
    "social": f"{SHARED}+{SHARED}",
}
# What `sweep` stands for.
SWEEP = (
    "native jpeg:95 jpeg:75 jpeg:50 webp:80 webp:50 blur:0.5 blur:1 blur:2 resize:0.5 resize:0.75 resize:1.5 "
    "crop:0.75 noise:2 noise:5 social"
).split()
LONGEST_SLUG = 80


@dataclass(frozen=True)
class View:
    """A chain of degradations that every image goes through; its name is what the user typed."""

    name: str
    steps: tuple[tuple[str, float, str], ...] = ()  # (key of PERTURBATIONS, value, option or "")

    def __str__(self):
        return self.name

    def __call__(self, image, seed=(0,)):
        """RGB PIL image -> RGB PIL image.  seed: whole numbers that decide everything random."""
        for position, (name, value, option) in enumerate(self.steps):
            known = PERTURBATIONS[name]
            extra = [known.options[option]] if option else []
            extra += [np.random.default_rng((*seed, position))] if known.random else []
            try:
                image = known.function(image, value, *extra)
            except BadImage:
                raise
            except (OSError, ValueError, cv2.error) as error:  # an encoder refuses the size, for example
                raise BadImage(f"{name}: {' '.join(str(error).split())}") from error
        return image

    def file(self, image, seed=(0,)):
        """The bytes of the file that the chain ends in: of its last encoder, else a PNG."""
        name, quality, option = self.steps[-1] if self.steps else ("", 0, "")
        if name == "webp" or option == "pil":
            before = View(self.name, self.steps[:-1])(image, seed)
            return encode(before, name, quality=quality)
        return encode(self(image, seed), "PNG")

    @property
    def chain(self):
        """All steps in full, "" for none."""
        return "+".join(
            f"{name}:{_exact(value)}" + f":{option}" * bool(option) for name, value, option in self.steps
        )

    @property
    def slug(self):
        """The name for a file: two views never share one."""
        slug = self.name.replace(":", "-").replace("+", "_")
        if len(slug) <= LONGEST_SLUG:
            return slug
        return f"{slug[:LONGEST_SLUG]}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"


AS_STORED = View(NATIVE)


def parse_view(text):
    """A View of a name of VIEWS, or of a chain of steps and names; UserError says what is wrong."""
    text = text.strip().lower()
    chains = [VIEWS.get(part.strip(), part) for part in text.split("+") if part.strip() != NATIVE]
    steps = tuple(_parse_step(step) for chain in chains for step in chain.split("+"))
    return View(text if text in VIEWS else "+".join(map(_short, steps)) or NATIVE, steps)


def parse_views(text):
    """'native,web,jpeg:75' -> Views, each once; `sweep` stands for those of SWEEP."""
    words = [word.strip() for word in text.split(",")]
    names = [name for word in words for name in (SWEEP if word == "sweep" else [word])]
    return tuple({view.slug: view for view in map(parse_view, names)}.values())


def _parse_step(text):
    name, *words = text.strip().split(":")
    if name not in PERTURBATIONS:
        raise UserError(
            f"expected a view ({', '.join(VIEWS)}, sweep) or steps joined by + "
            f"({', '.join(PERTURBATIONS)}), got {text!r}"
        )
    known = PERTURBATIONS[name]
    option = words[1] if len(words) > 1 else next(iter(known.options), "")
    try:
        value = known.convert(words[0] if words else known.default)
    except (TypeError, ValueError):
        value = None
    if value is None or not known.lowest <= value <= known.highest:
        number = "a whole number" if known.convert is int else "a number"
        raise UserError(f"{name} needs {number} from {known.lowest:g} to {known.highest:g}, got {text!r}")
    if len(words) > 2 or "" in words or (option and option not in known.options):
        form = ":".join([name, f"{value:g}", *filter(None, ["|".join(known.options)])])
        raise UserError(f"{text!r} is not of the form {form}")
    return name, value, option


def _short(step):
    """A step as it is typed, without the option that is the default."""
    name, value, option = step
    usual = option == next(iter(PERTURBATIONS[name].options), "")
    return f"{name}:{_exact(value)}" + ("" if usual else f":{option}")


def _exact(value):
    """A value in as few digits as tell it from all others: 2 and 0.5, not 2.0."""
    return repr(value).removesuffix(".0")
