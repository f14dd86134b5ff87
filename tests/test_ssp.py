"""SSP against a slow rebuild by scipy, matrices and torchvision's network; its files and flags."""

from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision
from scipy.signal import correlate2d
from torch import nn

import networks
from common import CheckpointError
from networks import checkpoint
from networks.base import Patches, own_flags
from networks.init_weights import start
from networks.ssp import SRM, SSPDetector
from options import TrainOptions

pytestmark = pytest.mark.usefixtures("small_resnet50")
SIDE = 64  # patches are scaled up to this where the size does not matter
FC = ("disc.fc.weight", "disc.fc.bias")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

KB = np.zeros((5, 5))
KB[1:4, 1:4] = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
KV = np.array(
    [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
)
SECOND_ORDER = np.zeros((5, 5))
SECOND_ORDER[2, 1:4] = np.array([1, -2, 1]) / 2
KERNELS = (KB, KV / 12, SECOND_ORDER)


def slow_srm(x):
    """(B, 3, H, W) -> the residuals in float64, filter by filter and colour by colour."""
    found = [
        [sum(correlate2d(colour, kernel, mode="same") for colour in image) for kernel in KERNELS]
        for image in np.asarray(x, np.float64)
    ]
    return np.clip(found, -3, 3)


def scaling(inputs, outputs):
    """The matrix (outputs, inputs) of linear interpolation between pixel centres, the border repeated."""
    matrix = np.zeros((outputs, inputs))
    for row in range(outputs):
        place = min(max((row + 0.5) * inputs / outputs - 0.5, 0), inputs - 1)
        low = int(place)
        high = min(low + 1, inputs - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


def slow_noise(images, side):
    """uint8 (B, 3, H, W) -> what SSP's trunk sees, in float64."""
    mean, std = (np.array(three)[:, None, None] for three in (MEAN, STD))
    x = (images.numpy() / 255 - mean) / std
    return slow_srm(scaling(x.shape[2], side) @ x @ scaling(x.shape[3], side).T)


def pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def create(**flags):
    torch.manual_seed(0)
    return networks.create(Namespace(arch="ssp", **{"ssp_upscale": SIDE, **flags}))


def on_meta(name, **flags):
    """A detector without memory or values: its names, shapes and settings."""
    with torch.device("meta"):
        return networks.create(Namespace(arch=name, **flags))


def small_state(name, seed=0):
    """A state_dict of the detector, all of whose filters are constants: a small file."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in on_meta(name).state_dict().items():
        count = value.shape[:1] if value.ndim == 4 else value.shape
        entry = torch.rand(count, generator=generator) + 0.5
        if value.ndim == 4:
            entry = (entry / value[0].numel())[:, None, None, None].expand(value.shape)
        state[key] = entry if value.is_floating_point() else torch.tensor(5)
    return state


@pytest.fixture(scope="module")
def detector():
    """In evaluation, with batch norms that do something.  Tests leave it as it was."""
    detector, generator = create(), torch.Generator().manual_seed(1)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.2 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
    return detector.eval()


@pytest.fixture(scope="module")
def state():
    """The entries of a published file."""
    state = small_state("ssp")
    state["srm.kernel"] = SRM().kernel.detach()
    state["disc.fc.weight"] = state["disc.fc.weight"] - 1  # of both signs
    return state


@pytest.fixture(scope="module")
def stored(state):
    """The detector as its published file says it: up = real."""
    detector = create()
    detector.load_state_dict(state)
    return detector.eval()


@pytest.fixture(scope="module")
def published(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "Net_epoch_best.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def own(state, tmp_path_factory):
    """A file of ours with these entries, trained with the default flags."""
    path = tmp_path_factory.mktemp("own") / "model_epoch_last.pth"
    options = {**vars(own_flags(SSPDetector, Namespace())), "name": "run", "arch": "ssp"}
    torch.save({"format": checkpoint.FORMAT, "arch": "ssp", "options": options, "model": state}, path)
    return path


def logits(detector, images):
    with torch.no_grad():
        return detector.eval()(images)


# --- the residuals


@pytest.mark.parametrize("shape", [(2, 3, 9, 12), (1, 3, 1, 1), (1, 3, 4, 3)])
def test_srm_is_the_three_filters_summed_over_the_colours(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = SRM()(x)
    np.testing.assert_allclose(found.numpy(), slow_srm(x), atol=1e-5)


def test_residuals_are_clipped_to_3_on_both_sides():
    x = 50 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = SRM()(x)
    assert (found.min(), found.max()) == (-3, 3)
    assert 0 < (found.abs() < 3).float().mean() < 0.5
    np.testing.assert_allclose(found.numpy(), slow_srm(x), atol=1e-4)


@pytest.mark.parametrize("colour", [0, 1, 2])
def test_small_residuals_are_not_rounded(colour):
    x = torch.zeros(1, 3, 5, 5)
    x[0, colour, 2, 2] = 0.01
    np.testing.assert_allclose(SRM()(x)[0].numpy(), 0.01 * np.stack(KERNELS), rtol=1e-6)


def test_an_optimiser_moves_the_trunk_and_not_the_filters():
    torch.manual_seed(0)
    net = nn.Sequential(SRM(), nn.Conv2d(3, 1, 3))
    before = [value.clone() for value in net.state_dict().values()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    net(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    kernel, weight, bias = net.state_dict().values()
    assert net[0].kernel.grad is None
    assert torch.equal(kernel, before[0])
    assert not torch.equal(weight, before[1]) and not torch.equal(bias, before[2])


@pytest.mark.parametrize(("shape", "side"), [((2, 3, 32, 32), 64), ((1, 3, 5, 9), 24), ((1, 3, 40, 33), 32)])
def test_the_trunk_sees_the_residuals_of_the_scaled_normalised_patch(detector, monkeypatch, shape, side):
    monkeypatch.setattr(detector, "upscaled", side)
    images = pixels(*shape)
    expected = slow_noise(images, side)
    assert expected.std() > 0.1
    np.testing.assert_allclose(detector.preprocess(images).numpy(), expected, atol=1e-4)


def test_the_patch_is_scaled_up_to_256_as_published(detector, monkeypatch):
    usual = on_meta("ssp")
    monkeypatch.setattr(detector, "upscaled", usual.upscaled)
    images = pixels(1, 3, 32, 32)
    np.testing.assert_allclose(detector.preprocess(images).numpy(), slow_noise(images, 256), atol=1e-4)


def test_residuals_are_exact_under_bf16_autocast(detector):
    images = pixels(2, 3, 32, 32)
    expected = detector.preprocess(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = detector.preprocess(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# --- the network


def test_logits_are_those_of_torchvisions_network_on_the_slow_residuals(detector):
    net = torchvision.models.resnet50(num_classes=1).eval()
    net.load_state_dict(
        {
            key.removeprefix("disc."): value
            for key, value in detector.state_dict().items()
            if key != "srm.kernel"
        }
    )
    images = pixels(3, 3, 32, 32)
    with torch.no_grad():
        expected = net(torch.from_numpy(slow_noise(images, SIDE)).float())[:, 0]
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits(detector, images), expected, rtol=1e-4, atol=1e-4)


def test_it_has_the_published_number_of_parameters(full_size):
    parameters = list(on_meta("ssp").parameters())
    assert sum(one.numel() for one in parameters) == 23_510_306
    assert sum(one.numel() for one in parameters if one.requires_grad) == 23_510_081


def test_its_321_entries_are_torchvisions_under_disc_and_the_filters(full_size):
    state = on_meta("ssp").state_dict()
    with torch.device("meta"):
        theirs = torchvision.models.resnet50(num_classes=1).state_dict()
    expected = {f"disc.{key}": value.shape for key, value in theirs.items()} | {"srm.kernel": (3, 3, 5, 5)}
    assert len(state) == 321
    assert {key: value.shape for key, value in state.items()} == expected


# --- several patches an image


def test_the_votes_of_an_images_patches_are_averaged(detector):
    images = pixels(2, 3, 3, 32, 32)
    single = torch.stack([logits(detector, images[:, place]) for place in range(3)])
    assert single.std(0).min() > 1e-4
    torch.testing.assert_close(logits(detector, images), single.sum(0) / 3, rtol=1e-4, atol=1e-5)


def test_the_loss_of_several_patches_is_that_of_the_averaged_logit(detector):
    images = pixels(2, 3, 3, 32, 32)
    fake = logits(detector, images).double().sigmoid()
    terms = detector.loss({"image": images, "label": torch.tensor([1, 0])})
    expected = -(fake[0].log() + (1 - fake[1]).log()) / 2
    torch.testing.assert_close(terms["total"].double().detach(), expected, rtol=1e-5, atol=1e-6)
    assert terms["logits"].shape == (2,)


@pytest.mark.parametrize(
    ("flags", "times"), [({}, 64), ({"ssp_upscale": 64}, 4), ({"ssp_patch": 16, "ssp_upscale": 128}, 64)]
)
def test_the_trunk_sees_this_many_pixels_for_each_one_given(flags, times):
    assert on_meta("ssp", **flags).data_config.enlargement == times


# --- published files score up = real


@pytest.mark.parametrize("form", ["flat", "module.", "model"])
def test_loading_a_published_file_turns_the_sign_once_and_says_so(state, stored, tmp_path, form):
    content = {
        "flat": state,
        "model": {"model": state},
        "module.": {f"module.{k}": v for k, v in state.items()},
    }
    torch.save(content[form], tmp_path / "w.pth")
    loaded = checkpoint.load(tmp_path / "w.pth", opt=Namespace(ssp_upscale=SIDE))
    images = pixels(2, 3, 32, 32)
    expected = logits(stored, images)
    assert expected.abs().min() > 1e-2
    torch.testing.assert_close(logits(loaded.detector, images), -expected)
    assert loaded.arch == "ssp"
    assert [note for note in loaded.notes if "up = real" in note and "sign" in note]


def test_saved_in_our_format_the_sign_stays(published, stored, tmp_path):
    turned = checkpoint.load(published, opt=Namespace(ssp_upscale=SIDE)).detector
    checkpoint.save(tmp_path / "ours.pth", turned, options={"arch": "ssp", "ssp_upscale": SIDE})
    loaded = checkpoint.load(tmp_path / "ours.pth")
    (tmp_path / "ours.pth").unlink()  # 94 MB
    images = pixels(2, 3, 32, 32)
    torch.testing.assert_close(logits(loaded.detector, images), -logits(stored, images))
    assert loaded.notes == []


@pytest.fixture(scope="module")
def trained():
    """The detector that a training builds, before it gets its start weights."""
    return create()


@pytest.mark.parametrize("flag", ["model_path", "init_weights"])
def test_training_from_a_published_file_turns_the_sign(trained, published, state, flag):
    opt = Namespace(**{"model_path": None, "init_weights": None, "pretrained": False, flag: str(published)})
    said = start(trained, opt)
    found = trained.state_dict()
    assert "sign" in said and str(published) in said
    assert all(torch.equal(found[key], -state[key] if key in FC else state[key]) for key in state)


@pytest.mark.parametrize("flag", ["model_path", "init_weights"])
def test_training_from_a_file_of_ours_turns_nothing(trained, own, state, flag):
    opt = Namespace(**{"model_path": None, "init_weights": None, "pretrained": False, flag: str(own)})
    said = start(trained, opt)
    found = trained.state_dict()
    assert "sign" not in said and str(own) in said
    assert all(torch.equal(found[key], state[key]) for key in state)


# --- whose file it is


@pytest.mark.parametrize("name", ["cnndet", "essp", "npr", "ssp"])
def test_a_flat_file_is_recognised_by_its_keys(full_size, tmp_path, name):
    torch.save(small_state(name), tmp_path / "w.pth")
    loaded = checkpoint.load(tmp_path / "w.pth")
    assert loaded.arch == loaded.detector.arch == name


@pytest.mark.parametrize("key", ["srm.kernel", "disc.layer3.0.bn1.running_var"])
def test_a_file_that_lacks_an_entry_is_refused_and_the_entry_named(state, tmp_path, key):
    torch.save({name: value for name, value in state.items() if name != key}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=key):
        checkpoint.load(tmp_path / "w.pth", "ssp")


def test_of_a_broken_file_the_closest_detector_says_what_is_missing(state, tmp_path):
    torch.save({name: value for name, value in state.items() if name != "srm.kernel"}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="kernel"):
        checkpoint.load(tmp_path / "w.pth")


# --- flags


def test_an_evaluation_may_choose_the_patch_otherwise_than_the_training(own):
    opt = Namespace(ssp_select="dense", ssp_vote=3, ssp_stride=4)
    loaded = checkpoint.load(own, opt=opt)
    assert loaded.detector.data_config.patches == Patches(size=32, select="dense", stride=4, vote=3)
    assert loaded.identity == {"checkpoint": own.name, "checkpoint_sha256": loaded.sha256, "arch": "ssp"}


def test_without_flags_a_file_of_ours_is_as_it_was_trained(own):
    loaded = checkpoint.load(own, opt=Namespace(ssp_upscale=256, ssp_patch=32))
    assert loaded.detector.data_config.patches == Patches(size=32, select="random64", stride=8, vote=1)


@pytest.mark.parametrize("flags", [{"ssp_upscale": 128}, {"ssp_patch": 16}])
def test_a_flag_that_contradicts_a_file_of_ours_is_refused(own, flags):
    with pytest.raises(CheckpointError, match="default"):
        checkpoint.load(own, opt=Namespace(**flags))


def test_flags_describe_a_published_file(published):
    loaded = checkpoint.load(published, opt=Namespace(ssp_upscale=128, ssp_patch=16, ssp_vote=2))
    assert loaded.detector.data_config.patches == Patches(size=16, vote=2)
    assert loaded.detector.config == loaded.identity["detector"] == {"patch": 16, "upscale": 128}
    assert "patch 16, upscale 128" in loaded.notes[0]


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--ssp_vote", "0", "expected a whole number from 1 to 64, got '0'"),
        ("--ssp_stride", "x", "expected a whole number from 1 to 10000, got 'x'"),
        ("--ssp_stride", "-8", "expected"),
        ("--ssp_patch", "4", "expected a whole number from 8 to 1024, got '4'"),
        ("--ssp_upscale", "2.5", "expected a whole number from 33 to 1024, got '2.5'"),
        ("--ssp_select", "foo", "invalid choice: 'foo' (choose from "),
    ],
)
def test_a_wrong_value_stops_with_its_flag_and_reason(capsys, flag, value, reason):
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(["--arch", "ssp", flag, value])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flag}: {reason}" in said


PUBLISHED = {
    "recipe": "ssp",
    "lr": 1e-4,
    "batch_size": 64,
    "niter": 30,
    "lr_policy": "poly",
    "optim": "adam",
    "beta1": 0.9,
    "seed": 42,
    "no_flip": True,
    "pretrained": True,
    "no_resize": True,
    "cropSize": None,
    "blur_prob": 0,
    "jpg_prob": 0,
    "ssp_select": "random64",
    "ssp_vote": 1,
    "ssp_patch": 32,
    "ssp_upscale": 256,
}


def test_training_has_the_published_settings():
    opt = vars(TrainOptions().parse(["--arch", "ssp"]))
    assert {name: opt[name] for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ("--flip", {"no_flip": False}),
        ("--no_pretrained", {"pretrained": False}),
        ("--seed 1", {"seed": 1}),
        ("--lr_policy step --niter 3", {"lr_policy": "step", "niter": 3}),
    ],
)
def test_a_flag_wins_over_the_published_settings(flags, changed):
    opt = vars(TrainOptions().parse(["--arch", "ssp", *flags.split()]))
    assert {name: opt[name] for name in PUBLISHED} == {**PUBLISHED, **changed}
