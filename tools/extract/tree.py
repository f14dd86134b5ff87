"""A tree of images becomes another with the same folders and stems: what is left to do, and doing it."""

import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import data
from common import LOCK, BadImage, UserError, owned, write_json, written_whole
from data.folder import RealFakeFolder
from data.transforms import Limits
from util import run
from util.identity import read_side_file, require_same

RECORD = "extract.json"
WRITTEN = (".png", ".jpg")  # suffixes that an extraction gives its files
LISTED = 20


def encoded(suffix, picture):
    """RGB (H, W, 3), 8 or 16 bits -> the bytes of a file; JPEG at OpenCV's own quality, 95."""
    done, content = cv2.imencode(suffix, picture[..., ::-1])
    if not done:
        raise UserError(f"OpenCV could not write {suffix} of {picture.shape}")
    return content.tobytes()


class Extraction:
    """One run over a tree of images; the files that are there already are kept."""

    def __init__(self, opt, identity, suffix):
        """Picks the device and finds the images; UserError where --input and --output do not go together.

        identity: what a stopped run must share to be resumed; suffix: of the files written.
        """
        self.device = run.start(opt)
        torch.backends.cudnn.benchmark = False  # no kernel is chosen by timing
        self.opt, self.input, self.output = opt, Path(opt.input), Path(opt.output)
        if not self.input.is_dir():
            raise UserError(f"--input is a folder of images, got {self.input}")
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"--output is a folder, {self.output} is a file")
        here, there = self.input.resolve(), self.output.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise UserError(f"--output {self.output} must not be --input, lie in it or around it")
        self.identity = {"what": opt.what, **identity, "input": str(here)}
        record = self.input / RECORD
        if record.is_file() and read_side_file(record, "restore it").get("what") == "lnp":
            raise UserError(f"{self.input} holds noise patterns already (its {RECORD} says so)")
        self.scan = data.files_scan([self.input])
        names = [Path(sample.path).relative_to(self.input) for sample in self.scan.samples]
        self.targets = [(self.output / name).with_suffix(suffix) for name in names]
        self.failed = {}  # path -> reason
        twice = [str(path) for path, count in Counter(self.targets).items() if count > 1]
        if twice:
            raise UserError(f"several images of {self.input} would become {', '.join(twice[:3])}; rename one")

    def run(self, make_files, last_words):
        """Writes what is missing.

        make_files: uint8 images (B, 3, H, W) -> the bytes of their files; BadImage where that cannot be.
        last_words: () -> what is printed after the counts.
        """
        record = {**self.identity, "environment": self.opt.environment}
        with owned(self.output):
            self.check_output()
            write_json(self.output / RECORD, record)
            self.write_files(make_files, last_words)
            write_json(self.output / RECORD, {**record, "failed": self.failed})
        print("\n".join([*self.left_out(), f"-> {self.output}"]))
        if len(self.failed) == len(self.targets):
            sys.exit(1)

    def check_output(self):
        """Refuses files of other settings or other images; --overwrite removes an extraction's files."""
        record = self.output / RECORD
        if any(path.name != LOCK for path in self.output.iterdir()):
            if not record.exists():
                raise UserError(f"{self.output} holds files, but no {RECORD}; name another --output")
            if not self.opt.overwrite:
                known = read_side_file(record, "--overwrite starts over")
                require_same(known, self.identity, self.output, "name another --output, or --overwrite")
        written = {path for path in self.output.rglob("*") if path.suffix in WRITTEN}
        expected = {target.with_suffix(suffix) for target in self.targets for suffix in WRITTEN}
        if strangers := written - expected:
            raise UserError(
                f"{self.output} holds {len(strangers)} images of which {self.input} has none, first "
                f"{min(strangers)}; remove them, or name another --output"
            )
        for path in written if self.opt.overwrite else ():
            path.unlink()

    def write_files(self, make_files, last_words):
        """One pass over the images whose files are not there, or older than they are."""
        opt = self.opt
        geometry, limits = data.Geometry(None, None), Limits(max_input_mpx=opt.max_mpx)
        dataset = RealFakeFolder(self.scan, geometry, limits=limits, max_mpx=opt.max_mpx)
        waiting = [index for index in range(len(dataset)) if self.is_to_do(index)]
        loader = data.loader_over(opt, dataset, waiting, self.device)
        started, written = time.perf_counter(), 0
        bar = tqdm(total=len(dataset), initial=len(dataset) - len(waiting), unit="img", dynamic_ncols=True)
        with run.StopSignal("the same command, without --overwrite, resumes") as stop, bar:
            for batch in loader if waiting else ():
                stop.check()
                self.failed.update({dataset.samples[index].path: why for index, why in batch["bad"]})
                for part in batch["parts"]:
                    written += self.add(part["index"].tolist(), part["image"], make_files)
                bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
        speed = f", {written / (time.perf_counter() - started):.2f} images/s" if written else ""
        print(f"{written:,} of {len(dataset):,} files written{speed}, {self.device}{last_words()}")

    def is_to_do(self, index):
        """Whether a file is not there, or older than the image that it is made of."""
        source, target = Path(self.scan.samples[index].path), self.targets[index]
        return not target.exists() or target.stat().st_mtime < source.stat().st_mtime

    def add(self, indices, images, make_files):
        """Writes the files of images (B, 3, H, W) of one size; returns how many."""
        try:
            contents = list(make_files(images))
        except BadImage as error:
            self.failed.update({self.scan.samples[index].path: str(error) for index in indices})
            return 0
        for index, content in zip(indices, contents, strict=True):
            with written_whole(self.targets[index], binary=True) as file:
                file.write(content)
        return len(indices)

    def left_out(self):
        """Lines on the files that could not be used, and on what was no image."""
        lines = [f"passed over: {self.scan.others()}"] if self.scan.passed_over else []
        if self.failed:
            lines += [f"could not be used: {len(self.failed)} of {len(self.targets)} images"]
            lines += [f"  {path}: {why}" for path, why in sorted(self.failed.items())[:LISTED]]
        if len(self.failed) > LISTED:
            lines += [f"  and {len(self.failed) - LISTED} more, all in {RECORD}"]
        return lines
