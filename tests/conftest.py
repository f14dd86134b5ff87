"""Shared pieces of the tests: a toy tree of images, the device, the cuda marker."""

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import networks
from networks.base import DataConfig, Detector
from util import run

ROOT = Path(__file__).resolve().parent.parent
FULL_RESNET50, FULL_STAGES = torchvision.models.resnet50, networks.resnet.STAGES
SAMPLES = ROOT.parent / "shared" / "samples"  # real images; tests that use them skip where they are absent


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Nothing is flushed to the disk, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def toy_image(rng, fake, size=(32, 32)):
    """Noise; a fake repeats every pixel in 2x2 blocks, so that its NPR is zero.  size: (width, height)."""
    width, height = size
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if fake:
        pixels = pixels[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return Image.fromarray(pixels)


def make_tree(root, folders, names=("0_real", "1_fake"), count=3, size=(32, 32), suffix=".png"):
    """Writes root/<folder>/<real name, fake name>/<number><suffix> for every folder; returns root."""
    rng = np.random.default_rng(0)
    for folder in folders:
        for label, name in enumerate(names):
            place = Path(root) / folder / name
            place.mkdir(parents=True)
            for number in range(count):
                toy_image(rng, fake=label == 1, size=size).save(place / f"{number}{suffix}")
    return Path(root)


def require_stored_clean(path):
    """A notebook as the repository holds it: valid, without outputs, lines of 110, no path of a machine."""
    import nbformat

    book = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count is not None]
    assert len({cell.id for cell in book.cells}) == len(book.cells)
    assert max(len(line) for cell in code for line in cell.source.split("\n")) <= 110
    assert not re.search(r"/(home|work|tmp|root|Users)/", path.read_text(encoding="utf-8"))


class Toy(Detector):
    """A detector of three layers for tests in which the network does not matter."""

    arch = "toy"
    data_config = DataConfig(load_size=32, crop_size=24, min_side=3)
    signature = ("toy.weight",)

    def __init__(self):
        super().__init__()
        self.toy = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 1)

    def forward(self, images):
        return self.logit(self.fc, self.norm(self.toy(self.preprocess(images))).relu().mean((2, 3)))

    @property
    def cam_layer(self):
        return self.norm


@pytest.fixture(scope="module")
def small_resnet50():
    """torchvision's ResNet-50 with layers of the same names, fewer blocks and narrow ones."""
    with pytest.MonkeyPatch.context() as patch:
        small = partial(ResNet, Bottleneck, [1, 1, 1, 1], width_per_group=8)
        patch.setattr("torchvision.models.resnet50", small)
        yield


@pytest.fixture(scope="module")
def small_npr():
    """The NPR detector with narrow stages; its layers keep their names, but for blocks that are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("networks.resnet.STAGES", ((64, 1, 1), (16, 4, 2), (16, 1, 2), (16, 1, 2)))
        yield


@pytest.fixture
def full_size(monkeypatch):
    """The published blocks and widths, for a test of their number in a file of tests of small networks."""
    monkeypatch.setattr("torchvision.models.resnet50", FULL_RESNET50)
    monkeypatch.setattr("networks.resnet.STAGES", FULL_STAGES)


@pytest.fixture
def toy(monkeypatch):
    """Makes --arch toy known for the length of a test; returns the class."""
    monkeypatch.setitem(networks._REGISTRY, Toy.arch, Toy)
    return Toy


def interrupt_after(monkeypatch, checks):
    """Makes the run see a SIGINT at the given look at the signal flag."""
    count = iter(range(10**6))

    def check(self):
        if next(count) == checks:
            raise run.Interrupted(self.hint, 130)

    monkeypatch.setattr(run.StopSignal, "check", check)


class JobsInThisProcess:
    """experiments.cells.Jobs without starting train.py and test.py, which takes seconds each."""

    def __init__(self, *_):
        import test as test_script
        import train as train_script

        self.scripts = {"train": train_script, "test": test_script}

    def run(self, cells, work, look):
        for cell in cells:
            work(cell, lambda command: self.scripts[Path(command[1]).stem].main(command[2:]))
            look()
            yield cell, None


@pytest.fixture
def tree(tmp_path):
    """make_tree with its root below the test's own folder: tree(["a", "b"], names=...) -> path."""

    def make(folders, name="tree", **options):
        return make_tree(tmp_path / name, folders, **options)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def make_weights(tmp_path, toy, monkeypatch):
    """make_weights(class, name) saves untrained weights as the authors do; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_git", lambda *_: "")

    def make(kind=toy, name="toy.pth"):
        torch.manual_seed(0)
        state = {f"module.{name}": tensor for name, tensor in kind().state_dict().items()}
        torch.save({"model": state, "optimizer": {}, "total_steps": 7}, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def weights(make_weights):
    """toy.pth, a published-like file of the toy detector."""
    return make_weights()


def evaluate(weights, root, *flags, script=None):
    """Runs val.py, or another script, on a folder."""
    import val

    flags = ["--num_threads", "0", "--device", "cpu", *flags]
    (script or val).main(["--model_path", str(weights), "--dataroot", str(root), *flags])


def results(name="tree"):
    """The results folder of an evaluation in the working folder."""
    return next(Path("results").glob(f"*/{name}"))
