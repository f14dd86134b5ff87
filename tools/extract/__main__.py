"""What DFIG's detectors take as input, from a tree of face images: masked faces, then their noise patterns.

    python -m tools.extract masks --input faces --output masked --sam sam_vit_h_4b8939.pth
    python -m tools.extract lnp --input masked --output results_mask/LNP --weights sidd_rgb.pth
    python -m tools.extract toys --output toys

`masks` segments the face with SAM and blackens the rest; `lnp` writes what CycleISP's denoiser takes for
noise; `toys` writes random weights for both, to try the commands without downloads (results mean nothing).
--output gets the folders of --input, with a file of the same stem for each image, and extract.json.  The same
command, without --overwrite, resumes a stopped run, also after images were added or changed; images that
cannot be used are listed at the end.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # also when started by its path
    import util.quiet  # noqa: F401

import argparse
from argparse import Namespace

from common import (
    Parser,
    file_path,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    torch_device,
)
from data.decode import DEFAULT_MAX_MPX
from networks import cycleisp
from tools.extract.masks import FORMATS, MODELS, extract_masks
from tools.extract.noise import extract_lnp
from tools.extract.toys import write_toys
from util import run

EXTRACTIONS = {
    "masks": (extract_masks, "faces cut out by SAM, the rest black"),
    "lnp": (extract_lnp, "noise patterns by CycleISP"),
    "toys": (write_toys, "random weights, to try the commands"),
}


def main(argv=None):
    opt = parse(argv)
    extract, _ = EXTRACTIONS[opt.what]
    extract(opt)


def parse(argv):
    """Options of one extraction."""
    parser = Parser(prog="python -m tools.extract", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True, metavar=f"{{{','.join(EXTRACTIONS)}}}")
    masks, lnp, toys = (commands.add_parser(name, help=text) for name, (_, text) in EXTRACTIONS.items())
    _mask_flags(masks)
    _noise_flags(lnp.add_argument)
    for command, images in ((masks, 4), (lnp, 8)):
        _tree_flags(command.add_argument, images)
    weights = "folder for sam_toy.pth and cycleisp_toy.pth"
    toys.add_argument("--output", type=Path, required=True, help=weights)
    toys.add_argument("--seed", type=non_negative_int, default=0, help="of the weights")
    return parser.parse_args(argv, Namespace(seed=0, deterministic=False))


def _mask_flags(command):
    add = command.add_argument
    add("--sam", type=file_path, required=True, help="SAM's weights, sam_vit_h_4b8939.pth")
    models = "whose weights these are: vit_h, the published, or another; toy: those of `toys`"
    add("--model_type", choices=MODELS, default="vit_h", help=models)
    prompt = command.add_mutually_exclusive_group()
    points = "pixels of the face; default: 128,128 128,236 of an aligned 256x256 face, scaled to other sizes"
    prompt.add_argument("--points", type=point, nargs="+", metavar="X,Y", help=points)
    corners = "left, top, right, bottom of the face"
    prompt.add_argument("--box", type=box, metavar="X,Y,X,Y", help=corners)
    formats = "jpg95 compresses the faces a second time, as published"
    add("--format", choices=FORMATS, default="png", help=formats)


def _noise_flags(add):
    add("--weights", type=file_path, required=True, help="CycleISP's weights, sidd_rgb.pth")
    encodings = "signed: 16-bit PNG of 32768 + 32767 x noise; wrapped: DFIG's 8 bits, of BGR channels"
    add("--encoding", choices=cycleisp.ENCODINGS, default="signed", help=encodings)
    amp = "bf16 is faster on a GPU; only with signed: a rounding step at 0 becomes 255 in wrapped"
    add("--amp", choices=("bf16", "off"), default="off", help=amp)
    tile = (
        f"cut images with a longer side into tiles of N pixels, which overlap by {cycleisp.REACH} on every "
        "side; values differ a little from those of the whole image, since the network pools over it"
    )
    add("--tile", type=positive_int, default=cycleisp.TILE, help=tile)


def _tree_flags(add, images):
    add("--input", type=file_path, required=True, help="folder of images, with any folders inside")
    add("--output", type=file_path, required=True, help="folder to write, with the same folders inside")
    add("--overwrite", action="store_true", help="replace the files of another extraction there")
    add("--batch_size", type=positive_int, default=images, help="images of a pass")
    mpx = "refuse images of more than X million pixels"
    add("--max_mpx", type=positive_float, default=DEFAULT_MAX_MPX, help=mpx)
    add("--num_threads", type=non_negative_int, help="loader processes; default: one per core, at most 8")
    add("--device", type=torch_device, default="auto", help="where to run: auto, cpu, cuda, cuda:1, mps")


def point(text):
    """'128,236' -> (128.0, 236.0)."""
    return numbers(text, 2, "two numbers, X,Y")


def box(text):
    """'10,10,200,240' -> four numbers, the second corner right of and below the first."""
    left, top, right, bottom = numbers(text, 4, "four numbers, LEFT,TOP,RIGHT,BOTTOM")
    if left >= right or top >= bottom:
        raise argparse.ArgumentTypeError(f"expected left < right and top < bottom, got {text!r}")
    return left, top, right, bottom


def numbers(text, count, expected):
    """A comma list of finite numbers, 0 or above."""
    values = tuple(map(non_negative_float, text.split(",")))
    if len(values) != count:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return values


if __name__ == "__main__":
    run.guard(main)
