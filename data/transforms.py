"""Preparation of one image: the deterministic part (Geometry) and the random part (Augment).

By default both equal upstream NPR pixel for pixel: PIL bilinear resize to a square, blur and JPEG, random or
central crop, horizontal flip.  Source: NPR's data/datasets.py; blur and JPEG from CNNDetection.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from common import BadImage, UserError
from data.perturb import INTERPOLATIONS, JPEG_METHODS, MAX_ENLARGED_PIXELS, gaussian_blur


def square(size, side):
    """(width, height) of any image resized to a square; the aspect ratio is lost, as in upstream NPR."""
    return side, side


def shorter_side(size, side):
    """(width, height) of an image whose shorter side becomes `side`; the aspect ratio is kept.

    The longer side is rounded down, as torchvision's Resize does it in CNNDetection's loader.
    """
    return tuple(int(side * length / min(size)) for length in size)


GRID = "grid"
PLACES = (0.7548776662, 0.5698402910)  # steps of a sequence that fills a square evenly (Roberts' R2)

RESIZES = {"square": square, "shorter side": shorter_side}


def resize_rule(text):
    """A key of RESIZES as typed: shorter_side or "shorter side"."""
    return text.replace("_", " ")


@dataclass(frozen=True)
class Geometry:
    """Resize and crop rule.  Lengths in pixels; None switches a step off.

    An image smaller than the crop is repeated side by side until it covers it (GenImage's protocol in NPR).
    """

    load_size: int | None = 256
    crop_size: int | None = 224
    interpolation: str = "bilinear"
    even: bool = False  # drop the last row and the last column where their number is odd (README of NPR)
    resize: str = "square"  # what has `load_size` after the resize, of RESIZES
    crops: int | str = 1  # of an evaluation, whose logits are averaged: their number, or "grid" for all

    def resized(self, image, interpolation=None):
        """The image after the resize; BadImage where that would be a giant."""
        if self.load_size is None:
            return image
        width, height = RESIZES[self.resize](image.size, self.load_size)
        if width * height > MAX_ENLARGED_PIXELS:
            raise BadImage(f"{image.width}x{image.height}, resized by its shorter side, is {width}x{height}")
        return image.resize((width, height), INTERPOLATIONS[interpolation or self.interpolation])

    def tile(self, image):
        """Repeats a PIL image or tensor (3, H, W) smaller than the crop; larger ones pass unchanged."""
        width, height = image_size(image)
        crop = self.crop_size or 1
        columns, rows = math.ceil(crop / width), math.ceil(crop / height)
        if columns * rows == 1:
            return image
        wide, high = columns * width, rows * height
        if wide * high > MAX_ENLARGED_PIXELS:  # a strip of 1 x 100,000,000 is a small file
            raise BadImage(f"{width}x{height}, repeated to fill a crop of {crop}, is {wide}x{high}")
        if torch.is_tensor(image):
            return image.repeat(1, rows, columns)
        return Image.fromarray(np.tile(np.asarray(image), (rows, columns, 1)))

    def center_crop(self, image):
        """The central square of a PIL image or a tensor (..., H, W)."""
        return image if self.crop_size is None else center_crop(image, self.crop_size, self.crop_size)

    def trim(self, image):
        """Without the last column or row of an odd width or height, if `even` asks for it."""
        even = image.width - image.width % 2, image.height - image.height % 2
        return image.crop((0, 0, *even)) if self.even and 0 not in even else image

    def evaluation_view(self, image):
        """The image as an evaluation sees it: all steps, none of them random."""
        return self.trim(self.center_crop(self.tile(self.resized(image))))

    def evaluation_crops(self, image):
        """Several crops of the image, always the same: the first is the central one; a grid covers it all."""
        image = self.tile(self.resized(image))
        room = [length - self.crop_size for length in image_size(image)]
        if self.crops == GRID:
            lefts, tops = (np.linspace(0, more, math.ceil(more / self.crop_size) + 1) for more in room)
            corners = [(round(left), round(top)) for top in tops for left in lefts]
        else:
            places = (0.5 + np.outer(np.arange(self.crops), PLACES)) % 1
            corners = np.rint(places * room).astype(int).tolist()
        return [self.trim(crop(image, *corner, self.crop_size, self.crop_size)) for corner in corners]

    @property
    def fixed_size(self):
        """Whether every image comes out at one size."""
        square = self.load_size is not None and self.resize == "square"
        return self.crops != GRID and (self.crop_size is not None or square)

    def describe(self):
        """The effective input in words, e.g. for a table's caption."""
        rule = "{0}x{0}" if self.resize == "square" else f"{self.resize} to {{}}"
        resize = "stored size" if self.load_size is None else f"resize {rule.format(self.load_size)}"
        crop = "no crop" if self.crop_size is None else f"centre crop {self.crop_size}"
        if self.crops != 1:
            crop = f"mean of {'all' if self.crops == GRID else self.crops} crops of {self.crop_size}"
        return f"{resize}, {crop}" + (", trimmed to even sides" if self.even else "")

    def as_dict(self):
        """Plain values for a record of results, without what older records did not know and do not need."""
        values = asdict(self)
        if self.crops == 1:
            del values["crops"]
        if self.resize == "square" or self.load_size is None:
            del values["resize"]
        return values


@dataclass(frozen=True)
class Degradation:
    """Blur, then JPEG; None leaves a step out."""

    sigma: float | None = None  # pixels
    quality: int | None = None  # 1 to 100
    method: str = "pil"  # encoder, of JPEG_METHODS

    def apply(self, image):
        """RGB PIL image -> RGB PIL image of the same size."""
        if self.sigma is not None:
            image = Image.fromarray(gaussian_blur(np.array(image), self.sigma))
        if self.quality is not None:
            image = Image.fromarray(JPEG_METHODS[self.method](np.array(image), self.quality))
        return image

    def describe(self):
        """In words; "" for none."""
        blur = "" if self.sigma is None else f"blur {self.sigma}"
        compression = "" if self.quality is None else f"JPEG {self.quality} ({self.method})"
        return ", ".join(filter(None, [blur, compression]))


@dataclass(frozen=True)
class Augment:
    """Random part of training.  Ranges are (value,) or (lowest, highest), uniform, ends included."""

    blur_prob: float = 0.0
    blur_sigma: tuple = (0.5,)
    jpeg_prob: float = 0.0
    jpeg_methods: tuple = ("cv2",)
    jpeg_quality: tuple = (75,)
    interpolations: tuple = ("bilinear",)
    flip: bool = True

    @property
    def degrades(self):
        """Whether it changes more than the place and the direction of a crop."""
        return bool(self.blur_prob or self.jpeg_prob)

    def training_view(self, image, geometry, rng):
        """RGB PIL image -> what the network sees of it."""
        return augmented(image, geometry, self, rng)[0][0]

    def degradation(self, rng):
        """Blur and JPEG, each with its own probability."""
        blur, compress = rng.random() < self.blur_prob, rng.random() < self.jpeg_prob
        sigma = rng.uniform(self.blur_sigma[0], self.blur_sigma[-1]) if blur else None
        method = self.jpeg_methods[rng.integers(len(self.jpeg_methods))] if compress else "cv2"
        quality = int(rng.integers(self.jpeg_quality[0], self.jpeg_quality[-1] + 1)) if compress else None
        return Degradation(sigma, quality, method)

    def crop_and_flip(self, images, crop_size, rng):
        """The same uniformly random crop of PIL images or tensors (3, H, W) of one size, maybe mirrored."""
        if crop_size is not None:
            width, height = image_size(images[0])
            left, top = int(rng.integers(width - crop_size + 1)), int(rng.integers(height - crop_size + 1))
            images = [crop(image, left, top, crop_size, crop_size) for image in images]
        return [mirrored(image) for image in images] if self.flip and rng.random() < 0.5 else images


@dataclass(frozen=True)
class Limits:
    """What is refused, or cut to fit, before the network sees it."""

    min_side: int = 1
    max_input_mpx: float = 16.0  # about 5 GB of activations in fp32 for the NPR network
    crop_large: bool = False  # cut the centre out of a larger input instead of refusing it

    def check(self, image):
        """The image (PIL or tensor), or its centre; BadImage when it is too small or too large."""
        width, height = image_size(image)
        if min(width, height) < self.min_side:
            raise BadImage(f"{width}x{height} is too small; the detector needs {self.min_side} pixels a side")
        if width * height <= self.max_input_mpx * 1e6:
            return image
        if not self.crop_large:
            limit = f"--max_input_mpx {self.max_input_mpx:g}"
            raise BadImage(f"{width}x{height} is above {limit}; raise it, resize, or use --large_images crop")
        return center_crop(image, *self.largest_fit(width, height))

    def largest_fit(self, width, height):
        """(height, width), even, same aspect ratio as far as possible, within max_input_mpx."""
        shrink = math.sqrt(self.max_input_mpx * 1e6 / (width * height))
        short = max(2, int(min(width, height) * shrink) // 2 * 2)
        long = min(int(max(width, height) * shrink), int(self.max_input_mpx * 1e6) // short) // 2 * 2
        return (short, long) if height <= width else (long, short)


def prepare(image, geometry, limits, augment=None, rng=None):
    """RGB PIL image -> uint8 tensor (3, H, W), in an evaluation with several crops (N, 3, H, W).

    augment: Augment, or CropAugment of data/augment.py; rng, a numpy Generator, decides everything random.
    """
    if augment is None and geometry.crops != 1:
        return torch.stack([to_tensor(limits.check(view)) for view in geometry.evaluation_crops(image)])
    view = augment.training_view(image, geometry, rng) if augment else geometry.evaluation_view(image)
    return to_tensor(limits.check(view))


def augmented(image, geometry, augment, rng, clean=False):
    """([the image as training sees it], its Degradation); with `clean` also the same view before that."""
    image = geometry.resized(image, augment.interpolations[rng.integers(len(augment.interpolations))])
    degradation = augment.degradation(rng)
    views = [degradation.apply(image), image] if clean else [degradation.apply(image)]
    return augment.crop_and_flip(list(map(geometry.tile, views)), geometry.crop_size, rng), degradation


def image_size(image):
    """(width, height) of a PIL image or a tensor (..., H, W)."""
    return tuple(image.shape[:-3:-1]) if torch.is_tensor(image) else image.size


def center_crop(image, height, width):
    """The centre of a PIL image or tensor (..., H, W) that is at least that large, as torchvision cuts it."""
    full_width, full_height = image_size(image)
    # Halves are rounded to even, in torchvision too.
    top, left = round((full_height - height) / 2), round((full_width - width) / 2)
    return crop(image, left, top, width, height)


def crop(image, left, top, width, height):
    """A rectangle of a PIL image or a tensor (..., H, W)."""
    if torch.is_tensor(image):
        return image[..., top : top + height, left : left + width]
    return image.crop((left, top, left + width, top + height))


def mirrored(image):
    """A PIL image or a tensor (..., H, W) with left and right exchanged."""
    return image.flip(-1) if torch.is_tensor(image) else ImageOps.mirror(image)


def to_tensor(image):
    """RGB PIL image -> uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def eval_geometry(opt, data_config, row=None, trained=None):
    """An evaluation's Geometry: a flag decides, else the protocol's row, the training run, the detector.

    Args:
        opt: parsed options; flags that were not given are None, or False.
        data_config: of the detector (networks.base.DataConfig).
        row: Geometry of a protocol, or None.
        trained: options saved in a checkpoint of ours, or empty.
    """
    source = data_config.geometry_source
    geometry = {name: getattr(data_config, name) for name in ("load_size", "crop_size", "resize")}
    if trained:
        # A run from before the choice of a rule has none on record: it resized to a square.
        geometry |= {"resize": "square"} | _chosen_geometry(trained)
        geometry["crop_size"] = trained.get("val_crop") or geometry["crop_size"]
        geometry["crops"] = trained.get("crops") or 1
    if source == "stored" or (not trained and data_config.published_geometry == "stored"):
        geometry |= {"load_size": None, "crop_size": None}
    if row is not None and source == "protocol" and not data_config.patches:
        geometry = asdict(row) | {"crops": geometry.get("crops", 1)}
    geometry = Geometry(**geometry | _chosen_geometry(vars(opt)))
    if geometry.crops != 1 and (data_config.patches or data_config.noise_bits is not None):
        raise UserError("--crops is for detectors of whole photographs, not of patches or noise files")
    if geometry.crops != 1 and geometry.crop_size is None:
        raise UserError("several crops need a size: --cropSize, or --crops 1 with --no_crop")
    return geometry


def _chosen_geometry(options):
    """{field of Geometry: value} that options set, those of a command line or of a training run."""
    flags = {"load_size": "loadSize", "crop_size": "cropSize", "resize": "resize_rule", "crops": "crops"}
    chosen = {name: options[flag] for name, flag in flags.items() if options.get(flag) is not None}
    if options.get("no_resize"):
        chosen["load_size"] = None
    if options.get("no_crop"):
        chosen["crop_size"] = None
    if options.get("rz_interp"):
        chosen["interpolation"] = options["rz_interp"][0]
    return chosen
