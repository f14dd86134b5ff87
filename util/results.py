"""A results folder: scores of an evaluation, finished generator by generator, so that it can be resumed.

results/<name>/<protocol>/: scores.csv (path, generator, label, score, logit), meta.json, table.csv, table.md.
Of a view other than `native` they are called scores.<slug>.csv and so on; meta.json says which view that is.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from common import UserError, read_table, write_json, written_whole
from util.identity import read_side_file, require_same
from util.metrics import PUBLISHED, THRESHOLD, tabulate

PATTERNS = (
    "meta.json",
    "scores*.csv",
    "table*.csv",
    "table*.md",
    "views.*",
)  # what makes up a results folder
AGAIN = "evaluate again with --overwrite"
SCORE_COLUMNS = ("path", "generator", "label", "score", "logit")
WORDS = {dict: "an object", list: "a list", str: "text"}
# Entries of meta.json that are read again; of a view it has some as well.
KINDS = dict.fromkeys(("counts", "finished", "bad_files", "views", "protocol_row", "printed"), dict)
KINDS |= {"notes": list, "protocol": str, "checkpoint": str, "checkpoint_sha256": str, "file": str}
# What each entry of these has.
PARTS = {"finished": {"images"}, "views": {"file", "finished", "bad_files"}}


def file_for(view, name):
    """The name of a view's file: scores.csv of the view `native`, scores.web.csv of the view `web`."""
    stem, suffix = name.split(".")
    return f"{stem}.{view.slug}.{suffix}" if view.steps else name


class Results:
    """A results folder: the scores so far, what they are of, and which generators are finished.

    identity: what an evaluation must have in common to be resumed; about: the rest of meta.json.
    """

    def __init__(self, folder, identity, about, views):
        self.folder, self.identity, self.about, self.views = folder, identity, about, views
        self.meta, self.scores = {}, {view: [] for view in views}

    def open(self, opt, counts, files):
        """Starts empty, or with what an equal evaluation left; never mixes, replaces nothing unless asked to.

        files: {generator: hash of its list of files}; a finished generator whose files changed is refused.
        """
        self.files = files
        present = sorted(path.name for pattern in PATTERNS for path in self.folder.glob(pattern))
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

    def record(self, view):
        """What meta.json says of a view: which generators are finished, which files are bad.

        That of `native` is meta.json itself.
        """
        if not view.steps:
            return self.meta
        new = {"file": file_for(view, "scores.csv"), "chain": view.chain, "finished": {}, "bad_files": {}}
        return self.meta.setdefault("views", {}).setdefault(view.name, new)

    def waiting(self, generator):
        """The views under which a generator is not finished."""
        return tuple(view for view in self.views if generator not in self.record(view)["finished"])

    def add(self, generator, scored):
        """Adds a finished generator and writes all files before the next one starts.

        scored: {view: (samples, logits, {path of a bad file: reason})}.
        """
        for view, (samples, logits, bad_files) in scored.items():
            rows = zip(samples, sigmoid(logits), logits, strict=True)
            self.scores[view] += [(*sample, score, logit) for sample, score, logit in rows]
            record = self.record(view)
            record["finished"][generator] = {"images": len(samples), "files_sha256": self.files[generator]}
            record["bad_files"] |= bad_files
            write_scores(self.folder / file_for(view, "scores.csv"), self.scores[view])
        # Last: a generator counts as finished only once its scores are on disk.
        write_json(self.folder / "meta.json", self.meta)

    def printed(self, **choices):
        """Records what the tables were made with; scores do not depend on it, so it is not compared."""
        self.meta["printed"] = choices
        write_json(self.folder / "meta.json", self.meta)

    def bad_files(self):
        """{path: reason} of the files left out, and of which views unless of all."""
        reasons = {}
        for view in self.views:
            for path, reason in self.record(view)["bad_files"].items():
                reasons.setdefault((path, reason), []).append(view.name)
        return {
            path: reason if len(names) == len(self.views) else f"{reason} (view {', '.join(names)})"
            for (path, reason), names in reasons.items()
        }

    def _resume(self, remedy):
        """Loads what is finished; UserError if it is damaged or of another evaluation."""
        self.meta = read_meta(self.folder, ("counts", "bad_files", "finished"), remedy)
        ways = "use --overwrite or --name"
        require_same(self.meta, self.identity, self.folder, ways)
        for view in self.views:
            record = self.record(view)
            require_same(record, {"chain": view.chain} if view.steps else {}, self.folder, ways)
            finished = record["finished"]
            known = {name: entry.get("files_sha256") for name, entry in finished.items()}
            wanted = {name: digest for name, digest in self.files.items() if name in known}
            require_same({"files": known}, {"files": {**known, **wanted}}, self.folder, ways)
            path = self.folder / file_for(view, "scores.csv")
            self.scores[view] = finished_scores(path, record, remedy)


def finished_scores(path, record, remedy=AGAIN):
    """The rows of a scores.csv whose generators are finished; UserError where it lacks some of them.

    record: what meta.json says of the file's view; all rows where it does not say what is finished.
    """
    if "finished" not in record:
        return read_scores(path)
    finished = record["finished"]
    rows = [row for row in read_scores(path) if row[1] in finished] if path.exists() else []
    counted = {name: entry["images"] for name, entry in finished.items() if entry["images"]}
    if Counter(row[1] for row in rows) != counted:
        raise UserError(f"{path} is damaged: it lacks scores; {remedy}")
    return rows


def reals_of(path, identity, views):
    """{view: (name of the set, scores of its reals)} of an evaluation of the weights of `identity`.

    path: its folder, results/<name>/<protocol>, or the scores.csv in it.  UserError where it has no reals, is
    of other weights or lacks a view.
    """
    folder = Path(path).parent if Path(path).is_file() else Path(path)
    meta = read_meta(folder, ("checkpoint_sha256",), "--reals_from needs results/NAME/PROTOCOL")
    same = {key: identity[key] for key in ("checkpoint_sha256", "precision")}
    require_same(meta, same, folder, "--reals_from needs scores of the same weights")
    found = {}
    for view in views:
        file = folder / file_for(view, "scores.csv")
        scores = [row[3] for row in read_scores(file) if row[2] == 0] if file.exists() else []
        if not scores:
            raise UserError(
                f"--reals_from: no scores of reals in {file}; evaluate there with the same --views"
            )
        found[view] = "/".join(folder.resolve().parts[-2:]), np.array(scores, np.float32)
    return found


def folders_of(path, name="scores*.csv"):
    """The results folders that a path names: itself, or those of its protocols; UserError where none is."""
    path = Path(path)
    below = sorted({file.parent for file in path.glob(f"*/{name}")})
    folders = [path] if list(path.glob(name)) else below
    if not folders:
        raise UserError(f"{path} holds no {name}; expected results/NAME/PROTOCOL or results/NAME")
    return folders


def read_folder(folder, view):
    """(rows of a view's scores, meta.json or {}) of a results folder; UserError when one is damaged."""
    meta = read_meta(folder)
    record = meta.get("views", {}).get(view.name, {}) if view.steps else meta
    return finished_scores(folder / file_for(view, "scores.csv"), record), meta


def read_meta(folder, needed=(), remedy=AGAIN):
    """meta.json of a results folder, {} where there is none; UserError when it is damaged or lacks keys."""
    path = folder / "meta.json"
    meta = read_side_file(path, remedy, needed) if path.is_file() or needed else {}
    if wrong := next(damage(meta), ""):
        raise UserError(f"{path} is damaged ({wrong}); {remedy}")
    return meta


def damage(record):
    """Yields in words what is wrong with the content of meta.json, or with what it says of a view."""
    for name, kind in KINDS.items():
        if name in record and not isinstance(record[name], kind):
            yield f"{name}: expected {WORDS[kind]}, got {record[name]!r}"
            return
    printed = {"threshold": THRESHOLD, "reals_from": None} | record.get("printed", {})
    if type(printed["threshold"]) not in (int, float):
        yield f"printed.threshold: expected a number, got {printed['threshold']!r}"
    if not isinstance(printed["reals_from"], str | None):
        yield f"printed.reals_from: expected text or null, got {printed['reals_from']!r}"
    for key, needed in PARTS.items():
        for name, part in record.get(key, {}).items():
            if not isinstance(part, dict):
                yield f"{key}.{name}: expected an object, got {part!r}"
            elif missing := needed - part.keys():
                yield f"{key}.{name} has no {', '.join(sorted(missing))}"
            else:
                yield from (f"{key}.{name}: {wrong}" for wrong in damage(part))


def read_views(folder, meta):
    """({name of a view: its scores}, which views are left out and why), native first.

    All views have the same generators, so that their means can be compared: a view that lacks some of those
    that another has finished is left out.
    """
    records = {"native": {"file": "scores.csv", **meta}, **meta.get("views", {})}
    found = {
        name: finished_scores(folder / record["file"], record)
        for name, record in records.items()
        if (folder / record["file"]).is_file()
    }
    finished = {
        name: {row[1] for row in rows} | {*records[name].get("finished", ())} for name, rows in found.items()
    }
    every = set().union(*finished.values())
    left_out = [
        f"{folder}: view {name} is left out, {len(done)} of {len(every)} generators are finished"
        for name, done in finished.items()
        if done < every
    ]
    return {name: rows for name, rows in found.items() if finished[name] == every}, left_out


def sigmoid(logits):
    """float32 sigmoid, which accuracy and AP are computed on; it saturates and ties as upstream's does."""
    return torch.sigmoid(torch.from_numpy(np.asarray(logits, dtype=np.float32))).numpy()


def tabulate_scores(rows, order=None, average="macro", metrics=PUBLISHED, threshold=THRESHOLD, least=1):
    """`tabulate` of rows (path, generator, label, score, ...)."""
    _, generators, labels, scores, *_ = zip(*rows, strict=True) if rows else [()] * 4
    return tabulate(
        generators, labels, np.array(scores, np.float32), order, average, metrics, threshold, least
    )


def write_scores(path, rows):
    """scores.csv, complete or not at all; score and logit with the 9 digits that float32 needs."""
    with written_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(SCORE_COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.9g}", f"{row[4]:.9g}") for row in rows)


def read_scores(path):
    """Rows (path, generator, label, score, logit) of a scores.csv, also as a spreadsheet saves it.

    UserError for a label other than 0 and 1, a score or logit of NaN or inf, a row that is cut off,
    and an image that a generator has twice.
    """
    rows, images = [], set()
    for position, cells in enumerate(read_table(path, SCORE_COLUMNS), 1):
        row = scored_image(cells)
        if row is None:
            expected = "expected label 0 or 1, finite score and logit"
            got = ", ".join(str(cells[name]) for name in SCORE_COLUMNS)
            raise UserError(f"{path} is damaged (image {position}: {expected}, got {got}); {AGAIN}")
        if row[:3] in images:
            raise UserError(f"{path} is damaged ({row[0]} is there twice); {AGAIN}")
        images.add(row[:3])
        rows.append(row)
    return rows


def scored_image(cells):
    """(path, generator, label, score, logit) of the cells of a row, None where they are not of their kind."""
    try:
        label, score, logit = int(cells["label"]), number(cells["score"]), number(cells["logit"])
    except (TypeError, ValueError, AttributeError):
        return None
    good = label in (0, 1) and np.isfinite(score) and np.isfinite(logit)
    return (cells["path"], cells["generator"], label, score, logit) if good else None


def number(text):
    """float32 of a cell; some spreadsheets write a comma before the decimals."""
    return np.float32(text.replace(",", "."))
