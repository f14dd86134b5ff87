"""Pictures of what a detector sees and of what it reached; docs/images.md has a command for each.

python -m tools.visualize npr --dataroot datasets/sample/test --output npr_maps.png
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # also when started by its path
    import util.quiet  # noqa: F401

from argparse import Namespace

from common import Parser, non_negative_int, positive_int, whole_number
from tools.visualize.cam import draw_cam
from tools.visualize.curves import draw_curves, draw_training
from tools.visualize.maps import LARGEST, draw_maps, draw_npr
from tools.visualize.restoration import draw_restoration
from tools.visualize.robustness import draw_robustness
from tools.visualize.spectra import draw_lnp, draw_spectra
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
    "robustness": (draw_robustness, "balanced accuracy under ever stronger degradations (--views sweep)"),
    "training": (draw_training, "training loss and accuracy over epochs"),
}


def main(argv=None):
    """Draws the picture that the subcommand names and saves it."""
    opt = parse(argv)
    output = opt.output or opt.folder / f"{opt.picture}.png"
    check_output(output)  # before any work
    draw, _ = PICTURES[opt.picture]
    print(f"-> {save(draw(opt), output)}")


def parse(argv):
    """Options of one picture."""
    parser = Parser(prog="python -m tools.visualize", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="picture", required=True)
    add = {name: commands.add_parser(name, help=text).add_argument for name, (_, text) in PICTURES.items()}
    for name in ("npr", "cam", "restoration"):
        source = commands.choices[name].add_mutually_exclusive_group(required=True)
        source.add_argument("--dataroot", type=Path, help="folder of generators with real and fake images")
        source.add_argument("--images", type=Path, nargs="+", help="image files")
        index = "which image of each folder of --dataroot, counted from 0"
        add[name]("--index", type=non_negative_int, default=0, help=index)
    add["cam"]("--model_path", nargs="+", required=True, metavar="FILE", help="weight files")
    add["restoration"]("--model_path", required=True, metavar="FILE", help="weight file of ESSP")

    add["maps"]("--image", type=Path, required=True, help="image file")
    size = whole_number(2, LARGEST)
    add["maps"]("--size", type=size, default=256, help="side of the centre crop")

    add["lnp"]("--original", type=Path, required=True, help="folder of photographs")
    add["lnp"]("--masked", type=Path, help="folder of tools.extract masks")
    add["lnp"]("--lnp", type=Path, required=True, help="folder of tools.extract lnp")
    add["lnp"]("--rows", type=positive_int, default=4, help="faces, at most")
    add["spectra"]("--input", type=Path, required=True, help="folder with reals and fakes in it")
    files = "files of noise, or images: the spectra of the pixels themselves"
    add["spectra"]("--lnp_input", choices=("lnp", "image"), default="lnp", help=files)
    side = "side of the centre crop; default: that of the smallest image"
    add["spectra"]("--size", type=positive_int, help=side)
    add["spectra"]("--most", type=positive_int, default=1000, help="files of each class")

    add["curves"]("--results", dest="folder", type=Path, required=True, help="folder that holds scores.csv")
    add["training"]("--run", dest="folder", type=Path, required=True, help="folder that holds train.csv")
    folders = "folders results/<name>/<protocol>, each with scores of several views"
    add["robustness"]("results", type=Path, nargs="+", metavar="RESULTS", help=folders)
    for name in PICTURES:
        where = "in that folder" if name in ("curves", "training") else "here"
        output = f"picture to write, PNG or PDF; default: {name}.png {where}"
        add[name]("--output", type=Path, help=output)
    return parser.parse_args(argv, Namespace(folder=Path()))


if __name__ == "__main__":
    run.guard(main)
