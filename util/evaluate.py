"""Scoring a dataset with a detector, and the results folder that every later number starts from.

results/<name>/<protocol>/: scores.csv (path, generator, label, score, logit), meta.json, table.csv, table.md.
Generators are finished one by one, so an interrupted evaluation goes on with --resume.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from util import report
from util.metrics import tabulate
from util.run import write_json

FILES = ("meta.json", "scores.csv", "table.csv", "table.md")  # what makes up a results folder
LARGE_CROPPED = ", centre of inputs beyond --max_input_mpx"
SCORE_COLUMNS = ("path", "generator", "label", "score", "logit")
# Pixels per forward pass.  Parts of a batch beyond it run one after the other: on a CPU small passes stay in
# the cache and are faster; on a GPU the bound only keeps native-size images within its memory.
PIXELS_PER_PASS = {"cpu": 2 * 256 * 256, "cuda": 64 * 1024 * 1024, "mps": 16 * 1024 * 1024}


class BadImageError(ValueError):
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


@torch.inference_mode()
def logits_of(detector, images, device, bf16=False):
    """uint8 images (B, 3, H, W) on any device -> float32 logits (B,) on `device`, in bounded passes."""
    pixels = images.shape[-1] * images.shape[-2]
    passes = images.split(max(1, PIXELS_PER_PASS.get(device.type, PIXELS_PER_PASS["cuda"]) // pixels))
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return torch.cat([detector(part.to(device, non_blocking=True)).float() for part in passes])


def predict(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """Scores a whole loader with the detector in evaluation mode.

    Returns {index: logit} as two arrays (indices int64, logits float32), sorted by index.  Images that `bad`
    accepts as left out are absent; anything else that was not scored raises, so nothing is lost silently.
    """
    was_training = detector.training
    detector.eval()
    indices, logits, asked = [], [], 0
    for batch in loader:
        if stop is not None:
            stop.check()
        bad.add(batch["bad"])
        for part in batch["parts"]:
            indices.append(part["index"])
            logits.append(logits_of(detector, part["image"], device, bf16))
        count = len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"])
        asked += count
        if progress is not None:
            progress.update(count)
    detector.train(was_training)
    expected = sum(len(batch) for batch in loader.batch_sampler)
    if asked != expected:
        raise RuntimeError(f"the loader delivered {asked} of {expected} images")
    if not indices:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    index, logit = torch.cat(indices).numpy(), torch.cat(logits).cpu().numpy()
    _require_finite(index, logit, bad.dataset)
    order = np.argsort(index)
    return index[order], logit[order]


def sigmoid(logits):
    """float32 sigmoid, which accuracy and AP are computed on; it saturates and ties as upstream's does."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float32))).numpy()


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
        parts = [report.fixed_width(self.rows), self.caption, kept, self.bad.describe(), f"-> {self.folder}"]
        return "\n".join(part for part in parts if part)


class Evaluator:
    """Runs one detector over any number of datasets and leaves a results folder for each."""

    def __init__(self, detector, device, opt, name, identity):
        """identity: what pins the detector down in meta.json (at least its sha256)."""
        self.detector = detector.to(device, memory_format=torch.channels_last)
        self.device, self.opt, self.identity = device, opt, identity
        self.root = Path(opt.results_dir) / name

    def run(self, protocol, dataset, make_loader, order, source="", stop=None):
        """Scores what is not scored yet, writes the results folder and returns a Result.

        Args:
            protocol: name of the results folder.
            make_loader: function(list of generators) -> loader over these in dataset order.
            order: generator names in the order of the table.
        """
        if not dataset.samples:
            raise ValueError(f"no images below {dataset.root}; looked in the folders of {', '.join(order)}")
        identity = {**self.identity, "protocol": protocol, "source": source}
        identity.update(describe_input(dataset, self.opt.amp))
        record = Record(self.root / protocol, identity)
        record.open(self.opt, dataset.scan.counts())
        bad = BadImages(self.opt.on_bad_image, dataset)
        bad.found.update(record.meta["bad_files"])
        present = dataset.scan.generators()
        wanted = [name for name in order if name in present and name not in record.meta["finished"]]
        total = sum(sample.generator in set(wanted) for sample in dataset.samples)
        with tqdm(total=total, unit="img", disable=not total, dynamic_ncols=True) as progress:
            for name in wanted:
                progress.set_description(name)
                loader = make_loader([name])
                index, logit = predict(
                    self.detector, loader, self.device, bad, self.opt.amp == "bf16", stop, progress
                )
                record.add(name, [dataset.samples[number] for number in index], logit, bad.found)
        rows = record.tabulate(order)
        result = Result(rows, record.folder, bad, caption(identity, bad), reused=len(present) - len(wanted))
        report.write_tables(record.folder, rows, result.caption)
        return result


class Record:
    """A results folder: the scores so far, what they are of, and which generators are done."""

    def __init__(self, folder, identity):
        self.folder, self.identity = folder, identity
        self.meta, self.scores = {}, []

    def open(self, opt, counts):
        """Starts empty, or takes up what an equal evaluation left; refuses to mix or to replace unasked."""
        present = [name for name in FILES if (self.folder / name).exists()]
        if present and not opt.overwrite:
            self._take_up(opt.resume, present)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in present:  # meta.json first: without it no scores count as finished
            (self.folder / name).unlink()
        self.meta = {
            **self.identity,
            "environment": opt.environment,
            "counts": counts,
            "bad_files": {},
            "finished": {},
        }  # on disk only with the first generator: a run that stops before it leaves no results

    def add(self, generator, samples, logits, bad_files):
        """Adds a finished generator and writes both files before the next one starts."""
        scores = sigmoid(logits)
        self.scores += [
            (*sample, score, logit) for sample, score, logit in zip(samples, scores, logits, strict=True)
        ]
        self.meta["finished"][generator] = len(samples)
        self.meta["bad_files"] = dict(bad_files)
        self._write()

    def tabulate(self, order):
        """Rows per generator and their mean, from the scores."""
        _, generators, labels, scores, _ = (
            zip(*self.scores, strict=True) if self.scores else [()] * len(SCORE_COLUMNS)
        )
        return tabulate(generators, np.array(labels, dtype=int), np.array(scores, dtype=np.float32), order)

    def _take_up(self, resume, present):
        if not resume:
            raise ValueError(
                f"{self.folder} holds results already; --resume keeps them, --overwrite replaces them, "
                "--name puts these elsewhere"
            )
        try:
            text = (self.folder / "meta.json").read_text(encoding="utf-8", errors="surrogateescape")
            meta, scores = json.loads(text), read_scores(self.folder / "scores.csv")
            finished = dict(meta["finished"])
            kept = [row for row in scores if row[1] in finished]
            if Counter(row[1] for row in kept) != {name: count for name, count in finished.items() if count}:
                raise ValueError("scores.csv lacks scores that meta.json counts")
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{self.folder} is damaged and cannot be resumed ({type(error).__name__}: {error}); "
                f"it holds {', '.join(present)}; --overwrite replaces it"
            ) from error
        differing = [key for key, value in self.identity.items() if meta.get(key) != value]
        if differing:
            changes = ", ".join(
                f"{key}: {meta.get(key)} there, {self.identity[key]} now" for key in differing
            )
            raise ValueError(
                f"{self.folder} holds results of another evaluation ({changes}); use --overwrite or --name"
            )
        self.meta, self.scores = meta, kept

    def _write(self):
        # Scores first: a generator counts as finished only once its scores are on disk.
        write_scores(self.folder / "scores.csv", self.scores)
        write_json(self.folder / "meta.json", self.meta)


def file_list_sha256(dataset):
    """Pins down which files a dataset holds, in which order, under which generator and label."""
    files = "\n".join(f"{sample.path}\t{sample.generator}\t{sample.label}" for sample in dataset.samples)
    return hashlib.sha256(os.fsencode(files)).hexdigest()


def describe_input(dataset, amp):
    """What scores depend on beside the weights: geometry, limits, decoding, precision, list of files."""
    return {
        "input": dataset.geometry.describe() + (LARGE_CROPPED if dataset.limits.crop_large else ""),
        "geometry": dataset.geometry.as_dict(),
        "limits": {
            "max_mpx": dataset.max_mpx,
            "max_input_mpx": dataset.limits.max_input_mpx,
            "crop_large": dataset.limits.crop_large,
            "exif": dataset.exif,
        },
        "precision": "bf16" if amp == "bf16" else "fp32",
        "batch_rule": "equal sizes together, no padding",
        "file_list_sha256": file_list_sha256(dataset),
    }


def caption(identity, bad):
    """The line under a table: what was measured, on which input."""
    left_out = f"; {len(bad.found)} bad images left out" if bad.found else ""
    return (
        f"{identity['protocol']}: {identity['input']}, {identity['precision']}, "
        f"weights {identity['checkpoint']} (sha256 {identity['checkpoint_sha256'][:12]}){left_out}"
    )


def write_scores(path, rows):
    """scores.csv, whole or not at all; score and logit with the 9 digits that float32 needs."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(SCORE_COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.9g}", f"{row[4]:.9g}") for row in rows)
    os.replace(part, path)


def read_scores(path):
    """Rows (path, generator, label, score, logit) of a scores.csv."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != SCORE_COLUMNS:
        raise ValueError(f"{path} is no scores.csv: expected the columns {', '.join(SCORE_COLUMNS)}")
    return [(row[0], row[1], int(row[2]), np.float32(row[3]), np.float32(row[4])) for row in rows[1:]]


def _require_finite(index, logit, dataset):
    broken = index[~np.isfinite(logit)]
    if len(broken):
        raise ValueError(
            f"the detector gave no finite score for {len(broken)} images, first "
            f"{dataset.root / dataset.samples[broken[0]].path}; are the weights damaged?"
        )
