"""An evaluation: a detector scores the generators of a dataset and leaves a results folder."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from common import UserError, owned
from util import tables
from util.identity import file_list_sha256
from util.metrics import add_published
from util.results import Results, tabulate_scores
from util.score import BadImages, describe_input, predict, tune_kernels


@dataclass(frozen=True)
class Task:
    """What an evaluation is asked for, besides its images."""

    name: str  # of the results folder
    order: list  # generators, as in the table
    identity: dict = field(default_factory=dict)  # what --resume compares besides detector and input
    about: dict = field(default_factory=dict)  # what meta.json records without comparing it
    average: str = "macro"
    published: object = None  # a Published of data/published
    notes: tuple = ()  # printed under the table


@dataclass
class Result:
    """The result of an evaluation, for a script to print."""

    rows: list
    folder: Path
    bad: BadImages
    caption: str
    reused: int  # generators whose scores were there already

    def describe(self):
        """The table and the lines below it."""
        reused = f"{self.reused} generators had their scores already" if self.reused else ""
        parts = [tables.results(self.rows), self.caption, reused, self.bad.describe(), f"-> {self.folder}"]
        return "\n".join(filter(None, parts))


def evaluate(opt, loaded, device, task, dataset, make_loader, stop):
    """Scores what is not scored yet, writes the results folder and returns a Result.

    loaded: a Loaded of networks/checkpoint.py.  make_loader: indices of samples -> loader over these.
    """
    if not dataset.samples:
        raise UserError(f"no images below {dataset.root} in the folders of {', '.join(task.order)}")
    tune_kernels(dataset, opt.deterministic)
    detector = loaded.detector.to(device, memory_format=torch.channels_last)
    identity = {**loaded.identity, "protocol": task.name, **task.identity, **describe_input(dataset, opt.amp)}
    folder = Path(opt.results_dir) / (opt.name or loaded.run_name) / task.name
    results = Results(folder, identity, {**task.about, "notes": list(task.notes)})
    generators = {}  # name -> {index: sample}, in the dataset's order
    for position, sample in enumerate(dataset.samples):
        generators.setdefault(sample.generator, {})[position] = sample
    with owned(folder):
        files = {name: file_list_sha256(group.values()) for name, group in generators.items()}
        results.open(opt, dataset.scan.counts(), files)
        bad = BadImages(opt.on_bad_image, dataset)
        bad.reasons.update(results.meta["bad_files"])
        present = [name for name in task.order if name in generators]
        waiting = [name for name in present if name not in results.meta["finished"]]
        for name in waiting:
            title = f"{task.name} {present.index(name) + 1}/{len(present)} {name}"
            samples, loader = generators[name], make_loader(list(generators[name]))
            with tqdm(total=len(samples), desc=title, unit="img", dynamic_ncols=True) as progress:
                index, logit = predict(detector, loader, device, bad, opt.amp == "bf16", stop, progress)
            # On the disk before the next generator starts.
            results.add(name, [samples[position] for position in index], logit, bad.reasons)
        rows = tabulate_scores(results.scores, task.order, task.average)
        if task.published is not None:
            add_published(rows, task.published, task.average)
        result = Result(rows, folder, bad, caption(identity, bad, task), len(present) - len(waiting))
        tables.write_results(folder, rows, result.caption)
    return result


def caption(identity, bad, task):
    """The lines under a table: what was measured, on which input, and what to know about it."""
    left_out = f"; {len(bad.reasons)} bad images left out" if bad.reasons else ""
    weights = f"weights {identity['checkpoint']} (sha256 {identity['checkpoint_sha256'][:12]}){left_out}"
    measured = f"{identity['protocol']}: {identity['input']}, {identity['precision']}, {weights}"
    published = task.published
    source = f"published: {published.method}, {'; '.join(published.sources)}" if published else ""
    notes = [f"note: {note}" for note in (*task.notes, *(published.notes if published else ()))]
    return "\n".join(filter(None, [measured, source, *notes]))
