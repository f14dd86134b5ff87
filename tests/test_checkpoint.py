"""Weight files: our own format, every published structure, and files that must be refused."""

import hashlib
import os
import pickle
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from torch import nn

import networks
from common import CheckpointError
from networks import base, checkpoint
from networks.resnet import NPRDetector


def make_detector(seed=3):
    """An NPR detector whose every entry differs from a fresh one's."""
    torch.manual_seed(seed)
    detector = NPRDetector()
    with torch.no_grad():
        for value in detector.state_dict().values():
            value.add_(0.01 * torch.rand_like(value) if value.is_floating_point() else 17)
    return detector


@pytest.fixture(scope="module")
def detector():
    return make_detector()


@pytest.fixture(scope="module")
def state(detector):
    return detector.state_dict()


@pytest.fixture
def toy(monkeypatch):
    """A second, tiny detector in the registry for one test."""
    monkeypatch.setattr(networks, "_REGISTRY", dict(networks._REGISTRY))

    @networks.register("toy")
    class Toy(base.Detector):
        def __init__(self, width=1):
            super().__init__()
            self.head = nn.Linear(3, width)

        @classmethod
        def from_options(cls, opt):
            return cls(getattr(opt, "toy_width", 1))

        def forward(self, images):
            return self.head(self.normalise(images).mean(dim=(2, 3)))[:, 0]

    return Toy


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def prefixed(state):
    return OrderedDict((f"module.{key}", value) for key, value in state.items())


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


@pytest.fixture
def own(tmp_path, detector):
    path = tmp_path / "run" / "model_epoch_last.pth"
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    options = {"name": "first-run", "arch": "npr", "classes": ("car", "cat"), "lr": 2e-4, "model_path": None}
    checkpoint.save(
        path,
        detector,
        options=options,
        optimizer=optimizer.state_dict(),
        epoch=4,
        step=120,
        metrics=[{"acc": 0.5}],
        rng={"cpu": torch.arange(8, dtype=torch.uint8), "cuda": []},
    )
    return path


def test_a_saved_detector_comes_back_with_every_entry(own, state):
    assert same(checkpoint.load(own).detector.state_dict(), state)


def test_a_saved_detector_gives_the_same_logits(own, detector):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        logits = checkpoint.load(own).detector.eval()(images)
        assert torch.isfinite(logits).all()
        assert torch.equal(logits, detector.eval()(images))


def test_what_was_saved_beside_the_weights_comes_back(own):
    loaded = checkpoint.load(own)
    assert (loaded.content["epoch"], loaded.content["step"]) == (4, 120)
    assert loaded.content["metrics"] == [{"acc": 0.5}]
    assert loaded.content["optimizer"]["param_groups"][0]["lr"] == 1e-3
    assert loaded.content["rng"]["cpu"].tolist() == list(range(8))


def test_options_come_back_as_saved_tuples_included(own):
    loaded = checkpoint.load(own)
    assert loaded.options == {
        "name": "first-run",
        "arch": "npr",
        "classes": ("car", "cat"),
        "lr": 2e-4,
        "model_path": None,
    }


def test_our_own_file_says_its_format_and_detector(own):
    content = checkpoint.read(own)
    assert (content["format"], content["arch"], content["calibration"]) == ("npr-lab/1", "npr", None)
    assert checkpoint.is_own(content)


def test_our_own_file_needs_no_note_and_no_arch(own):
    loaded = checkpoint.load(own)
    assert (loaded.notes, loaded.arch) == ([], "npr")


def test_our_own_files_run_name_is_the_option_name(own):
    assert checkpoint.load(own).run_name == "first-run"


def test_our_own_file_loads_with_its_arch_given(own, state):
    assert same(checkpoint.load(own, "npr").detector.state_dict(), state)


def test_our_own_file_with_another_arch_is_refused_naming_both(own, toy):
    reason = refused(own, "toy")
    assert "'npr'" in reason and "--arch toy" in reason


def test_our_own_options_win_over_those_of_the_command_line(tmp_path, toy):
    path = tmp_path / "toy.pth"
    checkpoint.save(path, toy(2), options={"toy_width": 2})
    assert checkpoint.load(path, opt=Namespace(toy_width=5)).detector.head.out_features == 2


def test_saving_makes_the_folder_and_leaves_nothing_else_in_it(own):
    assert [child.name for child in own.parent.iterdir()] == ["model_epoch_last.pth"]


def test_saving_again_replaces_the_file(own):
    other = make_detector(seed=9)
    checkpoint.save(own, other, options={})
    assert same(checkpoint.load(own).detector.state_dict(), other.state_dict())


def test_saving_a_detector_in_channels_last_changes_no_value(tmp_path, state):
    path = tmp_path / "a.pth"
    checkpoint.save(path, make_detector().to(memory_format=torch.channels_last), options={})
    assert same(checkpoint.load(path).detector.state_dict(), state)


def fail_at_once(content, file):
    raise OSError("No space left on device")


def fail_half_way(content, file):
    file.write(b"half a file")
    raise OSError("No space left on device")


@pytest.mark.parametrize("failure", [fail_at_once, fail_half_way])
def test_a_failed_save_leaves_the_old_file_and_no_part(own, detector, monkeypatch, failure):
    before = own.read_bytes()
    monkeypatch.setattr(torch, "save", failure)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(own, detector, options={})
    assert own.read_bytes() == before
    assert [child.name for child in own.parent.iterdir()] == [own.name]


def test_a_first_save_that_fails_leaves_no_file(tmp_path, detector, monkeypatch):
    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path / "a.pth", detector, options={})
    assert list(tmp_path.iterdir()) == []


def test_a_save_whose_rename_fails_leaves_the_old_file_and_no_part(own, detector, monkeypatch):
    before = own.read_bytes()

    def fail(source, target):
        raise OSError("Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Permission denied"):
        checkpoint.save(own, detector, options={})
    assert own.read_bytes() == before
    assert [child.name for child in own.parent.iterdir()] == [own.name]


@pytest.mark.parametrize("absent", ["arch", "model"])
def test_our_own_format_without_a_part_is_refused(own, absent):
    content = checkpoint.read(own)
    del content[absent]
    refused(write(own, content))


@pytest.mark.parametrize(
    ("part", "value"), [("arch", "gone"), ("arch", 3), ("options", [1]), ("model", None)]
)
def test_our_own_format_with_a_wrong_part_is_refused(own, part, value):
    refused(write(own, {**checkpoint.read(own), part: value}))


def test_our_own_format_saved_without_options_still_loads(tmp_path, detector, state):
    path = tmp_path / "bare.pth"
    checkpoint.save(path, detector)
    assert same(checkpoint.load(path).detector.state_dict(), state)


def test_our_own_file_with_a_missing_weight_is_refused_by_name(own):
    content = checkpoint.read(own)
    del content["model"]["fc1.bias"]
    assert "1 missing: fc1.bias" in refused(write(own, content))


# --- published structures

STRUCTURES = {
    "flat": OrderedDict,
    "flat with module.": prefixed,
    "model": lambda state: {"model": OrderedDict(state)},
    "NPR.pth": lambda state: {
        "model": prefixed(state),
        "optimizer": torch.optim.Adam([nn.Parameter(torch.zeros(2))]).state_dict(),
        "total_steps": 225000,
    },
    "state_dict": lambda state: {"state_dict": OrderedDict(state), "epoch": 3},
    "state_dict with module.": lambda state: {"state_dict": prefixed(state)},
    "parameters instead of tensors": lambda state: {
        key: nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()
    },
    "old file format": None,
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("arch", [None, "npr"])
def test_a_published_structure_loads_every_entry(tmp_path, state, structure, arch):
    path = tmp_path / "NPR.pth"
    if structure == "old file format":
        torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    else:
        write(path, STRUCTURES[structure](state))
    loaded = checkpoint.load(path, arch)
    assert same(loaded.detector.state_dict(), state)
    assert isinstance(loaded.detector, NPRDetector)


@pytest.fixture
def published(tmp_path, state):
    return write(tmp_path / "NPR.pth", STRUCTURES["NPR.pth"](state))


def test_a_published_file_loads_although_the_command_line_has_other_options(published, state):
    opt = Namespace(arch=None, name=None, batch_size=64)
    assert same(checkpoint.load(published, None, opt).detector.state_dict(), state)


def test_a_published_file_comes_with_a_note_of_what_was_assumed(published):
    (note,) = checkpoint.load(published).notes
    assert str(published) in note and "npr, default options" in note


def test_a_published_file_has_no_options(published):
    assert checkpoint.load(published).options == {}


def test_a_published_files_run_name_is_its_stem_and_hash(published):
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert checkpoint.load(published).run_name == f"NPR-{digest[:8]}"


def test_the_identity_names_file_hash_and_detector(published):
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    identity = checkpoint.load(published).identity
    assert identity == {"checkpoint": "NPR.pth", "checkpoint_sha256": digest, "arch": "npr"}


def test_the_hash_is_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checkpoint.sha256(path) == expected


def test_a_path_given_as_text_loads(published, state):
    assert same(checkpoint.load(str(published)).detector.state_dict(), state)


def test_an_unknown_arch_for_a_published_file_lists_the_known(published):
    with pytest.raises(ValueError, match=r"unknown detector 'nrp'; known: .*npr"):
        checkpoint.load(published, "nrp")


def test_the_keys_decide_between_two_detectors(tmp_path, state, toy):
    assert checkpoint.load(write(tmp_path / "a.pth", OrderedDict(state))).arch == "npr"
    assert checkpoint.load(write(tmp_path / "b.pth", toy().state_dict())).arch == "toy"


def test_keys_that_fit_two_detectors_ask_for_arch(tmp_path, toy):
    @networks.register("twin")
    class Twin(toy):
        pass

    toy.arch = "toy"
    path = write(tmp_path / "a.pth", toy().state_dict())
    reason = refused(path)
    assert "--arch" in reason and "toy" in reason and "twin" in reason
    assert checkpoint.load(path, "twin").arch == "twin"


def test_keys_that_fit_none_of_several_detectors_name_them_all(tmp_path, toy):
    reason = refused(write(tmp_path / "a.pth", {"strange.weight": torch.zeros(2)}))
    assert "npr" in reason and "toy" in reason and "strange.weight" in reason


# --- weights that do not fit

MISFITS = {
    "missing": (lambda state: state.pop("layer1.0.bn1.bias"), "1 missing: layer1.0.bn1.bias"),
    "unexpected": (lambda state: state.update(npr_weights=torch.ones(3)), "1 unexpected: npr_weights"),
    "reshaped": (
        lambda state: state.update({"fc1.weight": torch.ones(2, 512)}),
        "1 of another shape: fc1.weight",
    ),
    "one prefixed key": (
        lambda state: state.update({"module.fc1.bias": state.pop("fc1.bias")}),
        "1 missing: fc1.bias; 1 unexpected: module.fc1.bias",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("structure", ["flat", "NPR.pth"])
def test_a_differing_key_is_named(tmp_path, state, misfit, structure):
    change, words = MISFITS[misfit]
    changed = OrderedDict(state)
    change(changed)
    path = write(tmp_path / "a.pth", STRUCTURES[structure](changed))
    assert f"does not fit detector 'npr': {words}" in refused(path, "npr")


def test_all_kinds_of_difference_are_named_at_once(state):
    changed = {**state, "extra": torch.zeros(1), "fc1.bias": torch.zeros(4)}
    del changed["conv1.weight"]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(NPRDetector(), changed, "a.pth")
    message = str(caught.value)
    assert "1 missing: conv1.weight" in message
    assert "1 unexpected: extra" in message
    assert "1 of another shape: fc1.bias" in message


def test_a_long_list_of_keys_is_shortened_and_counted(state):
    few = {key: value for key, value in state.items() if not key.startswith("layer2")}
    missing = len(state) - len(few)
    with pytest.raises(CheckpointError, match=f"{missing} missing: layer2.* and {missing - 8} more$"):
        checkpoint.load_weights(NPRDetector(), few, "a.pth")


def test_weights_that_do_not_fit_leave_the_detector_as_it_was(state):
    target = make_detector(seed=5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError):
        checkpoint.load_weights(target, {**state, "extra": torch.zeros(1)}, "a.pth")
    assert same(target.state_dict(), before)


# --- files that are no weight files


class Code:
    """Pickles to a call that makes a folder when it is run."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_text(path, state):
    path.write_text("<html>Google Drive - Quota exceeded</html>\n")


def write_truncated(path, state):
    torch.save(OrderedDict(state), path)
    path.write_bytes(path.read_bytes()[:100_000])


def write_without_its_end(path, state):
    torch.save(OrderedDict(state), path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_picture(path, state):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))


UNREADABLE = {
    "empty": lambda path, state: path.write_bytes(b""),
    "text": write_text,
    "truncated": write_truncated,
    "end cut off": write_without_its_end,
    "picture": write_picture,
    "whole pickled module": lambda path, state: torch.save(nn.Linear(2, 2), path),
    "git lfs pointer": lambda path, state: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid 1\n"
    ),
}


UNREADABLE_WORDS = {
    "empty": "empty",
    "text": "web page",
    "whole pickled module": "Linear",
    "git lfs pointer": "Git LFS",
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("arch", [None, "npr"])
def test_an_unreadable_file_is_refused(tmp_path, state, kind, arch):
    path = tmp_path / "a.pth"
    UNREADABLE[kind](path, state)
    assert UNREADABLE_WORDS.get(kind, "not a readable weight file") in refused(path, arch)


@pytest.mark.parametrize("place", ["torch", "pickle", "beside the weights"])
def test_code_inside_a_file_is_refused_and_never_run(tmp_path, state, place):
    path, marker = tmp_path / "a.pth", tmp_path / "the code has run"
    if place == "pickle":
        path.write_bytes(pickle.dumps(Code(marker), protocol=2))
    else:
        content = {"model": OrderedDict(state), "extra": Code(marker)} if place != "torch" else Code(marker)
        torch.save(content, path)
    refused(path)
    assert not marker.exists()


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "no weight file at" in refused(tmp_path / "gone.pth")


def test_a_directory_is_refused(tmp_path):
    assert "no weight file at" in refused(tmp_path)


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
@pytest.mark.parametrize("arch", [None, "npr"])
def test_a_file_without_weights_is_refused(tmp_path, kind, arch):
    refused(write(tmp_path / "a.pth", WRONG_CONTENT[kind]), arch)


def test_an_entry_that_is_no_tensor_is_named(tmp_path, state):
    assert "not tensors: epoch" in refused(write(tmp_path / "a.pth", {**state, "epoch": 3}))


def test_a_checkpoint_error_is_a_value_error_for_the_scripts_to_print():
    assert issubclass(CheckpointError, ValueError)


def test_a_safetensors_file_loads_every_entry(tmp_path, state):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "npr.safetensors")
    loaded = checkpoint.load(tmp_path / "npr.safetensors")
    assert same(loaded.detector.state_dict(), state)


def test_a_broken_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "npr.safetensors"
    path.write_bytes(b"no tensors here")
    assert "safetensors" in refused(path)
