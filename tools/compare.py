"""Two results folders side by side, or one and a published method: differences, means, flipped images.

    python -m tools.compare results/A/ForenSynths results/B/ForenSynths --output comparison
    python -m tools.compare results/A NPR-rerun

A folder is results/<name>/<protocol>, or results/<name> for every protocol that both have.  Two runs are
compared on the images they share; differences are second minus first.  `gained` counts images that the
second calls rightly and the first wrongly, `lost` the other way round.
Results: the tables here, and with --output compare.csv, compare.md and flips.csv.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import Parser, UserError, file_path
from data import protocols, published
from util import run, tables
from util.metrics import THRESHOLD, set_beside, tabulate
from util.record import read_scores
from util.tables import Column, count, points

COLUMNS = {
    "generator": tables.RESULTS["generator"],
    "acc": Column("acc %"),
    "other_acc": Column("2nd acc"),
    "diff_acc": Column("diff", points),
    "ap": Column("AP %"),
    "other_ap": Column("2nd AP"),
    "diff_ap": Column("diff", points),
    "gained": Column("gained", count),
    "lost": Column("lost", count),
    "images": Column("images", count),
    "reason": tables.RESULTS["reason"],
}
FLIP_COLUMNS = ("protocol", "path", "generator", "label", "first_score", "second_score", "change")


def main(argv=None):
    opt = parse(argv)
    first = results_of(opt.first)
    if Path(opt.second).is_dir():
        compared, flips = compare_runs(first, results_of(opt.second))
    else:
        compared, flips = compare_published(first, method_of(opt.second, first)), []
    text = []
    for protocol, (rows, notes) in compared.items():
        print(f"\n{protocol}\n{tables.results(rows, COLUMNS)}")
        print("\n".join(notes))
        text += [f"## {protocol}", tables.results_markdown(rows, COLUMNS), *notes]
    if opt.output:
        write(Path(opt.output), opt, compared, flips, text)
        print(f"-> {opt.output}")


def parse(argv):
    """The command line."""
    parser = Parser(prog="tools.compare", description="Compares results generator by generator.")
    parser.add_argument("first", type=file_path, help="results folder")
    parser.add_argument("second", type=file_path, help="results folder, or a published method such as NPR")
    parser.add_argument("--output", type=file_path, help="folder for compare.csv, compare.md and flips.csv")
    parser.add_argument("--overwrite", action="store_true", help="replace what --output holds")
    opt = parser.parse_args(argv)
    if opt.output and not opt.overwrite and any((Path(opt.output) / name).exists() for name in FILES):
        parser.error(f"{opt.output} holds a comparison already; --overwrite replaces it")
    return opt


FILES = ("compare.csv", "compare.md", "flips.csv")


def method_of(name, results):
    """The published method of this name; UserError lists those of the protocols in `results`."""
    try:
        return published.method_named(name, list(results))
    except UserError as error:
        raise UserError(f"{name} is not a results folder; {error}") from None


def results_of(folder):
    """{protocol: Results} of results/<name>/<protocol> or of every protocol below results/<name>."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no results folder {folder}")
    places = (
        [folder]
        if (folder / "scores.csv").is_file()
        else sorted(path.parent for path in folder.glob("*/scores.csv"))
    )
    if not places:
        raise UserError(f"{folder} holds no scores.csv; expected results/<name>/<protocol> or results/<name>")
    return {place.resolve().name: read_results(place) for place in places}


def read_results(place):
    """Scores and meta.json of one folder; ValueError when one of them is damaged."""
    results = Results(read_scores(place / "scores.csv"), read_meta(place))
    finished = results.meta.get("finished", {})
    if finished and sum(one["images"] for one in finished.values()) != len(results.scores):
        raise UserError(f"{place} is damaged: scores.csv lacks scores that meta.json counts")
    return results


@dataclass(frozen=True)
class Results:
    """One results folder."""

    scores: list
    meta: dict

    @property
    def average(self):
        """How its protocol takes the mean."""
        return self.meta.get("protocol_row", {}).get("average", "macro")


def read_meta(folder):
    """meta.json of a results folder; {} where there is none."""
    path = folder / "meta.json"
    try:
        return (
            json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")) if path.is_file() else {}
        )
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def compare_runs(first, second):
    """({protocol: (rows, notes)}, flipped images) of the protocols that both runs have."""
    if len(first) == len(second) == 1:  # two folders named outright: the names need not agree
        second = dict(zip(first, second.values(), strict=True))
    shared = [protocol for protocol in first if protocol in second]
    if not shared:
        raise UserError(
            f"no protocol in common: the first has {', '.join(first)}, the second {', '.join(second)}"
        )
    compared, flips = {}, []
    for protocol in shared:
        rows, notes, found = pair(first[protocol].scores, second[protocol].scores, first[protocol].average)
        notes += unlike(first[protocol].meta, second[protocol].meta)
        compared[protocol] = rows, notes
        flips += [(protocol, *flip) for flip in found]
    return compared, flips


def unlike(first, second):
    """Notes on what was not the same in two evaluations, and what each of them says about itself."""
    keys = ("input", "precision", "limits")
    sides = [(title, meta) for title, meta in (("first", first), ("second", second)) if meta]
    notes = [
        f"{title}: {meta['protocol']}, {meta['input']}, {meta['precision']}, weights {meta['checkpoint']} "
        f"({meta['checkpoint_sha256'][:12]})"
        for title, meta in sides
        if "checkpoint_sha256" in meta
    ]
    notes += [
        f"note: {key} differs: {first.get(key)} and {second.get(key)}"
        for key in keys
        if first.get(key) != second.get(key)
    ]
    return notes + [f"note: {title}: {note}" for title, meta in sides for note in meta.get("notes", ())]


def pair(first, second, average="macro"):
    """(rows, notes, flips) of two score lists, on the images they share: same path, generator, label."""
    key = {row[:3]: row[3] for row in second}
    shared = [(*row[:3], row[3], key[row[:3]]) for row in first if row[:3] in key]
    if not shared:
        raise UserError("no image in common: paths, generators or labels differ")
    _, generators, labels, ours, theirs = (list(column) for column in zip(*shared, strict=True))
    labels, order = np.array(labels), list(dict.fromkeys(generators))
    rows = tabulate(generators, labels, np.array(ours, np.float32), order, average)
    others = tabulate(generators, labels, np.array(theirs, np.float32), order, average)
    flips = [flip for row in shared if (flip := flipped(row))]
    for row, other in zip(rows, others, strict=True):
        changes = [flip[-1] for flip in flips if row["generator"] in (flip[1], "Mean")]
        row |= {"gained": changes.count("gained"), "lost": changes.count("lost")}
        for metric in ("acc", "ap"):
            row[f"other_{metric}"] = other[metric]
            row[f"diff_{metric}"] = other[metric] - row[metric]
    alone = len(first) + len(second) - 2 * len(shared)
    notes = [f"{len(flips):,} of {len(shared):,} images flipped"]
    return rows, notes + ([f"{alone:,} images are in one of the two only, left out"] if alone else []), flips


def flipped(row):
    """(path, generator, label, score, other score, "gained" or "lost"), or None when both agree."""
    *_, label, first, second = row
    right, now_right = (first > THRESHOLD) == label, (second > THRESHOLD) == label
    return None if right == now_right else (*row, "gained" if now_right else "lost")


def compare_published(first, method):
    """{protocol: (rows, notes)} of the protocols for which the method has published numbers."""
    compared = {}
    for protocol, results in first.items():
        theirs = published.lookup(protocol, method)
        if theirs is None:
            continue
        row = protocols.PROTOCOLS[protocol]
        _, generators, labels, values, _ = (list(column) for column in zip(*results.scores, strict=True))
        order = [generator.name for generator in row.generators]
        rows = tabulate(generators, np.array(labels), np.array(values, np.float32), order, row.average)
        set_beside(rows, theirs, row.average)
        for line in rows:
            for metric in ("acc", "ap"):
                line[f"other_{metric}"] = line[f"published_{metric}"]
                difference = line[f"diff_{metric}"]
                line[f"diff_{metric}"] = None if difference is None else -difference
        compared[protocol] = rows, [f"second: {method}, {'; '.join(theirs.sources)}", *theirs.notes]
    if not compared:
        raise UserError(f"{method} has no published numbers for {', '.join(first)}")
    return compared


def write(folder, opt, compared, flips, text):
    """compare.csv (fractions), compare.md (percent) and flips.csv."""
    encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
    rows = [{"protocol": protocol, **row} for protocol, (rows, _) in compared.items() for row in rows]
    tables.write_csv(folder / "compare.csv", rows, ["protocol", *COLUMNS])
    with open(folder / "flips.csv", "w", newline="", **encoding) as file:
        csv.writer(file).writerows([FLIP_COLUMNS, *flips])
    heading = f"# {opt.first} (first) and {opt.second} (second)"
    (folder / "compare.md").write_text("\n\n".join([heading, *text]) + "\n", **encoding)


if __name__ == "__main__":
    run.guard(main)
