"""Two results folders side by side, or one and a published method: differences, means, changed verdicts.

    python -m tools.compare results/A/ForenSynths results/B/ForenSynths --output comparison
    python -m tools.compare results/A/ForenSynths results/B/ForenSynths --tests
    python -m tools.compare results/A results/A --second_view web
    python -m tools.compare results/A NPR-rerun

A folder is results/<name>/<protocol>, or results/<name> for every protocol that both have.  Two runs are
compared on the images they share; differences are second minus first.  `gained` counts the images that only
the second gets right, `lost` those that only the first gets right.  --tests adds p-values.
Results: the tables here, and with --output compare.csv, compare.md and flips.csv.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import csv
import math

import numpy as np

from common import Parser, UserError, file_path, folder_to_write, owned, written_whole
from data import protocols, published
from data.perturb import NATIVE, parse_view
from util import run, tables
from util.metrics import PUBLISHED, THRESHOLD, add_published, averaged
from util.results import file_for, folders_of, read_folder, tabulate_scores
from util.significance import delong, holm, mcnemar, permute_ap
from util.tables import Column, count, p_value, points

COLUMNS = {
    "generator": tables.RESULTS["generator"],
    "acc": Column("acc %"),
    "other_acc": Column("2nd acc"),
    "diff_acc": Column("diff", points),
    "ap": Column("AP %"),
    "other_ap": Column("2nd AP"),
    "diff_ap": Column("diff", points),
    "p_ap": Column("p", p_value),
    "auc": Column("AUC %"),
    "other_auc": Column("2nd AUC"),
    "diff_auc": Column("diff", points),
    "p_auc": Column("p", p_value),
    "gained": Column("gained", count),
    "lost": Column("lost", count),
    "p_acc": Column("p", p_value),
    "images": Column("images", count),
    "reason": tables.RESULTS["reason"],
}
FLIP_COLUMNS = ("protocol", "path", "generator", "label", "first_score", "second_score", "change")
TESTED = ("auc", "other_auc", "diff_auc", "p_ap", "p_auc", "p_acc")  # columns of --tests
MEANING = (
    "p: how often two equally good detectors would differ this much on other images of the same kind;",
    "of other trainings it says nothing.  AP: swapped ranks, AUC: DeLong, gained and lost: McNemar;",
    "Holm-adjusted over the generators, that of the mean as it is",
)
FILES = ("compare.csv", "compare.md", "flips.csv")


def main(argv=None):
    """Compares two evaluations, or one with published numbers; prints and writes the tables."""
    opt = parse(argv)
    first = results_of(opt.first, opt.view)
    if Path(opt.second).is_dir():
        compared, flips = compare_runs(first, results_of(opt.second, opt.second_view), opt.tests)
    else:
        compared, flips = compare_published(first, opt.second), []
        if opt.tests or opt.view.steps or opt.second_view.steps:
            raise UserError("--tests, --view and --second_view need two results folders")
    columns = {name: column for name, column in COLUMNS.items() if opt.tests or name not in TESTED}
    titles = [describe(opt.first, opt.view), describe(opt.second, opt.second_view)]
    paragraphs = [f"# {titles[0]} (first) and {titles[1]} (second)"]
    for protocol, (rows, notes) in compared.items():
        print(f"\n{protocol}\n{tables.results(rows, columns)}")
        print("\n".join(notes))
        paragraphs += [f"## {protocol}", tables.results_markdown(rows, columns), *notes]
    if opt.output:
        write(Path(opt.output), compared, flips, paragraphs, columns)
        print(f"-> {opt.output}")


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m tools.compare", description="Compares results generator by generator.")
    parser.add_argument("first", type=file_path, help="results folder")
    parser.add_argument("second", type=file_path, help="results folder, or a published method such as NPR")
    tests = "p-values of the differences; a few seconds per 10,000 images"
    parser.add_argument("--tests", action="store_true", help=tests)
    parser.add_argument("--view", metavar="NAME", default=NATIVE, help="which view of both")
    parser.add_argument(
        "--second_view", metavar="NAME", help="which view of the second; default: that of --view"
    )
    parser.add_argument("--output", type=folder_to_write, help=f"folder for {', '.join(FILES)}")
    parser.add_argument("--overwrite", action="store_true", help="replace a comparison in --output")
    opt = parser.parse_args(argv)
    opt.second_view = parse_view(opt.second_view or opt.view)
    opt.view = parse_view(opt.view)
    if opt.output and not opt.overwrite and any((Path(opt.output) / name).exists() for name in FILES):
        parser.error(f"{opt.output} holds a comparison already; --overwrite replaces it")
    return opt


def describe(folder, view):
    """A folder and its view, in words."""
    return f"{folder}, view {view.name}" if view.steps else folder


def results_of(folder, view):
    """{protocol: (scores, meta)} of results/<name>/<protocol> or of every protocol below results/<name>."""
    folders = folders_of(folder, file_for(view, "scores.csv"))
    return {path.resolve().name: read_folder(path, view) for path in folders}


def compare_runs(first, second, tests=False):
    """({protocol: (rows, notes)}, changed images) of the protocols that both runs have."""
    if len(first) == len(second) == 1:  # two folders of one protocol each: the names need not agree
        second = dict(zip(first, second.values(), strict=True))
    shared = [protocol for protocol in first if protocol in second]
    if not shared:
        names = f"the first has {', '.join(first)}, the second {', '.join(second)}"
        raise UserError(f"no protocol in common: {names}")
    compared, flips = {}, []
    for protocol in shared:
        (scores, meta), (other_scores, other_meta) = first[protocol], second[protocol]
        average = meta.get("protocol_row", {}).get("average", "macro")
        rows, notes, changed = pair(scores, other_scores, average)
        if tests:
            add_tests(rows, shared_images(scores, other_scores), average)
            notes = [*MEANING, *notes]
        compared[protocol] = rows, notes + settings(meta, other_meta)
        flips += [(protocol, *flip) for flip in changed]
    return compared, flips


def settings(first, second):
    """Notes on the settings of two evaluations, from their meta.json, and on what differs between them."""
    sides = [(title, meta) for title, meta in (("first", first), ("second", second)) if meta]
    notes = [
        f"{title}: {meta['protocol']}, {meta['input']}, {meta['precision']}, weights {meta['checkpoint']} "
        f"({meta['checkpoint_sha256'][:12]})"
        for title, meta in sides
        if "checkpoint_sha256" in meta
    ]
    notes += [
        f"note: {key} differs: {first.get(key)} and {second.get(key)}"
        for key in ("input", "precision", "limits")
        if first.get(key) != second.get(key)
    ]
    return notes + [f"note: {title}: {note}" for title, meta in sides for note in meta.get("notes", ())]


def pair(first, second, average="macro"):
    """(rows, notes, flips) of two score lists, on the images they share: same path, generator, label."""
    shared = shared_images(first, second)
    rows = tabulate_scores(shared, average=average)
    other_rows = tabulate_scores([(*row[:3], row[4]) for row in shared], average=average)
    flips = []
    for *image, score, other in shared:
        right, now_right = ((value > THRESHOLD) == image[-1] for value in (score, other))
        if right != now_right:
            flips.append((*image, score, other, "gained" if now_right else "lost"))
    for row, other in zip(rows, other_rows, strict=True):
        own = names_of(row, rows)
        changes = [flip[-1] for flip in flips if flip[1] in own]
        row |= {"gained": changes.count("gained"), "lost": changes.count("lost")}
        for metric in ("acc", "ap", "auc"):
            row[f"other_{metric}"] = other[metric]
            row[f"diff_{metric}"] = other[metric] - row[metric]
    left_out = len(first) + len(second) - 2 * len(shared)
    notes = [f"{len(flips):,} of {len(shared):,} images flipped"]
    notes += [f"{left_out:,} images are in only one of the two, left out"] if left_out else []
    return rows, notes, flips


def names_of(row, rows):
    """The generators that a row is about; the last row is about those that the mean is over."""
    chosen = averaged(rows[:-1]) if row is rows[-1] else [row]
    return [part["generator"] for part in chosen]


def shared_images(first, second):
    """(path, generator, label, score, other score) of the images that two score lists share."""
    other_scores = {row[:3]: row[3] for row in second}
    shared = [(*row[:4], other_scores[row[:3]]) for row in first if row[:3] in other_scores]
    if not shared:
        raise UserError("no image in common: paths, generators or labels differ")
    return shared


def add_tests(rows, shared, average):
    """Adds p_acc, p_auc and p_ap to rows of `pair`."""
    *generators, _ = rows
    _, names, *columns = (np.array(column) for column in zip(*shared, strict=True))
    for row in rows:
        own = np.isin(names, names_of(row, rows))
        groups = None if average == "micro" else names[own]
        row["p_acc"] = mcnemar(row["gained"], row["lost"])
        for name, test in (("p_auc", delong), ("p_ap", permute_ap)):
            row[name] = test(*(column[own] for column in columns), groups) if own.any() else math.nan
    for name in ("p_acc", "p_auc", "p_ap"):
        for row, p in zip(generators, holm([row[name] for row in generators]), strict=True):
            row[name] = p


def compare_published(first, name):
    """{protocol: (rows, notes)} of the protocols for which the method has published numbers."""
    try:
        method = published.method_named(name, list(first))
    except UserError as error:
        raise UserError(f"{name} is not a results folder; {error}") from None
    compared = {}
    for protocol, (scores, _) in first.items():
        if theirs := published.lookup(protocol, method):
            row = protocols.PROTOCOLS[protocol]
            order, metrics = [generator.name for generator in row.generators], (*PUBLISHED, theirs.accuracy)
            rows = tabulate_scores(scores, order, row.average, metrics)
            add_published(rows, theirs, row.average)
            for line in rows:
                line["acc"] = line[theirs.accuracy]
                for metric in ("acc", "ap"):
                    line[f"other_{metric}"] = line[f"published_{metric}"]
                    if line[f"diff_{metric}"] is not None:
                        line[f"diff_{metric}"] *= -1
            compared[protocol] = rows, [f"second: {method}, {'; '.join(theirs.sources)}", *theirs.notes]
    if not compared:
        raise UserError(f"{method} has no published numbers for {', '.join(first)}")
    return compared


def write(folder, compared, flips, paragraphs, columns):
    """compare.csv (fractions), compare.md (percent) and flips.csv."""
    lines = [{"protocol": protocol, **row} for protocol, (rows, _) in compared.items() for row in rows]
    with owned(folder):
        tables.write_csv(folder / "compare.csv", lines, ["protocol", *columns])
        with written_whole(folder / "flips.csv") as file:
            csv.writer(file).writerows([FLIP_COLUMNS, *flips])
        with written_whole(folder / "compare.md") as file:
            file.write("\n\n".join(paragraphs) + "\n")


if __name__ == "__main__":
    run.guard(main)
