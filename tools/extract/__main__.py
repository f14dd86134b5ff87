"""Makes other images of a tree of images: masked faces and their noise patterns for DFIG, or crops.

    python -m tools.extract masks --input faces --output masked --sam sam_vit_h_4b8939.pth
    python -m tools.extract lnp --input masked --output results_mask/LNP --weights sidd_rgb.pth
    python -m tools.extract crops --input photos --output crops
    python -m tools.extract toys --output toys

--output gets the folders of --input, with a file of the same stem for each image, and extract.json.  The same
command, without --overwrite, resumes a stopped run, also after images were added or changed.
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
    folder_to_write,
    non_negative_float,
    non_negative_int,
    number,
    positive_float,
    positive_int,
    torch_device,
)
from data.decode import DEFAULT_MAX_MPX
from networks import cycleisp
from tools.extract.crops import extract_crops
from tools.extract.masks import FORMATS, MODELS, extract_masks
from tools.extract.noise import LEAST_TILE, extract_lnp
from tools.extract.toys import write_toys
from util import run


def main(argv=None):
    """Runs the extraction that the subcommand names."""
    opt = parse(argv)
    opt.extract(opt)


def parse(argv):
    """Options of one extraction; `extract` is what does it."""
    parser = Parser(prog="python -m tools.extract", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    masks = commands.add_parser("masks", help="faces cut out by SAM, the rest black")
    masks.set_defaults(extract=extract_masks)
    add = masks.add_argument
    add("--sam", type=file_path, required=True, help="SAM's weights, sam_vit_h_4b8939.pth")
    models = "whose weights these are: vit_h, the published, or another; toy: those of `toys`"
    add("--model_type", choices=MODELS, default="vit_h", help=models)
    prompt = masks.add_mutually_exclusive_group()
    points = "pixels of the face; default: 128,128 128,236 of an aligned 256x256 face, scaled to other sizes"
    prompt.add_argument("--points", type=point, nargs="+", metavar="X,Y", help=points)
    corners = "left, top, right, bottom of the face"
    prompt.add_argument("--box", type=box, metavar="X,Y,X,Y", help=corners)
    formats = "jpg95 compresses the faces a second time, as published"
    add("--format", choices=FORMATS, default="png", help=formats)

    lnp = commands.add_parser("lnp", help="noise patterns: what CycleISP's denoiser takes for noise")
    lnp.set_defaults(extract=extract_lnp)
    add = lnp.add_argument
    add("--weights", type=file_path, required=True, help="CycleISP's weights, sidd_rgb.pth")
    encodings = "signed: 16-bit PNG of 32768 + 32767 x noise; wrapped: DFIG's 8 bits, of BGR channels"
    add("--encoding", choices=cycleisp.ENCODINGS, default="signed", help=encodings)
    amp = "bf16 is faster on a GPU; only with signed: a rounding step at 0 becomes 255 in wrapped"
    add("--amp", choices=("bf16", "off"), default="off", help=amp)
    tile = (
        f"cut images with a longer side into tiles of N pixels, which overlap by {cycleisp.REACH} on every "
        "side; values differ a little from those of the whole image, since the network pools over it"
    )
    least = number(int, lambda value: value >= LEAST_TILE, f"a whole number, {LEAST_TILE} or above")
    add("--tile", type=least, default=cycleisp.TILE, help=tile)

    crops = commands.add_parser("crops", help="centres at the stored size, as BMP, which is decoded fast")
    crops.set_defaults(extract=extract_crops)
    side = "side in pixels; smaller images are kept whole"
    crops.add_argument("--side", type=positive_int, default=768, help=side)

    for command, images in ((masks, 4), (lnp, 8), (crops, 8)):
        add_common(command.add_argument, images)

    toys = commands.add_parser(
        "toys", help="random weights for both, to try the commands: results mean nothing"
    )
    toys.set_defaults(extract=write_toys)
    weights = "folder for sam_toy.pth and cycleisp_toy.pth"
    toys.add_argument("--output", type=folder_to_write, required=True, help=weights)
    toys.add_argument("--seed", type=non_negative_int, default=0, help="of the weights")
    return parser.parse_args(argv, Namespace(seed=0, deterministic=False))


def add_common(add, images):
    """The flags of every extraction.  images: of a pass, if --batch_size is not given."""
    add("--input", type=file_path, required=True, help="folder of images, with any folders inside")
    output = "folder to write, with the same folders inside"
    add("--output", type=folder_to_write, required=True, help=output)
    add("--overwrite", action="store_true", help="replace the files of another extraction there")
    add("--batch_size", type=positive_int, default=images, help="images of a pass")
    mpx = "refuse images of more than X million pixels"
    add("--max_mpx", type=positive_float, default=DEFAULT_MAX_MPX, help=mpx)
    add("--num_threads", type=non_negative_int, help="loader processes; default: one per core, at most 8")
    add("--device", type=torch_device, default="auto", help="where to run: auto, cpu, cuda, cuda:1, mps")


def coordinates(count, expected):
    """Type of `count` numbers, 0 or above; the corner in the second pair is right of and below the first."""

    def parse(text):
        values = tuple(map(non_negative_float, text.split(",")))
        corners = zip(values, values[2:], strict=False)
        if len(values) != count or any(first >= second for first, second in corners):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return values

    return parse


point = coordinates(2, "two numbers, X,Y")
box = coordinates(4, "four numbers, LEFT,TOP,RIGHT,BOTTOM, with LEFT < RIGHT and TOP < BOTTOM")


if __name__ == "__main__":
    run.guard(main)
