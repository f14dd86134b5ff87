"""Can real and fake be told apart without looking at one pixel?  From file headers alone, with a verdict.

    python -m tools.audit --dataroot my_folder
    python -m tools.audit --dataroot datasets --protocols ForenSynths --output audit
    python -m tools.audit --dataroot my_folder --view aligned
    python -m tools.audit --dataroot my_folder --scores results/NPR/my_folder/scores.csv

A classifier is trained on each feature of a file (container, size, bytes per pixel, JPEG tables, chroma,
mode, metadata) and on all of them, and tested on files that it has not seen.  Equal files, and where both
classes have several folders the files of one folder, stay on one side.  AUC below 0.85 is healthy, above
0.95 a leak: a detector can get that far by the format.  --view encodes the images in memory first.
Results: the tables here, and with --output audit.json, audit.csv and audit.png.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import hashlib
from collections import Counter
from functools import partial

import numpy as np
from tqdm import tqdm

from common import (
    BadImage,
    Parser,
    UserError,
    file_path,
    names_list,
    non_negative_int,
    owned,
    positive_int,
    write_json,
)
from data import protocols
from data.decode import decode_bytes, read
from data.folder import discover, scan
from data.inspection import header, in_processes
from data.perturb import AS_STORED, NATIVE
from data.protocol import locate_all
from options.val_options import one_view
from util import pictures, run, tables
from util.results import read_scores
from util.tables import Column, count

HEALTHY, LEAK = 0.85, 0.95  # AUC
LEAST = 50  # images of each class that a verdict needs
FOLDS = 5
MOST = 20_000  # files to read unless --limit says otherwise
TREE = {"min_samples_leaf": 5, "random_state": 0}
TOGETHER, EVERY = "all features", "all files"
EQUAL = "none: too many equal files"  # a row without an AUC
ABOUT = ("label", "generator", "folder", "path", "digest")  # what is no feature
area = Column("AUC", lambda value: "-" if np.isnan(value) else f"{value:.3f}")
GENERATORS = {
    "generator": Column("generator", str, "l"),
    "reals": Column("reals", count),
    "fakes": Column("fakes", count),
    "auc": area,
    "verdict": Column("verdict", str, "l"),
    "best": Column("best single feature", str, "l"),
    "best_auc": area,
}
FEATURES = {
    "feature": Column("feature", str, "l"),
    "auc": area,
    "verdict": Column("verdict", str, "l"),
    "real": Column("reals", str, "l"),
    "fake": Column("fakes", str, "l"),
}
SCORES = {
    "feature": FEATURES["feature"],
    "real": Column("reals", lambda value: "-" if np.isnan(value) else f"{value:+.2f}"),
    "fake": Column("fakes", lambda value: "-" if np.isnan(value) else f"{value:+.2f}"),
}
FEWEST = 2  # files of a class, so that it can be divided into folds
FILES = ("audit.json", "audit.csv", "audit.png")


def main(argv=None):
    """Measures file headers and prints how well they give the label away."""
    opt = parse(argv)
    records, bad = read_all(files_of(opt), opt)
    labels = [record["label"] for record in records]
    print(f"{labels.count(0):,} real and {labels.count(1):,} fake files, {len(bad):,} unreadable")
    if min(labels.count(0), labels.count(1)) < FEWEST:
        raise UserError(f"an audit compares real with fake files, {FEWEST} of each at least")
    areas = areas_of(records)
    generators, features = by_generator(records, areas), by_feature(records, areas)
    verdict = conclusion(generators, opt.view)
    print(f"\n{tables.text(generators, GENERATORS)}\n\n{verdict}")
    print(f"\nAll files:\n{tables.text(features, FEATURES)}")
    follows = follow(records, read_scores(opt.scores)) if opt.scores else []
    if follows:
        print("\nRank correlation of the score with a feature, within each class:")
        print(tables.text(follows, SCORES))
    if opt.output:
        about = {"dataroot": opt.dataroot, "view": opt.view.chain or NATIVE, "verdict": verdict}
        results = {"generators": generators, "features": features, "scores": follows, "unreadable": bad}
        write(Path(opt.output), about | results)
        print(f"-> {opt.output}")


def scores_file(text):
    """Type of --scores: a scores.csv, or the results folder that holds it."""
    path = Path(file_path(text))
    return path / "scores.csv" if path.is_dir() else path


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="python -m tools.audit", description="Says how much of the label file formats give away."
    )
    add = parser.add_argument
    add(
        "--dataroot",
        type=file_path,
        required=True,
        help="folder as for val.py, or with --protocols as for test.py",
    )
    add("--protocols", nargs="+", default=(), metavar="NAME", help="benchmarks below --dataroot")
    add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
    add("--classes", type=names_list, default=(), help="only these generators")
    add("--view", type=one_view, default=AS_STORED, help="encode images in memory first, e.g. aligned")
    add("--scores", type=scores_file, help="scores.csv of the same images: does the score follow the format?")
    add("--output", type=file_path, help="folder for audit.json, audit.csv and audit.png")
    add("--overwrite", action="store_true", help="replace an audit in --output")
    add("--limit", type=positive_int, default=MOST, help="files to read at most, drawn at random")
    add("--num_threads", type=non_negative_int, help="processes that read files; default: one per core")
    opt = parser.parse_args(argv)
    if opt.output and not opt.overwrite and any((Path(opt.output) / name).exists() for name in FILES):
        parser.error(f"{opt.output} holds an audit already; --overwrite replaces it")
    return opt


def files_of(opt):
    """[(path, sample)] of the folders that val.py or test.py would take, at most --limit of them."""
    if opt.protocols:
        rows = [protocols.get(name, opt.protocol_file) for name in opt.protocols]
        scans = [scan_of(row, root, opt) for row, root in locate_all(rows, opt.dataroot, True)[0]]
    else:
        scans = [scan(opt.dataroot, discover(opt.dataroot, opt.classes))]
    files = [(Path(found.root) / sample.path, sample) for found in scans for sample in found.samples]
    if not files:
        raise UserError(f"no images below {opt.dataroot}")
    chosen = np.random.default_rng(0).permutation(len(files))[: opt.limit]
    return [files[index] for index in sorted(chosen)]


def scan_of(row, root, opt):
    """The Scan of a protocol's generators that are there."""
    folders = [(generator.name, row.find(root, generator)) for generator in row.pick(opt.classes)]
    return row.scan(root, [(name, folder) for name, folder in folders if folder])


def read_all(files, opt):
    """([features of a file, its label, hash, folder and path], {path: why it cannot be read})."""
    records, bad = [], {}
    jobs = [path for path, _ in files]
    results = in_processes(partial(features, view=opt.view), jobs, run.worker_count(opt.num_threads))
    bar = tqdm(zip(results, files, strict=True), total=len(files), unit="img", dynamic_ncols=True)
    for result, (path, sample) in bar:
        if isinstance(result, str):
            bad[str(path)] = result
        else:
            about = {"label": sample.label, "generator": sample.generator, "folder": str(path.parent)}
            records.append({**result, **about, "path": sample.path})
    return records, bad


def features(path, view):
    """`header` of a file, or of what the view makes of it, with the hash of the file; text: why not."""
    try:
        content = read(path)
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        if view.steps:
            content = view.file(decode_bytes(content))
        return {**header(content), "digest": digest}
    except BadImage as error:
        return str(error)


def by_generator(records, of_all):
    """A row per generator, and one for all: how well all features, and the best, tell its fakes apart.

    of_all: `areas_of` all records.
    """
    rows, names = [], list(dict.fromkeys(record["generator"] for record in records))
    for name in [*names, EVERY] if len(names) > 1 else names:
        own = [record for record in records if name in (record["generator"], EVERY)]
        labels = [record["label"] for record in own]
        row = {"generator": name, "reals": labels.count(0), "fakes": labels.count(1)}
        few = min(row["reals"], row["fakes"])
        areas = {"": np.nan, TOGETHER: np.nan}
        if few >= FOLDS:
            areas = dict(of_all) if len(own) == len(records) else areas_of(own)
        together = areas.pop(TOGETHER)
        best = max(areas, key=lambda name: np.nan_to_num(areas[name], nan=-1))
        verdict = band(together) if few >= LEAST else f"none: under {LEAST} of a class"
        rows.append({**row, "auc": together, "verdict": verdict, "best": best, "best_auc": areas[best]})
    return rows


def by_feature(records, areas):
    """A row per feature over all files, and what reals and fakes have.  areas: `areas_of` the records."""
    rows = [{"feature": name, "auc": auc, "verdict": band(auc)} for name, auc in areas.items()]
    for row in rows[:-1]:
        row.update(real=usual(records, row["feature"], 0), fake=usual(records, row["feature"], 1))
    return rows


def areas_of(records):
    """{feature: AUC on unseen files}, and of all of them together."""
    from sklearn.ensemble import RandomForestClassifier  # here: it takes seconds
    from sklearn.tree import DecisionTreeClassifier

    labels = np.array([record["label"] for record in records])
    columns = {
        name: as_numbers([record[name] for record in records]) for name in records[0] if name not in ABOUT
    }
    groups = groups_of(records, labels)
    areas = {
        name: unseen_auc(DecisionTreeClassifier(**TREE), values[:, None], labels, groups)
        for name, values in columns.items()
    }
    forest = RandomForestClassifier(50, **TREE)
    return areas | {TOGETHER: unseen_auc(forest, np.stack(list(columns.values()), axis=1), labels, groups)}


def as_numbers(values):
    """Numbers as they are; words by their order of frequency."""
    if not isinstance(values[0], str):
        return np.array(values, float)
    order = {word: rank for rank, (word, _) in enumerate(Counter(values).most_common())}
    return np.array([order[value] for value in values], float)


def groups_of(records, labels):
    """A number per file; files of one number are never on both sides of a split.

    The folder, where both classes have enough of them; else the file, equal files together.
    """
    folders, digests = ([record[name] for record in records] for name in ("folder", "digest"))
    per_class = [
        len({folder for folder, own in zip(folders, labels, strict=True) if own == label}) for label in (0, 1)
    ]
    # Equal files join their folders.
    keys = joined(folders, digests) if min(per_class) >= FOLDS else digests
    return np.unique(keys, return_inverse=True)[1]


def joined(folders, digests):
    """The folders' names, those that share a file with the same name."""
    parent = {}

    def root(key):
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for folder, digest in zip(folders, digests, strict=True):
        parent[root(folder)] = root(f"#{digest}")
    return [root(folder) for folder in folders]


def unseen_auc(classifier, values, labels, groups):
    """Mean AUC over folds, on files that the classifier was not trained on; 0.5 for a constant."""
    from sklearn.metrics import roc_auc_score  # here: it takes seconds
    from sklearn.model_selection import StratifiedGroupKFold

    if (values == values[0]).all():
        return 0.5
    areas = []
    folds = StratifiedGroupKFold(min(FOLDS, *np.bincount(labels)), shuffle=True, random_state=0)
    for train, test in folds.split(values, labels, groups):
        if len(np.unique(labels[train])) == len(np.unique(labels[test])) == 2:
            classifier.fit(values[train], labels[train])
            areas.append(roc_auc_score(labels[test], classifier.predict_proba(values[test])[:, 1]))
    return float(np.mean(areas)) if areas else np.nan


def usual(records, name, label):
    """The values of a class in words: the median of numbers, the two most frequent words."""
    values = [record[name] for record in records if record["label"] == label]
    if not isinstance(values[0], str):
        return f"{np.median(values):.4g}"
    common = Counter(values).most_common(2)
    return ", ".join(f"{word} {100 * times / len(values):.0f} %" for word, times in common)


def band(auc):
    """The verdict on an AUC; NaN where equal files, or those of one folder, are all that a class has."""
    if np.isnan(auc):
        return EQUAL
    return "healthy" if auc < HEALTHY else "leak" if auc > LEAK else "look into it"


def conclusion(rows, view):
    """One sentence on the whole, and one on rows with too few files that look like a leak."""
    enough = [row for row in rows if min(row["reals"], row["fakes"]) >= LEAST]
    measured = [row for row in enough if not np.isnan(row["auc"])]
    judged = [row for row in measured if row["generator"] != EVERY] or measured
    small = [row["generator"] for row in rows if row not in enough and row["auc"] > LEAK]
    also = f"  Too few files for a verdict, but AUC above {LEAK}: {', '.join(small)}." if small else ""
    if not judged:
        equal = " that are not all equal" if enough else ""
        return f"No verdict: it takes {LEAST} real and {LEAST} fake files{equal}.{also}"
    seen = "" if view.name == NATIVE else f" (view {view.name})"
    leaking = [row["generator"] for row in judged if row["auc"] > LEAK]
    if leaking:
        which = f"{len(leaking)} of {len(judged)} ({', '.join(leaking)})"
        return f"Leak{seen}: file headers give the label away for {which}.{also}"
    worst = max(judged, key=lambda row: row["auc"])
    where = f"{worst['generator']} has the highest AUC of {len(judged)} with enough files, {worst['auc']:.3f}"
    return f"{'Healthy' if worst['auc'] < HEALTHY else 'Look into it'}{seen}: {where}.{also}"


def follow(records, scores):
    """A row per numeric feature: Spearman's correlation of the score with it, for reals and for fakes."""
    from scipy.stats import spearmanr  # here: SciPy takes long to import

    known = {row[0]: float(row[3]) for row in scores}
    matched = [(record, known[record["path"]]) for record in records if record["path"] in known]
    if not matched:
        raise UserError("--scores holds none of these images; is it of another folder?")
    classes = [[pair for pair in matched if pair[0]["label"] == label] for label in (0, 1)]

    def correlation(name, pairs):
        values, scored = [record[name] for record, _ in pairs], [score for _, score in pairs]
        varies = len(set(values)) > 1 and len(set(scored)) > 1
        return float(spearmanr(values, scored).statistic) if varies else float("nan")

    numeric = [name for name, value in records[0].items() if not isinstance(value, str) and name != "label"]
    return [
        {"feature": name, "real": correlation(name, classes[0]), "fake": correlation(name, classes[1])}
        for name in numeric
    ]


def write(folder, results):
    """audit.json, audit.csv and audit.png."""
    with owned(folder):
        write_json(folder / "audit.json", results)
        tables.write_csv(folder / "audit.csv", results["generators"], GENERATORS)
        pictures.save(draw(results["generators"]), folder / "audit.png")


def draw(rows):
    """A bar per generator, with the bands of the verdict."""
    figure, ((axis,),) = pictures.canvas(1, 1, pictures.WIDTH, 0.3 * len(rows) + 1.1)
    names, areas = [row["generator"] for row in rows][::-1], [row["auc"] for row in rows][::-1]
    axis.barh(names, np.nan_to_num(np.array(areas), nan=0.5) - 0.5, left=0.5, color=pictures.COLOURS[0])
    for value, line in ((HEALTHY, ":"), (LEAK, "--")):
        axis.axvline(value, color=pictures.COLOURS[3], linestyle=line)
    axis.set_xlim(0.4, 1.0)
    axis.set_xlabel(f"AUC from file headers (healthy below {HEALTHY}, dotted; leak above {LEAK}, dashed)")
    return figure


if __name__ == "__main__":
    run.guard(main)
