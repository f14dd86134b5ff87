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

from PIL import Image

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
    """Yields the facts of files in their order; `workers` 0 inspects them in this process.

    depth: options of inspect_file.  UserError where the system kills a worker.
    """
    inspect = partial(inspect_file, **depth)
    if not workers:
        yield from map(inspect, paths)
        return
    pool = ProcessPoolExecutor(workers, initializer=_leave_signals_to_the_parent)
    try:
        yield from pool.map(inspect, paths, chunksize=CHUNK)
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
