"""A results folder: the scores of an evaluation, what they are of, and which generators are done.

results/<name>/<protocol>/: scores.csv (path, generator, label, score, logit), meta.json, table.csv, table.md.
"""

import csv
import json
from collections import Counter

import numpy as np
import torch

from common import UserError, write_json, written_whole
from util.metrics import tabulate

FILES = ("meta.json", "scores.csv", "table.csv", "table.md")  # what makes up a results folder
SCORE_COLUMNS = ("path", "generator", "label", "score", "logit")


class Record:
    """A results folder: the scores so far, what they are of, and which generators are done."""

    def __init__(self, folder, identity, about=None):
        """identity: what an evaluation must share to go on here; about: what meta.json says beside it."""
        self.folder, self.identity, self.about = folder, identity, about or {}
        self.meta, self.scores, self.files = {}, [], {}

    def open(self, opt, counts, files):
        """Starts empty, or takes up what an equal evaluation left; refuses to mix or to replace unasked.

        files: {generator: hash of its list of files}; a finished generator whose files changed is refused.
        """
        self.files = files
        present = [name for name in FILES if (self.folder / name).exists()]
        if present and not opt.overwrite:
            self._take_up(opt.resume, present)
            self.meta["counts"].update(counts)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in present:  # meta.json first: without it no scores count as finished
            (self.folder / name).unlink()
        self.meta = {
            **self.identity,
            **self.about,
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
        self.meta["finished"][generator] = {"images": len(samples), "files_sha256": self.files[generator]}
        self.meta["bad_files"] = dict(bad_files)
        self._write()

    def tabulate(self, order, average="macro"):
        """Rows per generator and their mean, from the scores."""
        _, generators, labels, scores, _ = (
            zip(*self.scores, strict=True) if self.scores else [()] * len(SCORE_COLUMNS)
        )
        labels, scores = np.array(labels, dtype=int), np.array(scores, dtype=np.float32)
        return tabulate(generators, labels, scores, order, average)

    def _take_up(self, resume, present):
        if not resume:
            raise UserError(
                f"{self.folder} holds results already; --resume keeps them, --overwrite replaces them, "
                "--name puts these elsewhere"
            )
        try:
            text = (self.folder / "meta.json").read_text(encoding="utf-8", errors="surrogateescape")
            meta, scores = json.loads(text), read_scores(self.folder / "scores.csv")
            finished = {name: one["images"] for name, one in meta["finished"].items()}
            files = {name: one["files_sha256"] for name, one in meta["finished"].items()}
            kept = [row for row in scores if row[1] in finished]
            if Counter(row[1] for row in kept) != {name: count for name, count in finished.items() if count}:
                raise UserError("scores.csv lacks scores that meta.json counts")
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"{self.folder} is damaged and cannot be resumed ({type(error).__name__}: {error}); "
                f"it holds {', '.join(present)}; --overwrite replaces it"
            ) from error
        differing = [key for key, value in self.identity.items() if meta.get(key) != value]
        if differing:
            changes = ", ".join(
                f"{key}: {meta.get(key)!r} there, {self.identity[key]!r} now" for key in differing
            )
            raise UserError(
                f"{self.folder} holds results of another evaluation ({changes}); use --overwrite or --name"
            )
        changed = [name for name, known in files.items() if self.files.get(name, known) != known]
        if changed:
            raise UserError(
                f"{self.folder} has scores of other files for {', '.join(changed)}; use --overwrite or --name"
            )
        self.meta, self.scores = meta, kept

    def _write(self):
        # Scores first: a generator counts as finished only once its scores are on disk.
        write_scores(self.folder / "scores.csv", self.scores)
        write_json(self.folder / "meta.json", self.meta)


def sigmoid(logits):
    """float32 sigmoid, which accuracy and AP are computed on; it saturates and ties as upstream's does."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float32))).numpy()


def write_scores(path, rows):
    """scores.csv, whole or not at all; score and logit with the 9 digits that float32 needs."""
    with written_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(SCORE_COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.9g}", f"{row[4]:.9g}") for row in rows)


def read_scores(path):
    """Rows (path, generator, label, score, logit) of a scores.csv."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != SCORE_COLUMNS:
        raise UserError(f"{path} is no scores.csv: expected the columns {', '.join(SCORE_COLUMNS)}")
    try:
        return [
            (path, name, int(label), np.float32(score), np.float32(logit))
            for path, name, label, score, logit in rows[1:]
        ]
    except ValueError as error:
        raise UserError(f"{path} is damaged: expected {len(SCORE_COLUMNS)} columns a row ({error})") from None
