"""Makes a small sample dataset of real and up-sampled photographs on this machine, without any download.

    python -m data.sample                       # writes datasets/sample
    python -m data.sample --fast --output tiny  # a few images only, to see that it runs

Reals are crops of photographs inside the scikit-learn and scikit-image wheels.  Fakes are other crops of the
same split's photographs after a "generator": a small autoencoder with one way of up-sampling, fitted on the
training photographs only (data/upsamplers.py).  No photograph is in two splits; train and val have only the
up-sampling `nearest`.  It shows the program and the idea; it is not a benchmark.  Like ForenSynths, PNG of
one size:

    <output>/train/photo/{0_real,1_fake}         nearest, several fits
    <output>/val/photo/{0_real,1_fake}           nearest, one more fit
    <output>/test/<generator>/{0_real,1_fake}    nearest (val's fit) and the four other ways
    <output>/sample.json                         settings, photographs per split, mean PSNR of the fakes in dB
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import importlib.util
import itertools
import shutil

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from common import Parser, UserError, owned, whole_number, write_json
from data.upsamplers import MARGIN, UPSAMPLERS, cut, draw_window, fit, one_thread, psnr, regenerate
from util import run
from util.identity import read_side_file, require_same

DATASET = "npr-lab sample"  # marks a sample.json as written here; nothing without it is ever deleted
VERSION = 1  # raise it when the images made from the same settings change
RECORD = "sample.json"
CLASS_FOLDER = "photo"  # the one class folder of train and val
TEAM = 4  # fits of `nearest` for train, so that the detector does not learn one fit; val has one more
LARGEST_SEED = 2**32 - 1

# Files of the two wheels. Both motorcycle pictures show one scene, so they stay together; test is all colour.
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
PHOTOGRAPHS = {
    "train": "china.jpg motorcycle_left.png motorcycle_right.png ihc.png hubble_deep_field.jpg "
    "camera.png brick.png grass.png coins.png".split(),
    "val": "rocket.jpg gravel.png".split(),
    "test": "flower.jpg chelsea.png coffee.png astronaut.png".split(),
}

STREAMS = 100  # random streams per seed; one is used by each fit and by each folder


# Image side in pixels, Adam steps per generator, images per label in each folder of a split.
FULL_PLAN = {"size": 128, "steps": 250, "train": 400, "val": 100, "test": 200}
FAST_PLAN = {"size": 64, "steps": 12, "train": 24, "val": 8, "test": 8}


def load_photograph(name):
    """A photograph of the installed wheels as (3, height, width) uint8."""
    for package, folder in FOLDERS.items():
        spec = importlib.util.find_spec(package)  # finds the package without importing it
        path = Path(spec.origin).parent / folder / name if spec and spec.origin else None
        if path and path.is_file():
            with Image.open(path) as image:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    raise UserError(
        f"photograph {name} comes with scikit-image or scikit-learn: pip install scikit-image scikit-learn"
    )


def save_png(image, path):
    """Writes a (1, 3, n, n) uint8 image."""
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(path, compress_level=1)


def write_folder(folder, generators, photographs, count, size, seed):
    """Writes `count` reals and as many fakes below `folder`; returns the mean PSNR of the fakes in dB."""
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


def write_dataset(folder, seed, plan):
    """Fits all generators and writes all images; returns {folder: mean PSNR of its fakes in dB}."""
    photographs = {}
    for split, names in PHOTOGRAPHS.items():
        photographs[split] = {Path(name).stem: load_photograph(name) for name in names}
    streams = itertools.count(seed * STREAMS)

    def fitted(name):
        return fit(name, list(photographs["train"].values()), plan["steps"], next(streams))

    seen, *unseen = UPSAMPLERS
    team, held_out = [fitted(seen) for _ in range(TEAM)], [fitted(seen)]
    jobs = [("train", CLASS_FOLDER, team), ("val", CLASS_FOLDER, held_out), ("test", seen, held_out)]
    jobs += [("test", name, [fitted(name)]) for name in unseen]
    ratios = {}
    for split, name, generators in jobs:
        ratios[f"{split}/{name}"] = write_folder(
            folder / split / name, generators, photographs[split], plan[split], plan["size"], next(streams)
        )
    return ratios


def read_record(folder):
    """The sample.json of a sample dataset, {} for a missing or empty folder; UserError for any other."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    remedy = f"{folder} is not a sample dataset and is left alone: name another --output"
    record = read_side_file(folder / RECORD, remedy, ["dataset"])
    if record["dataset"] != DATASET:
        raise UserError(remedy)
    return record


def build(output, seed=0, fast=False, overwrite=False):
    """Makes the dataset at `output`, or keeps one of the same settings; returns its sample.json.

    UserError: a folder with something else in it or, without `overwrite`, a dataset of other settings.
    """
    output, plan = Path(output), FAST_PLAN if fast else FULL_PLAN
    part = output.with_name(output.name + ".part")
    settings = {"dataset": DATASET, "version": VERSION, "seed": seed, **plan}
    settings["photographs"] = {split: list(names) for split, names in PHOTOGRAPHS.items()}
    with owned(output, file=True):
        record = read_record(output)
        if record and not overwrite:
            require_same(record, settings, output, "name another --output, or --overwrite it")
            print(f"{output} is already there with these settings: reused")
            return record
        if read_record(part) or part.exists():  # of an interrupted build
            shutil.rmtree(part)
        write_json(part / RECORD, settings)  # first, so that the next build recognises an interrupted one
        with one_thread():
            record = {**settings, "psnr_db": write_dataset(part, seed, plan)}
        write_json(part / RECORD, record)
        if read_record(output) or output.exists():  # it must not hold anything else by now
            shutil.rmtree(output)
        part.rename(output)
    print(f"{output} written; mean PSNR of the fakes in dB: {record['psnr_db']}")
    return record


def main(argv=None):
    """Makes the sample dataset that the options ask for."""
    parser = Parser(prog="python -m data.sample", description="Makes a small sample dataset.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("datasets/sample"), help="folder to write")
    add("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="seed of crops and initial weights")
    add("--fast", action="store_true", help="a tiny dataset with hardly fitted generators")
    add("--overwrite", action="store_true", help="replace a sample dataset that is already there")
    build(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run.guard(main)
