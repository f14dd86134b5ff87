"""From a file to an RGB picture: the one function through which every image of the project is read.

The content decides the format, not the name.  Rules: alpha is dropped, not composited (as upstream's loader
does); 1, L, LA, P, CMYK, YCbCr, ... through Pillow's own conversion; 16-bit greyscale keeps its high byte;
animated and multi-picture files give their first frame; EXIF orientation is left alone unless asked for
(Pillow turns TIFFs upright by itself, here as in upstream).

Damage inside a file: decoders notice it in PNG, GIF and LZW TIFFs, data/jpeg.py in most JPEGs.  None can
notice it where pixels are stored as they are (BMP, PPM, plain TIFF), nor, as a rule, in WebP, AVIF, JPEG 2000
and other TIFFs, where almost any sequence of bytes is a picture.  Only a checksum of the file helps.
"""

import functools
import io
import stat
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from common import BadImage
from data.jpeg import check_jpeg

DEFAULT_MAX_MPX = 100  # a decompression bomb of 300 MB as RGB; larger photographs exist but are rare
# The decoders that meet foreign files; others start programs (EPS) or decode before the size check (ICO).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")


def decode(path, max_mpx=DEFAULT_MAX_MPX, exif="ignore"):
    """Reads one image file completely.

    Args:
        max_mpx: refuse images of more than this many million pixels, before any pixel is decoded.
        exif: "ignore" keeps the stored orientation, "apply" turns the picture upright.
    Returns: an RGB PIL image.  Raises BadImage for empty, truncated, foreign, oversized or unreadable files.
    """
    return decode_bytes(read(path), max_mpx, exif)


def decode_bytes(content, max_mpx=DEFAULT_MAX_MPX, exif="ignore"):
    """The picture of a file's content; see `decode`."""
    with opened(content, max_mpx) as image:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image) if exif == "apply" else image)


def read(path):
    """The bytes of a file; BadImage when they cannot be had, without waiting at a named pipe."""
    with _one_reason():
        path = Path(path)
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise BadImage("not a regular file")
        return path.read_bytes()


def is_lossless(path):
    """Whether a file's container keeps pixels as they are, by its first bytes; False if unreadable."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    webp = start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8L"
    return webp or start.startswith((b"\x89PNG", b"BM", b"P6", b"P5", b"II*\0", b"MM\0*"))


@contextmanager
def opened(content, max_mpx=DEFAULT_MAX_MPX):
    """The PIL image of a file's content, its header checked, no pixel decoded; whatever fails is BadImage."""
    Image.MAX_IMAGE_PIXELS = None  # max_mpx takes its place; Pillow's limit only warns up to twice its value
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a half-grey picture must not be scored, whoever switched it on
    if not content:
        raise BadImage("empty file")
    with _one_reason(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corrupt EXIF, palette transparency: no pixel depends on them
        with Image.open(io.BytesIO(content), formats=_installed_formats()) as image:
            width, height = image.size
            mpx = width * height / 1e6
            if mpx > max_mpx:
                raise BadImage(f"{width}x{height} is {mpx:.1f} Mpx, above --max_mpx {max_mpx:g}")
            if image.format in ("JPEG", "MPO"):
                check_jpeg(content)
            yield image


@contextmanager
def _one_reason():
    """Turns whatever fails inside into BadImage with its reason."""
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image of a known format") from None
    except MemoryError:
        raise BadImage("does not fit memory") from None
    except Exception as error:  # Pillow's decoders raise almost anything on broken input
        text = f"{type(error).__name__}: {error}"
        raise BadImage(getattr(error, "strerror", None) or text) from error


def to_rgb(image):
    """Any PIL image -> RGB by the rules at the top of this file."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # I;16, I;16B, I: 16-bit greyscale
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise BadImage(f"pixels outside 0..65535 (mode {image.mode}) have no 8-bit meaning")
        return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("floating-point pixels (mode F) have no 8-bit meaning")
    return image.convert("RGB")


@functools.cache
def _installed_formats():
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF came late to Pillow
