"""Pictures of what a detector sees and of what it reached.

    python -m tools.visualize npr --dataroot datasets/sample/test --output npr_maps.png
    python -m tools.visualize maps --image photo.png
    python -m tools.visualize cam --model_path checkpoints/sample/model_epoch_best.pth --images photo.png
    python -m tools.visualize restoration --model_path essp.pth --images photo.png
    python -m tools.visualize lnp --original faces --masked masked --lnp results_mask/LNP
    python -m tools.visualize spectra --input results_mask/LNP/train
    python -m tools.visualize curves --results results/sample/Sample
    python -m tools.visualize training --run checkpoints/sample

`npr` shows a real image and a fake of every generator with their NPR maps; `maps` one image with its maps at
all scales, windows and colour spaces; `cam` where checkpoints find evidence for "fake" (Grad-CAM; needs
pip install grad-cam); `restoration` what an ESSP checkpoint makes of blurred and compressed patches; `lnp`
faces, their noise patterns and spectra as DFIG's detectors see them; `spectra` averages over reals and fakes;
`curves` draws ROC and precision-recall per generator from a scores.csv; `training` draws loss and validation
accuracy over epochs from a train.csv.
The suffix of --output, .png or .pdf, decides the format.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from common import UserError, non_negative_int, positive_int
from tools.maps import LARGEST, MOST_IMAGES, draw_cam, draw_maps, draw_npr
from tools.restoration import draw_restoration
from tools.spectra import MOST_FACES, draw_lnp, draw_spectra
from util import run
from util.plot import canvas, check_suffix, save
from util.record import read_scores


def main(argv=None):
    opt = parse(argv)
    if opt.output is not None:
        check_suffix(opt.output)
    draw = {
        "npr": draw_npr,
        "maps": draw_maps,
        "cam": draw_cam,
        "restoration": draw_restoration,
        "lnp": draw_lnp,
        "spectra": draw_spectra,
        "curves": draw_curves,
        "training": draw_training,
    }[opt.picture]
    print(f"-> {draw(opt)}")


def parse(argv):
    """Options of one picture."""
    parser = argparse.ArgumentParser(
        prog="tools.visualize", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    pictures = parser.add_subparsers(
        dest="picture", required=True, metavar="{npr,maps,cam,restoration,lnp,spectra,curves,training}"
    )
    which = "which image of each folder, counted from 0"
    written = "picture to write (PNG or PDF); default: %(default)s"

    npr = pictures.add_parser(
        "npr", help="NPR maps of a real image and of a fake per generator", allow_abbrev=False
    )
    npr.add_argument(
        "--dataroot", type=Path, required=True, help="folder of generators with real and fake images"
    )
    npr.add_argument("--number", type=non_negative_int, default=0, help=which)
    npr.add_argument("--output", type=Path, default=Path("npr_maps.png"), help=written)

    maps = pictures.add_parser("maps", help="one image and all kinds of NPR maps", allow_abbrev=False)
    maps.add_argument("--image", type=Path, required=True, help="image file")
    maps.add_argument(
        "--size", type=positive_int, default=256, help=f"side of the centre crop, at most {LARGEST}"
    )
    maps.add_argument("--output", type=Path, default=Path("maps.png"), help=written)

    cam = pictures.add_parser("cam", help="where checkpoints see evidence for fake", allow_abbrev=False)
    cam.add_argument("--model_path", nargs="+", required=True, metavar="FILE", help="weight files")
    restoration = pictures.add_parser(
        "restoration", help="clean, degraded and restored patches of ESSP", allow_abbrev=False
    )
    restoration.add_argument("--model_path", required=True, metavar="FILE", help="weight file of ESSP")
    for one, name in ((cam, "cam"), (restoration, "restoration")):
        source = one.add_mutually_exclusive_group(required=True)
        source.add_argument("--dataroot", type=Path, help="folder of generators with real and fake images")
        source.add_argument("--images", type=Path, nargs="+", help=f"image files, at most {MOST_IMAGES}")
        one.add_argument("--number", type=non_negative_int, help=f"with --dataroot: {which}; default: 0")
        one.add_argument("--output", type=Path, default=Path(f"{name}.png"), help=written)

    add_spectra(pictures, written)
    curves = pictures.add_parser("curves", help="ROC and precision-recall curves", allow_abbrev=False)
    curves.add_argument("--results", type=Path, required=True, help="results folder that holds scores.csv")
    curves.add_argument("--output", type=Path, help="picture to write; default: curves.png in that folder")
    training = pictures.add_parser("training", help="loss and accuracy over epochs", allow_abbrev=False)
    training.add_argument("--run", type=Path, required=True, help="run folder that holds train.csv")
    training.add_argument(
        "--output", type=Path, help="picture to write; default: training.png in that folder"
    )
    return parser.parse_args(argv)


def add_spectra(pictures, written):
    """Options of the pictures of DFIG's features."""
    lnp = pictures.add_parser("lnp", help="faces from photograph to phase", allow_abbrev=False)
    lnp.add_argument("--original", type=Path, required=True, help="folder of photographs")
    lnp.add_argument("--masked", type=Path, help="folder of tools.extract masks")
    lnp.add_argument("--lnp", type=Path, required=True, help="folder of tools.extract lnp")
    lnp.add_argument("--rows", type=positive_int, default=4, help=f"faces, at most {MOST_FACES}; default: 4")
    lnp.add_argument("--output", type=Path, default=Path("lnp.png"), help=written)
    spectra = pictures.add_parser("spectra", help="mean spectra of reals and fakes", allow_abbrev=False)
    spectra.add_argument("--input", type=Path, required=True, help="folder with reals and fakes in it")
    spectra.add_argument(
        "--lnp_input",
        choices=("lnp", "image"),
        default="lnp",
        help="files of noise (default), or images: the spectra of the pixels themselves",
    )
    spectra.add_argument("--size", type=positive_int, help="side of the centre crop; default: the least side")
    spectra.add_argument("--most", type=positive_int, default=1000, help="files of a class; default: 1000")
    spectra.add_argument("--output", type=Path, default=Path("spectra.png"), help=written)


def draw_curves(opt):
    """ROC (left) and precision-recall (right), one line per generator."""
    require_file(opt.results / "scores.csv", "a results folder of val.py or test.py")
    rows = read_scores(opt.results / "scores.csv")
    figure, ((roc, pr),) = canvas(1, 2, width=10, height=4.6)
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
    return save(figure, opt.output or opt.results / "curves.png")


def draw_training(opt):
    """Training loss (left) and accuracies (right) over epochs; the best epoch is marked."""
    require_file(opt.run / "train.csv", "a run folder of train.py")
    with open(opt.run / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise UserError(f"{opt.run / 'train.csv'} holds no epoch yet")
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    figure, ((loss, accuracy),) = canvas(1, 2, width=10, height=4)
    epochs = column["epoch"] + 1
    loss.plot(epochs, column.get("loss_bce", column["loss"]), marker="o")
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
    return save(figure, opt.output or opt.run / "training.png")


def require_file(path, kind):
    """ValueError when the folder that was named is not of its kind."""
    if not path.is_file():
        raise UserError(f"{path.parent} is not {kind}: it holds no {path.name}")


if __name__ == "__main__":
    run.guard(main)
