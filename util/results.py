"""A results folder: scores of an evaluation, finished generator by generator, so that it can be resumed.

results/<name>/<protocol>/: scores.csv (path, generator, label, score, logit), meta.json, table.csv, table.md.
"""

import csv
from collections import Counter

import numpy as np
import torch

from common import UserError, read_table, write_json, written_whole
from util.identity import read_side_file, require_same
from util.metrics import tabulate

FILES = ("meta.json", "scores.csv", "table.csv", "table.md")  # what makes up a results folder
SCORE_COLUMNS = ("path", "generator", "label", "score", "logit")


class Results:
    """A results folder: the scores so far, what they are of, and which generators are finished.

    identity: what an evaluation must have in common to be resumed; about: the rest of meta.json.
    """

    def __init__(self, folder, identity, about):
        self.folder, self.identity, self.about = folder, identity, about
        self.meta, self.scores = {}, []

    def open(self, opt, counts, files):
        """Starts empty, or with what an equal evaluation left; never mixes, replaces nothing unless asked to.

        files: {generator: hash of its list of files}; a finished generator whose files changed is refused.
        """
        self.files = files
        present = [name for name in FILES if (self.folder / name).exists()]
        if present and not opt.overwrite:
            if not opt.resume:
                choices = "--resume keeps them, --overwrite replaces them, --name writes elsewhere"
                raise UserError(f"{self.folder} has results; {choices}")
            self._resume(f"it holds {', '.join(present)}; --overwrite replaces it")
            self.meta["counts"].update(counts)
            return
        for name in present:  # meta.json first: without it no scores count as finished
            (self.folder / name).unlink()
        # On the disk only with the first generator: a run that stops before it leaves no results.
        records = {"environment": opt.environment, "counts": counts, "bad_files": {}, "finished": {}}
        self.meta = {**self.identity, **self.about, **records}

    def add(self, generator, samples, logits, bad_files):
        """Adds a finished generator and writes both files before the next one starts."""
        scores = sigmoid(logits)
        rows = zip(samples, scores, logits, strict=True)
        self.scores += [(*sample, score, logit) for sample, score, logit in rows]
        self.meta["finished"][generator] = {"images": len(samples), "files_sha256": self.files[generator]}
        self.meta["bad_files"] = dict(bad_files)
        # Scores first: a generator counts as finished only once its scores are on disk.
        write_scores(self.folder / "scores.csv", self.scores)
        write_json(self.folder / "meta.json", self.meta)

    def _resume(self, remedy):
        """Loads what is finished; UserError if it is damaged or of another evaluation."""
        self.meta = read_side_file(self.folder / "meta.json", remedy, ("counts", "bad_files", "finished"))
        ways = "use --overwrite or --name"
        require_same(self.meta, self.identity, self.folder, ways)
        finished = self.meta["finished"]
        known = {name: entry["files_sha256"] for name, entry in finished.items()}
        wanted = {name: digest for name, digest in self.files.items() if name in known}
        require_same({"files": known}, {"files": {**known, **wanted}}, self.folder, ways)
        path = self.folder / "scores.csv"
        self.scores = [row for row in read_scores(path) if row[1] in finished] if path.exists() else []
        counted = {name: entry["images"] for name, entry in finished.items() if entry["images"]}
        if Counter(row[1] for row in self.scores) != counted:
            raise UserError(f"{path} is damaged: it lacks scores; {remedy}")


def sigmoid(logits):
    """float32 sigmoid, which accuracy and AP are computed on; it saturates and ties as upstream's does."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float32))).numpy()


def tabulate_scores(rows, order=None, average="macro"):
    """`tabulate` of rows (path, generator, label, score, ...)."""
    _, generators, labels, scores, *_ = zip(*rows, strict=True) if rows else [()] * 4
    return tabulate(generators, labels, np.array(scores, np.float32), order, average)


def write_scores(path, rows):
    """scores.csv, complete or not at all; score and logit with the 9 digits that float32 needs."""
    with written_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(SCORE_COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.9g}", f"{row[4]:.9g}") for row in rows)


def read_scores(path):
    """Rows (path, generator, label, score, logit) of a scores.csv, also as a spreadsheet saves it."""
    rows = read_table(path, SCORE_COLUMNS)
    try:
        return [
            (row["path"], row["generator"], int(row["label"]), number(row["score"]), number(row["logit"]))
            for row in rows
        ]
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); --overwrite replaces it") from None


def number(text):
    """float32 of a cell; some spreadsheets write a comma before the decimals."""
    return np.float32(text.replace(",", "."))
