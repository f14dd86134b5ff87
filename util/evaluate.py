"""An evaluation: a detector scores the generators of a dataset and leaves a results folder."""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, owned
from util import calibrate, tables, views
from util.identity import file_list_sha256
from util.metrics import PUBLISHED, THRESHOLD, add_published, add_recall
from util.results import Results, file_for, reals_of, tabulate_scores
from util.score import BadImages, describe_bad, describe_input, predict, tune_kernels
from util.significance import add_intervals

LEAST = 20  # images of each class that a row needs under --only


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

    tables: dict  # view -> rows of its table
    blocks: list  # text: a table and its caption for each view, then what changes between views
    folder: Path
    bad: dict  # path -> reason
    reused: int  # generators whose scores were there already
    scores: dict  # view -> rows of scores.csv

    @property
    def rows(self):
        """The rows of the first view."""
        return next(iter(self.tables.values()))

    def describe(self):
        """The tables and the lines below them."""
        reused = f"{self.reused} generators had their scores already" if self.reused else ""
        parts = ["\n\n".join(self.blocks), reused, describe_bad(self.bad), f"-> {self.folder}"]
        return "\n".join(part for part in parts if part)


def evaluate(opt, loaded, device, task, dataset, make_loaders, stop):
    """Scores what is not scored yet, writes the results folder and returns a Result.

    loaded: a Loaded of networks/checkpoint.py.  make_loaders: (dataset, [indices]) -> a loader of each.
    """
    if not dataset.samples:
        raise UserError(f"no images below {dataset.root} in the folders of {', '.join(task.order)}")
    calibration = None if getattr(opt, "calibrate", False) else calibrate.of(loaded)  # it may be damaged
    tune_kernels(dataset, opt.deterministic)
    detector = loaded.detector.to(device, memory_format=torch.channels_last)
    only = {"only": opt.only} if opt.only else {}
    identity = {
        **loaded.identity,
        **only,
        "protocol": task.name,
        **task.identity,
        **describe_input(dataset, opt.amp),
    }
    folder = Path(opt.results_dir) / (opt.name or loaded.run_name) / task.name
    results = Results(folder, identity, {**task.about, "notes": list(task.notes)}, dataset.views)
    reals = reals_of(opt.reals_from, identity, dataset.views) if opt.reals_from else {}
    generators = {}  # name -> {index: sample}, in the dataset's order
    for position, sample in enumerate(dataset.samples):
        generators.setdefault(sample.generator, {})[position] = sample
    with owned(folder):
        files = {name: file_list_sha256(group.values()) for name, group in generators.items()}
        results.open(opt, dataset.scan.counts(), files)
        present = [name for name in task.order if name in generators]
        waiting = {name: results.waiting(name) for name in present}
        for number, name, part, loader in work(dataset, generators, waiting, make_loaders):
            bad = BadImages(opt.on_bad_image, part)
            total = len(generators[name]) * len(part.views)
            title = f"{task.name} {number}/{len(present)} {name}"
            with tqdm(total=total, desc=title, unit="img", dynamic_ncols=True) as progress:
                index, logit = predict(detector, loader, device, bad, opt.amp == "bf16", stop, progress)
            # On the disk before the next generator starts.
            results.add(name, by_view(part, generators[name], index, logit, bad))
        reused = sum(not views for views in waiting.values())
        files_sha256 = file_list_sha256(dataset.samples)
        return conclude(opt, task, results, calibration, files_sha256, reused, reals)


def work(dataset, generators, waiting, make_loaders):
    """Yields (number, name, dataset with its views, loader) of each generator that has views to score.

    generators: {name: {index: sample}}; waiting: {name: views not scored yet}, in the table's order.
    Neighbours with the same views share the workers of their loaders.
    """
    numbered = [(number, name) for number, name in enumerate(waiting, 1) if waiting[name]]
    for views_left, neighbours in groupby(numbered, key=lambda entry: waiting[entry[1]]):
        part, names = replace(dataset, views=views_left), list(neighbours)
        loaders = make_loaders(part, [list(generators[name]) for _, name in names])
        for (number, name), loader in zip(names, loaders, strict=True):
            yield number, name, part, loader


def by_view(dataset, samples, index, logit, bad):
    """{view: (its samples, their logits, bad files)} of the numbers of items and their logits."""
    image, position = np.divmod(index, len(dataset.views))
    scored = {}
    for number, view in enumerate(dataset.views):
        own = position == number
        scored[view] = [samples[i] for i in image[own].tolist()], logit[own], bad.by_view[view.name]
    return scored


def conclude(opt, task, results, calibration, files_sha256, reused, reals):
    """The Result of scores that are complete; writes its tables.

    calibration: of the weights, or None.  files_sha256: of the list of all files.  reals: of `reals_of`.
    """
    several = len(results.views) > 1
    # An earlier run of the folder may have had other generators.
    kept = {view: [row for row in rows if row[1] in task.order] for view, rows in results.scores.items()}
    shown, blocks = tables_of(opt, task, kept, calibration, reals), []
    for view, rows in shown.items():
        published = None if view.steps else task.published
        text = caption(results, view, task, published, opt.threshold)
        if calibration:
            text += "\n" + calibrated_note(calibration, kept[view], files_sha256)
        table = tables.write_results(results.folder, rows, text, partial(file_for, view))
        blocks.append(f"{f'view {view.name}' if several else ''}\n{table}\n{text}".strip())
    if several:
        rows = views.summary(results.views, kept, shown, opt.threshold)
        tables.write_csv(results.folder / "views.csv", rows, views.COLUMNS)
        blocks.append(f"what changes between views\n{views.text(rows)}")
    method = task.published.method if task.published else None
    results.printed(threshold=opt.threshold, published=method, reals_from=opt.reals_from)
    return Result(shown, blocks, results.folder, results.bad_files(), reused, kept)


def tables_of(opt, task, scores, calibration=None, reals=None):
    """{view: rows of its table} of {view: rows of scores.csv}; with the changes from the first, if `native`.

    reals: of `reals_of`.
    """
    first, found = next(iter(scores)), {}
    for view, part in scores.items():
        rows = rows_of(opt, task, part, None if view.steps else task.published, calibration, len(scores) > 1)
        add_recall(rows, opt.threshold, (reals or {}).get(view))
        if found and not first.steps:
            views.add_drops(rows, found[first])
        found[view] = rows if opt.order == "published" else views.worst_first(rows)
    return found


def rows_of(opt, task, scores, published, calibration, several):
    """The rows of one view's table."""
    chosen = opt.metrics or (views.METRICS if several else PUBLISHED)
    if published:
        chosen = ("acc", published.accuracy, "ap", *chosen)
    if {row[1] for row in scores} - {row[1] for row in scores if row[2] == 0}:  # some have fakes only
        chosen = (*chosen, "f_acc")
    metrics, least = tuple(dict.fromkeys(chosen)), LEAST if opt.only else 1
    rows = tabulate_scores(scores, task.order, task.average, metrics, opt.threshold, least)
    if calibration:
        calibrate.add_calibrated(rows, scores, calibration, task.order, task.average, least)
    if opt.ci:
        add_intervals(rows, scores, opt.threshold, opt.ci / 100, task.average)
    if published is not None:
        add_published(rows, published, task.average)
    return rows


def calibrated_note(calibration, scores, files_sha256):
    """The lines about the calibration under a table."""
    same = calibration.fitted_on.get("files_sha256") == files_sha256
    warning = "; NOTE: fitted on these very images, so its numbers are optimistic" if same else ""
    lines = [calibration.describe() + warning, calibrate.describe_band(calibration, scores)]
    return "\n".join(filter(None, lines))


def caption(results, view, task, published, threshold):
    """The lines under a table: what was measured, on which input, and what to know about it."""
    identity, bad = results.identity, results.record(view)["bad_files"]
    left_out = f"; {len(bad)} bad images left out" if bad else ""
    seen = f", view {view.name} ({view.chain})" if view.steps else ""
    seen += f", only {identity['only']} files" if "only" in identity else ""
    decided = f", threshold {threshold:g}" if threshold != THRESHOLD else ""
    measured = (
        f"{identity['protocol']}: {identity['input']}{seen}, {identity['precision']}{decided}, "
        f"weights {identity['checkpoint']} (sha256 {identity['checkpoint_sha256'][:12]}){left_out}"
    )
    source = f"published: {published.method}, {'; '.join(published.sources)}" if published else ""
    notes = [f"note: {note}" for note in (*task.notes, *(published.notes if published else ()))]
    return "\n".join(filter(None, [measured, source, *notes]))
