"""Make a small sample dataset of real and up-sampled photographs on this machine, without any download.

    python -m data.sample                       # writes datasets/sample
    python -m data.sample --fast --output tiny  # a few images only, to see that it runs

Reals are crops of photographs that ship inside the scikit-learn and scikit-image wheels. Fakes are crops of
the same split's photographs, drawn independently of the reals, that passed through a "generator": a small
convolutional autoencoder with one way of up-sampling, fitted on the training photographs only. This is the
up-sampling simulator idea of Zhang, Karaman and Chang, "Detecting and Simulating Artifacts in GAN Fake
Images", WIFS 2019. No photograph serves two splits, and train and val know the up-sampling `nearest` alone.
Smooth windows (sky, blur), in which no up-sampling leaves a trace, are left out of reals and fakes alike.
It shows the machinery and the idea; it is no benchmark.

Results, laid out like ForenSynths (PNG only, one size, as many reals as fakes in every folder):

    <output>/train/photo/{0_real,1_fake}         nearest, several fits
    <output>/val/photo/{0_real,1_fake}           nearest, one more fit
    <output>/test/<generator>/{0_real,1_fake}    nearest (val's fit) and the four other ways
    <output>/sample.json                         settings, photographs per split, mean PSNR of the fakes in dB
"""

import importlib.util
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common import Parser, UserError
from data.upsamplers import MARGIN, cut, draw_window, fit, psnr, regenerate

DATASET = "npr-lab sample"  # marks a sample.json as written here; nothing without it is ever deleted
VERSION = 1  # raise it when the images made from the same settings change
DEFAULT_OUTPUT = Path("datasets/sample")
RECORD = "sample.json"
CLASS_FOLDER = "photo"  # the one class folder of train and val
GENERATORS = ("nearest", "bilinear", "bicubic", "transposed", "pixelshuffle")  # the first: train and val
TEAM = 4  # fits of `nearest` whose fakes train the detector, lest it learn one fit; val has one more

# Files of the two wheels. Both motorcycle pictures show one scene, so they stay together; test is all colour.
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
PHOTOGRAPHS = {
    "train": "china.jpg motorcycle_left.png motorcycle_right.png ihc.png hubble_deep_field.jpg "
    "camera.png brick.png grass.png coins.png".split(),
    "val": "rocket.jpg gravel.png".split(),
    "test": "flower.jpg chelsea.png coffee.png astronaut.png".split(),
}

THREADS = 1  # the order of floating-point sums depends on it; more stall each other on a busy machine
STREAMS = 100  # random streams per seed; one is used by each fit and by each folder


@dataclass(frozen=True)
class Plan:
    """Amounts: image side in pixels, Adam steps per generator, images per label in each folder."""

    size: int
    steps: int
    train: int
    val: int
    test: int


FULL_PLAN = Plan(size=128, steps=250, train=400, val=100, test=200)
FAST_PLAN = Plan(size=64, steps=12, train=24, val=8, test=8)


def load_photograph(name: str) -> Tensor:
    """Return a photograph of the installed wheels as (3, height, width) uint8."""
    for package, folder in FOLDERS.items():
        spec = importlib.util.find_spec(package)  # finds the package without importing it
        path = Path(spec.origin).parent / folder / name if spec and spec.origin else None
        if path and path.is_file():
            with Image.open(path) as image:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    raise UserError(
        f"photograph {name} comes with scikit-image or scikit-learn: pip install scikit-image scikit-learn"
    )


def save_png(image: Tensor, path: Path) -> None:
    """Write a (1, 3, n, n) uint8 image."""
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(path, compress_level=1)


def write_folder(
    folder: Path, generators: list, photographs: dict, count: int, size: int, seed: int
) -> float:
    """Write `count` reals and as many fakes below `folder`; return the mean PSNR of the fakes in dB."""
    rng = torch.Generator().manual_seed(seed)
    real_folder, fake_folder = folder / "0_real", folder / "1_fake"
    real_folder.mkdir(parents=True)
    fake_folder.mkdir()
    ratios = []
    for i in tqdm(range(count), desc=f"write {folder.parent.name}/{folder.name}", unit="pair"):
        # Photographs and generators take turns, so that both labels hold the same number of crops of each.
        stem = list(photographs)[i % len(photographs)]
        real, source = (draw_window(photographs[stem], size + 2 * MARGIN, rng)[None] for _ in range(2))
        fake = cut(regenerate(generators[i % len(generators)], source), MARGIN)
        save_png(cut(real, MARGIN), real_folder / f"{i:05d}_{stem}.png")
        save_png(fake, fake_folder / f"{i:05d}_{stem}.png")
        ratios.append(psnr(cut(source, MARGIN), fake))
    return round(sum(ratios) / count, 2)


def write_dataset(folder: Path, seed: int, plan: Plan) -> dict[str, float]:
    """Fit all generators and write all images below `folder`; return the mean PSNR in dB of each folder."""
    photographs = {s: {Path(n).stem: load_photograph(n) for n in names} for s, names in PHOTOGRAPHS.items()}
    fitting = list(photographs["train"].values())
    streams = itertools.count(seed * STREAMS)
    seen, *unseen = GENERATORS
    team = [fit(seen, fitting, plan.steps, next(streams)) for _ in range(TEAM)]
    held_out = fit(seen, fitting, plan.steps, next(streams))
    jobs = [
        ("train", CLASS_FOLDER, team, plan.train),
        ("val", CLASS_FOLDER, [held_out], plan.val),
        ("test", seen, [held_out], plan.test),
    ]
    jobs += [("test", kind, [fit(kind, fitting, plan.steps, next(streams))], plan.test) for kind in unseen]
    return {
        f"{split}/{name}": write_folder(
            folder / split / name, generators, photographs[split], count, plan.size, next(streams)
        )
        for split, name, generators, count in jobs
    }


@contextmanager
def fixed_cpu() -> Iterator[None]:
    """Compute on the CPU with THREADS threads; give back the caller's thread count and random state."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
            torch.set_num_threads(THREADS)
            yield
    finally:
        torch.set_num_threads(threads)


def read_record(folder: Path) -> dict | None:
    """Return the content of a sample dataset's sample.json; None if `folder` is no such dataset."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("dataset") == DATASET else None


def write_record(folder: Path, record: dict) -> None:
    """Write sample.json."""
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def is_unused(folder: Path) -> bool:
    """Say whether `folder` is missing or empty; ValueError if it holds anything but a sample dataset."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return True
    if read_record(folder) is None:
        raise UserError(f"{folder} is not a sample dataset and is left alone: choose another output")
    return False


def remove_sample(folder: Path) -> None:
    """Delete a sample dataset or an empty folder, and nothing else."""
    if not is_unused(folder):
        shutil.rmtree(folder)
    elif folder.exists():
        folder.rmdir()


def find_finished(output: Path, settings: dict) -> dict | None:
    """Return the record of a dataset to reuse, None if there is none; ValueError for other settings."""
    record = None if is_unused(output) else read_record(output)
    changed = [key for key, value in settings.items() if record and record.get(key) != value]
    if changed:
        settled = ", ".join(f"{key} {record.get(key)}, not {settings[key]}" for key in changed)
        raise UserError(
            f"{output} holds a sample dataset of {settled}: name another --output, or --overwrite it"
        )
    return record


def build(output: str | Path, *, seed: int = 0, fast: bool = False, overwrite: bool = False) -> dict:
    """Build the dataset at `output`, or reuse it if built with the same settings; return its sample.json.

    ValueError: a seed out of range, a folder with something else, or (without `overwrite`) other settings.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, not {seed}")
    output, plan = Path(output), FAST_PLAN if fast else FULL_PLAN
    settings = {"dataset": DATASET, "version": VERSION, "seed": seed, **asdict(plan)}
    settings["photographs"] = {split: list(names) for split, names in PHOTOGRAPHS.items()}
    finished = None if overwrite and not is_unused(output) else find_finished(output, settings)
    if finished is not None:
        return finished
    part = output.with_name(output.name + ".part")
    remove_sample(part)
    part.mkdir(parents=True)
    write_record(part, settings)  # first of all, so that an interrupted build can be recognised and removed
    with fixed_cpu():
        record = {**settings, "psnr_db": write_dataset(part, seed, plan)}
    write_record(part, record)
    remove_sample(output)
    part.rename(output)
    return record


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = Parser(prog="python -m data.sample", description="Make a small sample dataset.")
    add = parser.add_argument
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write [default: %(default)s]")
    add("--seed", type=int, default=0, help="seed of the crops and of the initial weights [default: 0]")
    add("--fast", action="store_true", help="a tiny dataset with hardly fitted generators")
    add("--overwrite", action="store_true", help="replace a sample dataset that is already there")
    args = parser.parse_args(argv)
    before = None if args.overwrite else read_record(args.output)
    try:
        record = build(args.output, seed=args.seed, fast=args.fast, overwrite=args.overwrite)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if record == before:
        print(f"{args.output} is already there with these settings: reused")
    else:
        print(f"{args.output} written; mean PSNR of the fakes in dB: {record['psnr_db']}")


if __name__ == "__main__":
    main()
