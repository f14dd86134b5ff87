"""Scores the papers' benchmarks with one checkpoint: a table for each protocol, rows in the paper's order.

    python test.py --model_path ./NPR.pth --batch_size 64
    python test.py --model_path ./NPR.pth --protocols ForenSynths AIGCDetectBenchmark --published NPR-rerun
    python test.py --model_path checkpoints/sample/model_epoch_best.pth --dataroot datasets --protocols Sample

A protocol (data/protocols.py) names its folders below --dataroot, its resize and its crop; flags override
these two.  Published numbers (data/published/) are printed next to ours, with the difference.
Results: the tables here, and results/<run name>/<protocol>/{scores.csv, meta.json, table.csv, table.md}.
"""

if __name__ == "__main__":
    import util.quiet  # noqa: F401

import math
import sys
from dataclasses import replace
from functools import partial

import data
from common import UserError
from data import published
from data.protocol import locate_all
from data.protocols import STORED
from networks import checkpoint
from options import TestOptions
from options.test_options import NO_COMPARISON
from util import run
from util.evaluate import Task, evaluate

TOLERANCE = 0.002 + 1e-9  # 0.2 points: what --expect accepts as the same number


def main(argv=None):
    """Scores the protocols that are there and prints a table for each."""
    # Options and device.
    options = TestOptions()
    opt = options.parse(argv)
    print(options.describe(opt))
    device = run.start(opt)

    # The protocols whose folders and images are there.
    roots, absent = locate_all(options.rows, opt.dataroot, options.asked)
    if absent:
        print("\n".join(["not found, left out:", *absent]))
    located = [(row, list_images(opt, row, root)) for row, root in roots]
    located = without_empty(located, options.asked)

    # The detector.
    loaded = checkpoint.load(opt.model_path, opt.arch, opt).for_evaluation(opt)
    print("\n".join(loaded.notes))

    # A table for each protocol; with --expect a comparison.
    differing = []
    with run.StopSignal("resume with the same command and --resume (without --overwrite)") as stop:
        for row, scan in located:
            config = loaded.detector.data_config
            geometry = data.eval_geometry(opt, config, row.geometry, loaded.options)
            dataset = data.evaluation_images(opt, scan, config, geometry, row.encoders)
            print(scan.describe())
            make_loaders = partial(data.loaders_over, opt, device=device)
            task = make_task(opt, row, dataset, loaded)
            result = evaluate(opt, loaded, device, task, dataset, make_loaders, stop)
            print(f"\n{row.slug}\n{result.describe()}")
            if opt.expect:
                differing += differences(row, result.rows, opt.expect)
    if opt.expect:
        sys.exit(report_expected(opt.expect, [row.slug for row, _ in located], differing))


def list_images(opt, row, root):
    """The Scan of a protocol's generators; prints which have no folder."""
    folders = {generator.name: row.find(root, generator) for generator in row.pick(opt.classes)}
    missing = [name for name, folder in folders.items() if not folder]
    if missing:
        print(f"{row.slug}: no folder in {root} for {', '.join(missing)}")
    scan = row.scan(root, [(name, folder) for name, folder in folders.items() if folder])
    if row.reals and not any(real for real, _ in scan.counts().values()):
        print(f"{row.slug}: fakes only, since {root} has no folder of reals: {' or '.join(row.reals)}")
    return scan.lossless() if opt.only else scan


def without_empty(located, asked):
    """The protocols that have images; UserError when one that was asked for, or all, have none."""
    empty = [(row.slug, scan) for row, scan in located if not scan.samples]
    folders = [f"{slug} ({scan.root}: {', '.join(scan.folders)})" for slug, scan in empty]
    message = f"no images in the folders of {'; '.join(folders)}"
    if empty and (asked or len(empty) == len(located)):
        raise UserError(message)
    if empty:
        print(f"{message}; left out")
    return [(row, scan) for row, scan in located if scan.samples]


def make_task(opt, row, dataset, loaded):
    """What a protocol's row and the published numbers add to an evaluation."""
    wanted = row.pick(opt.classes)
    theirs = published.lookup(row.slug, opt.published) if opt.published != NO_COMPARISON else None
    if theirs and len(wanted) < len(row.generators):
        theirs = replace(theirs, mean=None)  # it covers generators that ours leaves out
    notes = list(loaded.marks)
    if theirs is None and opt.published != NO_COMPARISON and (others := published.methods(row.slug)):
        notes.append(f"no published numbers of {opt.published} here; --published knows {', '.join(others)}")
    notes += input_notes(row, dataset)
    return Task(
        name=row.slug,
        order=[generator.name for generator in wanted],
        identity={"protocol_sha256": row.sha256},
        about={"protocol_row": row.as_dict()},
        average=row.average,
        published=theirs,
        notes=tuple(notes),
    )


def input_notes(row, dataset):
    """What about the input is not as published."""
    usual = row.geometry
    if dataset.patches is not None and dataset.geometry == STORED != usual:
        yield f"patches come from images at their stored size, not from the protocol's {usual.describe()}"
    elif dataset.geometry != (usual if dataset.patches is None else STORED):
        yield f"the published input is {usual.describe()}; this one is {dataset.geometry.describe()}"
    if dataset.patches is not None and (dataset.patches.select, dataset.patches.vote) != ("random64", 1):
        yield "the published choice of a patch is the simplest of 64 random ones"


def differences(row, rows, method):
    """Sentences on every generator of a protocol whose accuracy or AP is not the expected one."""
    ours = {line["generator"]: line for line in rows}
    for generator, cell in published.lookup(row.slug, method).cells.items():
        reason = ours.get(generator, {}).get("reason", "no images")
        if reason:
            yield f"{row.slug} {generator}: {reason}"
            continue
        for metric in ("acc", "ap"):
            want, got = getattr(cell, metric), ours[generator][metric]
            if not math.isnan(want) and abs(got - want) > TOLERANCE:
                yield f"{row.slug} {generator} {metric}: expected {100 * want:.1f}, got {100 * got:.1f}"


def report_expected(method, slugs, differing):
    """Prints the outcome of --expect and returns the exit status."""
    good = f"every generator of {', '.join(slugs)} within 0.2 points"
    bad = f"{len(differing)} numbers are missing or differ by more than 0.2 points"
    print("\n  ".join([f"\n--expect {method}: {bad if differing else good}", *differing]))
    return int(bool(differing))


if __name__ == "__main__":
    run.guard(main)
