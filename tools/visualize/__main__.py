"""Pictures of what a detector sees and of what it reached.

    python -m tools.visualize npr --dataroot datasets/sample/test --output npr_maps.png
    python -m tools.visualize maps --image photo.png
    python -m tools.visualize cam --model_path checkpoints/sample/model_epoch_best.pth --images photo.png
    python -m tools.visualize restoration --model_path essp.pth --images photo.png
    python -m tools.visualize lnp --original faces --masked masked --lnp results_mask/LNP
    python -m tools.visualize spectra --input results_mask/LNP/train
    python -m tools.visualize curves --results results/sample/Sample
    python -m tools.visualize training --run checkpoints/sample

The suffix of --output, .png or .pdf, decides the format.  `cam` needs pip install grad-cam.
"""

import argparse
from pathlib import Path

from common import Parser, non_negative_int, positive_int, whole_number
from tools.visualize.cam import draw_cam
from tools.visualize.curves import draw_curves, draw_training
from tools.visualize.images import MOST_IMAGES
from tools.visualize.maps import LARGEST, draw_maps, draw_npr
from tools.visualize.restoration import draw_restoration
from tools.visualize.spectra import MOST_FACES, draw_lnp, draw_spectra
from util import run
from util.pictures import check_output, save


def main(argv=None):
    opt = parse(argv)
    output = opt.output or opt.folder / f"{opt.picture}.png"
    check_output(output)  # before any work
    draw = PICTURES[opt.picture][0]
    print(f"-> {save(draw(opt), output)}")


def parse(argv):
    """Options of one picture."""
    parser = Parser(prog="python -m tools.visualize", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="picture", required=True, metavar=f"{{{','.join(PICTURES)}}}")
    for name, (_, text, add_flags) in PICTURES.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(output=Path(f"{name}.png"))
        add_flags(command)
        command.add_argument("--output", type=Path, help="picture to write, PNG or PDF")
    return parser.parse_args(argv)


def _npr_flags(command):
    command.set_defaults(output=Path("npr_maps.png"))
    command.add_argument("--dataroot", type=Path, required=True, help=DATAROOT)
    _index_flag(command, 0)


def _maps_flags(command):
    command.add_argument("--image", type=Path, required=True, help="image file")
    side = whole_number(2, LARGEST)
    command.add_argument("--size", type=side, metavar="N", default=256, help="side of the centre crop")


def _cam_flags(command):
    command.add_argument("--model_path", nargs="+", required=True, metavar="FILE", help="weight files")
    _example_flags(command)


def _restoration_flags(command):
    command.add_argument("--model_path", required=True, metavar="FILE", help="weight file of ESSP")
    _example_flags(command)


def _example_flags(command):
    """Which images are drawn: those named, or some of a folder."""
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataroot", type=Path, help=DATAROOT)
    source.add_argument("--images", type=Path, nargs="+", help=f"image files, at most {MOST_IMAGES}")
    _index_flag(command, None)


def _index_flag(command, default):
    text = "which image of each folder of --dataroot, counted from 0"
    command.add_argument("--index", type=non_negative_int, default=default, help=text)
    command.add_argument("--number", type=_renamed, help=argparse.SUPPRESS)


def _renamed(_):
    raise argparse.ArgumentTypeError("its name is --index now")


def _lnp_flags(command):
    command.add_argument("--original", type=Path, required=True, help="folder of photographs")
    command.add_argument("--masked", type=Path, help="folder of tools.extract masks")
    command.add_argument("--lnp", type=Path, required=True, help="folder of tools.extract lnp")
    faces = whole_number(1, MOST_FACES)
    command.add_argument("--rows", type=faces, metavar="N", default=4, help=f"faces, at most {MOST_FACES}")


def _spectra_flags(command):
    add = command.add_argument
    add("--input", type=Path, required=True, help="folder with reals and fakes in it")
    kinds = "files of noise, or images: the spectra of the pixels themselves"
    add("--lnp_input", choices=("lnp", "image"), default="lnp", help=kinds)
    add("--size", type=positive_int, help="side of the centre crop; default: that of the smallest image")
    add("--most", type=positive_int, default=1000, help="files of each class")


def _curves_flags(command):
    command.set_defaults(output=None)
    text = "results folder that holds scores.csv; the picture is written there without --output"
    command.add_argument("--results", dest="folder", type=Path, required=True, help=text)


def _training_flags(command):
    command.set_defaults(output=None)
    text = "run folder that holds train.csv; the picture is written there without --output"
    command.add_argument("--run", dest="folder", type=Path, required=True, help=text)


DATAROOT = "folder of generators with real and fake images"
PICTURES = {
    "npr": (draw_npr, "NPR maps of a real image and of a fake per generator", _npr_flags),
    "maps": (draw_maps, "one image and its NPR maps at all scales, windows and colour spaces", _maps_flags),
    "cam": (draw_cam, "where checkpoints find evidence for fake (Grad-CAM)", _cam_flags),
    "restoration": (draw_restoration, "patches of ESSP, damaged and restored", _restoration_flags),
    "lnp": (draw_lnp, "faces, their noise patterns and spectra as DFIG's detectors see them", _lnp_flags),
    "spectra": (draw_spectra, "mean spectra of reals and fakes", _spectra_flags),
    "curves": (draw_curves, "ROC and precision-recall curves of each generator", _curves_flags),
    "training": (draw_training, "training loss and accuracy over epochs", _training_flags),
}


if __name__ == "__main__":
    run.guard(main)
