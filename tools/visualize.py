"""Pictures of what a detector sees and of what it reached.

    python -m tools.visualize npr --dataroot datasets/sample/test --output npr_maps.png
    python -m tools.visualize curves --results results/sample/Sample
    python -m tools.visualize training --run checkpoints/sample

`npr` shows a real image and a fake of every generator with their NPR maps; `curves` draws ROC and
precision-recall per generator from a scores.csv; `training` draws loss and validation accuracy over epochs
from a train.csv.
"""

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

import data
import networks
from data.decode import BadImage, decode
from data.transforms import to_tensor
from options.types import whole_int
from util import run
from util.record import read_scores

GAIN = 3.0  # display gain of an NPR map: the residual of a photograph is a few percent of its range
ZOOM = 24  # side in pixels of the detail that is shown enlarged
CAPTION_GREY = "0.35"


def main(argv=None):
    opt = parse(argv)
    matplotlib.use("Agg")
    path = {"npr": draw_npr, "curves": draw_curves, "training": draw_training}[opt.picture](opt)
    print(f"-> {path}")


def parse(argv):
    """Options of one picture."""
    parser = argparse.ArgumentParser(
        prog="tools.visualize", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    pictures = parser.add_subparsers(dest="picture", required=True, metavar="{npr,curves,training}")
    npr = pictures.add_parser(
        "npr", help="NPR maps of a real image and of a fake per generator", allow_abbrev=False
    )
    npr.add_argument(
        "--dataroot", type=Path, required=True, help="folder of generators with real and fake images"
    )
    npr.add_argument("--number", type=whole_int, default=0, help="which image of each folder, counted from 0")
    npr.add_argument(
        "--output", type=Path, default=Path("npr_maps.png"), help="picture to write (PNG or PDF)"
    )
    curves = pictures.add_parser("curves", help="ROC and precision-recall curves", allow_abbrev=False)
    curves.add_argument("--results", type=Path, required=True, help="results folder that holds scores.csv")
    curves.add_argument("--output", type=Path, help="picture to write; default: curves.png in that folder")
    training = pictures.add_parser("training", help="loss and accuracy over epochs", allow_abbrev=False)
    training.add_argument("--run", type=Path, required=True, help="run folder that holds train.csv")
    training.add_argument(
        "--output", type=Path, help="picture to write; default: training.png in that folder"
    )
    return parser.parse_args(argv)


def draw_npr(opt):
    """A column per image: the image, its NPR map, an enlarged detail of both."""
    columns = npr_examples(opt.dataroot, opt.number)
    detector = networks.get("npr")()
    figure, axes = _plots(4, len(columns), width=2.15 * len(columns) + 0.3, height=8.8)
    for line, (title, path) in zip(axes.T, columns, strict=True):
        image = _read(path)
        residual = detector.preprocess(to_tensor(image)[None])[0].permute(1, 2, 0).numpy()
        shown = np.clip(0.5 + GAIN * residual / 2, 0, 1)
        pixels, detail = np.asarray(image), _busiest_window(residual)
        for axis, picture in zip(line, (pixels, shown, pixels[detail], shown[detail]), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_title(title, fontsize=11)
    heads = ("image", "NPR map", f"image, {ZOOM}x{ZOOM} detail", "NPR, same detail")
    for axis, head in zip(axes[:, 0], heads, strict=True):
        axis.set_ylabel(head, fontsize=10, color=CAPTION_GREY)
    return _save(figure, opt.output)


def npr_examples(dataroot, number):
    """[(title, path)]: one real image, then one fake per generator."""
    scan = data.scan(dataroot, data.discover(dataroot))
    chosen = []
    for title, generator, label in [
        ("real", scan.generators()[0], 0),
        *((name, name, 1) for name in scan.generators()),
    ]:
        files = [
            sample.path for sample in scan.samples if (sample.generator, sample.label) == (generator, label)
        ]
        if number >= len(files):
            raise ValueError(
                f"--number {number}: {generator} has {len(files)} {'fake' if label else 'real'} images"
            )
        chosen.append((title if label == 0 else f"fake: {title}", scan.root / files[number]))
    return chosen


def draw_curves(opt):
    """ROC (left) and precision-recall (right), one line per generator."""
    require_file(opt.results / "scores.csv", "a results folder of val.py or test.py")
    rows = read_scores(opt.results / "scores.csv")
    figure, ((roc, pr),) = _plots(1, 2, width=10, height=4.6)
    for name in dict.fromkeys(row[1] for row in rows):
        labels = np.array([row[2] for row in rows if row[1] == name])
        scores = np.array([row[3] for row in rows if row[1] == name])
        if len(set(labels)) < 2:
            continue  # a one-sided folder has no curve; the table says so
        false_positive, true_positive, _ = roc_curve(labels, scores)
        precision, recall, _ = precision_recall_curve(labels, scores)
        roc.plot(
            false_positive, true_positive, label=f"{name}  AUC {100 * auc(false_positive, true_positive):.1f}"
        )
        pr.step(
            recall,
            precision,
            where="post",
            label=f"{name}  AP {100 * average_precision_score(labels, scores):.1f}",
        )
    roc.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    roc.set(
        xlabel="reals called fake", ylabel="fakes found", title="ROC", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01)
    )
    pr.set(
        xlabel="fakes found (recall)",
        ylabel="precision",
        title="precision-recall",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
    )
    for axis in (roc, pr):
        axis.grid(color="0.92")
        axis.legend(fontsize=8, loc="lower left" if axis is pr else "lower right", frameon=False)
    return _save(figure, opt.output or opt.results / "curves.png")


def draw_training(opt):
    """Training loss (left) and accuracies (right) over epochs; the best epoch is marked."""
    require_file(opt.run / "train.csv", "a run folder of train.py")
    with open(opt.run / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{opt.run / 'train.csv'} holds no epoch yet")
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    figure, ((loss, accuracy),) = _plots(1, 2, width=10, height=4)
    epochs = column["epoch"] + 1
    loss.plot(epochs, column["loss"], marker="o")
    loss.set(xlabel="epoch", ylabel="binary cross-entropy", title="training loss", ylim=(0, None))
    accuracy.plot(epochs, 100 * column["acc"], marker="o", label="training")
    if "val_acc" in column:
        best = np.lexsort((-epochs, column["val_ap"], column["val_acc"]))[-1]
        accuracy.plot(epochs, 100 * column["val_acc"], marker="o", label="validation")
        accuracy.plot(epochs, 100 * column["val_ap"], marker=".", linestyle="--", label="validation AP")
        accuracy.axvline(epochs[best], color="0.8", linewidth=6, zorder=0, label="best epoch")
    accuracy.set(xlabel="epoch", ylabel="%", title="accuracy", ylim=(None, 101))
    for axis in (loss, accuracy):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color="0.92")
    accuracy.legend(fontsize=9, frameon=False)
    return _save(figure, opt.output or opt.run / "training.png")


def require_file(path, kind):
    """ValueError when the folder that was named is not of its kind."""
    if not path.is_file():
        raise ValueError(f"{path.parent} is not {kind}: it holds no {path.name}")


def _read(path):
    try:
        return decode(path)
    except BadImage as error:
        raise ValueError(f"bad image {path}: {error}") from error


def _busiest_window(residual):
    """Slices of the window, even-aligned, whose residual varies most: a flat sky would show nothing."""
    zoom = min(ZOOM, *residual.shape[:2])
    height, width = (side - side % zoom for side in residual.shape[:2])
    energy = np.abs(residual[:height, :width]).sum(axis=2)
    energy = energy.reshape(height // zoom, zoom, width // zoom, zoom).sum(axis=(1, 3))
    top, left = np.unravel_index(np.argmax(energy), energy.shape)
    return slice(top * zoom, (top + 1) * zoom), slice(left * zoom, (left + 1) * zoom)


def _plots(rows, columns, width, height):
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")


def _save(figure, path):
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    run.guard(main)
