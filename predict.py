"""Scores image files: how likely is each of them generated?

    python predict.py photo.jpg
    python predict.py photos/ more.png --output scores.csv
    python predict.py --model_path M test_set/ --labels folder --output scores.csv

Without --model_path the weights of this repository answer (weights/MODEL_CARD.md).  Where weights have a
calibration, the number printed is its probability, and its threshold and band decide between real, fake and
unsure.  A CSV has the detector's own score and logit as well.
Images are prepared as val.py does it.  A file that cannot be used becomes a row with the reason.
--resume resumes a stopped run with --output.
"""

if __name__ == "__main__":
    import util.quiet  # noqa: F401

import sys
from collections import Counter
from contextlib import nullcontext

import numpy as np
import torch
from tqdm import tqdm

import data
from common import owned
from data.folder import UNLABELLED
from networks import checkpoint
from options import PredictOptions
from util import calibrate, run, tables
from util.metrics import measure
from util.predictions import PredictionFile
from util.score import BadImages, describe_input, score, tune_kernels

ROWS_AT_ONCE = 512  # between two writes to --output


def main(argv=None):
    """Scores the images and prints a verdict for each, or writes the CSV."""
    # Options, images, detector.
    opt = PredictOptions().parse(argv)
    scan = data.files_scan(opt.input)
    device = run.start(opt)
    loaded = checkpoint.load(opt.model_path, opt.arch, opt).for_evaluation(opt)
    calibration = calibrate.of(loaded) or calibrate.Calibration()
    detector = loaded.detector.to(device, memory_format=torch.channels_last)
    geometry = data.eval_geometry(opt, detector.data_config, trained=loaded.options)
    dataset = data.evaluation_images(opt, scan, detector.data_config, geometry)
    lines = [*loaded.notes, *loaded.marks, f"{len(dataset):,} files, {dataset.describe_input()}, {device}"]
    lines += [f"passed over: {scan.others()}"] if scan.passed_over else []
    lines += scan.notices() if opt.labels else []
    lines += [calibration.describe()] if calibration.fitted_on else []
    lines += filter(None, [calibration.misfit(geometry)])
    print("\n".join(lines))

    # The file of scores, new or resumed, which no other process can write meanwhile.
    with owned(opt.output, file=True) if opt.output else nullcontext():
        identity = {
            **loaded.identity,
            **describe_input(dataset, opt.amp),
            "calibration": calibration.as_dict(),
            "labels": opt.labels,
            "view": opt.views[0].chain,
        }
        output = PredictionFile(opt.output, identity) if opt.output else None
        if output:
            output.open(opt.resume, opt.overwrite, opt.environment)

        # Scores.
        tune_kernels(dataset, opt.deterministic)
        hint = "resume with the same command and --resume" if output else "no scores were kept"
        with run.StopSignal(hint) as stop:
            rows = score_files(opt, dataset, detector, device, output, stop, calibration)

    # Lines, or the file, and a summary.
    if not output:
        print("\n".join(map(line, rows)))
    print(summary(opt, rows, calibration.threshold))
    if all(row["score"] is None for row in rows):
        sys.exit(1)


def score_files(opt, dataset, detector, device, output, stop, calibration):
    """A row per file, in the order of the files; scores that --output holds already are kept."""
    rows = {path: row for path, row in output.rows.items() if not row["error"]} if output else {}
    waiting = [index for index, sample in enumerate(dataset.samples) if sample.path not in rows]
    labels = labels_of(dataset) if opt.labels else {}
    bad = BadImages(opt.on_bad_image, dataset)
    loader = data.loader_over(opt, dataset, waiting, device)
    fresh = []  # rows that are not on the disk yet
    try:
        with tqdm(total=len(waiting), unit="img", disable=not waiting, dynamic_ncols=True) as bar:
            for scored in score(detector, loader, device, bad, opt.amp == "bf16", stop, bar):
                for row in scored:
                    label = labels.get(row["path"])
                    rows[row["path"]] = row | answer(calibration, row["logit"]) | {"label": label}
                    fresh.append(rows[row["path"]])
                if output and len(fresh) >= ROWS_AT_ONCE:
                    output.add(fresh)
                    fresh = []
    finally:  # an interruption keeps what was scored
        if output:
            output.add(fresh)
    if output:
        output.close([sample.path for sample in dataset.samples])
    return [rows[sample.path] for sample in dataset.samples]


def labels_of(dataset):
    """{path: label} of the files in a folder with a label name."""
    return {sample.path: sample.label for sample in dataset.samples if sample.label != UNLABELLED}


def answer(calibration, logit):
    """Probability and verdict of a logit; None for a file that has none."""
    if logit is None:
        return {"probability": None, "verdict": None}
    probability = calibration.probability(logit)
    return {"probability": float(probability), "verdict": calibration.verdict(probability)}


def line(row):
    """One file on the terminal."""
    path = row["path"].replace("\n", "\\n")
    if row["score"] is None:
        return f"     -  error   {path}: {row['error']}"
    return f"{row['probability']:.4f}  {row['verdict']:<6}  {path}"


def summary(opt, rows, threshold):
    """The last lines: how many were scored, how many look fake, and with labels how right that is."""
    scored = [row for row in rows if row["score"] is not None]
    failed = len(rows) - len(scored)
    verdicts = Counter(row["verdict"] for row in scored)
    counts = ", ".join(f"{verdicts[name]:,} {name}" for name in ("fake", "real", "unsure") if verdicts[name])
    lines = [": ".join(filter(None, [f"{len(scored):,} files scored", counts]))]
    if failed:
        where = ", see the column error" if opt.output else ""
        lines.append(f"{failed:,} files could not be scored{where}")
    if opt.labels:
        lines.append(accuracy([row for row in scored if row["label"] is not None], len(scored), threshold))
    return "\n".join([*lines, f"-> {opt.output}"] if opt.output else lines)


def accuracy(labelled, scored, threshold):
    """Accuracy, AP, real and fake accuracy of the files whose folder says what they are, by the threshold."""
    if not labelled:
        return "--labels folder: no scored file is in a folder with a label name (0_real, 1_fake, ai, ...)"
    labels = np.array([row["label"] for row in labelled])
    probabilities = np.array([row["probability"] for row in labelled], dtype=np.float32)
    row = measure(labels, probabilities, threshold=threshold)
    table = tables.results([{"generator": "labelled files", **row}])
    unlabelled = scored - len(labelled)
    return table + (f"\n{unlabelled:,} scored files have no label folder above them" if unlabelled else "")


if __name__ == "__main__":
    run.guard(main)
