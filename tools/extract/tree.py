"""A tree of images becomes another with the same folders and stems: what is left to do, and doing it."""

import sys
from collections import Counter
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import data
from common import BadImage, UserError, owned, write_json, written_whole
from data.transforms import Limits
from util import run
from util.identity import read_side_file, require_same
from util.score import BadImages

RECORD = "extract.json"
WRITTEN = (".png", ".jpg", ".bmp")  # suffixes that an extraction gives its files
WAYS = "name another --output, or replace an extraction with --overwrite"


def encoded(suffix, picture):
    """RGB (H, W, 3), 8 or 16 bits -> the bytes of a file; JPEG at OpenCV's own quality, 95."""
    return cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()


class Extraction:
    """One run over a tree of images; the files that are there already are kept."""

    def __init__(self, opt, identity, suffix):
        """Picks the device and finds the images; UserError where --input and --output do not go together.

        identity: what a stopped run must share to be resumed; suffix: of the files written.
        """
        self.device = run.start(opt)
        torch.backends.cudnn.benchmark = False  # no kernel is chosen by timing
        self.opt, self.input, self.output = opt, Path(opt.input), Path(opt.output)
        here, there = self.input.resolve(), self.output.resolve()
        if not here.is_dir():
            raise UserError(f"--input is a folder of images, got {self.input}")
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise UserError(f"--output {self.output} must not be --input, or inside or above it")
        record = here / RECORD
        if record.is_file() and read_side_file(record, "restore it").get("what") == "lnp":
            raise UserError(f"{self.input} holds noise patterns already (its {RECORD} says so)")
        self.identity = {"what": opt.what, **identity, "input": str(here)}
        limits = Limits(max_input_mpx=opt.max_mpx)
        scan, as_stored = data.files_scan([self.input]), data.Geometry(None, None)
        self.images = data.RealFakeFolder(scan, as_stored, limits=limits, max_mpx=opt.max_mpx)
        self.bad = BadImages("skip", self.images)
        names = [Path(sample.path).relative_to(self.input) for sample in scan.samples]
        self.targets = [(self.output / name).with_suffix(suffix) for name in names]
        twice = [str(path) for path, count in Counter(self.targets).items() if count > 1]
        if twice:
            raise UserError(f"several images of {self.input} would become {', '.join(twice[:3])}; rename one")

    def run(self, make_files):
        """Writes what is missing; exit status 1 where no image can be used.

        make_files: uint8 images (B, 3, H, W) -> the bytes of their files; BadImage where that cannot be.
        """
        record = {**self.identity, "environment": self.opt.environment}
        with owned(self.output):
            self.check_output()
            write_json(self.output / RECORD, record)
            self.write_files(make_files)
            write_json(self.output / RECORD, {**record, "failed": self.bad.reasons})
        passed_over = f"passed over: {self.images.scan.others()}" if self.images.scan.passed_over else ""
        print("\n".join(filter(None, [passed_over, self.bad.describe(), f"-> {self.output}"])))
        if len(self.bad.reasons) == len(self.targets):
            sys.exit(1)

    def check_output(self):
        """Refuses files of other settings or other images; --overwrite removes an extraction's files."""
        record = self.output / RECORD
        if run.contents(self.output) and not (self.opt.overwrite and record.exists()):
            require_same(read_side_file(record, WAYS), self.identity, self.output, WAYS)
        written = {path for path in self.output.rglob("*") if path.suffix in WRITTEN}
        expected = {target.with_suffix(suffix) for target in self.targets for suffix in WRITTEN}
        if strangers := written - expected:
            raise UserError(
                f"{self.output} holds {len(strangers)} images of which {self.input} has none, first "
                f"{min(strangers)}; remove them, or name another --output"
            )
        for path in written if self.opt.overwrite else ():
            path.unlink()

    def write_files(self, make_files):
        """One pass over the images whose files are not there, or older than they are."""
        waiting = [index for index in range(len(self.targets)) if self.is_to_do(index)]
        loader = data.loader_over(self.opt, self.images, waiting, self.device)
        done, total = len(self.targets) - len(waiting), len(self.targets)
        bar = tqdm(total=total, initial=done, unit="img", dynamic_ncols=True)
        with run.StopSignal("the same command, without --overwrite, resumes") as stop, bar:
            for batch in stop.watch(loader):
                self.bad.add(batch["bad"])
                for part in batch["parts"]:
                    self.add(part["index"].tolist(), part["image"], make_files)
                bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
        written = len(waiting) - len(self.bad.reasons)
        print(f"{written:,} of {total:,} files written, {self.device}")

    def is_to_do(self, index):
        """Whether a file is not there, or older than the image that it is made of."""
        source, target = Path(self.images.samples[index].path), self.targets[index]
        return not target.exists() or target.stat().st_mtime < source.stat().st_mtime

    def add(self, indices, images, make_files):
        """Writes the files of images (B, 3, H, W) of one size."""
        try:
            contents = list(make_files(images))
        except BadImage as error:
            self.bad.add((index, str(error)) for index in indices)
            return
        for index, content in zip(indices, contents, strict=True):
            with written_whole(self.targets[index], binary=True) as file:
                file.write(content)
