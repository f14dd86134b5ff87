"""An evaluation: a detector scores the generators of a dataset and leaves a results folder.

Generators are finished one by one, so a stopped evaluation can be resumed (util/results.py).
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from common import UserError, owned
from util import tables
from util.identity import file_list_sha256
from util.metrics import set_beside
from util.results import Results
from util.score import BadImages, describe_input, predict, tune_kernels


@dataclass(frozen=True)
class Task:
    """What an evaluation is asked for, besides its images."""

    # Name of the results folder.
    name: str
    # Generators in the order of the table.
    order: list
    # What --resume compares besides detector and input.
    identity: dict = field(default_factory=dict)
    # What meta.json records without comparing it.
    about: dict = field(default_factory=dict)
    average: str = "macro"
    # .method, .cells {generator: .acc, .ap}, .mean, .notes; fractions.
    published: object = None
    # Printed under the table.
    notes: tuple = ()


@dataclass
class Result:
    """What an evaluation found, for a script to print."""

    rows: list
    folder: Path
    bad: BadImages
    caption: str
    # Generators whose scores were there already.
    reused: int = 0

    def describe(self):
        """The table and the lines below it."""
        reused = f"{self.reused} generators had their scores already" if self.reused else ""
        parts = [tables.results(self.rows), self.caption, reused, self.bad.describe(), f"-> {self.folder}"]
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
            folders = ", ".join(task.order)
            raise UserError(f"no images below {dataset.root}; looked in the folders of {folders}")
        identity = {**self.identity, "protocol": task.name, **task.identity}
        identity.update(describe_input(dataset, self.opt.amp))
        results = Results(self.root / task.name, identity, {**task.about, "notes": list(task.notes)})
        with owned(results.folder):
            files = {name: file_list_sha256(samples) for name, samples in by_generator(dataset).items()}
            results.open(self.opt, dataset.scan.counts(), files)
            bad = BadImages(self.opt.on_bad_image, dataset)
            bad.found.update(results.meta["bad_files"])
            reused = sum(name in results.meta["finished"] for name in task.order)
            self._score(results, task, dataset, make_loader, bad, stop)
            rows = results.tabulate(task.order, task.average)
            if task.published is not None:
                set_beside(rows, task.published, task.average)
            result = Result(rows, results.folder, bad, caption(identity, bad, task), reused)
            tables.write_results(results.folder, rows, result.caption)
        return result

    def _score(self, results, task, dataset, make_loader, bad, stop):
        """Generator after generator, each on the disk before the next one starts."""
        tune_kernels(dataset, self.opt.deterministic)
        counts = {name: sum(pair) for name, pair in dataset.scan.counts().items()}
        present = [name for name in task.order if counts.get(name)]
        for number, name in enumerate(present, start=1):
            if name in results.meta["finished"]:
                continue
            title = f"{task.name} {number}/{len(present)} {name}"
            with tqdm(total=counts[name], desc=title, unit="img", dynamic_ncols=True) as progress:
                bf16, loader = self.opt.amp == "bf16", make_loader([name])
                index, logit = predict(self.detector, loader, self.device, bad, bf16, stop, progress)
            results.add(name, [dataset.samples[position] for position in index], logit, bad.found)


def by_generator(dataset):
    """{generator: its samples}, in the dataset's order."""
    groups = {}
    for sample in dataset.samples:
        groups.setdefault(sample.generator, []).append(sample)
    return groups


def caption(identity, bad, task):
    """The lines under a table: what was measured, on which input, and what to know about it."""
    left_out = f"; {len(bad.found)} bad images left out" if bad.found else ""
    measured = (
        f"{identity['protocol']}: {identity['input']}, {identity['precision']}, "
        f"weights {identity['checkpoint']} (sha256 {identity['checkpoint_sha256'][:12]}){left_out}"
    )
    published = task.published
    source = f"published: {published.method}, {'; '.join(published.sources)}" if published else ""
    notes = [f"note: {note}" for note in (*task.notes, *(published.notes if published else ()))]
    return "\n".join(filter(None, [measured, source, *notes]))
