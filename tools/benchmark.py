"""Speed of scoring, measured: batches of one size, images of many sizes; and what variants of NPR cost.

    python -m tools.benchmark batches                    images/s at batch 1, 2, 4, ... of 256 px
    python -m tools.benchmark mixed                      500 images of 25 sizes, one by one and joined by size
    python -m tools.benchmark mixed --model_path M --device cuda
    python -m tools.benchmark variants --side 224        parameters and multiply-adds of each variant of NPR
    python -m tools.benchmark detectors                  the same of each detector, with its images/s
    python -m tools.benchmark patches                    SSP's choice of a patch against plain NumPy

Pixels are random, weights too unless --model_path names some; neither changes the speed.  Rounds alternate
between the ways compared, and medians are printed.  The last line is JSON.
"""

import functools
import json
import statistics
import time
from argparse import Namespace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import networks
from common import Parser, UserError, file_path, positive_int, torch_device
from data.patches import looked_at
from networks import checkpoint
from networks.base import Patches
from options import TrainOptions
from util import run
from util.batching import logits_by_size, logits_of, pixels_per_pass

BATCHES = (1, 2, 4, 8, 24, 64)
VARIANTS = (  # the rows of the table in docs/ablations.md
    "",
    "--npr_factor 0.25",
    "--npr_mode bilinear",
    "--npr_window 3 --npr_ref mean",
    "--npr_color lab",
    "--npr_color gray",
    "--npr_norm after",
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
    "--npr_factors 0.25,0.5,0.75 --npr_attention channel --npr_unused spatial",
    "--npr_stem 7x7s2",
    "--npr_stem 3x3s1",
    "--npr_stages 3",
    "--npr_stages 4",
)


def main(argv=None):
    opt = parse(argv)
    if opt.what == "variants":
        print(variants(opt.side))
        return
    if opt.what == "patches":
        print(json.dumps({"what": "patches", **patches(opt.side, opt.repeats)}))
        return
    device = run.pick_device(opt)
    if opt.what in ("batches", "mixed") and networks.get(opt.arch).data_config.patches:
        raise UserError(f"{opt.what} is about whole images; --arch {opt.arch} sees patches: try detectors")
    if opt.what == "detectors":
        print(detectors(opt, device))
        return
    run.seed_everything(0)
    torch.backends.cudnn.benchmark = False  # many sizes: see util/evaluate.py
    if opt.model_path:
        detector = checkpoint.load(opt.model_path).detector
    else:
        detector = networks.create(Namespace(arch=opt.arch))
    detector = detector.to(device, memory_format=torch.channels_last).eval()
    found = {"batches": batches, "mixed": mixed}[opt.what](opt, detector, device)
    environment = run.environment(device)
    machine = {name: environment[name] for name in ("device", "accelerator", "cpu_threads", "torch")}
    print(json.dumps({"what": opt.what, **found, **machine}))


def parse(argv=None):
    """The command line."""
    parser = Parser(prog="tools.benchmark", description="Measures the speed of scoring.")
    parser.add_argument(
        "what",
        choices=("batches", "mixed", "variants", "detectors", "patches"),
        help="batches of one size, many sizes, what variants or detectors cost, choice of patches",
    )
    parser.add_argument("--arch", choices=networks.names(), default="npr", help="detector")
    parser.add_argument("--model_path", type=file_path, help="weight file in place of random weights")
    parser.add_argument("--device", type=torch_device, default="auto", help="where to run")
    parser.add_argument("--side", type=positive_int, default=256, help="pixels per side of an image")
    parser.add_argument("--number", type=positive_int, default=500, help="images (mixed)")
    parser.add_argument("--sizes", type=positive_int, default=25, help="different sizes (mixed)")
    parser.add_argument("--repeats", type=positive_int, default=3, help="rounds; medians are printed")
    return parser.parse_args(argv)


def batches(opt, detector, device):
    """Images per second for each batch size of one image size."""
    images = {size: pictures(size, opt.side, opt.side) for size in BATCHES}
    number = max(BATCHES)
    speed = {size: [] for size in BATCHES}
    for _ in range(opt.repeats + 1):  # the first round warms up
        for size in BATCHES:
            seconds = timed(
                device,
                lambda size=size: [logits_of(detector, images[size], device) for _ in range(number // size)],
            )
            speed[size].append(number // size * size / seconds)
    medians = {size: statistics.median(rounds[1:]) for size, rounds in speed.items()}
    for size, value in medians.items():
        print(f"batch {size:>3} of {opt.side}x{opt.side}: {value:8.1f} images/s")
    return {"side": opt.side, "images_per_second": medians}


def variants(side):
    """A Markdown table of VARIANTS: flags, parameters, multiply-adds for one image of side x side pixels."""
    lines = ["| flags | what it is | parameters | multiply-adds |", "| :-- | :-- | --: | --: |"]
    for flags in VARIANTS:
        detector = networks.create(TrainOptions().parse(flags.split())).eval()
        parameters, operations = cost(detector, side)
        shown = f"`{flags}`" if flags else "(none)"
        lines.append(f"| {shown} | {detector.describe()} | {parameters:,} | {operations / 1e9:.2f} G |")
    return "\n".join(lines)


def cost(detector, side):
    """(parameters, multiply-adds of convolutions and linear layers for one image of side x side pixels)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(pictures(1, side, side))
    parameters = sum(one.numel() for one in detector.parameters())
    return parameters, counter.get_total_flops() / 2  # it counts a multiply-add as two


def detectors(opt, device):
    """A Markdown table of all detectors: parameters, multiply-adds, and images/s of the network alone."""
    built = {arch: networks.create(Namespace(arch=arch)).eval() for arch in networks.names()}
    configs = {arch: detector.data_config for arch, detector in built.items()}
    sides = {arch: one.patches.size if one.patches else one.crop_size for arch, one in configs.items()}
    costs = {arch: cost(detector, sides[arch]) for arch, detector in built.items()}
    images, speed = {}, {arch: [] for arch in built}
    for arch, detector in built.items():
        detector.to(device, memory_format=torch.channels_last)
        number = int(pixels_per_pass(device) / (sides[arch] ** 2 * detector.enlargement))
        images[arch] = pictures(min(max(1, number), 256), sides[arch], sides[arch])
    for _ in range(opt.repeats + 1):  # the first round warms up
        for arch, detector in built.items():
            work = functools.partial(logits_of, detector, images[arch], device)
            speed[arch].append(len(images[arch]) / timed(device, work))
    lines = [
        "| detector | input | parameters | multiply-adds | network images/s |",
        "| :-- | :-- | --: | --: | --: |",
    ]
    for arch, (parameters, operations) in costs.items():
        shown = f"{'patch ' if configs[arch].patches else ''}{sides[arch]}x{sides[arch]}"
        median = statistics.median(speed[arch][1:])
        lines.append(f"| `{arch}` | {shown} | {parameters:,} | {operations / 1e9:.2f} G | {median:.1f} |")
    return "\n".join(lines)


def patches(side, repeats):
    """Milliseconds of each way of choosing the simplest 32x32 patch, ours and slow_diversity, medians."""
    pixels = pictures(1, side, side)[0].permute(1, 2, 0).contiguous().numpy()
    found = {}
    for select, stride in (("random64", 1), ("grid", 1), ("dense", 8), ("dense", 1)):
        rule = Patches(select=select, stride=stride)
        tops, lefts, ours = looked_at(pixels, rule, np.random.default_rng(0))
        times = {"ours": [], "plain NumPy": []}
        for _ in range(3 * repeats):
            start = time.perf_counter()
            looked_at(pixels, rule, np.random.default_rng(0))
            times["ours"].append(time.perf_counter() - start)
        for _ in range(repeats):
            start = time.perf_counter()
            plain = [
                slow_diversity(pixels[top : top + rule.size, left : left + rule.size])
                for top, left in zip(tops, lefts, strict=True)
            ]
            times["plain NumPy"].append(time.perf_counter() - start)
        if plain != ours.tolist():
            raise RuntimeError(f"{select}: the two ways differ")
        fast, slow = (1e3 * statistics.median(values) for values in times.values())
        name = f"dense, stride {stride}" if select == "dense" else select
        places = f"{name:>16}: {len(tops):>6} places"
        print(f"{places}, {fast:8.2f} ms, plain NumPy {slow:9.2f} ms: {slow / fast:.1f}x")
        found[name] = {"ms": fast, "plain_ms": slow}
    return {"side": side, **found}


def slow_diversity(patch):
    """Texture diversity of one patch (P, P, 3), uint8, in plain NumPy: what data/patches.py has to equal."""
    x = patch.astype(np.int64)
    pairs = ((x[:, 1:], x[:, :-1]), (x[1:], x[:-1]), (x[1:, 1:], x[:-1, :-1]), (x[1:, :-1], x[:-1, 1:]))
    return int(sum(np.abs(one - other).sum() for one, other in pairs))


def mixed(opt, detector, device):
    """Images of many sizes in random order, one by one and joined by size, and how far the scores differ."""
    parts = mixed_parts(opt.number, opt.sizes)
    limits = {"batch 1": 1, "equal sizes together": pixels_per_pass(device)}
    speed, logits = {name: [] for name in limits}, {}
    for _ in range(opt.repeats + 1):
        for name, limit in limits.items():
            passes = []
            seconds = timed(
                device,
                lambda limit=limit, passes=passes: passes.extend(
                    logits_by_size(detector, parts, device, limit=limit)
                ),
            )
            speed[name].append(opt.number / seconds)
            logits[name] = in_order(passes)
    medians = {name: statistics.median(rounds[1:]) for name, rounds in speed.items()}
    alone, together = (torch.sigmoid(values.double()) for values in logits.values())
    distance = ((alone - together).abs() / alone).max().item()
    for name, value in medians.items():
        print(
            f"{name:>20}: {value:8.1f} images/s (rounds: {' '.join(f'{one:.1f}' for one in speed[name][1:])})"
        )
    ratio = medians["equal sizes together"] / medians["batch 1"]
    print(f"{ratio:.2f}x; scores differ by at most {distance:.1e} (relative)")
    return {"images_per_second": medians, "ratio": ratio, "largest_relative_difference": distance}


def mixed_parts(number, sizes):
    """Parts of one image each; the sizes are even, 160 to 640 pixels a side, in random order."""
    rng = np.random.default_rng(0)
    sides = rng.choice(np.arange(160, 642, 2), (sizes, 2))
    order = rng.permutation(np.arange(number) % sizes)
    return [
        {"image": pictures(1, *sides[size]), "index": torch.tensor([place])}
        for place, size in enumerate(order)
    ]


def pictures(number, height, width):
    """Random uint8 images (number, 3, height, width)."""
    return torch.randint(0, 256, (number, 3, int(height), int(width)), dtype=torch.uint8)


def in_order(passes):
    """Logits of all passes on the CPU, in the images' own order."""
    index = torch.cat([one for one, _ in passes])
    return torch.cat([one for _, one in passes]).cpu()[index.argsort()]


def timed(device, work):
    """Seconds that `work` takes, the device's queue included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    run.guard(main)
