"""Speed of scoring, measured: batches of one size, images of many sizes; and what variants of NPR cost.

    python -m tools.benchmark batches                    images/s at batch 1, 2, 4, ... of 256 px
    python -m tools.benchmark mixed                      500 images of 25 sizes, one by one and joined by size
    python -m tools.benchmark mixed --model_path M --device cuda
    python -m tools.benchmark variants --side 224        parameters and multiply-adds of each variant of NPR
    python -m tools.benchmark detectors                  the same of each detector, with its images/s
    python -m tools.benchmark engines --side 224         upstream's way, fused, in bf16, on ONNX Runtime
    python -m tools.benchmark training --side 224        a training step, upstream's way and ours
    python -m tools.benchmark training --busy 1          the same beside another busy process

Pixels are random, weights too unless --model_path names some; neither changes the speed.  Rounds alternate
between the ways compared, and medians are printed.  Upstream's way is fp32 in NCHW order, layer by layer.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import json
import statistics
import subprocess
import time
from argparse import Namespace
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from common import Parser, UserError, file_path, non_negative_int, positive_int, torch_device
from networks import checkpoint, create, get, names
from networks.fuse import for_evaluation
from options import TrainOptions
from util import run
from util.batching import logits_by_size, logits_of, pixels_per_pass
from util.tables import count, markdown

UPSTREAM = "upstream's way"
BATCHES = (1, 2, 4, 8, 24, 64)
VARIANTS = (  # the rows of the table in docs/ablations.md
    "",
    "--npr_factor 0.25",
    "--npr_mode bilinear",
    "--npr_window 3 --npr_ref mean",
    "--npr_color lab",
    "--npr_color gray",
    "--npr_norm none",
    "--npr_front local_grad",
    "--npr_front none",
    "--npr_factors 0.25,0.5,0.75 --npr_fusion weights",
    "--npr_factors 0.25,0.5,0.75 --npr_fusion concat",
    "--npr_factors 0.25,0.5,0.75 --npr_fusion average",
    "--npr_factors 0.25,0.5,0.75 --npr_fusion scale_attention",
    "--npr_attention channel",
    "--npr_attention channel --npr_attention_form cbam",
    "--npr_attention spatial",
    "--npr_attention channel_spatial",
    "--npr_factors 0.25,0.5,0.75 --npr_attention channel",
    "--npr_stem 7x7s2",
    "--npr_stem 3x3s1",
    "--npr_stages 3",
    "--npr_stages 4",
)


def main(argv=None):
    """Runs one measurement of speed and prints its table."""
    opt = parse(argv)
    opt.device = run.pick_device(opt)
    run.seed_everything(0)
    torch.backends.cudnn.benchmark = False  # many sizes: see util/evaluate.py
    BENCHMARKS[opt.what](opt)


def parse(argv=None):
    """The command line."""
    parser = Parser(prog="python -m tools.benchmark", description="Measures the speed of scoring.")
    add = parser.add_argument
    add("what", choices=BENCHMARKS, help="what is measured")
    add("--arch", choices=names(), default="npr", help="detector of batches and mixed")
    add("--model_path", type=file_path, help="weight file in place of random weights")
    add("--device", type=torch_device, default="auto", help="where to run")
    add("--side", type=positive_int, default=256, help="pixels per side of an image")
    add("--batch_size", type=positive_int, default=32, help="images per pass (engines, training)")
    busy = "processes that compute beside it (engines, training)"
    add("--busy", type=non_negative_int, default=0, help=busy)
    add("--number", type=positive_int, default=500, help="images (mixed)")
    add("--sizes", type=positive_int, default=25, help="different sizes (mixed)")
    add("--repeats", type=positive_int, default=3, help="rounds; medians are printed")
    return parser.parse_args(argv)


def batches(opt):
    """Images per second for each batch size of one image size."""
    detector = detector_of(opt)
    images = {size: pictures(size, opt.side, opt.side) for size in BATCHES}

    def score(size):
        for _ in range(max(BATCHES) // size):
            logits_of(detector, images[size], opt.device)

    for size, seconds in medians({size: partial(score, size) for size in BATCHES}, opt).items():
        speed = max(BATCHES) // size * size / seconds
        print(f"batch {size:>3} of {opt.side}x{opt.side}: {speed:8.1f} images/s")


def mixed(opt):
    """Images of many sizes in random order, one by one and joined by size, and how far the scores differ."""
    rng = np.random.default_rng(0)
    sides = rng.choice(np.arange(160, 642, 2), (opt.sizes, 2))
    order = rng.permutation(np.arange(opt.number) % opt.sizes)
    parts = [
        {"image": pictures(1, *sides[size]), "index": torch.tensor([index])}
        for index, size in enumerate(order)
    ]
    detector, scores = detector_of(opt), {}

    def score(name, limit):
        passes = zip(*logits_by_size(detector, parts, opt.device, limit=limit), strict=True)
        index, logits = (torch.cat(values).cpu() for values in passes)
        scores[name] = torch.sigmoid(logits[index.argsort()].double())

    limits = {"batch 1": 1, "equal sizes together": pixels_per_pass(opt.device)}
    seconds = medians({name: partial(score, name, limit) for name, limit in limits.items()}, opt)
    for name, value in seconds.items():
        print(f"{name:>20}: {opt.number / value:8.1f} images/s")
    single, together = scores.values()
    print(f"scores differ by at most {((single - together).abs() / single).max():.1e} (relative)")


def variants(opt):
    """Prints a Markdown table of VARIANTS: parameters, multiply-adds of one image of --side pixels."""
    lines = [["flags", "parameters", "multiply-adds"]]
    for flags in VARIANTS:
        detector = create(TrainOptions().parse(flags.split())).eval()
        lines.append([f"`{flags}`" if flags else "(none)", *cost(detector, opt.side)])
    print(markdown(lines, "lrr"))


def cost(detector, side):
    """[parameters, multiply-adds of convolutions and linear layers for one image of side x side pixels]."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(pictures(1, side, side))
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    # the counter counts a multiply-add as two operations
    return [count(parameters), f"{counter.get_total_flops() / 2e9:.2f} G"]


def detectors(opt):
    """Prints a Markdown table of all detectors: parameters, multiply-adds, images/s of the network only."""
    lines, work, counts = {}, {}, {}
    for arch in names():
        detector = create(Namespace(arch=arch)).eval()
        patches = detector.data_config.patches
        side = patches.size if patches else detector.data_config.crop_size
        lines[arch] = [f"`{arch}`", f"{'patch ' if patches else ''}{side}x{side}", *cost(detector, side)]
        detector.to(opt.device, memory_format=torch.channels_last)
        fitting = int(pixels_per_pass(opt.device) / (side**2 * detector.data_config.enlargement))
        images = pictures(min(max(1, fitting), 256), side, side)
        work[arch], counts[arch] = partial(logits_of, detector, images, opt.device), len(images)
    seconds = medians(work, opt)
    rows = [[*line, f"{counts[arch] / seconds[arch]:.1f}"] for arch, line in lines.items()]
    heading = ["detector", "input", "parameters", "multiply-adds", "network images/s"]
    print(markdown([heading, *rows], "llrrr"))


def engines(opt):
    """Images per second of one detector by each way to run it, and the ratio to upstream's way, by rounds."""
    images, work = pictures(opt.batch_size, opt.side, opt.side), {}
    plain = detector_of(opt).to("cpu", memory_format=torch.contiguous_format)
    fused, _, line = for_evaluation(plain)
    print(line)
    ways = {UPSTREAM: (plain, False), "fused": (fused, False), "fused, bf16": (fused, True)}
    if opt.device.type == "cpu" and all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        ways["fused, ONNX Runtime"] = for_evaluation(plain, engine="onnxruntime")[0], False
    for name, (network, bf16) in ways.items():
        order = torch.contiguous_format if network is plain else torch.channels_last
        placed = network.to(opt.device, memory_format=order)
        work[name] = partial(logits_of, placed, images, opt.device, bf16)
    compare(work, opt)


def training(opt):
    """Images per second of training steps, upstream's way and ours, as `engines` prints them."""
    batch = {"image": pictures(opt.batch_size, opt.side, opt.side), "label": torch.arange(opt.batch_size) % 2}
    batch = {name: value.to(opt.device) for name, value in batch.items()}
    ours, work = run.is_bf16(run.choose_precision("auto", opt.device)), {}
    ways = {UPSTREAM: (torch.contiguous_format, False), "channels_last": (torch.channels_last, False)}
    ways |= {"channels_last, bf16": (torch.channels_last, True)} if ours else {}
    for name, (order, bf16) in ways.items():
        detector = detector_of(opt).to(memory_format=order).train()
        work[name] = partial(training_step, detector, torch.optim.Adam(detector.parameters()), batch, bf16)
    compare(work, opt)


def training_step(detector, optimizer, batch, bf16):
    """Forward, backward and update, as train.py does them."""
    with torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=bf16):
        terms = detector.loss(batch)
    optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    optimizer.step()


def compare(work, opt):
    """Prints the images/s of functions that take a batch each, and their ratio to UPSTREAM in one round."""
    with busy(opt.busy):
        seconds = rounds(work, opt)
    found = {}
    for name, values in seconds.items():
        ratios = sorted(before / now for before, now in zip(seconds[UPSTREAM], values, strict=True))
        speed, ratio = opt.batch_size / statistics.median(values), statistics.median(ratios)
        found[name] = {"images/s": speed, "ratio": ratio, "range": [ratios[0], ratios[-1]]}
        print(f"{name:>20}: {speed:8.1f} images/s, {ratio:.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(json.dumps({opt.what: found, "side": opt.side, "batch_size": opt.batch_size, "busy": opt.busy}))


@contextmanager
def busy(number):
    """So many processes that compute without end, beside what is measured."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in others:
            process.kill()
            process.wait()


def detector_of(opt):
    """The detector of batches and mixed, in evaluation mode on the device."""
    if get(opt.arch).data_config.patches:
        raise UserError(f"{opt.what} is about whole images; --arch {opt.arch} sees patches: try detectors")
    path = opt.model_path
    detector = checkpoint.load(path).detector if path else create(Namespace(arch=opt.arch))
    return detector.to(opt.device, memory_format=torch.channels_last).eval()


def pictures(number, height, width):
    """Random uint8 images (number, 3, height, width)."""
    return torch.randint(0, 256, (number, 3, int(height), int(width)), dtype=torch.uint8)


def medians(ways, opt):
    """{name: median seconds} of functions."""
    return {name: statistics.median(values) for name, values in rounds(ways, opt).items()}


def rounds(ways, opt):
    """{name: seconds of each round} of functions, which alternate; a first round warms up."""
    seconds = {name: [] for name in ways}
    for _ in range(opt.repeats + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if opt.device.type == "cuda":
                torch.cuda.synchronize(opt.device)
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


BENCHMARKS = {
    "batches": batches,
    "mixed": mixed,
    "variants": variants,
    "detectors": detectors,
    "engines": engines,
    "training": training,
}


if __name__ == "__main__":
    run.guard(main)
