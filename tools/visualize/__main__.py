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

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # also when started by its path
    import util.quiet  # noqa: F401

import argparse

from common import Parser, non_negative_int, positive_int, whole_number
from tools.visualize.cam import draw_cam
from tools.visualize.curves import draw_curves, draw_training
from tools.visualize.images import MOST_IMAGES
from tools.visualize.maps import LARGEST, draw_maps, draw_npr
from tools.visualize.restoration import draw_restoration
from tools.visualize.spectra import MOST_FACES, draw_lnp, draw_spectra
from util import run
from util.pictures import check_output, save

PICTURES = {
    "npr": (draw_npr, "NPR maps of a real image and of a fake per generator"),
    "maps": (draw_maps, "one image and its NPR maps at all scales, windows and colour spaces"),
    "cam": (draw_cam, "where checkpoints find evidence for fake (Grad-CAM)"),
    "restoration": (draw_restoration, "patches of ESSP, damaged and restored"),
    "lnp": (draw_lnp, "faces, their noise patterns and spectra as DFIG's detectors see them"),
    "spectra": (draw_spectra, "mean spectra of reals and fakes"),
    "curves": (draw_curves, "ROC and precision-recall curves of each generator"),
    "training": (draw_training, "training loss and accuracy over epochs"),
}


def main(argv=None):
    opt = parse(argv)
    output = opt.output or opt.folder / f"{opt.picture}.png"
    check_output(output)  # before any work
    draw, _ = PICTURES[opt.picture]
    print(f"-> {save(draw(opt), output)}")


def parse(argv):
    """Options of one picture."""
    parser = Parser(prog="python -m tools.visualize", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="picture", required=True, metavar=f"{{{','.join(PICTURES)}}}")
    picture = {name: commands.add_parser(name, help=text) for name, (_, text) in PICTURES.items()}
    add = {name: command.add_argument for name, command in picture.items()}
    image, images = "image file", f"image files, at most {MOST_IMAGES}"
    generators = "folder of generators with real and fake images"
    index = "which image of each folder of --dataroot, counted from 0"

    add["npr"]("--dataroot", type=Path, required=True, help=generators)
    add["maps"]("--image", type=Path, required=True, help=image)
    size = whole_number(2, LARGEST)
    add["maps"]("--size", type=size, metavar="N", default=256, help="side of the centre crop")
    add["cam"]("--model_path", nargs="+", required=True, metavar="FILE", help="weight files")
    add["restoration"]("--model_path", required=True, metavar="FILE", help="weight file of ESSP")
    for name in ("cam", "restoration"):
        source = picture[name].add_mutually_exclusive_group(required=True)
        source.add_argument("--dataroot", type=Path, help=generators)
        source.add_argument("--images", type=Path, nargs="+", help=images)
    for name in ("npr", "cam", "restoration"):
        add[name]("--index", type=non_negative_int, help=f"{index}; default: 0")
        add[name]("--number", type=_renamed, help=argparse.SUPPRESS)

    add["lnp"]("--original", type=Path, required=True, help="folder of photographs")
    add["lnp"]("--masked", type=Path, help="folder of tools.extract masks")
    add["lnp"]("--lnp", type=Path, required=True, help="folder of tools.extract lnp")
    rows = whole_number(1, MOST_FACES)
    add["lnp"]("--rows", type=rows, metavar="N", default=4, help=f"faces, at most {MOST_FACES}")
    add["spectra"]("--input", type=Path, required=True, help="folder with reals and fakes in it")
    files = "files of noise, or images: the spectra of the pixels themselves"
    add["spectra"]("--lnp_input", choices=("lnp", "image"), default="lnp", help=files)
    side = "side of the centre crop; default: that of the smallest image"
    add["spectra"]("--size", type=positive_int, help=side)
    add["spectra"]("--most", type=positive_int, default=1000, help="files of each class")

    add["curves"]("--results", dest="folder", type=Path, required=True, help="folder that holds scores.csv")
    add["training"]("--run", dest="folder", type=Path, required=True, help="folder that holds train.csv")
    for name in PICTURES:
        path = {"npr": Path("npr_maps.png"), "curves": None, "training": None}.get(name, Path(f"{name}.png"))
        where = "" if path else f"; default: {name}.png in that folder"
        add[name]("--output", type=Path, default=path, help=f"picture to write, PNG or PDF{where}")
    return parser.parse_args(argv)


def _renamed(_):
    raise argparse.ArgumentTypeError("its name is --index now")


if __name__ == "__main__":
    run.guard(main)
