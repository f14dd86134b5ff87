"""Writes pairs of a photograph and its twin: the same crop through the last component of a generator.

    python -m tools.reconstruct --input photos --output pairs --with esrgan waifu2x upsampler:bicubic
    python -m tools.reconstruct --input photos --output pairs --with vae:stabilityai/sdxl-vae --device cuda

--with takes NAME or NAME:WEIGHTS.  Each real is a crop of --side pixels at its stored size, never resized.
Both are PNG, RGB, of one size: <output>/<name>/{0_real,1_fake}/<stem>.png; settings and counts are in
<output>/<name>/reconstruct.json.  The same command resumes.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import argparse
import hashlib
import re
import time
from collections import defaultdict, deque
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from common import (
    BadImage,
    Parser,
    UserError,
    folder_to_write,
    non_negative_int,
    number,
    owned,
    positive_int,
    torch_device,
    write_json,
    written_whole,
)
from data.decode import decode
from data.folder import LAYOUTS, files_scan
from data.reconstructors import RECONSTRUCTORS, check
from util import run
from util.identity import file_list_sha256, read_side_file, require_same

RECORD = "reconstruct.json"
STEM = 50  # characters of a path that a stem keeps
FIT_CROPS = 64  # photographs that a reconstructor may be fitted on
PLACES = {
    "center": lambda room, rng: [length // 2 for length in room],
    "random": lambda room, rng: [int(rng.integers(length + 1)) for length in room],
}


def main(argv=None):
    """Writes the pairs of every reconstructor, one after the other."""
    opt = parse(argv)
    for name, weights in opt.reconstructors:
        check(name, weights)
    here, there = opt.input.resolve(), opt.output.resolve()
    if not here.is_dir():
        raise UserError(f"--input is a folder of photographs, got {opt.input}")
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise UserError(f"--output {opt.output} must not be --input, or inside or above it")
    opt.device = run.pick_device(opt)
    for name, weights in opt.reconstructors:
        reconstruct_all(opt, name, weights)


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m tools.reconstruct", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--input",
        type=folder_to_write,
        required=True,
        help="folder of photographs; those in folders of fakes are left out",
    )
    add("--output", type=folder_to_write, required=True, help="folder of the pairs")
    add(
        "--with",
        dest="reconstructors",
        type=named,
        nargs="+",
        required=True,
        metavar="NAME[:WEIGHTS]",
        help=f"reconstructors: {', '.join(RECONSTRUCTORS)}",
    )
    sides = number(int, lambda value: value > 0 and value % 8 == 0, "a multiple of 8")
    add("--side", type=sides, default=256, help="side of the crops in pixels; smaller images are skipped")
    add("--place", choices=PLACES, default="center", help="where the crop is taken")
    add("--limit", type=positive_int, help="pairs per reconstructor, evenly from all sub-folders")
    add("--seed", type=non_negative_int, default=0, help="seed of the choice of images and of random places")
    add("--device", type=torch_device, default="auto", help="device of vae, taesd and vq")
    add("--batch_size", type=positive_int, default=4, help="images in one pass")
    return parser.parse_args(argv)


def named(text):
    """'vae:owner/name' -> ('vae', 'owner/name')."""
    name, _, weights = text.partition(":")
    if name not in RECONSTRUCTORS:
        raise argparse.ArgumentTypeError(f"unknown {name!r}; expected one of {', '.join(RECONSTRUCTORS)}")
    return name, weights


def reconstruct_all(opt, name, weights):
    """Writes the pairs of one reconstructor, and the record next to them."""
    folder = opt.output / slug("-".join(filter(None, [name, weights])))
    with owned(folder), run.StopSignal("the same command resumes") as stop:
        reals = Reals(opt, folder)
        settings = {"reconstructor": name, "weights": weights, "side": opt.side, "place": opt.place}
        settings |= {"limit": opt.limit, "seed": opt.seed, "images": file_list_sha256(reals.samples)}
        if {path.name for path in run.contents(folder)} - {RECORD}:
            other = "name another --output"
            record = read_side_file(folder / RECORD, f"{folder} cannot be resumed; {other}")
            require_same(record, settings, folder, other)
        reconstruct = RECONSTRUCTORS[name](weights, opt.device, reals.first)
        settings |= {"environment": run.environment(opt.device)}
        write_json(folder / RECORD, settings)
        start = time.perf_counter()
        made = write_pairs(folder, reals, reconstruct, opt, stop)
        seconds = time.perf_counter() - start
        counts = {"pairs": reals.count, "too_small": len(reals.small), "unreadable": reals.bad}
        write_json(folder / RECORD, settings | counts)
    skipped = f"skipped: {len(reals.small):,} smaller than {opt.side} px, {len(reals.bad):,} unreadable"
    speed = f"{made:,} new at {made / seconds:.1f} images/s"
    print(f"{folder}: {reals.count:,} pairs, {speed}; {skipped}")
    for path, reason in reals.bad.items():
        print(f"  unreadable: {path}: {reason}")


def write_pairs(folder, reals, reconstruct, opt, stop):
    """Writes what is missing; returns the number of new pairs.

    Batches hold the same images in every run, so that a resumed run rounds in the same way.
    """
    made, images_in_turn = 0, iter(reals)
    with tqdm(total=reals.most, desc=folder.name, unit="img", dynamic_ncols=True) as bar:
        while batch := list(islice(images_in_turn, opt.batch_size)):
            stop.check()
            missing = [number for number, real in enumerate(batch) if not reals.path(real, 1).exists()]
            if missing:
                images = np.stack([reals.pixels(real) for real in batch])
                twins = reconstruct(images)
                if twins.shape != images.shape:
                    raise UserError(
                        f"{folder.name} makes {twins.shape[1:3]} of --side {opt.side}; try another"
                    )
                for number in missing:
                    save(images[number], reals.path(batch[number], 0))
                    save(twins[number], reals.path(batch[number], 1))  # last: it makes the pair whole
            made += len(missing)
            bar.update(len(batch))
    return made


def save(pixels, path):
    """Writes a uint8 (H, W, 3) PNG, complete or not at all."""
    with written_whole(path, binary=True) as file:
        Image.fromarray(pixels).save(file, "PNG")


def slug(text):
    """Text for the name of a file: letters, digits, dots; the rest is a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


class Real(NamedTuple):
    """A usable photograph: its stem below the output, and its crop unless that is already written."""

    stem: str
    crop: np.ndarray | None


class Reals:
    """The photographs of a folder as crops; iteration takes sub-folders in turns, up to the limit."""

    def __init__(self, opt, folder):
        self.opt, self.folder = opt, folder
        samples = files_scan([opt.input]).samples
        self.samples = [
            sample._replace(path=Path(sample.path).relative_to(opt.input).as_posix())
            for sample in samples
            if sample.label != 1
        ]
        self.most = min(len(self.samples), opt.limit or len(self.samples))

    def __iter__(self):
        self.count, self.small, self.bad = 0, set(), {}
        for real in islice(self._in_turns(), self.most):
            self.count += 1
            yield real
        if not self.count:
            skipped = (
                f"{len(self.small):,} are smaller than --side {self.opt.side}, {len(self.bad):,} unreadable"
            )
            raise UserError(f"{self.opt.input}: no usable photograph; {skipped}")

    def _in_turns(self):
        sources = defaultdict(list)
        for index, sample in enumerate(self.samples):
            sources[str(Path(sample.path).parent)].append(index)
        rng = np.random.default_rng(self.opt.seed)
        queues = deque(map(self._usable, map(rng.permutation, sources.values())))
        while queues:
            real = next(queues[0], None)
            if real is None:
                queues.popleft()
            else:
                yield real
                queues.rotate(-1)

    def _usable(self, indices):
        for index in indices:
            path = self.samples[index].path
            # The hash keeps apart what the slug does not: a/b.png, a_b.png, a/b.jpg.
            digest = hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=4).hexdigest()
            real = Real(f"{slug(str(Path(path).with_suffix('')))[-STEM:]}-{digest}", None)
            if not self.path(real, 0).exists():
                real = real._replace(crop=self._crop(int(index), path))
            if real.crop is not None or self.path(real, 0).exists():
                yield real

    def _crop(self, index, path):
        """The uint8 crop of an image; None for an unusable one, which is noted."""
        try:
            image = decode(self.opt.input / path)
        except BadImage as error:
            self.bad[path] = str(error)
            return None
        room = [length - self.opt.side for length in image.size]
        if min(room) < 0:
            self.small.add(path)
            return None
        left, top = PLACES[self.opt.place](room, np.random.default_rng((self.opt.seed, index)))
        return np.asarray(image.crop((left, top, left + self.opt.side, top + self.opt.side)))

    def path(self, real, label):
        """The file of a photograph's crop (label 0) or of its twin (1)."""
        return self.folder / LAYOUTS[0][label] / f"{real.stem}.png"

    def pixels(self, real):
        """The uint8 (side, side, 3) crop."""
        if real.crop is not None:
            return real.crop
        try:
            return np.asarray(decode(self.path(real, 0)))
        except BadImage as error:
            raise UserError(f"{self.path(real, 0)}: {error}; delete it, and it is written again") from None

    def first(self):
        """The first FIT_CROPS crops, uint8 (N, side, side, 3)."""
        return np.stack([self.pixels(real) for real in islice(self, FIT_CROPS)])


if __name__ == "__main__":
    run.guard(main)
