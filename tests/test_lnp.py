"""DFIG's fusion against NumPy, functional calls and torchvision's trunks; its files, flags, start weights."""

import hashlib
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import SAMPLES
from PIL import Image
from torch import nn

import networks
import networks.init_weights
from common import CheckpointError
from networks import checkpoint, cycleisp
from networks.base import own_flags
from networks.cycleisp import CycleISP
from networks.init_weights import start
from networks.lnp import spectra
from options import TrainOptions, ValOptions, recipes

GOLDEN = SAMPLES / "dfig-golden" / "lnp"
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
ARCHS, MODES = ("res50", "mobilev2"), (0, 1, 2)
BOTH = [(arch, mode) for arch in ARCHS for mode in MODES]
COUNTS = {"res50": (23_516_475, 23_516_976, 333), "mobilev2": (2_225_851, 2_226_352, 327)}
EPS = 1e-8
EQUAL, WEIGHTED = (1 / 3, 1 / 3, 1 / 3), (0.11, 0.59, 0.3)
STARTS = {"model_path": None, "init_weights": None, "pretrained": False}
IDLE = ["SA.spatial.conv.weight", "conv1x1.weight", "conv1x1.bias", "conv1x1_c.weight", "conv1x1_c.bias"]
ATTENTION = [
    *IDLE,
    *(
        f"{at}.{entry}"
        for at in ("CA.conv_du.0", "CA.conv_du.2", "body.0", "body.2")
        for entry in ("weight", "bias")
    ),
]


# --- slow references


def published_shift(x, axis):
    """fftshift2d of the published code, with Python's rounding of -n // 2."""
    n = x.shape[axis]
    x = np.moveaxis(x, axis, 0)
    return np.moveaxis(np.concatenate([x[-n // 2 : n], x[0 : n // 2]]), 0, axis)


def slow_parts(x):
    """(..., H, W) -> amplitude, phase and |F| of each channel by itself, shifted, in float64."""
    f = np.fft.fft2(np.asarray(x, np.float64), norm="ortho")
    f = published_shift(published_shift(f, -2), -1)
    return (np.abs(f) + EPS) ** 0.8, np.arctan2(f.imag + EPS, f.real + EPS), np.abs(f)


def averaged(part, gray):
    return sum(weight * part[:, channel] for channel, weight in enumerate(gray))


def slow_normalised(images):
    """uint8 (B, 3, H, W) -> float64."""
    return (np.asarray(images) / 255 - MEAN[:, None, None]) / STD[:, None, None]


def turn(difference):
    """An angle's difference without whole turns."""
    return (difference + np.pi) % (2 * np.pi) - np.pi


def conv(state, name, x, padding=0):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def slow_attention(state, x):
    inner = conv(state, "DAB.body.2", F.relu(conv(state, "DAB.body.0", x, 1)), 1)
    squeezed = F.relu(conv(state, "DAB.CA.conv_du.0", inner.mean(dim=(2, 3), keepdim=True)))
    return x + inner * torch.sigmoid(conv(state, "DAB.CA.conv_du.2", squeezed))


def slow_fused(state, x, mode):
    if mode == 0:
        return torch.cat([x[:, 0:3], slow_attention(state, x[:, 3:5])], dim=1)
    return slow_attention(state, x) if mode == 1 else x


def slow_score(arch, state, x):
    """Channels that the trunk sees -> logits of torchvision's network with another first convolution."""
    if arch == "res50":
        net = torchvision.models.resnet50(num_classes=1)
        net.conv1 = nn.Conv2d(x.shape[1], 64, 7, 2, 3, bias=False)
    else:
        net = torchvision.models.mobilenet_v2(num_classes=1)
        net.features[0][0] = nn.Conv2d(x.shape[1], 32, 3, 2, 1, bias=False)
    net.load_state_dict({name: value for name, value in state.items() if not name.startswith("DAB.")})
    with torch.no_grad():
        return net.eval()(x)[:, 0]


# --- detectors, images, files


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def depth16(*shape, seed=0):
    """Signed noise as its files hold it."""
    generator = torch.Generator().manual_seed(seed)
    return (500 * torch.randn(shape, generator=generator)).round().to(torch.int16)


def create(arch="mobilev2", **flags):
    return networks.create(Namespace(arch=arch, **flags))


def on_meta(arch="mobilev2", **flags):
    with torch.device("meta"):
        return create(arch, **flags)


def stirred(arch="mobilev2", seed=0, **flags):
    """In evaluation, with batch norms and attention that do something, and scores that differ by image."""
    torch.manual_seed(seed)
    net, generator = create(arch, **flags), torch.Generator().manual_seed(seed + 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if arch == "mobilev2" and value.ndim == 4:  # its own start weights fade from layer to layer
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
            if name.startswith("DAB."):
                value.normal_(0, 0.4, generator=generator)
            if name == "DAB.CA.conv_du.0.bias":
                value.fill_(1.0)  # none of its outputs is dead
        last = net.fc if arch == "res50" else net.classifier[1]
        last.weight.normal_(0, 0.1, generator=generator)
    return net.eval()


def score(net, images):
    with torch.no_grad():
        return net(images)


def written(path, state, **beside):
    """A file with the structure of DFIG's."""
    torch.save({"model": state, "optimizer": {}, "total_steps": 1, **beside}, path)
    return path


def small(arch="mobilev2", **flags):
    """A state_dict of constants: a small file."""
    state = {}
    for name, value in on_meta(arch, **flags).state_dict().items():
        one = torch.tensor(0.01 if value.is_floating_point() else 3)
        state[name] = one.expand(value.shape)
    return state


def own_file(path, net, **flags):
    checkpoint.save(
        path, net, options={"arch": net.arch, "name": "run", **vars(own_flags(type(net), Namespace(**flags)))}
    )
    return path


def published_names():
    """Layers of the MobileNetV2 that DFIG took over, in their order; its class is told by t of each block."""
    names = ["features.0.0", "features.0.1"]
    expansions = [1] + [6] * 16
    for number, t in enumerate(expansions, start=1):
        places = (0, 1, 3, 4) if t == 1 else (0, 1, 3, 4, 6, 7)  # between them stand the ReLU6
        names += [f"features.{number}.conv.{place}" for place in places]
    return [*names, "conv.0", "conv.1", "classifier"]


def old_names(state):
    """A MobileNetV2's state_dict under the names of the published files."""
    with torch.device("meta"):
        trunk = torchvision.models.mobilenet_v2()
    theirs = [
        name
        for name, module in trunk.named_modules()
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    ]
    published = dict(zip(theirs, published_names(), strict=True))
    found = {}
    for name, value in state.items():
        layer, _, entry = name.rpartition(".")
        found[f"{published.get(layer, layer)}.{entry}"] = value
    return found


@pytest.fixture(scope="module", params=ARCHS)
def mode0(request):
    """The published default of each trunk.  Tests leave it as it was."""
    return stirred(request.param)


@pytest.fixture(scope="module")
def mobile():
    return stirred("mobilev2", seed=5)


# --- spectra


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden noise patterns at hand")
def test_spectra_of_published_noise_patterns():
    files = sorted(GOLDEN.rglob("*.png"))
    assert len(files) == 28
    for file in files:
        x = slow_normalised(np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1))
        x = torch.from_numpy(x).float()
        found = spectra(x[:, None].expand(-1, 3, -1, -1)).numpy()  # each channel as an image of its own
        amplitude, phase, size = slow_parts(x.numpy())
        for channel in range(3):
            off = np.linalg.norm(found[channel, 0] - amplitude[channel])
            assert off / np.linalg.norm(amplitude[channel]) <= 1e-6
        loud = size > 0.05
        assert loud.mean() > 0.9
        assert np.abs(turn(found[:, 1] - phase))[loud].max() < 1e-4


@pytest.mark.parametrize(("gray", "weights"), [("equal", EQUAL), ("weighted", WEIGHTED)])
@pytest.mark.parametrize("size", [(16, 16), (15, 9), (8, 13), (5, 5), (1, 4)])
def test_spectra_are_averaged_over_the_channels(gray, weights, size):
    x = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    amplitude, phase, loud = slow_parts(x)
    found = spectra(x, gray).numpy()
    assert found.shape == (4, 2, *size) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], averaged(amplitude, weights), rtol=1e-5, atol=1e-5)
    # Where a channel's phase is almost pi, rounding may give -pi: no comparison of averages there.
    clear = (loud > 0.05).all(1) & (np.pi - np.abs(phase) > 1e-3).all(1)
    assert clear.mean() > 0.3
    np.testing.assert_allclose(found[:, 1][clear], averaged(phase, weights)[clear], atol=1e-4)


def test_without_a_word_the_channels_count_alike():
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spectra(x), spectra(x, "equal"))
    assert not torch.allclose(spectra(x), spectra(x, "weighted"), atol=1e-2)


def test_the_weights_are_those_of_red_green_and_blue():
    for channel, weight in enumerate(WEIGHTED):
        x = torch.zeros(1, 3, 8, 8)
        x[:, channel] = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
        expected = weight * slow_parts(x[:, channel])[0]
        np.testing.assert_allclose(spectra(x, "weighted")[:, 0].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "order"), [(5, [2, 3, 4, 0, 1]), (4, [2, 3, 0, 1]), (3, [1, 2, 0])])
@pytest.mark.parametrize("axis", [0, 1])
def test_frequencies_have_the_published_order(n, order, axis):
    """Cosines of one frequency each: where each lands, in either axis."""
    for frequency in range(n // 2 + 1):
        wave = torch.cos(2 * torch.pi * frequency * torch.arange(n) / n)
        image = wave[:, None].expand(n, n) if axis == 0 else wave[None].expand(n, n)
        found = spectra(image.expand(1, 3, n, n))[0, 0]
        constant = order.index(0)
        line = found[:, constant] if axis == 0 else found[constant]
        assert {order[place] for place in (line > 0.1).nonzero().flatten()} == {frequency, -frequency % n}
    assert published_shift(np.arange(n), 0).tolist() == order


def test_spectra_are_float32_under_bf16_autocast():
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = spectra(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = spectra(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# --- the network


@pytest.mark.parametrize(("arch", "mode"), BOTH)
def test_it_has_the_published_number_of_parameters_and_entries(arch, mode):
    net, (first, later, entries) = on_meta(arch, train_mode=mode), COUNTS[arch]
    assert sum(value.numel() for value in net.parameters()) == (first if mode == 0 else later)
    assert all(value.requires_grad for value in net.parameters())
    assert len(net.state_dict()) == entries
    width = 2 if mode == 0 else 5
    names = [name for name in net.state_dict() if name.startswith("DAB.")]
    assert sorted(names) == sorted(f"DAB.{name}" for name in ATTENTION)
    assert net.state_dict()["DAB.conv1x1.weight"].shape == (width, 2 * width, 1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_fused_channels_are_those_of_the_published_block(mode):
    net = stirred(train_mode=mode)
    x = torch.randn(2, 5, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = net.fused_channels(x)
    expected = slow_fused(net.state_dict(), x, mode)
    attended = {0: slice(3, 5), 1: slice(0, 5), 2: slice(0, 0)}[mode]
    changed = (expected - x).abs().amax(dim=(0, 2, 3)) > 1e-2
    assert changed.nonzero().flatten().tolist() == list(range(5))[attended]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert mode != 2 or torch.equal(found, x)


def test_the_trunk_gets_the_pattern_its_amplitude_and_its_phase(mobile):
    images = pixels(2, 3, 12, 10)
    x = slow_normalised(images)
    amplitude, phase, _ = slow_parts(x)
    found = mobile.preprocess(images).numpy()
    assert found.shape == (2, 5, 12, 10) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, :3], x, atol=1e-5)
    np.testing.assert_allclose(found[:, 3], averaged(amplitude, EQUAL), rtol=1e-4, atol=1e-4)
    clear = (np.pi - np.abs(phase) > 1e-2).all(1)
    np.testing.assert_allclose(found[:, 4][clear], averaged(phase, EQUAL)[clear], atol=1e-3)


def test_floats_in_0_to_1_are_taken_like_bytes(mobile):
    images = pixels(1, 3, 12, 10)
    torch.testing.assert_close(mobile.preprocess(images / 255), mobile.preprocess(images))


@pytest.mark.parametrize(
    ("feature", "places"), [("lnp", [0, 1, 2]), ("fft", [3, 4]), ("lnp+fft", [0, 1, 2, 3, 4])]
)
def test_the_feature_picks_the_channels(mobile, feature, places):
    for arch in ARCHS:
        state = on_meta(arch, lnp_feature=feature).state_dict()
        stem = state["conv1.weight" if arch == "res50" else "features.0.0.weight"]
        assert stem.shape[1] == len(places)
        assert any(name.startswith("DAB.") for name in state) == (feature != "lnp")
    net, images = stirred(lnp_feature=feature), pixels(2, 3, 12, 10)
    x = net.preprocess(images)
    torch.testing.assert_close(x, mobile.preprocess(images)[:, places])
    attended = slow_attention(net.state_dict(), x[:, -2:]) if feature != "lnp" else x[:, 3:]
    expected = slow_score(
        "mobilev2", net.state_dict(), torch.cat([x[:, :-2], attended], 1) if feature != "lnp" else x
    )
    torch.testing.assert_close(score(net, images), expected, rtol=1e-4, atol=1e-4)


def test_weighted_channels_reach_the_trunk(mobile):
    net, images = create(lnp_gray="weighted"), pixels(1, 3, 12, 10)
    x = net.preprocess(images)
    amplitude = slow_parts(slow_normalised(images))[0]
    np.testing.assert_allclose(x[:, 3].numpy(), averaged(amplitude, WEIGHTED), rtol=1e-4, atol=1e-4)
    assert torch.equal(x[:, :3], mobile.preprocess(images)[:, :3])


def test_signed_noise_is_scaled_to_its_usual_size():
    noise = depth16(2, 3, 12, 10)
    x = create(lnp_encoding="signed").preprocess(noise)
    expected = noise.double().numpy() / 32767 / 0.0155
    np.testing.assert_allclose(x[:, :3].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        x[:, 3].numpy(), averaged(slow_parts(expected)[0], EQUAL), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("encoding", "kind"), [("signed", torch.uint8), ("signed", torch.float32), ("wrapped", torch.int16)]
)
def test_noise_of_the_other_encoding_is_refused(encoding, kind):
    with pytest.raises(ValueError, match=f"{kind}$"):
        create(lnp_encoding=encoding)(torch.zeros(1, 3, 8, 8, dtype=kind))


@pytest.mark.parametrize(("arch", "mode"), [("res50", 0), ("mobilev2", 0), ("mobilev2", 1), ("mobilev2", 2)])
def test_logits_are_those_of_torchvisions_network_on_the_fused_channels(arch, mode):
    net, images = stirred(arch, train_mode=mode), pixels(3, 3, 48, 65)
    state, x = net.state_dict(), slow_normalised(images)
    amplitude, phase, _ = slow_parts(x)
    planes = [torch.from_numpy(averaged(part, EQUAL))[:, None] for part in (amplitude, phase)]
    # The phase of real numbers below 0 hangs on rounding: those bins as the detector has them.
    ours = net.preprocess(images)[:, 4:]
    edge = torch.from_numpy((np.pi - np.abs(phase) < 1e-2).any(1))[:, None]
    assert edge.float().mean() < 0.05
    planes[1] = torch.where(edge, ours.double(), planes[1])
    channels = torch.cat([torch.from_numpy(x), *planes], dim=1).float()
    expected = slow_score(arch, state, slow_fused(state, channels, mode))
    assert expected.std() > 1e-2
    torch.testing.assert_close(score(net, images), expected, rtol=1e-3, atol=1e-3)


def test_logits_are_float32_under_bf16_autocast(mobile):
    with torch.autocast("cpu", torch.bfloat16):
        assert score(mobile, pixels(2, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_reaches_all_but_the_idle_parameters(mode):
    net = stirred(train_mode=mode)
    net(pixels(2, 3, 64, 64)).square().sum().backward()
    idle = [
        name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
    ]
    assert sorted(idle) == sorted(f"DAB.{name}" for name in (ATTENTION if mode == 2 else IDLE))


def test_attention_starts_as_published():
    """PyTorch's own uniform weights beside MobileNetV2, Kaiming's normal ones beside ResNet-50."""
    torch.manual_seed(0)
    bound = (1 / (5 * 9)) ** 0.5
    starts = {arch: create(arch, train_mode=1).DAB.body[0].weight.detach() for arch in ARCHS}
    assert starts["mobilev2"].abs().max() <= bound
    assert starts["res50"].abs().max() > 2 * bound
    assert abs(starts["res50"].std() / (2 / (5 * 9)) ** 0.5 - 1) < 0.2


@pytest.mark.parametrize(("arch", "name"), [("res50", "layer4.2"), ("mobilev2", "features.18")])
def test_activation_maps_come_from_the_last_convolutions(arch, name):
    net = on_meta(arch)
    assert net.cam_layer is net.get_submodule(name)


# --- published files


def test_a_published_file_of_mode_0_is_found_without_flags(mode0, tmp_path):
    path = written(tmp_path / "model_epoch_best.pth", mode0.state_dict())
    loaded = checkpoint.load(path)
    path.unlink()  # 94 MB
    images = pixels(2, 3, 32, 32)
    expected = score(mode0, images)
    assert expected.std() > 1e-2
    assert torch.equal(score(loaded.detector.eval(), images), expected)
    assert (loaded.arch, loaded.detector.mode, loaded.options) == (mode0.arch, 0, {})
    assert len(loaded.notes) == 1 and mode0.arch in loaded.notes[0]


@pytest.mark.parametrize("arch", ARCHS)
def test_a_file_of_mode_1_or_2_asks_for_the_flags_that_decide(arch, tmp_path):
    path = written(tmp_path / "w.pth", small(arch, train_mode=1))
    for given in (None, arch):
        with pytest.raises(CheckpointError, match=f"--arch {arch} --train_mode"):
            checkpoint.load(path, given)


@pytest.mark.parametrize(("arch", "mode"), [("res50", 2), ("mobilev2", 1), ("mobilev2", 2)])
def test_the_flags_decide_a_file_of_mode_1_or_2(arch, mode, tmp_path):
    path = written(tmp_path / "w.pth", small(arch, train_mode=3 - mode))
    loaded = checkpoint.load(path, arch, Namespace(train_mode=mode))
    assert (loaded.arch, loaded.detector.mode) == (arch, mode)
    assert loaded.identity["detector"] == {"train_mode": mode}
    assert f"train_mode {mode}" in loaded.notes[0]


@pytest.mark.parametrize("mode", [1, 2])
def test_scores_of_mode_1_and_2_differ_and_are_those_of_the_source(mode, tmp_path):
    net = stirred(train_mode=mode)
    path = written(tmp_path / "w.pth", net.state_dict())
    images = pixels(2, 3, 32, 32)
    expected = score(net, images)
    for given in (1, 2):
        loaded = checkpoint.load(path, "mobilev2", Namespace(train_mode=given)).detector.eval()
        assert torch.equal(score(loaded, images), expected) == (given == mode)


@pytest.mark.parametrize(("held", "given", "words"), [(0, 1, "0"), (0, 2, "0"), (1, 0, "1 or 2")])
def test_a_train_mode_that_contradicts_a_published_file_is_refused(held, given, words, tmp_path):
    path = written(tmp_path / "w.pth", small(train_mode=held))
    with pytest.raises(CheckpointError, match=f"mode {words};"):
        checkpoint.load(path, "mobilev2", Namespace(train_mode=given))


def test_another_trunk_is_not_taken_for_this_one(tmp_path):
    path = written(tmp_path / "w.pth", small("mobilev2"))
    with pytest.raises(CheckpointError, match="res50"):
        checkpoint.load(path, "res50")


@pytest.mark.parametrize("name", ["DAB.SA.spatial.conv.weight", "features.7.conv.1.0.weight"])
def test_an_entry_that_is_missing_is_named(name, tmp_path):
    state = {key: value for key, value in small().items() if key != name}
    path = written(tmp_path / "w.pth", state)
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(path, "mobilev2")


def test_a_published_file_says_what_else_it_was_trained_for(mobile, tmp_path):
    path = written(tmp_path / "w.pth", mobile.state_dict())
    loaded = checkpoint.load(path, "mobilev2", Namespace(lnp_encoding="signed", lnp_gray="weighted"))
    assert loaded.identity["detector"] == {"source": "signed", "gray": "weighted"}
    assert loaded.detector.data_config.noise_bits == 16


# --- MobileNetV2 under the names of the network that DFIG took over


def test_the_old_names_are_327_and_other():
    names = set(old_names(on_meta().state_dict()))
    ours = set(on_meta().state_dict())
    assert len(names) == 327
    assert {
        "conv.0.weight",
        "conv.1.running_var",
        "classifier.bias",
        "features.1.conv.3.weight",
        "features.17.conv.7.num_batches_tracked",
    } <= names - ours
    assert {name for name in names if name.startswith("DAB.")} <= ours


@pytest.mark.parametrize(
    ("mode", "spurious", "prefix"), [(0, True, ""), (0, True, "module."), (0, False, ""), (1, True, "")]
)
def test_published_mobilenets_are_loaded(tmp_path, mode, spurious, prefix):
    net = stirred(train_mode=mode, seed=5)
    state = old_names(net.state_dict())
    if spurious:
        state = {**state, "fc.weight": torch.randn(1, 2048), "fc.bias": torch.zeros(1)}
    path = written(tmp_path / "w.pth", {prefix + name: value for name, value in state.items()})
    loaded = checkpoint.load(path, *(["mobilev2", Namespace(train_mode=1)] if mode else []))
    images = pixels(2, 3, 32, 32)
    assert torch.equal(score(loaded.detector.eval(), images), score(net, images))
    assert (loaded.arch, loaded.detector.mode) == ("mobilev2", mode)
    said = [note for note in loaded.notes if "fc" in note and "left out" in note]
    assert len(said) == spurious and len(loaded.notes) == 1 + spurious


def test_training_starts_from_a_published_file(mobile, tmp_path):
    state = {**old_names(mobile.state_dict()), "fc.weight": torch.zeros(1, 2048), "fc.bias": torch.zeros(1)}
    path = written(tmp_path / "w.pth", state)
    net = create()
    said = start(net, Namespace(**{**STARTS, "model_path": str(path)}))
    images = pixels(2, 3, 32, 32)
    assert torch.equal(score(net.eval(), images), score(mobile, images))
    assert "left out" in said and str(path) in said


# --- start weights


@pytest.fixture(scope="module")
def imagenets():
    """State dicts shaped as torchvision's, with values of their own."""
    found = {}
    for arch, make in (("res50", torchvision.models.resnet50), ("mobilev2", torchvision.models.mobilenet_v2)):
        with torch.device("meta"):
            state = make().state_dict()
        found[arch] = {
            name: torch.full((), 0.001 * number).to(value.dtype).expand(value.shape)
            for number, (name, value) in enumerate(state.items(), start=1)
        }
    return found


@pytest.mark.parametrize(
    ("arch", "name", "stem", "last", "count"),
    [
        ("res50", "ResNet50_Weights.IMAGENET1K_V1", "conv1", "fc", 317),
        ("mobilev2", "MobileNet_V2_Weights.IMAGENET1K_V1", "features.0.0", "classifier.1", 311),
    ],
)
def test_imagenets_weights_are_those_of_the_trunk(monkeypatch, imagenets, arch, name, stem, last, count):
    asked = []
    monkeypatch.setattr(networks.init_weights, "imagenet", lambda name: asked.append(name) or imagenets[arch])
    net = create(arch)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    said = start(net, Namespace(**{**STARTS, "pretrained": True}))
    assert asked == [name] and name in said
    assert f"starts from {count} of {len(before)} entries" in said
    left = {f"{stem}.weight", f"{last}.weight", f"{last}.bias"}
    taken = imagenets[arch].keys() - left
    assert len(taken) == count
    assert all(
        torch.equal(value, imagenets[arch][key] if key in taken else before[key])
        for key, value in net.state_dict().items()
    )


def test_an_imagenet_file_with_the_old_names_reaches_all_but_stem_and_classifier(imagenets, tmp_path):
    state = imagenets["mobilev2"]
    torch.save(old_names(state), tmp_path / "mobilenetv2-c5e733a8.pth")
    net = create()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    said = start(net, Namespace(**{**STARTS, "init_weights": str(tmp_path / "mobilenetv2-c5e733a8.pth")}))
    left = {"features.0.0.weight", "classifier.1.weight", "classifier.1.bias"}
    assert "starts from 311 of 327 entries" in said and "not used" not in said
    assert all(name in said for name in left)
    assert all(
        torch.equal(value, before[key] if key in left or key.startswith("DAB.") else state[key])
        for key, value in net.state_dict().items()
    )


# --- flags


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--lnp_input image", "--lnp_denoiser"),
        ("--lnp_denoiser w.pth", "--lnp_input"),
        ("--lnp_input image --lnp_denoiser none --lnp_encoding signed", "--lnp_encoding"),
        ("--lnp_feature lnp --train_mode 1", "--train_mode"),
        ("--lnp_feature lnp --train_mode 2", "--train_mode"),
        ("--lnp_feature fft --train_mode 1", "--train_mode"),
        ("--train_mode 3", "--train_mode"),
    ],
)
def test_flags_that_do_not_go_together_stop_a_script_and_a_build(capsys, flags, named):
    words = flags.split()
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(["--arch", "mobilev2", *words])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    given = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    given |= {"train_mode": int(given.get("train_mode", 0))}
    with pytest.raises(ValueError, match=named):
        on_meta(**given)


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--lnp_input image --lnp_denoiser none",
        "--lnp_input image --lnp_denoiser w.pth --lnp_encoding signed",
        "--lnp_denoiser none",
        "--lnp_feature fft --train_mode 2",
        "--lnp_feature lnp",
        "--lnp_eval full",
    ],
)
def test_flags_that_go_together_are_taken(flags):
    opt = TrainOptions().parse(["--arch", "mobilev2", *flags.split()])
    given = dict(zip(flags.split()[::2], flags.split()[1::2], strict=True))
    assert {name: str(getattr(opt, name.removeprefix("--"))) for name in given} == given


@pytest.mark.parametrize(
    ("flags", "bits", "view", "configuration", "words"),
    [
        ({}, 8, "training", {}, "default options"),
        ({"train_mode": 1}, 8, "training", {"train_mode": 1}, "train_mode 1"),
        ({"lnp_encoding": "signed"}, 16, "training", {"source": "signed"}, "source signed"),
        (
            {"lnp_input": "image", "lnp_denoiser": "none"},
            *(None, "training", {"source": "image"}, "source image"),
        ),
        (
            {"lnp_encoding": "signed", "lnp_eval": "full", "train_mode": 2},
            *(16, "stored", {"source": "signed", "train_mode": 2}, "source signed, train_mode 2"),
        ),
        (
            {"lnp_feature": "fft", "lnp_gray": "weighted"},
            *(8, "training", {"feature": "fft", "gray": "weighted"}, "feature fft, gray weighted"),
        ),
    ],
)
@pytest.mark.parametrize("arch", ARCHS)
def test_what_images_it_takes_and_what_its_weights_depend_on(arch, flags, bits, view, configuration, words):
    net = on_meta(arch, **flags)
    config = net.data_config
    assert (config.load_size, config.crop_size, config.enlargement) == (None, 224, 1)
    assert (config.noise_bits, config.geometry_source) == (bits, view)
    assert (net.config, net.companions) == (configuration, {})
    assert networks.describe(net) == f"{arch}, {words}"
    assert "--arch npr" in net.remark


def test_the_image_itself_may_stand_for_the_noise(mobile):
    net = create(lnp_input="image", lnp_denoiser="none").eval()
    net.load_state_dict(mobile.state_dict())
    images = pixels(2, 3, 32, 32)
    assert torch.equal(score(net, images), score(mobile, images))
    assert (net.denoiser, net.companions, net.data_config.enlargement) == (None, {}, 1)


# --- the denoiser on the fly


@pytest.fixture(scope="module")
def cleaner():
    """A random denoiser whose noise can be seen in 8 bits."""
    torch.manual_seed(4)
    net = CycleISP()
    with torch.no_grad():
        net.tail[0].weight.mul_(2)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def cleaner_file(cleaner, tmp_path_factory):
    path = tmp_path_factory.mktemp("denoiser") / "sidd_rgb.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in cleaner.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module")
def trained(mobile, tmp_path_factory):
    """{encoding: a file of ours, trained on files of noise patterns}."""
    folder = tmp_path_factory.mktemp("trained")
    return {
        encoding: own_file(folder / f"{encoding}.pth", mobile, lnp_encoding=encoding)
        for encoding in ("wrapped", "signed")
    }


@pytest.mark.parametrize("encoding", ["wrapped", "signed"])
def test_an_image_scores_as_the_file_of_its_noise(trained, cleaner_file, encoding):
    on_files = checkpoint.load(trained[encoding])
    on_images = checkpoint.load(
        trained[encoding], opt=Namespace(lnp_input="image", lnp_denoiser=str(cleaner_file))
    )
    images = pixels(2, 3, 16, 12)
    noise = cycleisp.load(cleaner_file).encoded_noise(images / 255, encoding)
    assert noise.dtype == {"wrapped": torch.uint8, "signed": torch.int16}[encoding]
    assert noise.unique().numel() > 5
    expected = score(on_files.detector.eval(), noise)
    assert torch.equal(score(on_images.detector.eval(), images), expected)
    assert torch.equal(score(on_images.detector, images / 255), expected)
    assert (score(on_files.detector, noise.flip(1)) - expected).abs().min() > 1e-3
    assert on_images.detector.config == on_files.detector.config
    assert on_images.detector.data_config.noise_bits is None
    assert on_files.detector.data_config.noise_bits == {"wrapped": 8, "signed": 16}[encoding]
    assert on_images.options == on_files.options and on_files.notes == []
    assert on_images.notes == [f"denoiser_sha256 {checkpoint.sha256(cleaner_file)[:12]}"]


def test_the_denoiser_is_no_part_of_the_weights(cleaner_file):
    net, plain = create(lnp_input="image", lnp_denoiser=str(cleaner_file)), on_meta()
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert net.denoiser in [*net.modules()] and not [*net.denoiser.parameters()]
    before = [buffer.clone() for buffer in net.denoiser.buffers()]
    assert before and not [buffer for buffer in before if buffer.requires_grad]
    net.train()
    net(pixels(2, 3, 16, 16)).sum().backward()
    assert all(map(torch.equal, before, net.denoiser.buffers()))
    assert net.features[0][0].weight.grad.abs().sum() > 0


def test_a_record_of_results_names_the_denoiser(trained, cleaner_file):
    loaded = checkpoint.load(
        trained["wrapped"], opt=Namespace(lnp_input="image", lnp_denoiser=str(cleaner_file))
    )
    digest = hashlib.sha256(cleaner_file.read_bytes()).hexdigest()
    assert loaded.detector.companions == {"denoiser_sha256": digest}
    assert loaded.identity["denoiser_sha256"] == digest
    assert loaded.detector.data_config.enlargement > 1
    without = checkpoint.load(trained["wrapped"])
    assert "denoiser_sha256" not in without.identity and without.detector.data_config.enlargement == 1


def test_a_denoiser_that_is_missing_or_another_network_is_refused(trained, tmp_path):
    for path, words in ((tmp_path / "absent.pth", "--lnp_denoiser"), (trained["wrapped"], "CycleISP")):
        with pytest.raises(ValueError, match=words):
            create(lnp_input="image", lnp_denoiser=str(path))


def test_noise_is_exact_under_bf16_autocast(trained, cleaner, cleaner_file):
    net = create(lnp_input="image", lnp_denoiser=str(cleaner_file))
    images = pixels(1, 3, 16, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = net.noise(images)
    assert torch.equal(found, cleaner.encoded_noise(images / 255, "wrapped"))


@pytest.mark.parametrize("flags", [{"lnp_eval": "full"}, {"lnp_input": "lnp"}, {"train_mode": 0}])
def test_a_file_of_ours_takes_flags_of_the_evaluation(trained, flags):
    loaded = checkpoint.load(trained["wrapped"], opt=Namespace(**flags))
    full = flags.get("lnp_eval") == "full"
    assert loaded.detector.data_config.geometry_source == ("stored" if full else "training")
    assert loaded.arch == "mobilev2"


@pytest.mark.parametrize(
    "flags",
    [
        {"train_mode": 1},
        {"train_mode": 2},
        {"lnp_gray": "weighted"},
        {"lnp_encoding": "signed"},
        {"lnp_feature": "fft"},
        {"lnp_input": "image", "lnp_denoiser": "none"},
    ],
)
def test_a_flag_that_contradicts_a_file_of_ours_is_refused(trained, flags):
    with pytest.raises(CheckpointError, match="default options"):
        checkpoint.load(trained["wrapped"], opt=Namespace(**flags))


def test_a_detector_trained_on_the_image_itself_takes_no_noise(mobile, tmp_path):
    path = own_file(tmp_path / "w.pth", mobile, lnp_input="image", lnp_denoiser="none")
    loaded = checkpoint.load(path)
    assert loaded.detector.data_config.noise_bits is None
    with pytest.raises(CheckpointError, match="source image"):
        checkpoint.load(path, opt=Namespace(lnp_input="lnp"))


def test_a_detector_trained_with_its_denoiser_may_be_given_files(mobile, cleaner_file, tmp_path):
    path = own_file(tmp_path / "w.pth", mobile, lnp_input="image", lnp_denoiser=str(cleaner_file))
    assert checkpoint.load(path).detector.denoiser
    loaded = checkpoint.load(path, opt=Namespace(lnp_input="lnp", lnp_denoiser="none"))
    assert loaded.detector.denoiser is None and loaded.detector.data_config.noise_bits == 8
    with pytest.raises(CheckpointError, match="--lnp_input"):
        checkpoint.load(path, opt=Namespace(lnp_input="lnp"))


# --- the published settings

COMMAND = "--name mob_mode0_cha --dataroot ./results_mask/LNP --classes face --arch mobilev2 --train_mode 0"
PUBLISHED = {
    "recipe": "dfig",
    "lr": 1e-4,
    "batch_size": 32,
    "lr_policy": "plateau",
    "earlystop_epoch": 5,
    "min_lr": 1e-6,
    "niter": 10_000,
    "optim": "adam",
    "beta1": 0.9,
    "cropSize": 224,
    "no_resize": True,
    "no_flip": False,
    "blur_prob": 0,
    "jpg_prob": 0,
    "pretrained": True,
    "train_mode": 0,
    "lnp_input": "lnp",
    "lnp_denoiser": None,
    "lnp_encoding": "wrapped",
    "lnp_gray": "equal",
    "lnp_feature": "lnp+fft",
    "lnp_eval": "train",
}


def test_the_published_command_has_the_published_settings():
    opt = vars(TrainOptions().parse(COMMAND.split()))
    assert {name: opt[name] for name in PUBLISHED} == PUBLISHED
    assert {recipes.for_arch(arch) for arch in ARCHS} == {"dfig"}
    assert (opt["name"], opt["arch"], list(opt["classes"])) == ("mob_mode0_cha", "mobilev2", ["face"])


@pytest.mark.parametrize("flag", ["--train_mode", "--lnp_fusion"])
def test_the_mode_has_two_names(flag):
    for arch in ARCHS:
        opt = TrainOptions().parse(["--arch", arch, flag, "2"])
        assert opt.train_mode == 2 and not hasattr(opt, "lnp_fusion")
        assert on_meta(**vars(opt)).mode == 2


@pytest.mark.parametrize("options", [TrainOptions, ValOptions])
@pytest.mark.parametrize("flag", ["--train_mode", "--lnp_fusion"])
def test_the_mode_without_its_detector_names_both(capsys, flag, options):
    with pytest.raises(SystemExit) as stopped:
        options().parse([flag, "0"])
    assert stopped.value.code == 2
    assert "mobilev2 or res50" in capsys.readouterr().err.splitlines()[-1]


def test_an_evaluation_gives_on_only_the_flags_that_were_typed():
    opt = vars(ValOptions().parse("--model_path w.pth --arch mobilev2 --train_mode 1".split()))
    own = vars(own_flags(networks.get("mobilev2"), Namespace()))
    assert {name: opt[name] for name in own if name in opt} == {"train_mode": 1}


@pytest.mark.parametrize("height, width", [(40, 40), (40, 33), (33, 250)])
def test_real_frequencies_have_phase_0_or_pi_whatever_the_rounding(height, width):
    rng = np.random.default_rng(0)
    rows = (0, height // 2) if height % 2 == 0 else (0,)
    columns = (0, width // 2) if width % 2 == 0 else (0,)
    for _ in range(20):
        channel = rng.normal(size=(height, width)).astype(np.float32)
        images = torch.from_numpy(channel).expand(1, 3, -1, -1)
        phase = torch.fft.fftshift(spectra(images)[0, 1], dim=(0, 1))  # back to frequency 0 first
        exact = np.fft.fft2(channel.astype(np.float64), norm="ortho").real
        for row in rows:
            for column in columns:
                expected = np.pi if exact[row, column] < 0 else 0.0
                assert abs(float(phase[row, column]) - expected) < 1e-4, (row, column)


# --- a GPU


@pytest.mark.cuda
def test_spectra_on_the_gpu_are_those_of_the_cpu():
    x = torch.randn(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    expected, found = spectra(x), spectra(x.cuda()).cpu()
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=1e-4, atol=1e-5)
    turned = (found[:, 1] - expected[:, 1]).abs()  # a third of a turn where one channel jumps at pi
    assert (turned > 1e-2).float().mean() < 0.01


@pytest.mark.cuda
def test_the_denoiser_follows_the_detector_to_the_gpu(cleaner_file, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net = create(lnp_input="image", lnp_denoiser=str(cleaner_file), lnp_encoding="signed").eval()
    images = pixels(2, 3, 32, 32)
    expected = score(net, images)
    net = net.to("cuda", memory_format=torch.channels_last)
    with torch.inference_mode():
        found = net(images.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0.05)
