"""Weight files: our own format, today's and earlier; every published structure; files that are refused."""

import hashlib
import json
import os
import pickle
import subprocess
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

import data
import networks
import train
from common import CheckpointError, UserError
from data.transforms import eval_geometry
from networks import base, checkpoint
from networks.resnet import NPRDetector
from tools import export
from util import calibrate
from util.calibrate import Calibration
from util.evaluate import file_list_sha256

pytestmark = pytest.mark.usefixtures("small_npr", "small_resnet50")
BEFORE = sorted((ROOT / "tests" / "before").glob("*.json"))
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make_detector(seed=3):
    """An NPR detector whose every entry differs from a fresh one's."""
    torch.manual_seed(seed)
    detector = NPRDetector()
    with torch.no_grad():
        for value in detector.state_dict().values():
            value.add_(0.01 * torch.rand_like(value) if value.is_floating_point() else 17)
    return detector.eval()


@pytest.fixture(scope="module")
def detector():
    return make_detector()


@pytest.fixture(scope="module")
def state(detector):
    return detector.state_dict()


@pytest.fixture
def small(monkeypatch):
    """A second, tiny detector in the registry for one test."""
    monkeypatch.setattr(networks, "_REGISTRY", dict(networks._REGISTRY))

    @networks.register("small")
    class Small(base.Detector):
        signature = ("head.weight",)

        def __init__(self, width=1):
            super().__init__()
            self.head = nn.Linear(3, width)

        @classmethod
        def from_options(cls, opt):
            return cls(getattr(opt, "small_width", 1))

        def forward(self, images):
            return self.head(self.normalise(images).mean(dim=(2, 3)))[:, 0]

    return Small


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def with_prefix(state, prefix="module."):
    return OrderedDict((prefix + key, value) for key, value in state.items())


def write(path, content):
    torch.save(content, path)
    return path


def refused(path, arch=None):
    """The one-line, plain-text reason with which a file is refused; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, arch)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- our own format

OPTIONS = {"name": "first-run", "arch": "npr", "classes": ("car", "cat"), "lr": 2e-4, "model_path": None}


@pytest.fixture
def own(tmp_path, detector):
    path = tmp_path / "run" / "model_epoch_last.pth"
    beside = {"epoch": 4, "step": 120, "metrics": [{"acc": 0.5}]}
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3).state_dict()
    rng = {"cpu": torch.arange(8, dtype=torch.uint8), "cuda": []}
    checkpoint.save(path, detector, options=OPTIONS, optimizer=optimizer, rng=rng, **beside)
    return path


def test_a_saved_detector_comes_back_with_what_was_saved_beside_it(own, detector, state):
    loaded = checkpoint.load(own)
    with torch.no_grad():
        assert torch.equal(loaded.detector.eval()(IMAGES), detector(IMAGES))
    assert same(loaded.detector.state_dict(), state)
    assert (loaded.content["epoch"], loaded.content["step"]) == (4, 120)
    assert loaded.content["metrics"] == [{"acc": 0.5}]
    assert loaded.content["optimizer"]["param_groups"][0]["lr"] == 1e-3
    assert loaded.content["rng"]["cpu"].tolist() == list(range(8))
    assert loaded.options == OPTIONS
    assert (loaded.notes, loaded.arch, loaded.run_name) == ([], "npr", "first-run")
    content = checkpoint.read(own)
    assert (content["format"], content["arch"]) == ("npr-lab/1", "npr")
    assert checkpoint.is_own(content)
    assert same(checkpoint.load(own, "npr").detector.state_dict(), state)


def test_our_own_file_with_another_arch_is_refused_naming_both(own, small):
    reason = refused(own, "small")
    assert "'npr'" in reason and "--arch small" in reason


def test_our_own_options_win_over_those_of_the_command_line(tmp_path, small):
    checkpoint.save(tmp_path / "a.pth", small(2), options={"small_width": 2})
    assert checkpoint.load(tmp_path / "a.pth", opt=Namespace(small_width=5)).detector.head.out_features == 2


def test_saving_again_replaces_the_file_and_leaves_nothing_else_in_the_folder(own):
    other = make_detector(seed=9).to(memory_format=torch.channels_last)
    checkpoint.save(own, other, options={})
    assert same(checkpoint.load(own).detector.state_dict(), other.state_dict())
    assert [child.name for child in own.parent.iterdir()] == [own.name]


def fail_at_once(content, file):
    raise OSError("No space left on device")


def fail_half_way(content, file):
    file.write(b"half a file")
    fail_at_once(content, file)


def fail_to_rename(source, target):
    raise OSError("No space left on device")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("module", "name", "failure"),
    [(torch, "save", fail_at_once), (torch, "save", fail_half_way), (os, "replace", fail_to_rename)],
)
def test_a_failed_save_leaves_the_old_file_and_no_part(
    own, detector, monkeypatch, module, name, failure, first
):
    before = own.read_bytes()
    if first:
        own.unlink()
    monkeypatch.setattr(module, name, failure)
    with pytest.raises(OSError, match="space"):
        checkpoint.save(own, detector, options={})
    assert [child.read_bytes() for child in own.parent.iterdir()] == ([] if first else [before])


@pytest.mark.parametrize(
    ("part", "value"),
    [("arch", "gone"), ("arch", 3), ("options", [1]), ("model", None), ("arch", ...), ("model", ...)],
)
def test_our_own_format_with_a_wrong_or_missing_part_is_refused(own, part, value):
    content = {**checkpoint.read(own), part: value}
    if value is ...:
        del content[part]
    refused(write(own, content))


def test_our_own_format_saved_without_options_still_loads(tmp_path, detector, state):
    checkpoint.save(tmp_path / "bare.pth", detector)
    assert same(checkpoint.load(tmp_path / "bare.pth").detector.state_dict(), state)


def test_our_own_file_with_a_missing_weight_is_refused_by_name(own):
    content = checkpoint.read(own)
    del content["model"]["fc1.bias"]
    assert "1 missing: fc1.bias" in refused(write(own, content))


# --- files of ours from earlier versions: tests/before/ holds their content, and the shapes of their tensors


def rebuilt(path):
    """The content of a checkpoint of an earlier version, with seeded tensors."""
    generator = torch.Generator().manual_seed(0)

    def plain(value):
        if isinstance(value, dict):
            known = {name: plain(part) for name, part in value.items()}
            return tuple(known["tuple"]) if known.keys() == {"tuple"} else known
        return [plain(part) for part in value] if isinstance(value, list) else value

    def tensor(dtype, *shape):
        if len(shape) > 1:
            value = torch.randn(shape, generator=generator)
            return value / value[0].numel() ** 0.5
        return (torch.rand(shape, generator=generator) + 0.5).to(getattr(torch, dtype))

    content = plain(json.loads(path.read_text()))
    content["rng"] = {"cpu": torch.get_rng_state(), "cuda": []}
    content["model"] = {name: tensor(*parts) for name, parts in content["model"].items()}
    content["optimizer"]["state"] = {
        int(index): {
            "step": torch.tensor(3.0),
            "exp_avg": 1e-3 * tensor("float32", *shape),
            "exp_avg_sq": 1e-3 * tensor("float32", *shape).abs(),
        }
        for index, shape in content["optimizer"]["state"].items()
    }
    return content


@pytest.mark.parametrize("path", BEFORE, ids=lambda path: path.stem)
def test_checkpoints_of_the_version_before_load(full_size, tmp_path, path):
    content = rebuilt(path)
    loaded = checkpoint.load(write(tmp_path / "last.pth", content))
    (tmp_path / "last.pth").unlink()
    assert (loaded.arch, loaded.notes) == (content["arch"], [])
    assert same(loaded.detector.state_dict(), content["model"])
    known = loaded.options.items() - {("npr_norm", "imagenet")}
    assert known <= content["options"].items()
    detector = loaded.detector.eval()
    with torch.no_grad():
        assert torch.isfinite(detector(IMAGES)).all()
    if path.stem == "npr-multi":
        assert detector.config == {
            **{"factor": None, "factors": (0.25, 0.5), "fusion": "weights", "attention": "channel"}
        }


def test_every_detector_has_a_checkpoint_of_the_version_before():
    assert {json.loads(path.read_text())["arch"] for path in BEFORE} == {*networks.names()}


@pytest.mark.parametrize(
    ("saved", "config"),
    [
        ({"npr_norm": "after"}, {"norm": "none"}),
        ({"npr_norm": "before", "npr_unused": "none"}, {}),
        ({"npr_unused": "spatial"}, {"unused": "spatial"}),
        (
            {"npr_attention": "channel", "npr_unused": "spatial"},
            {"attention": "channel", "unused": "spatial"},
        ),
        ({"name": "older than variants", "lr": 2e-4}, {}),
    ],
)
def test_options_under_names_of_earlier_versions_are_understood(tmp_path, state, saved, config):
    content = rebuilt(BEFORE[[path.stem for path in BEFORE].index("npr")])
    extra = {}
    if saved.get("npr_unused", "none") != "none":
        extra = {f"spatial_att{number}.conv.weight": torch.ones(1, 2, 7, 7) for number in (1, 2)}
    if "npr_attention" in saved:
        extra |= {f"ca1.fc.{n}.weight": torch.ones(shape) for n, shape in ((0, (4, 64)), (2, (64, 4)))}
        extra |= {f"ca2.fc.{n}.weight": torch.ones(shape) for n, shape in ((0, (16, 256)), (2, (256, 16)))}
    options = {name: value for name, value in content["options"].items() if not name.startswith("npr_")}
    path = write(
        tmp_path / "a.pth", {**content, "options": {**options, **saved}, "model": {**state, **extra}}
    )
    detector = checkpoint.load(path).detector
    assert detector.config == config
    assert same(detector.state_dict(), {**state, **extra})


def test_a_run_of_the_version_before_resumes(full_size, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree(["train", "val"], name="data", count=4)
    [path] = [path for path in BEFORE if path.stem == "npr"]
    content = rebuilt(path)
    for split in ("train", "val"):
        scan = data.scan(f"data/{split}", data.discover(f"data/{split}"))
        content["files"][split] = file_list_sha256(scan.samples)
    folder = tmp_path / "ck" / "npr"
    folder.mkdir(parents=True)
    write(folder / "model_epoch_last.pth", content)
    (folder / "opt.json").write_text(json.dumps(content["options"]))
    train.main("--name npr --checkpoints_dir ck --dataroot data --continue_train --niter 3".split())
    loaded = checkpoint.load(folder / "model_epoch_last.pth")
    assert (loaded.content["epoch"], len(loaded.content["metrics"])) == (3, 3)
    assert loaded.options["cropSize"] == 48 and loaded.options["npr_norm"] == "imagenet"
    assert not torch.equal(loaded.detector.fc1.weight, content["model"]["fc1.weight"])


# --- published structures

ADAM = torch.optim.Adam([nn.Parameter(torch.zeros(2))]).state_dict()
WITHOUT_NOTICE = {
    "flat": OrderedDict,
    "flat with module.": with_prefix,
    "model": lambda state: {"model": OrderedDict(state)},
    "NPR.pth": lambda state: {"model": with_prefix(state), "optimizer": ADAM, "total_steps": 225000},
    "state_dict": lambda state: {"state_dict": OrderedDict(state), "epoch": 3},
    "state_dict with module.": lambda state: {"state_dict": with_prefix(state)},
    "parameters instead of tensors": lambda state: {
        key: nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()
    },
    "without num_batches_tracked": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
    "a Namespace beside": lambda state: {"model": state, "args": Namespace(lr=1)},
    "NumPy's numbers beside": lambda state: {"model": state, "acc": np.float64(0.9), "n": np.int64(3)},
}
WITH_NOTICE = {
    "'_orig_mod.'": lambda state: with_prefix(state, "_orig_mod."),  # torch.compile
    "'module._orig_mod.'": lambda state: {"model": with_prefix(state, "module._orig_mod.")},
    "'_orig_mod.module.'": lambda state: {"model": with_prefix(state, "_orig_mod.module.")},
    "'model.'": lambda state: {"state_dict": with_prefix(state, "model."), "hyper_parameters": {"lr": 1}},
    "'net'": lambda state: {"net": state, "acc": 91.2},
    "'model_state_dict'": lambda state: {"model_state_dict": state, "optimizer": ADAM, "epoch": 3},
    "'checkpoint.network'": lambda state: {"checkpoint": {"network": state, "epoch": 3}},
}


@pytest.mark.parametrize("arch", [None, "npr"])
@pytest.mark.parametrize("structure", [*WITHOUT_NOTICE, *WITH_NOTICE])
def test_a_published_structure_loads_every_entry(tmp_path, state, structure, arch):
    path = write(tmp_path / "NPR.pth", {**WITHOUT_NOTICE, **WITH_NOTICE}[structure](state))
    loaded = checkpoint.load(path, arch)
    found, expected = loaded.detector.state_dict(), dict(state)
    if structure == "without num_batches_tracked":
        expected |= {key: torch.tensor(0) for key in state if key.endswith("num_batches_tracked")}
    assert same(found, expected)
    assert isinstance(loaded.detector, NPRDetector)
    assert len(loaded.notes) == 1 + (structure in WITH_NOTICE)
    assert structure not in WITH_NOTICE or structure in loaded.notes[1]


def test_torchs_old_file_format_and_safetensors_load_every_entry(tmp_path, state):
    torch.save(OrderedDict(state), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(checkpoint.load(tmp_path / "old.pth").detector.state_dict(), state)
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "npr.safetensors")
    assert same(checkpoint.load(tmp_path / "npr.safetensors").detector.state_dict(), state)


@pytest.fixture
def published(tmp_path, state):
    return write(tmp_path / "NPR.pth", WITHOUT_NOTICE["NPR.pth"](state))


def test_what_is_known_of_a_published_file(published, state):
    loaded = checkpoint.load(str(published), None, Namespace(arch=None, name=None, batch_size=64))
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    [note] = loaded.notes
    assert same(loaded.detector.state_dict(), state)
    assert str(published) in note and "npr, default options" in note
    assert (loaded.options, loaded.run_name) == ({}, f"NPR-{digest[:8]}")
    assert loaded.identity == {"checkpoint": "NPR.pth", "checkpoint_sha256": digest, "arch": "npr"}


def test_only_detectors_whose_signature_fits_are_built(published, monkeypatch):
    built = []
    for name in networks.names():
        cls = networks.get(name)
        make = cls.__init__
        monkeypatch.setattr(cls, "__init__", lambda self, *a, m=make: built.append(self.arch) or m(self, *a))
    checkpoint.load(published)
    assert {*built} == {"npr"}


def test_an_unknown_arch_for_a_published_file_lists_the_known(published):
    with pytest.raises(ValueError, match="nrp"):
        checkpoint.load(published, "nrp")


def test_the_keys_decide_between_detectors_and_two_that_fit_ask_for_arch(tmp_path, state, small):
    assert checkpoint.load(write(tmp_path / "a.pth", OrderedDict(state))).arch == "npr"
    path = write(tmp_path / "b.pth", small().state_dict())
    assert checkpoint.load(path).arch == "small"

    @networks.register("twin")
    class Twin(small):
        pass

    reason = refused(path)
    assert "--arch" in reason and "small" in reason and "twin" in reason
    assert checkpoint.load(path, "twin").arch == "twin"


def test_keys_that_fit_none_of_several_detectors_name_them_all(tmp_path, small):
    reason = refused(write(tmp_path / "a.pth", {"strange.weight": torch.zeros(2)}))
    assert "npr" in reason and "small" in reason and "strange.weight" in reason


def test_several_sets_of_weights_in_a_file_are_named(tmp_path, state):
    reason = refused(write(tmp_path / "a.pth", {"net": state, "ema": state}))
    assert "net, ema" in reason


# --- weights that do not fit

MISFITS = {
    "1 missing: layer1.0.bn1.bias": lambda state: state.pop("layer1.0.bn1.bias"),
    "1 unexpected: strange": lambda state: state.update(strange=torch.ones(3)),
    "1 of another shape: fc1.weight": lambda state: state.update({"fc1.weight": torch.ones(2, 512)}),
    "1 missing: fc1.bias; 1 unexpected: module.fc1.bias": lambda state: state.update(
        {"module.fc1.bias": state.pop("fc1.bias")}
    ),
}


@pytest.mark.parametrize("words", MISFITS)
def test_a_differing_key_is_named_and_leaves_the_detector_as_it_was(tmp_path, state, words):
    changed = OrderedDict(state)
    MISFITS[words](changed)
    target = make_detector(seed=5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load_weights(target, changed, "a.pth")
    assert same(target.state_dict(), before)
    if "prefix" not in words and "module" not in words:
        path = write(tmp_path / "a.pth", WITHOUT_NOTICE["NPR.pth"](changed))
        assert f"does not fit detector 'npr': {words}" in refused(path, "npr")


def test_a_long_list_of_keys_is_shortened_and_counted(state):
    few = {key: value for key, value in state.items() if not key.startswith("layer2")}
    missing = len(state) - len(few)
    with pytest.raises(CheckpointError, match=f"{missing - 8}"):
        checkpoint.load_weights(NPRDetector(), few, "a.pth")


# --- files that are no weight files


class Code:
    """Pickles to a call that makes a folder when it is run."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_cut(path, state, kept):
    torch.save(OrderedDict(state), path)
    path.write_bytes(path.read_bytes()[:kept])


def write_torchscript(path, state):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


WEB_PAGE = "\n<!DOCTYPE html><title>Quota exceeded</title>"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
UNREADABLE = {
    "is empty": lambda path, _: path.write_bytes(b""),
    "web page": lambda path, _: path.write_text(WEB_PAGE),
    "Git LFS": lambda path, _: path.write_text(LFS),
    "torch.nn.modules.linear.Linear": lambda path, _: torch.save(nn.Linear(2, 2), path),
    "TorchScript": write_torchscript,
    "damaged (text)": lambda path, _: path.write_text("what is this?\n"),
    "damaged (truncated)": lambda path, state: write_cut(path, state, 100_000),
    "damaged (end cut off)": lambda path, state: write_cut(path, state, -1000),
    "damaged (picture)": lambda path, _: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)),
}


@pytest.mark.parametrize("words", UNREADABLE)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_an_unreadable_file_is_refused_with_what_it_is(tmp_path, state, words):
    UNREADABLE[words](tmp_path / "a.pth", state)
    assert words.partition(" (")[0] in refused(tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "npr")


@pytest.mark.parametrize("where", ["torch", "pickle", "beside the weights"])
def test_code_inside_a_file_is_refused_and_never_run(tmp_path, state, where):
    path, marker = tmp_path / "a.pth", tmp_path / "the code has run"
    if where == "pickle":
        path.write_bytes(pickle.dumps(Code(marker), protocol=2))
    else:
        content = {"model": OrderedDict(state), "extra": Code(marker)} if where != "torch" else Code(marker)
        torch.save(content, path)
    refused(path)
    assert not marker.exists()


def test_a_missing_file_a_folder_and_broken_safetensors_are_refused(tmp_path):
    assert "no weight file at" in refused(tmp_path / "gone.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_epoch_best.pth").touch()
    assert "run/model_epoch_best.pth" in refused(tmp_path / "run")
    assert "folder" in refused(tmp_path)
    (tmp_path / "npr.safetensors").write_bytes(b"no tensors here")
    assert "safetensors" in refused(tmp_path / "npr.safetensors")


WRONG_CONTENT = {
    "empty dict": {},
    "empty model": {"model": {}},
    "number as model": {"model": 3},
    "numbers": {"epoch": 3, "acc": 0.5},
    "tensor": torch.zeros(3),
    "list of tensors": [torch.zeros(3)],
    "text": "weights",
    "number": 7,
    "nothing": None,
    "model with a list": {"model": {"fc1.weight": [1.0, 2.0]}},
    "weights beside a number": {"fc1.weight": torch.zeros(1, 512), "epoch": 3},
    "numbered tensors": {0: torch.zeros(2), 1: torch.zeros(3)},
    "optimizer state": torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1).state_dict(),
    "nested twice": {"state_dict": {"encoder": {"fc1.weight": torch.zeros(1, 512)}}},
}


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_a_file_without_weights_is_refused(tmp_path, kind):
    for arch in (None, "npr"):
        refused(write(tmp_path / "a.pth", WRONG_CONTENT[kind]), arch)


def test_an_entry_that_is_no_tensor_is_named(tmp_path, state):
    assert "not tensors: epoch" in refused(write(tmp_path / "a.pth", {**state, "epoch": 3}))


def content_of(name):
    """Contents that hold several dicts of tensors; the weights that count are full of ones."""
    right = {key: torch.ones(3) for key in networks.get("npr").signature}
    other = {key: torch.zeros(3) for key in right}
    return {
        "an average nested under the same name": {"model": right, "ema": {"model": other}},
        "an average one level down": {"state_dict": right, "ema_state": {"state_dict": other}},
        "a scaler": {"net": right, "scaler": {"scale": torch.zeros(1)}},
        "mixed precision": {"model_state_dict": right, "amp": {"scale": torch.zeros(1)}},
        "two networks": {"netA": {"state_dict": right}, "netB": {"state_dict": other}},
    }[name]


@pytest.mark.parametrize(
    "name",
    ["an average nested under the same name", "an average one level down", "a scaler", "mixed precision"],
)
def test_of_several_sets_of_tensors_the_weights_of_the_detector_are_taken(name):
    state = checkpoint.unwrapped(content_of(name), "a.pth")[0]
    assert all((value == 1).all() for value in state.values())


def test_entries_next_to_the_network_are_left_out_and_named(tmp_path, state):
    beside = {"criterion.weight": torch.ones(2), "model_metric.total": torch.zeros(1)}
    path = write(tmp_path / "last.ckpt", {"state_dict": {**with_prefix(state, "model."), **beside}})
    loaded = checkpoint.load(path)
    assert same(loaded.detector.state_dict(), state)
    assert all(name in loaded.notes[-1] for name in beside)


def test_two_networks_in_one_state_dict_are_refused(tmp_path, state):
    both = {**with_prefix(state, "model."), **with_prefix(state, "ema_model.")}
    reason = refused(write(tmp_path / "a.pth", {"state_dict": both}))
    assert "model." in reason and "ema_model." in reason


def test_nothing_is_built_for_an_unknown_file(tmp_path, monkeypatch):
    for name in networks.names():
        monkeypatch.setattr(networks.get(name), "__init__", pytest.fail)
    refused(write(tmp_path / "a.pth", {"strange.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_nan_or_inf_are_refused_by_name(tmp_path, state, value):
    path = write(tmp_path / "a.pth", {**state, "fc1.bias": torch.tensor([value])})
    assert "fc1.bias" in refused(path)


def test_two_networks_in_one_file_are_refused():
    with pytest.raises(CheckpointError, match="netA"):
        checkpoint.unwrapped(content_of("two networks"), "a.pth")


# --- safetensors of our own, tools.export, and the weights of this repository ---


def test_export_keeps_scores_settings_and_calibration_and_leaves_the_rest(tmp_path, capsys):
    detector = networks.get("npr").from_options(Namespace())
    options = {
        "name": "run",
        "dataroot": "/somewhere",
        "pairs": "/somewhere/pairs.csv",
        "cropSize": 48,
        "no_resize": True,
        "val_views": ("native",),
    }
    checkpoint.save(tmp_path / "run.pth", detector, options=options, optimizer={"state": [1]}, epoch=3)
    seen = {"crop": 64, "crops": 3}
    calibrate.save(Calibration(0.5, 2.0, 0.7, fitted_on=seen), checkpoint.load(tmp_path / "run.pth"))
    for name in ("out.safetensors", "out.pth"):
        export.main(["--model_path", str(tmp_path / "run.pth"), "--output", str(tmp_path / name)])
        loaded = checkpoint.load(tmp_path / name)
        assert same(loaded.detector.state_dict(), detector.state_dict())
        assert calibrate.of(loaded) == Calibration(0.5, 2.0, 0.7, fitted_on=seen)
        assert {"dataroot", "optimizer"} & {*loaded.options, *loaded.content} == set()
        assert "somewhere" not in str(loaded.options)
        geometry = eval_geometry(Namespace(), loaded.detector.data_config, trained=loaded.options)
        assert (geometry.load_size, geometry.crop_size, geometry.crops) == (None, 64, 3)
    with pytest.raises(UserError, match="--overwrite"):
        export.main(["--model_path", str(tmp_path / "run.pth"), "--output", str(tmp_path / "out.pth")])
    with pytest.raises(UserError, match="itself"):
        export.main(
            ["--model_path", str(tmp_path / "run.pth"), "--output", str(tmp_path / "run.pth"), "--overwrite"]
        )


def test_a_path_that_looks_like_a_shipped_name_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint.named_or_path("open") == "open"
    assert checkpoint.named_or_path("./open") == str(tmp_path / "open")


def test_weights_of_this_repository_are_not_ignored_by_git():
    for name, ignored in (("weights/open.safetensors", False), ("other.safetensors", True)):
        status = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode
        if status == 128:
            pytest.skip("not a git checkout")
        assert (status == 0) == ignored
