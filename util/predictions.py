"""The CSV of predict.py: a row per file, written as scores come, so that a run can be resumed."""

import csv
import os
from pathlib import Path

from common import UserError, read_table, write_json, written_whole
from util.identity import read_side_file, require_same
from util.results import number

NUMBERS = ("probability", "score", "logit")
COLUMNS = ("path", "verdict", *NUMBERS, "label", "error")
HEADING = (",".join(COLUMNS) + "\r\n").encode()


class PredictionFile:
    """A CSV of scores and, next to it, <name>.json that says what made them."""

    def __init__(self, path, identity):
        self.path, self.identity = Path(path), identity
        self.meta_path = self.path.with_name(self.path.name + ".json")
        self.rows = {}  # path of an image -> its row

    def open(self, resume, overwrite, environment):
        """Starts a new file, or loads the rows of an equal evaluation; replaces nothing unless asked to."""
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder; name a file, as --output {self.path}/scores.csv")
        present = [path for path in (self.path, self.meta_path) if path.exists()]
        if present and not resume and not overwrite:
            raise UserError(f"{present[0]} exists; --resume keeps its rows, --overwrite replaces it")
        if resume and self.path.exists():
            self._resume()
        else:
            self.path.unlink(missing_ok=True)  # first: old rows must not have the new description
            write_json(self.meta_path, {**self.identity, "environment": environment})
        self._write(self.rows.values())

    def add(self, rows):
        """Appends rows (dicts over COLUMNS); they are on the disk when this returns."""
        with open(self.path, "a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.DictWriter(file, COLUMNS).writerows(map(as_text, rows))
            file.flush()
            os.fsync(file.fileno())
        self.rows.update({row["path"]: row for row in rows})

    def close(self, paths):
        """Puts the rows in the order of `paths`, each file once; rows of other files follow."""
        rows = {path: self.rows[path] for path in paths if path in self.rows}
        self._write((rows | self.rows).values())

    def _resume(self):
        remedy = f"{self.path} cannot be resumed without it; --overwrite replaces both"
        known = read_side_file(self.meta_path, remedy)
        require_same(known, self.identity, self.path, "use --overwrite, or another --output")
        if HEADING.startswith(self.path.read_bytes()):
            return  # a heading, or a part of one
        rows = read_table(self.path, COLUMNS)
        try:
            for row in rows:
                if None not in row.values():  # a run that was killed may leave a part of a row
                    numbers = {name: float(number(row[name])) if row[name] else None for name in NUMBERS}
                    label = int(row["label"]) if row["label"] else None
                    self.rows[row["path"]] = {**row, **numbers, "label": label}
        except ValueError as error:
            raise UserError(f"{self.path} is damaged ({error}); --overwrite replaces it") from None

    def _write(self, rows):
        with written_whole(self.path) as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(map(as_text, rows))


def as_text(row):
    """A row for the CSV: numbers with the 9 digits that float32 needs, None as an empty cell."""
    cells = {name: "" if value is None else value for name, value in row.items()}
    return cells | {name: f"{row[name]:.9g}" for name in NUMBERS if row[name] is not None}
