"""What is in an image file, found in one reading: its hash, its real format, its size, and what is wrong.

Files are inspected by worker processes; of each only the few values of `Facts` are kept, so that a set of
a million files fits memory.
"""

import hashlib
import itertools
import os
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import NamedTuple

from common import BadImage, UserError
from data.decode import DEFAULT_MAX_MPX, opened, read, to_rgb

HASH = "blake2b, 128 bits"
CHUNK = 32  # files per task: few enough for a smooth bar and a quick stop, enough to hide its cost
AHEAD = 4  # tasks per worker under way; bounds what waits in memory
# What a name promises: extension -> formats as Pillow calls them.
PROMISES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), ("JPEG", "MPO")),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **dict.fromkeys((".ppm", ".pgm"), ("PPM",)),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".bmp": ("BMP",),
    ".gif": ("GIF",),
    ".avif": ("AVIF",),
    ".jp2": ("JPEG2000",),
}


class Facts(NamedTuple):
    """One file: hash of its bytes, format, (width, height), and why it cannot be read ("": it can)."""

    digest: bytes = b""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


@dataclass(frozen=True)
class Depth:
    """How much of a file is looked at: its hash, its pixels, and above how many Mpx none of them."""

    hashes: bool = True
    pixels: bool = True
    max_mpx: float = DEFAULT_MAX_MPX


def inspect_file(path, depth):
    """The facts of one file, read once."""
    digest, kind, size = b"", "", (0, 0)
    try:
        content = read(path)
        if depth.hashes:
            digest = hashlib.blake2b(content, digest_size=16).digest()
        with opened(content, depth.max_mpx) as image:
            kind, size = image.format, image.size
            if depth.pixels:
                image.load()
                to_rgb(image)
    except BadImage as error:
        return Facts(digest, kind, size, str(error) or type(error).__name__)
    return Facts(digest, kind, size)


def keeps_promise(path, facts):
    """Whether a readable file's format is one that its extension stands for."""
    extension = os.path.splitext(path)[1].lower()
    return bool(facts.error) or facts.format in PROMISES.get(extension, (facts.format,))


def inspect_files(paths, depth, workers):
    """Yields the facts of files in their order; `workers` 0 inspects them in this process.

    A worker that the system kills raises ValueError.
    """
    if not workers:
        yield from (inspect_file(path, depth) for path in paths)
        return
    paths, waiting, same = iter(paths), deque(), {}
    pool = ProcessPoolExecutor(workers, initializer=_leave_signals_to_the_parent)
    try:
        while True:
            while len(waiting) < AHEAD * workers and (chunk := list(itertools.islice(paths, CHUNK))):
                waiting.append(pool.submit(_inspect_chunk, chunk, depth))
            if not waiting:
                return
            for facts in waiting.popleft().result():  # equal formats and sizes share one object
                yield facts._replace(
                    format=same.setdefault(facts.format, facts.format),
                    size=same.setdefault(facts.size, facts.size),
                )
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, by the system or by a broken decoder; "
            "--num_threads 1 needs less memory, --num_threads 0 shows a decoder's own message"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect_chunk(paths, depth):
    return [inspect_file(path, depth) for path in paths]


def _leave_signals_to_the_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent stops the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
