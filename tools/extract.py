"""What DFIG's detectors are fed, from a tree of face images: masked faces, then their noise patterns (LNP).

    python -m tools.extract masks --input faces --output masked --sam sam_vit_h_4b8939.pth
    python -m tools.extract lnp --input masked --output results_mask/LNP --weights sidd_rgb.pth
    python -m tools.extract toys --output toys

`masks` segments the face with SAM and blackens the rest; `lnp` writes what CycleISP's denoiser takes for
noise; `toys` writes random weights for both, to try the chain without downloads; results mean nothing.
--output repeats the folders of --input, whatever they are, with a file of the same stem for each image, and
extract.json.  A stopped run goes on with the same command (without --overwrite), also where images came anew
or changed; images that cannot be used are listed at the end.
"""

import argparse
import sys
import time
from argparse import Namespace
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import data
from common import UserError, file_path, non_negative_int, positive_float, positive_int, written_whole
from data.decode import DEFAULT_MAX_MPX
from data.folder import RealFakeFolder
from data.transforms import Limits
from networks import checkpoint, cycleisp
from tools.extraction import Extraction
from tools.masks import MODELS, Masks, load_sam, toy_sam
from util import run

CPU_PASS = (
    256 * 256
)  # pixels; larger passes are slower, since the system hands out their memory anew each time
LEAST_TILE = 32  # smaller ones are nearly all overlap
FORMATS = {"png": ".png", "jpg95": ".jpg"}


def main(argv=None):
    opt = parse(argv)
    {"masks": extract_masks, "lnp": extract_lnp, "toys": write_toys}[opt.what](opt)


def parse(argv):
    """Options of one kind of extraction."""
    parser = argparse.ArgumentParser(
        prog="tools.extract", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{masks,lnp,toys}")
    masks, lnp = add_masks(kinds), add_lnp(kinds)
    for one, images in ((masks, 4), (lnp, 8)):
        add_common(one.add_argument, images)
    toys = kinds.add_parser("toys", help="random weights, to try the chain", allow_abbrev=False)
    toys.add_argument(
        "--output", type=Path, required=True, help="folder for sam_toy.pth and cycleisp_toy.pth"
    )
    toys.add_argument("--seed", type=non_negative_int, default=0, help="of the weights; default: 0")
    return parser.parse_args(argv, Namespace(gpu_ids=None, seed=0, deterministic=False))


def add_masks(kinds):
    """Flags of `masks`."""
    masks = kinds.add_parser("masks", help="faces cut out by SAM, the rest black", allow_abbrev=False)
    masks.add_argument("--sam", type=file_path, required=True, help="SAM's weights, sam_vit_h_4b8939.pth")
    masks.add_argument(
        "--model_type",
        choices=MODELS,
        default="vit_h",
        help="whose weights these are; default: vit_h, the published; toy: those of `toys`",
    )
    prompt = masks.add_mutually_exclusive_group()
    prompt.add_argument(
        "--points",
        type=point,
        nargs="+",
        metavar="X,Y",
        help="pixels that belong to the face; default: 128,128 128,236 of an aligned face of 256x256, scaled "
        "to other sizes",
    )
    prompt.add_argument("--box", type=box, metavar="X,Y,X,Y", help="left, top, right, bottom of the face")
    masks.add_argument(
        "--format",
        choices=FORMATS,
        default="png",
        help="default: png; jpg95 JPEG-codes the faces a second time, as published",
    )
    return masks


def add_lnp(kinds):
    """Flags of `lnp`."""
    lnp = kinds.add_parser("lnp", help="noise patterns by CycleISP", allow_abbrev=False)
    lnp.add_argument("--weights", type=file_path, required=True, help="CycleISP's weights, sidd_rgb.pth")
    lnp.add_argument(
        "--encoding",
        choices=cycleisp.ENCODINGS,
        default="signed",
        help="default: signed, 16-bit PNG of 32768 + 32767 x noise; wrapped: 8 bits, bit for bit as DFIG "
        "encodes them, from channels in the order BGR",
    )
    lnp.add_argument(
        "--amp",
        choices=("bf16", "off"),
        default="off",
        help="bf16 is faster on a GPU; signed alone: a rounding step at 0 of wrapped is 255",
    )
    lnp.add_argument(
        "--tile",
        type=positive_int,
        default=cycleisp.TILE,
        metavar="N",
        help=f"an image with a longer side goes in tiles of N pixels, which overlap by {cycleisp.REACH} on "
        "every side. Not the same as whole, since the network pools over all it sees: on a photograph of "
        "768x512 in tiles of 256, random weights, by up to 0.07 %% of the strongest value, and 0.5 %% of the "
        f"wrapped values were others; default: {cycleisp.TILE}",
    )
    return lnp


def add_common(add, images):
    """What both extractions have."""
    add("--input", type=file_path, required=True, help="folder of images, with any folders inside")
    add("--output", type=file_path, required=True, help="folder to write, with the same folders inside")
    add("--overwrite", action="store_true", help="replace what another extraction has left there")
    add("--batch_size", type=positive_int, default=images, help=f"images of a pass; default: {images}")
    add(
        "--max_mpx",
        type=positive_float,
        default=DEFAULT_MAX_MPX,
        help=f"refuse images of more million pixels; default: {DEFAULT_MAX_MPX}",
    )
    add("--num_threads", type=non_negative_int, help="loader processes; default: one per core, at most 8")
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="default: CUDA if it is there",
    )


def point(text):
    """'128,236' -> (128.0, 236.0)."""
    return _numbers(text, 2, "X,Y, two numbers from 0 on")


def box(text):
    """'10,10,200,240' -> four numbers, the second corner right of and below the first."""
    found = _numbers(text, 4, "LEFT,TOP,RIGHT,BOTTOM, four numbers from 0 on")
    if found[0] >= found[2] or found[1] >= found[3]:
        raise argparse.ArgumentTypeError(f"expected left < right and top < bottom, got {text!r}")
    return found


def _numbers(text, count, expected):
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(0 <= value < float("inf") for value in found):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return found


def begin(opt):
    """The device; what counts as fp32 is fp32 there, and no kernel is chosen by timing."""
    device = run.start(opt)
    torch.backends.cudnn.benchmark = False
    return device


def extract_masks(opt):
    """Every face of --input without its background."""
    device = begin(opt)
    identity = {
        "what": "masks",
        "sam_sha256": hash_of(opt.sam),
        "model_type": opt.model_type,
        "points": opt.points,
        "box": opt.box,
        "format": opt.format,
    }
    work = Extraction(opt, identity, FORMATS[opt.format])
    masks = Masks(load_sam(opt.sam, opt.model_type).to(device), opt.points, opt.box)

    def job(images):
        return [encoded(FORMATS[opt.format], face) for face in masks(images)]

    carry_out(opt, work, job, device, masks.describe)


def extract_lnp(opt):
    """The noise pattern of every image of --input."""
    if opt.amp == "bf16" and opt.encoding == "wrapped":
        raise UserError("--encoding wrapped needs --amp off: there a rounding step at 0 becomes 255")
    if opt.tile < LEAST_TILE:
        raise UserError(f"--tile is at least {LEAST_TILE}, got {opt.tile}; tiles overlap by {cycleisp.REACH}")
    device = begin(opt)
    identity = {
        "what": "lnp",
        "weights_sha256": hash_of(opt.weights),
        "encoding": opt.encoding,
        "precision": "bf16" if opt.amp == "bf16" else "fp32",
        "tile": opt.tile,
    }
    work = Extraction(opt, identity, ".png")
    denoiser = cycleisp.load(opt.weights).to(device)

    def job(images):
        most = CPU_PASS if device.type == "cpu" else opt.tile**2
        count = max(1, most // (images.shape[2] * images.shape[3]))
        files = [noise_file(opt, denoiser, some.to(device)) for some in images.split(count)]
        return [encoded(".png", one) for some in files for one in some]

    carry_out(opt, work, job, device, lambda: f"; train with --lnp_encoding {opt.encoding}")


@torch.inference_mode()
def noise_file(opt, denoiser, images):
    """uint8 images (B, 3, H, W) -> (B, H, W, 3), RGB: uint8 if wrapped, else uint16."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=opt.amp == "bf16"):
        noise = denoiser.encoded_noise(images.float() / 255, opt.encoding, opt.tile)
    values = noise.permute(0, 2, 3, 1).cpu().numpy()
    if opt.encoding == "wrapped":
        return values
    return (values.astype("int32") + cycleisp.SIGNED_ZERO).astype("uint16")


def encoded(suffix, picture):
    """RGB (H, W, 3), 8 or 16 bits -> the bytes of a file; JPEG at OpenCV's own quality, 95."""
    done, content = cv2.imencode(suffix, picture[..., ::-1])
    if not done:
        raise UserError(f"OpenCV could not write {suffix} of {picture.shape}")
    return content.tobytes()


def hash_of(path):
    """sha256 of a weight file; a clear error where there is none."""
    if not Path(path).is_file():
        raise UserError(f"no weight file at {path}")
    return checkpoint.sha256(path)


def carry_out(opt, work, job, device, last_words):
    """Runs `job` over what is not there yet: uint8 images (B, 3, H, W) -> the bytes of their files."""
    work.begin(opt.environment)
    dataset = RealFakeFolder(
        work.scan, data.Geometry(None, None), limits=Limits(max_input_mpx=opt.max_mpx), max_mpx=opt.max_mpx
    )
    loader = data.loader_over(opt, dataset, work.waiting, run.worker_count(opt.num_threads), device)
    started, done = time.perf_counter(), 0
    bar = tqdm(total=len(dataset), initial=len(dataset) - len(work.waiting), unit="img", dynamic_ncols=True)
    with run.StopSignal("the same command, without --overwrite, goes on") as stop, bar:
        for batch in loader if work.waiting else ():
            stop.check()
            work.failed.update({dataset.samples[index].path: why for index, why in batch["bad"]})
            for part in batch["parts"]:
                done += work.add(part["index"].tolist(), part["image"], job)
            bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
    speed = f", {done / (time.perf_counter() - started):.2f} images/s" if done else ""
    print(f"{done:,} of {len(dataset):,} files written{speed}, {device}{last_words()}")
    print("\n".join([*work.finish(), f"-> {work.output}"]))
    if len(work.failed) == len(dataset):
        sys.exit(1)


def write_toys(opt):
    """Random weights of a small SAM and of CycleISP, in the structure of the published files."""
    torch.manual_seed(opt.seed)
    denoiser = {f"module.{name}": value for name, value in cycleisp.CycleISP().state_dict().items()}
    for name, content in (
        ("sam_toy.pth", toy_sam().state_dict()),
        ("cycleisp_toy.pth", {"state_dict": denoiser}),
    ):
        with written_whole(opt.output / name, binary=True) as file:
            torch.save(content, file)
        print(f"-> {opt.output / name}")
    print("random weights: they show that the commands run, and nothing else")


if __name__ == "__main__":
    run.guard(main)
