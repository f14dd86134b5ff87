"""Scoring a dataset with a detector, and the results folder that every later number starts from.

Generators are finished one by one, so an interrupted evaluation goes on with --resume (util/record.py).
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common import UserError
from util import tables
from util.batching import logits_by_size
from util.metrics import set_beside
from util.record import Record

LARGE_CROPPED = ", centre of inputs beyond --max_input_mpx"


class BadImageError(UserError):
    """A file that cannot be used, under the policy "stop"."""


class BadImages:
    """What to do about files that cannot be used: stop with the path, or count and list them."""

    def __init__(self, policy, dataset):
        self.policy, self.dataset = policy, dataset
        self.found = {}  # path -> reason

    def add(self, pairs):
        """Takes [(index, reason)]; raises BadImageError under the policy "stop"."""
        for index, reason in pairs:
            path = self.dataset.samples[index].path
            if self.policy == "stop":
                raise BadImageError(
                    f"bad image {self.dataset.root / path}: {reason} "
                    "(--on_bad_image skip leaves such files out and lists them)"
                )
            self.found[path] = reason

    def describe(self):
        """ "" or a list of the files left out."""
        if not self.found:
            return ""
        lines = [f"  {path}: {reason}" for path, reason in sorted(self.found.items())]
        return "\n".join([f"{len(lines)} bad images were left out:", *lines])


def stream(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """Scores a whole loader; yields (index, logits on the device) pass by pass, as passes fill up.

    The detector has to be in evaluation mode.  Raises at the end unless the loader gave every image.
    """
    asked = 0

    def parts():
        nonlocal asked
        for batch in stop.watch(loader) if stop is not None else loader:
            bad.add(batch["bad"])
            yield from batch["parts"]
            count = len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"])
            asked += count
            if progress is not None:
                progress.update(count)

    most = max((len(batch) for batch in loader.batch_sampler), default=1)  # --batch_size bounds a pass
    yield from logits_by_size(detector, parts(), device, bf16, most=most)
    expected = sum(len(batch) for batch in loader.batch_sampler)
    if asked != expected:
        raise RuntimeError(f"the loader delivered {asked} of {expected} images")


def predict(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """Scores a whole loader with the detector in evaluation mode.

    Returns {index: logit} as two arrays (indices int64, logits float32), sorted by index.  Images that `bad`
    accepts as left out are absent; anything else that was not scored raises, so nothing is lost silently.
    """
    was_training = detector.training
    detector.eval()
    passes = list(stream(detector, loader, device, bad, bf16, stop, progress))  # logits stay on the device
    detector.train(was_training)
    if not passes:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    index, logit = torch.cat([one for one, _ in passes]).numpy(), torch.cat([one for _, one in passes])
    logit = logit.cpu().numpy()
    require_finite(index, logit, bad.dataset)
    order = np.argsort(index)
    return index[order], logit[order]


def tune_kernels(dataset, deterministic):
    """Lets cuDNN try kernels out where all images have one size; for many sizes that costs too much."""
    torch.backends.cudnn.benchmark = dataset.fixed_size and not deterministic


@dataclass(frozen=True)
class Task:
    """What is asked of an evaluation beside its images."""

    name: str  # of the results folder
    order: list  # generators in the order of the table
    identity: dict = field(default_factory=dict)  # what --resume compares beside detector and input
    about: dict = field(default_factory=dict)  # what meta.json records without comparing it
    average: str = "macro"
    published: object = None  # .method, .cells {generator: .acc, .ap}, .mean, .notes; fractions
    notes: tuple = ()  # printed under the table


@dataclass
class Result:
    """What an evaluation found, for a script to print."""

    rows: list
    folder: Path
    bad: BadImages
    caption: str
    reused: int = 0  # generators whose scores were there already

    def describe(self):
        kept = f"{self.reused} generators had their scores already" if self.reused else ""
        parts = [tables.results(self.rows), self.caption, kept, self.bad.describe(), f"-> {self.folder}"]
        return "\n".join(part for part in parts if part)


class Evaluator:
    """Runs one detector over any number of datasets and leaves a results folder for each."""

    def __init__(self, detector, device, opt, name, identity):
        """identity: what pins the detector down in meta.json (at least its sha256)."""
        self.detector = detector.to(device, memory_format=torch.channels_last)
        self.device, self.opt, self.identity = device, opt, identity
        self.root = Path(opt.results_dir) / name

    def run(self, task, dataset, make_loader, stop=None):
        """Scores what is not scored yet, writes the results folder and returns a Result.

        Args:
            make_loader: function(list of generators) -> loader over these in dataset order.
        """
        if not dataset.samples:
            raise UserError(
                f"no images below {dataset.root}; looked in the folders of {', '.join(task.order)}"
            )
        tune_kernels(dataset, self.opt.deterministic)
        identity = {**self.identity, "protocol": task.name, **task.identity}
        identity.update(describe_input(dataset, self.opt.amp))
        record = Record(self.root / task.name, identity, {**task.about, "notes": list(task.notes)})
        by_generator = samples_by_generator(dataset)
        record.open(
            self.opt,
            dataset.scan.counts(),
            {name: file_list_sha256(samples) for name, samples in by_generator.items()},
        )
        bad = BadImages(self.opt.on_bad_image, dataset)
        bad.found.update(record.meta["bad_files"])
        reused = sum(name in record.meta["finished"] for name in task.order)
        self._score(record, task, dataset, make_loader, bad, stop)
        rows = record.tabulate(task.order, task.average)
        if task.published is not None:
            set_beside(rows, task.published, task.average)
        result = Result(rows, record.folder, bad, caption(identity, bad, task), reused)
        tables.write_results(record.folder, rows, result.caption)
        return result

    def _score(self, record, task, dataset, make_loader, bad, stop):
        """Generator after generator, each on disk before the next one starts."""
        counts = {name: sum(pair) for name, pair in dataset.scan.counts().items()}
        present = [name for name in task.order if counts.get(name)]
        for place, name in enumerate(present, start=1):
            if name in record.meta["finished"]:
                continue
            title = f"{task.name} {place}/{len(present)} {name}"
            with tqdm(total=counts[name], desc=title, unit="img", dynamic_ncols=True) as progress:
                loader = make_loader([name])
                index, logit = predict(
                    self.detector, loader, self.device, bad, self.opt.amp == "bf16", stop, progress
                )
            record.add(name, [dataset.samples[number] for number in index], logit, bad.found)


def samples_by_generator(dataset):
    """{generator: its samples}, in the dataset's order."""
    found = {}
    for sample in dataset.samples:
        found.setdefault(sample.generator, []).append(sample)
    return found


def file_list_sha256(samples):
    """Pins down which files there are, in which order, under which generator and label."""
    files = "\n".join(f"{sample.path}\t{sample.generator}\t{sample.label}" for sample in samples)
    return hashlib.sha256(os.fsencode(files)).hexdigest()


def describe_input(dataset, amp):
    """What scores depend on beside the weights and the files: geometry, limits, decoding, precision."""
    cropped = dataset.limits.crop_large and dataset.patches is None
    return {
        "input": dataset.describe_input() + (LARGE_CROPPED if cropped else ""),
        "geometry": dataset.geometry.as_dict(),
        "limits": {
            "max_mpx": dataset.max_mpx,
            "max_input_mpx": dataset.limits.max_input_mpx,
            "crop_large": dataset.limits.crop_large,
            "exif": dataset.exif,
        },
        "precision": "bf16" if amp == "bf16" else "fp32",
        "batch_rule": "equal sizes together, no padding",
    }


def caption(identity, bad, task):
    """The lines under a table: what was measured, on which input, and what to know about it."""
    left_out = f"; {len(bad.found)} bad images left out" if bad.found else ""
    measured = (
        f"{identity['protocol']}: {identity['input']}, {identity['precision']}, "
        f"weights {identity['checkpoint']} (sha256 {identity['checkpoint_sha256'][:12]}){left_out}"
    )
    published = task.published
    beside = f"published: {published.method}, {'; '.join(published.sources)}" if published else ""
    notes = [f"note: {note}" for note in (*task.notes, *(published.notes if published else ()))]
    return "\n".join(filter(None, [measured, beside, *notes]))


def require_finite(index, logit, dataset):
    """ValueError when the detector gave something that is no number."""
    broken = index[~np.isfinite(logit)]
    if len(broken):
        raise UserError(
            f"the detector gave no finite score for {len(broken)} images, first "
            f"{dataset.root / dataset.samples[broken[0]].path}; are the weights damaged?"
        )
