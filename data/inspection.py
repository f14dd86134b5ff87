"""What one reading of an image file says: its hash, its real format, its size, and what is wrong with it.

Files are inspected by worker processes; only the few values of `Facts` are kept of each, so that a set of a
million files fits memory.
"""

import hashlib
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin

from common import BadImage, UserError
from data.decode import DEFAULT_MAX_MPX, opened, read, to_rgb

HASH = "blake2b, 128 bits"
CHUNK = 32  # files per task: few enough for a smooth bar and a quick stop, enough to hide its cost


class Facts(NamedTuple):
    """One file: hash of its bytes, format, (width, height), and why it cannot be read ("": it can)."""

    digest: bytes = b""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


def inspect_file(path, hashes=True, pixels=True, max_mpx=DEFAULT_MAX_MPX):
    """The facts of one file, read once; without `hashes` no digest, without `pixels` only its header."""
    digest, fmt, size = b"", "", (0, 0)
    try:
        content = read(path)
        if hashes:
            digest = hashlib.blake2b(content, digest_size=16).digest()
        with opened(content, max_mpx) as image:
            fmt, size = image.format, image.size
            if pixels:
                image.load()
                to_rgb(image)
    except BadImage as error:
        return Facts(digest, fmt, size, str(error) or type(error).__name__)
    return Facts(digest, fmt, size)


def keeps_promise(path, facts):
    """Whether a readable file's format is one that its extension stands for."""
    extension = os.path.splitext(path)[1].lower()
    promised = Image.registered_extensions().get(extension, facts.format)
    # Pillow calls a JPEG of several pictures MPO, whatever its name.
    return bool(facts.error) or promised == facts.format or {promised, facts.format} == {"JPEG", "MPO"}


def inspect_files(paths, workers, **depth):
    """Yields the facts of files in their order.  depth: options of inspect_file."""
    return in_processes(partial(inspect_file, **depth), paths, workers)


def in_processes(function, jobs, workers):
    """Yields function(job) in the order of the jobs; `workers` 0 works in this process.

    UserError where the system kills a worker.
    """
    if not workers:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(workers, initializer=_leave_signals_to_the_parent)
    try:
        yield from pool.map(function, jobs, chunksize=CHUNK)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, by the system or by a broken decoder; "
            "--num_threads 1 needs less memory, --num_threads 0 shows a decoder's own message"
        ) from None
    except BaseException:  # a second Ctrl-C must not find workers that are waited for
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_signals_to_the_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent stops the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ----- what a header says -----

# The luminance table of quality 50.  Source: ITU-T T.81, annex K.1, in the order of rows.
LUMINANCE = np.array(
    """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103 99""".split(),
    float,
)
CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
TEXT_KEYS = 500  # characters of a text entry that are searched
# Words of generators in PNG text, EXIF and XMP.
GENERATOR_WORDS = (
    "stable diffusion, sampler, comfyui, prompt, midjourney, dall-e, dall·e, openai, firefly, imagen, flux, "
    "novelai, invokeai, c2pa, trainedalgorithmicmedia, adobe_mj, sd-metadata"
).split(", ")


def header(content, max_mpx=DEFAULT_MAX_MPX):
    """{feature: number or text} of a file's bytes, from its header: no pixel is decoded.  BadImage."""
    with opened(content, max_mpx) as image:
        width, height = image.size
        tables = getattr(image, "quantization", None) or {}
        words = _words(image)
        return {
            "container": "JPEG" if image.format == "MPO" else image.format,
            "mode": image.mode,
            "width": width,
            "height": height,
            "bytes": len(content),
            "bytes per pixel": len(content) / (width * height),
            "quality": _quality(tables),
            "quantisation": _digest(tables),
            "chroma": CHROMA.get(JpegImagePlugin.get_sampling(image), "other") if tables else "none",
            "progressive": "yes" if image.info.get("progressive") else "no",
            "metadata": " ".join(sorted({"exif", "icc_profile", "xmp"} & {*image.info})) or "none",
            "text": "yes" if words else "no",
            "generator named": "yes" if any(word in words for word in GENERATOR_WORDS) else "no",
        }


def _quality(tables):
    """The quality of libjpeg's scale whose luminance table is nearest; 0 without tables."""
    if not tables:
        return 0
    table = np.array(tables[min(tables)])
    qualities = np.arange(1, 101)[:, None]
    scale = np.where(qualities < 50, 5000 / qualities, 200 - 2 * qualities)
    scaled = np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255)
    return int(np.abs(scaled - table).sum(axis=1).argmin()) + 1


def _digest(tables):
    text = repr(sorted((key, list(table)) for key, table in tables.items()))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest() if tables else "none"


def _words(image):
    """The text of a header, in lower case."""
    entries = [value for name, value in image.info.items() if name not in ("icc_profile", "jfif")]
    entries += list(image.getexif().values())
    return " ".join(str(value)[:TEXT_KEYS] for value in entries if isinstance(value, (str, bytes))).lower()
