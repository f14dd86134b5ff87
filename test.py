"""Scores the papers' benchmarks with one checkpoint: a table for each protocol, rows in the paper's order.

    python test.py --model_path ./NPR.pth --batch_size 64
    python test.py --model_path checkpoints/sample/model_epoch_best.pth --dataroot datasets --protocols Sample

A protocol (data/protocols.py) names its folders below --dataroot, its resize and its crop; flags override
the latter.
Results: the tables here, and results/<run name>/<protocol>/{scores.csv, meta.json, table.csv, table.md}.
"""

import data
from data import protocols
from networks import checkpoint
from options import TestOptions
from util import run
from util.evaluate import Evaluator


def main(argv=None):
    options = TestOptions()
    opt = options.parse(argv)
    print(options.describe(opt))
    device = run.start(opt)

    located = locate(opt)
    loaded = checkpoint.load(opt.model_path, opt.arch, opt)
    print("\n".join(loaded.notes))
    evaluator = Evaluator(loaded.detector, device, opt, opt.name or loaded.run_name, loaded.identity)
    with run.StopSignal("the same command with --resume (and without --overwrite) goes on") as stop:
        for row, root in located:
            result = evaluate_protocol(opt, row, root, loaded, evaluator, device, stop)
            print(f"\n{row.slug}\n{result.describe()}")


def locate(opt):
    """[(protocol, its root)]: those asked for, or all there are; ValueError when one or all are missing."""
    rows = [protocols.get(slug) for slug in opt.protocols or protocols.PROTOCOLS]
    found = [(row, root) for row in rows if (root := row.locate(opt.dataroot)) is not None]
    absent = [row for row in rows if row.slug not in {present.slug for present, _ in found}]
    looked_for = "; ".join(
        f"{row.slug}: {opt.dataroot}/{{{','.join((*row.folders, '.'))}}} with folders "
        f"{', '.join(generator.folders[0] for generator in row.generators)}"
        for row in absent
    )
    if absent and (opt.protocols or not found):
        raise ValueError(f"not found below --dataroot: {looked_for}")
    if absent:
        print(f"not found, left out: {looked_for}")
    return found


def evaluate_protocol(opt, row, root, loaded, evaluator, device, stop):
    """One protocol: its folders, its geometry, one results folder."""
    wanted = row.pick(opt.classes)
    present = {generator.name: folder for generator in wanted if (folder := row.find(root, generator))}
    missing = [generator.name for generator in wanted if generator.name not in present]
    if missing:
        print(f"{row.slug}: no folder in {root} for {', '.join(missing)}")
    config = loaded.detector.data_config
    geometry = data.eval_geometry(opt, config, row.geometry, loaded.options)
    dataset = data.evaluation_set(opt, root, list(present.items()), config, geometry)
    print(dataset.scan.describe())
    make_loader = data.generator_loader(opt, dataset, run.worker_count(opt.num_threads), device)
    return evaluator.run(
        row.slug, dataset, make_loader, [generator.name for generator in wanted], row.source, stop
    )


if __name__ == "__main__":
    run.guard(main)
