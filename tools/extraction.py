"""The bookkeeping of tools/extract.py: which file becomes which, what is there, what could not be used."""

import json
from collections import Counter
from pathlib import Path

import data
from common import BadImage, UserError, write_json, written_whole

RECORD = "extract.json"
WRITTEN = (".png", ".jpg")  # suffixes that an extraction gives its files
LISTED = 20


class Extraction:
    """A tree of images that becomes another with the same folders and stems."""

    def __init__(self, opt, identity, suffix):
        """identity: what a stopped run must share to go on; suffix: of the files written."""
        self.input, self.output = Path(opt.input), Path(opt.output)
        if not self.input.is_dir():
            raise UserError(f"--input is a folder of images, got {self.input}")
        here, there = self.input.resolve(), self.output.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise UserError(f"--output {self.output} must not be --input, lie in it or around it")
        self.identity = json.loads(json.dumps({**identity, "input": str(here)}))
        self.overwrite = opt.overwrite
        if _record(self.input).get("what") == "lnp":
            raise UserError(f"{self.input} holds noise patterns already (its {RECORD} says so)")
        self.scan = data.files_scan([self.input])
        self.targets = [self.target(sample.path, suffix) for sample in self.scan.samples]
        self.failed = {}  # path -> reason
        self.record = {}  # what stands in RECORD, once begun
        twice = [str(path) for path, count in Counter(self.targets).items() if count > 1]
        if twice:
            raise UserError(f"several images of {self.input} would become {', '.join(twice[:3])}; rename one")

    def target(self, path, suffix):
        """Where the file made of an image goes."""
        return (self.output / Path(path).relative_to(self.input)).with_suffix(suffix)

    def begin(self, environment):
        """Finds what is left to do; refuses to mix two extractions."""
        record = self.output / RECORD
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"--output is a folder, {self.output} is a file")
        if self.output.exists() and any(self.output.iterdir()):
            if not record.exists():
                raise UserError(f"{self.output} holds files, but no {RECORD}; name another --output")
            if not self.overwrite:
                self.compare(record)
            self.refuse_strangers()
        for target in self.targets if self.overwrite else ():
            for suffix in WRITTEN:
                target.with_suffix(suffix).unlink(missing_ok=True)
        self.record = {**self.identity, "environment": environment}
        write_json(record, self.record)
        self.waiting = [place for place, target in enumerate(self.targets) if self.is_to_do(place, target)]

    def is_to_do(self, place, target):
        """Whether a file is not there, or older than the image that it is made of."""
        source = Path(self.scan.samples[place].path)
        return not target.exists() or target.stat().st_mtime < source.stat().st_mtime

    def refuse_strangers(self):
        """ValueError where the output folder holds images that no image of the input becomes."""
        expected = {target.with_suffix("") for target in self.targets}
        strangers = [
            path
            for path in sorted(self.output.rglob("*"))
            if path.suffix in WRITTEN and path.with_suffix("") not in expected
        ]
        if strangers:
            raise UserError(
                f"{self.output} holds {len(strangers)} images of which {self.input} has none, first "
                f"{strangers[0]}; remove them, or name another --output"
            )

    def compare(self, record):
        """ValueError where the output folder is of another extraction."""
        try:
            known = json.loads(record.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError) as error:
            raise UserError(f"{record} is damaged; --overwrite starts over") from error
        differing = [
            f"{name}: {known.get(name)} there, {value} now"
            for name, value in self.identity.items()
            if known.get(name) != value
        ]
        if differing:
            raise UserError(
                f"{self.output} is of another extraction ({'; '.join(differing)}); "
                "name another --output, or --overwrite"
            )

    def add(self, places, images, job):
        """Writes the files of images (B, 3, H, W) of one size; returns how many."""
        try:
            contents = job(images)
        except BadImage as error:
            self.failed.update({self.scan.samples[place].path: str(error) for place in places})
            return 0
        for place, content in zip(places, contents, strict=True):
            with written_whole(self.targets[place], binary=True) as file:
                file.write(content)
        return len(places)

    def finish(self):
        """Keeps in the record what could not be used; lines that say so, and what was passed over."""
        write_json(self.output / RECORD, {**self.record, "failed": self.failed})
        lines = [f"passed over: {self.scan.others()}"] if self.scan.passed_over else []
        if self.failed:
            lines += [f"could not be used: {len(self.failed)} of {len(self.targets)} images"]
            lines += [f"  {path}: {why}" for path, why in sorted(self.failed.items())[:LISTED]]
        if len(self.failed) > LISTED:
            lines += [f"  and {len(self.failed) - LISTED} more, all in {RECORD}"]
        return lines


def _record(folder):
    """What the record of an extraction in a folder says; nothing where there is none."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return {}
