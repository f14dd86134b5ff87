"""The folder of an experiment: what it holds, which cells are finished, and results.csv.

grid.json     the variants and flags that its results depend on
rows/         a JSON file per cell that has ended; results.csv is made from them
runs/         a training run per cell (train.py)
"""

import json
import shutil
from pathlib import Path

from common import UserError, write_json
from util.sweep import FAILED, FINISHED, write_results

GRID, LOCK = "grid.json", ".experiment.lock"
IN_A_ROW = ("cell", "variant", "seed", "status")


class Ledger:
    """Records of one experiment; a cell has `.name`, `.variant` and `.seed`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.record, self.lock = self.folder / GRID, self.folder / LOCK
        self.rows, self.runs, self.tests = (self.folder / name for name in ("rows", "runs", "tests"))

    def require(self, wanted, overwrite):
        """Refuses a folder that holds another experiment, or files of another kind.

        wanted: {"variants": {name: flags}, ...}; variants may be added to those that are there.
        """
        if self.contents() and not self.record.is_file():
            raise UserError(
                f"{self.folder} holds {', '.join(self.contents()[:3])}, no experiment; name another --output"
            )
        if overwrite or not self.record.is_file():
            return
        known = _read(self.record, wanted, "--overwrite starts over")
        changed = [
            f"{name} ({_words(known[name])} there, {_words(wanted[name])} now)"
            for name in wanted
            if name != "variants" and wanted[name] != known[name]
        ]
        changed += [
            f"variant {name!r}"
            for name, flags in known["variants"].items()
            if wanted["variants"].get(name, flags) != flags
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds an experiment with other {', '.join(changed)}; "
                "--overwrite starts over, --output names another folder"
            )

    def take(self, wanted, overwrite):
        """Writes down what the folder is for; `overwrite` empties it first."""
        if overwrite:
            for name in sorted(self.contents(), key=lambda name: name != "rows"):  # first what counts as done
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif self.record.is_file():  # variants of earlier calls stay
            known = _read(self.record, wanted, "--overwrite starts over")
            wanted = wanted | {"variants": known["variants"] | wanted["variants"]}
        write_json(self.record, wanted)

    def contents(self):
        """What stands in the folder beside the files that say what it is."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(path.name for path in found if path.name not in (LOCK, GRID, f"{GRID}.part"))

    def row(self, cell):
        """What a cell has left; {} before its end."""
        path = self.rows / f"{cell.name}.json"
        if not path.is_file():
            return {}
        row = _read(path, IN_A_ROW, "remove it, and the same command makes it anew")
        if row["variant"] != cell.variant:
            raise UserError(
                f"variants {row['variant']!r} and {cell.variant!r} would share the folder {cell.name}; "
                "rename one of them"
            )
        return row

    def note(self, cell, **values):
        """Writes the row of a cell that has ended."""
        row = {"cell": cell.name, "variant": cell.variant, "seed": cell.seed, "error": "", **values}
        write_json(self.rows / f"{cell.name}.json", row)

    def finished(self, cell):
        return self.row(cell).get("status") == FINISHED

    def failed(self, cell):
        return self.row(cell).get("status") == FAILED

    def epochs(self, cell):
        """Epochs that a cell's training has finished."""
        try:
            with open(self.runs / cell.name / "train.csv", encoding="utf-8") as file:
                return max(0, sum(1 for _ in file) - 1)
        except FileNotFoundError:
            return 0

    def write_results(self, cells, reference):
        """results.csv: these cells in their order, then those of earlier calls."""
        rows = [row for cell in cells if (row := self.row(cell))]
        names = {row["cell"] for row in rows}
        earlier = [path for path in sorted(self.rows.glob("*.json")) if path.stem not in names]
        rows += [_read(path, IN_A_ROW, "remove it") for path in earlier]
        write_results(self.folder / "results.csv", [row | {"reference": reference} for row in rows])


def _words(value):
    return " ".join(value) if isinstance(value, list) else value


def _read(path, keys, remedy):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict) or not set(keys) <= record.keys():
        raise UserError(f"{path} is damaged; {remedy}")
    return record
