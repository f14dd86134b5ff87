"""The CSV of predict.py: one row per file, written as scores come, so that a stopped run goes on."""

import csv
import json
import os
from pathlib import Path

from common import UserError, write_json, written_whole

COLUMNS = ("path", "score", "logit", "label", "error")


class PredictionFile:
    """A CSV of scores and, beside it, <name>.json that pins down what made them."""

    def __init__(self, path, identity):
        self.path, self.identity = Path(path), identity
        self.meta_path = self.path.with_name(self.path.name + ".json")
        self.rows = {}  # path of an image -> its row, as far as it was scored before

    def open(self, resume, overwrite, environment):
        """Starts a new file, or takes up the rows of an equal evaluation; never replaces unasked."""
        present = [path for path in (self.path, self.meta_path) if path.exists()]
        if present and not resume and not overwrite:
            raise UserError(f"{present[0]} exists; --resume keeps its rows, --overwrite replaces it")
        if self.path.exists() and resume and self._take_up():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # first: old rows must not stand beside the new description
        write_json(self.meta_path, {**self.identity, "environment": environment})
        with self._write("w") as file:
            csv.writer(file).writerow(COLUMNS)

    def add(self, rows):
        """Appends rows (dicts over COLUMNS); they are on disk when this returns."""
        with self._write("a") as file:
            csv.DictWriter(file, COLUMNS).writerows(map(spell, rows))
            file.flush()
            os.fsync(file.fileno())

    def _take_up(self):
        """Reads what is there; False when not even the heading is whole."""
        try:
            known = json.loads(self.meta_path.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.meta_path} is missing or damaged, so {self.path} cannot be resumed; "
                "--overwrite replaces it"
            ) from error
        differing = [name for name, value in self.identity.items() if known.get(name) != value]
        if differing:
            changes = ", ".join(
                f"{name}: {known.get(name)} there, {self.identity[name]} now" for name in differing
            )
            raise UserError(f"{self.path} holds scores of another evaluation ({changes}); use --overwrite")
        content = self.path.read_bytes()
        whole = whole_rows(content)
        heading = ",".join(COLUMNS).encode() + b"\r\n"
        if not (whole or heading).startswith(heading) or not heading.startswith(content[: len(heading)]):
            raise UserError(f"{self.path} is not a file of predict.py: expected {','.join(COLUMNS)}")
        if not whole:
            return False
        with open(self.path, "r+b") as file:
            file.truncate(len(whole))
        with open(self.path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            self.rows = {row["path"]: _read(row) for row in csv.DictReader(file)}
        return True

    def close(self, paths):
        """Puts the rows in the order of `paths`; rows of other files follow."""
        with open(self.path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            written = list(csv.DictReader(file))
        rows = {row["path"]: row for row in written}  # of a file that was tried again, the last
        named = set(paths)
        order = [*(path for path in paths if path in rows), *(path for path in rows if path not in named)]
        if order == [row["path"] for row in written]:
            return
        with written_whole(self.path) as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[path] for path in order)

    def _write(self, mode):
        return open(self.path, mode, newline="", encoding="utf-8", errors="surrogateescape")


def whole_rows(content):
    """The bytes of a CSV up to the end of its last whole row: a run that was killed may leave half a row."""
    end = len(content)
    while (end := content.rfind(b"\r\n", 0, end)) >= 0:
        if content.count(b'"', 0, end) % 2 == 0:  # else the line break lies inside a quoted file name
            return content[: end + 2]
    return b""


def spell(row):
    """A row as text: score and logit with the 9 digits that float32 needs, unknown things empty."""
    return {
        name: "" if value is None else f"{value:.9g}" if name in ("score", "logit") else value
        for name, value in row.items()
    }


def _read(row):
    numbers = {name: float(row[name]) if row[name] else None for name in ("score", "logit")}
    return {**row, **numbers, "label": int(row["label"]) if row["label"] else None}
