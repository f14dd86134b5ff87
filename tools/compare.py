"""Two results folders side by side, or one and a published method: differences, means, changed verdicts.

    python -m tools.compare results/A/ForenSynths results/B/ForenSynths --output comparison
    python -m tools.compare results/A NPR-rerun

A folder is results/<name>/<protocol>, or results/<name> for every protocol that both have.  Two runs are
compared on the images they share; differences are second minus first.  `gained` counts the images that only
the second gets right, `lost` those that only the first gets right.
Results: the tables here, and with --output compare.csv, compare.md and flips.csv.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import csv

from common import Parser, UserError, file_path, owned, written_whole
from data import protocols, published
from util import run, tables
from util.identity import read_side_file
from util.metrics import PUBLISHED, THRESHOLD, add_published
from util.results import read_scores, tabulate_scores
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
FILES = ("compare.csv", "compare.md", "flips.csv")


def main(argv=None):
    opt = parse(argv)
    first = results_of(opt.first)
    if Path(opt.second).is_dir():
        compared, flips = compare_runs(first, results_of(opt.second))
    else:
        compared, flips = compare_published(first, opt.second), []
    paragraphs = [f"# {opt.first} (first) and {opt.second} (second)"]
    for protocol, (rows, notes) in compared.items():
        print(f"\n{protocol}\n{tables.results(rows, COLUMNS)}")
        print("\n".join(notes))
        paragraphs += [f"## {protocol}", tables.results_markdown(rows, COLUMNS), *notes]
    if opt.output:
        write(Path(opt.output), compared, flips, paragraphs)
        print(f"-> {opt.output}")


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m tools.compare", description="Compares results generator by generator.")
    parser.add_argument("first", type=file_path, help="results folder")
    parser.add_argument("second", type=file_path, help="results folder, or a published method such as NPR")
    parser.add_argument("--output", type=file_path, help="folder for compare.csv, compare.md and flips.csv")
    parser.add_argument("--overwrite", action="store_true", help="replace a comparison in --output")
    opt = parser.parse_args(argv)
    if opt.output and not opt.overwrite and any((Path(opt.output) / name).exists() for name in FILES):
        parser.error(f"{opt.output} holds a comparison already; --overwrite replaces it")
    return opt


def results_of(folder):
    """{protocol: (scores, meta)} of results/<name>/<protocol> or of every protocol below results/<name>."""
    folder = Path(folder)
    below = sorted(path.parent for path in folder.glob("*/scores.csv"))
    folders = [folder] if (folder / "scores.csv").is_file() else below
    if not folders:
        raise UserError(f"{folder} holds no scores.csv; expected results/<name>/<protocol> or results/<name>")
    return {path.resolve().name: read_results(path) for path in folders}


def read_results(folder):
    """Rows of scores.csv and meta.json ({} where there is none); UserError when one of them is damaged."""
    scores, path = read_scores(folder / "scores.csv"), folder / "meta.json"
    meta = read_side_file(path, "evaluate again with --overwrite") if path.is_file() else {}
    finished = meta.get("finished", {}).values()
    if finished and sum(generator["images"] for generator in finished) != len(scores):
        raise UserError(f"{folder} is damaged: scores.csv lacks scores that meta.json counts")
    return scores, meta


def compare_runs(first, second):
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
    other_scores = {row[:3]: row[3] for row in second}
    shared = [(*row[:4], other_scores[row[:3]]) for row in first if row[:3] in other_scores]
    if not shared:
        raise UserError("no image in common: paths, generators or labels differ")
    rows = tabulate_scores(shared, average=average)
    other_rows = tabulate_scores([(*row[:3], row[4]) for row in shared], average=average)
    flips = []
    for *image, score, other in shared:
        right, now_right = ((value > THRESHOLD) == image[-1] for value in (score, other))
        if right != now_right:
            flips.append((*image, score, other, "gained" if now_right else "lost"))
    for row, other in zip(rows, other_rows, strict=True):
        changes = [flip[-1] for flip in flips if row["generator"] in (flip[1], "Mean")]
        row |= {"gained": changes.count("gained"), "lost": changes.count("lost")}
        for metric in ("acc", "ap"):
            row[f"other_{metric}"] = other[metric]
            row[f"diff_{metric}"] = other[metric] - row[metric]
    left_out = len(first) + len(second) - 2 * len(shared)
    notes = [f"{len(flips):,} of {len(shared):,} images flipped"]
    notes += [f"{left_out:,} images are in only one of the two, left out"] if left_out else []
    return rows, notes, flips


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


def write(folder, compared, flips, paragraphs):
    """compare.csv (fractions), compare.md (percent) and flips.csv."""
    lines = [{"protocol": protocol, **row} for protocol, (rows, _) in compared.items() for row in rows]
    with owned(folder):
        tables.write_csv(folder / "compare.csv", lines, ["protocol", *COLUMNS])
        with written_whole(folder / "flips.csv") as file:
            csv.writer(file).writerows([FLIP_COLUMNS, *flips])
        with written_whole(folder / "compare.md") as file:
            file.write("\n\n".join(paragraphs) + "\n")


if __name__ == "__main__":
    run.guard(main)
