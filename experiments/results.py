"""The results of an experiment: a row per cell (one variant trained with one seed), results.csv, views of it.

Columns of results.csv: what a cell is (`cell`, `variant`, `seed`, `status`, `error`, the grid's `reference`,
`description`, `factors`, `setting`: what else differs from the published detector, `parameters`), its
training (`epochs`; `loss`, `val_acc`, `val_ap`: a value per epoch, separated by spaces; `scale_weights`,
`scale_factor`: learned fusion), its test (`<protocol>/<generator>/<metric>`: fractions; `reals`, `fakes`:
counts), and its times in seconds (`train_seconds`, `test_seconds`).  Empty: no value.
"""

import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from common import UserError, read_table, require_package, write_json
from util.identity import read_side_file, require_same
from util.results import tabulate_scores
from util.tables import write_csv

FINISHED, FAILED = "finished", "failed"
TEST_METRICS = ("acc", "ap", "auc", "r_acc", "f_acc", "reals", "fakes")
FIRST = (
    *("cell", "variant", "seed", "status", "error", "reference", "description", "factors", "setting"),
    *("parameters", "epochs", "loss", "val_acc", "val_ap", "scale_weights", "scale_factor"),
)
LAST = ("train_seconds", "test_seconds")
SEPARATOR = "/"  # between protocol, generator and metric


class Ledger:
    """The records in an experiment's folder; a cell has `.name`, `.variant` and `.seed`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path, self.rows, self.runs = (self.folder / name for name in ("grid.json", "rows", "runs"))

    def made(self, default):
        """What the folder's results were made with, `default` where it has none; UserError for other files.

        default: {"variants": {name: flags}, ...}; a record must have these keys.
        """
        if self.path.is_file():
            return read_side_file(self.path, "--overwrite starts over", default)
        if self.contents():
            names = ", ".join(path.name for path in self.contents()[:3])
            raise UserError(f"{self.folder} holds {names}, not an experiment; name another --output")
        return default

    def require(self, wanted, overwrite=False):
        """What the folder is to record: variants of earlier calls stay.  UserError for another experiment."""
        if overwrite and self.path.is_file():
            return wanted
        made = self.made(wanted)
        variants = {**made["variants"], **wanted["variants"]}
        same = {**wanted, "variants": {name: variants[name] for name in made["variants"]}}
        require_same(made, same, self.folder, "--overwrite starts over, --output names another folder")
        return {**wanted, "variants": variants}

    def start(self, identity, overwrite):
        """Records what the folder is for; `overwrite` empties it first."""
        if overwrite:
            for path in sorted(self.contents(), key=lambda path: path != self.rows):  # first what is done
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(self.path, identity)

    def contents(self):
        """Paths in the folder other than grid.json and hidden files, such as the lock."""
        paths = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        return [path for path in paths if not path.name.startswith((".", self.path.name))]

    def row(self, cell):
        """The row of a cell; {} before its end."""
        path = self.rows / f"{cell.name}.json"
        row = _read_row(path) if path.is_file() else {}
        if row and row["variant"] != cell.variant:
            names = f"{row['variant']!r} and {cell.variant!r}"
            raise UserError(f"variants {names} would share the folder {cell.name}; rename one of them")
        return row

    def status(self, cell):
        """FINISHED, FAILED, or None before a cell's end."""
        return self.row(cell).get("status")

    def record(self, cell, **values):
        """Writes the row of a cell that has ended."""
        row = {"cell": cell.name, "variant": cell.variant, "seed": cell.seed, "error": "", **values}
        write_json(self.rows / f"{cell.name}.json", row)

    def epochs(self, cell):
        """Epochs that a cell's training has finished."""
        path = self.runs / cell.name / "train.csv"
        lines = path.read_text(encoding="utf-8").count("\n") if path.is_file() else 0
        return max(0, lines - 1)

    def write_results(self, cells, reference):
        """results.csv: these cells in their order, then those of earlier calls."""
        order = [cell.name for cell in cells]
        paths = sorted(self.rows.glob("*.json"))
        paths.sort(key=lambda path: order.index(path.stem) if path.stem in order else len(order))
        rows = [{**_read_row(path), "reference": reference} for path in paths]
        write_results(self.folder / "results.csv", rows)


def _read_row(path):
    return read_side_file(path, "remove it, and its cell is run again", ("cell", "variant", "status"))


def write_results(path, rows):
    """Writes results.csv, complete or not at all."""
    tests = dict.fromkeys(name for row in rows for name in row if name not in (*FIRST, *LAST))
    write_csv(path, rows, [*FIRST, *tests, *LAST])


def tested(protocol, scores):
    """{"protocol/generator/metric": number or ""} from the rows of a scores.csv."""
    counts = Counter((generator, label) for _, generator, label, *_ in scores)
    columns = {}
    for line in tabulate_scores(scores)[:-1]:
        generator = line["generator"]
        line |= {"reals": counts[generator, 0], "fakes": counts[generator, 1]}
        for name in TEST_METRICS:
            value = "" if math.isnan(line[name]) else line[name]
            columns[SEPARATOR.join((protocol, generator, name))] = value
    return columns


def pandas():
    """The pandas package, which holds the tables of an experiment."""
    return require_package("pandas", "an experiment")


class Sweep:
    """The rows of results.csv and views of them, as pandas tables."""

    def __init__(self, rows):
        """rows: list of {column: text}, as csv reads them."""
        self.rows = rows
        self.finished = [row for row in rows if row["status"] == FINISHED]
        self.failed = [row for row in rows if row["status"] == FAILED]
        # Names of the variants with a finished cell, in the order of the grid.
        self.variants = list(dict.fromkeys(row["variant"] for row in self.finished))
        # The variant to compare with: the grid's reference, the first one where that has no finished cell.
        references = [row["reference"] for row in self.finished if row["reference"] in self.variants]
        self.reference = next(iter(references + self.variants), "")
        # (protocol, generator) of each test set, in the order of the tables, and the protocols.
        names = dict.fromkeys(name for row in self.finished for name in row if name.endswith("/acc"))
        self.columns = [tuple(name.removesuffix("/acc").split(SEPARATOR, 1)) for name in names]
        self.protocols = list(dict.fromkeys(protocol for protocol, _ in self.columns))
        # {variant: its factors}; () for one without, such as a window or the plain image.
        self.factors = {row["variant"]: tuple(map(float, row["factors"].split())) for row in self.finished}
        # {variant: how it is built, apart from its factors and their fusion}.
        self.settings = {row["variant"]: row["setting"] for row in self.finished}

    @classmethod
    def read(cls, path):
        """Reads results.csv; UserError where it is another file or a line is damaged."""
        rows = read_table(path, FIRST)
        for number, row in enumerate(rows, start=2):
            try:
                int(row["seed"])
                (FINISHED, FAILED).index(row["status"])
                _ = [float(value) for name, value in row.items() if SEPARATOR in name and value != ""]
            except (TypeError, ValueError) as error:  # a None stands for too few or too many values
                raise UserError(f"{path}, line {number} is damaged: {error}") from None
        return cls(rows)

    def values(self, metric="acc", protocol=None):
        """{variant: DataFrame} of a test metric: a row per seed, a column per (protocol, generator).

        protocol: only of this one.  Generators without a value in any cell are left out.
        """
        if protocol not in (None, *self.protocols):
            raise UserError(f"no results on protocol {protocol!r}; there are {', '.join(self.protocols)}")
        names = {
            pair: SEPARATOR.join((*pair, metric)) for pair in self.columns if protocol in (None, pair[0])
        }
        filled = {pair: name for pair, name in names.items() if any(row.get(name) for row in self.finished)}
        return self._by_variant(
            lambda row: {pair: float(row[name] or "nan") for pair, name in filled.items()}
        )

    def curves(self, column):
        """{variant: DataFrame} of `loss`, `val_acc` or `val_ap`: a row per seed, a column per epoch."""
        return self._by_variant(lambda row: dict(enumerate(map(float, row[column].split()), start=1)))

    def scale_weights(self):
        """{variant: DataFrame} of learned fusion weights: a row per seed, a column per factor."""
        return self._by_variant(
            lambda row: dict(map(float, part.split(":")) for part in row["scale_weights"].split())
        )

    def _by_variant(self, numbers):
        """{variant: DataFrame}, a row per seed, of {column: number} of each finished row."""
        frames = {}
        for variant in self.variants:
            seeds = {int(row["seed"]): numbers(row) for row in self.finished if row["variant"] == variant}
            frame = pandas().DataFrame.from_dict(seeds, orient="index", dtype=float).rename_axis("seed")
            if frame.size:
                frames[variant] = frame
        return frames

    def confusion(self, variant):
        """[[reals called real, reals called fake], [fakes called real, called fake]], over all its cells."""
        total = np.zeros((2, 2))
        for label, names in enumerate((("r_acc", "reals"), ("f_acc", "fakes"))):
            shares, counts = (self.values(name).get(variant) for name in names)
            right = (shares * counts).sum().sum()
            total[label, label], total[label, 1 - label] = right, counts.sum().sum() - right
        return np.rint(total).astype(int)
