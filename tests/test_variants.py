"""Variants of the NPR detector: what conv1 sees, where attention sits, sizes, flags, and weight files."""

import functools
import math
from argparse import Namespace
from fractions import Fraction
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn
from torchvision.models import resnet50

import networks
from common import CheckpointError, UserError
from networks import checkpoint
from networks.attention import FORMS
from networks.color import SPACES
from networks.npr import FRONTS, FUSIONS, MODES, WINDOWS, Fusion, local_gradient, references, scaled
from networks.resnet import NPRDetector
from networks.variants import ATTENTION_KEYS, ATTENTIONS, NORMS, STAGES, STEMS, Variant
from options import TrainOptions, ValOptions
from tools import benchmark

pytestmark = pytest.mark.usefixtures("small_npr")
THREE = "--npr_factors 0.25,0.5,0.75"
CVIMG = f"{THREE} --npr_attention channel --npr_unused spatial"  # CVIMGDetection's last source
COMBINED = [
    "--npr_factor 0.3 --npr_mode area",
    "--npr_factors 0.2,0.4,0.6,0.8 --npr_fusion scale_attention --npr_mode area",
    f"{THREE} --npr_fusion scale_attention --npr_color gray --npr_norm none",
    "--npr_front local_grad --npr_norm none --npr_color lab",
    "--npr_front none --npr_color hsv --npr_attention spatial",
    "--npr_unused channel_spatial",
    CVIMG,
    f"{THREE} --npr_fusion concat --npr_stages 3 --npr_attention channel_spatial",
]
# Flag, its choices, the choice of the published detector, and what has to be given with it.
CHOICES = [
    ("npr_front", FRONTS, "npr", ""),
    ("npr_fusion", FUSIONS, None, THREE),
    ("npr_color", SPACES, "rgb", ""),
    ("npr_norm", NORMS, "imagenet", ""),
    ("npr_attention", ATTENTIONS, "none", ""),
    ("npr_attention_form", FORMS, "sum", "--npr_attention channel"),
    ("npr_stem", STEMS, "3x3s2", ""),
    ("npr_stages", STAGES, 2, ""),
    ("npr_mode", MODES, "nearest", ""),
    ("npr_window", WINDOWS[1:], None, "--npr_ref mean"),
    ("npr_ref", references(2), "w1", "--npr_window 2"),
]
EVERY_CHOICE = [
    f"{given} --{flag} {choice}".strip()
    for flag, choices, published, given in CHOICES
    for choice in choices
    if choice != published
]


@functools.cache
def parse(line):
    """The options of a training; `--npr_unused KIND`, which is no flag, sets what old files have."""
    line, _, unused = line.partition("--npr_unused ")
    opt = TrainOptions().parse(line.split())
    opt.npr_unused = unused or "none"
    return opt


def unused_entries(detector):
    """Names of parameters that no output depends on."""
    kinds = ATTENTIONS[detector.variant.unused]
    keys = tuple(ATTENTION_KEYS[kind] for kind in kinds)
    return {name for name, _ in detector.named_parameters() if kinds and name.startswith(keys)}


def build(line="", seed=0):
    opt = parse(line)
    torch.manual_seed(seed)
    return networks.create(opt)


def pixels(batch=2, height=32, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def stir(detector, seed=1):
    """Moves every entry away from its start, so that no two places of the network are alike."""
    generator = torch.Generator().manual_seed(seed)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.weight.copy_(0.5 + torch.rand(count, generator=generator))
            module.bias.copy_(0.2 * torch.randn(count, generator=generator))
            module.running_mean.copy_(0.2 * torch.randn(count, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(count, generator=generator))
    for name, value in detector.named_parameters():
        if name.startswith("npr_"):
            value.add_(torch.rand(value.shape, generator=generator))
    return detector


@functools.cache
def front_of(line=""):
    """A detector for tests that only look at what conv1 sees; shared by all of them."""
    return build(line)


@functools.cache
def trained(line=""):
    """A detector as after training, for tests that only ask it; shared by all of them."""
    return stir(build(line)).eval()


def normalised(images, space="rgb"):
    """The image as a detector of that colour space has it before its NPR layer."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (SPACES[space].mean, SPACES[space].std))
    return (SPACES[space].convert(images.float() / 255) - mean) / std


def published_map(x):
    small = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    return x - F.interpolate(small, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)


def slow_map(x, factor):
    """The map of one factor, pixel by pixel, at the size of x."""
    taken = []
    for length in x.shape[-2:]:
        small = max(1, math.floor(length * Fraction(str(factor))))
        taken.append([(place * small // length) * length // small for place in range(length)])
    result = torch.empty_like(x)
    for row, column in product(*map(range, x.shape[-2:])):
        result[..., row, column] = x[..., row, column] - x[..., taken[0][row], taken[1][column]]
    return result


def parameters(detector):
    return sum(parameter.numel() for parameter in detector.parameters())


# --- sizes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
def test_every_factor_in_every_mode_keeps_the_size_of_the_image(factor, mode):
    detector = front_of(f"--npr_factor {factor} --npr_mode {mode}")
    trims = (factor, mode) == (0.5, "nearest")
    for height, width in [(31, 32), (32, 33), (33, 34), (34, 31), (64, 65)]:
        result = detector.preprocess(pixels(1, height, width))
        expected = (height // 2 * 2, width // 2 * 2) if trims else (height, width)
        assert result.shape == (1, 3, *expected)
        assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    "line",
    [*(f"{THREE} --npr_fusion {name}" for name in FUSIONS), "--npr_front none", "--npr_front local_grad"],
)
def test_fusions_and_other_fronts_keep_odd_sizes(line):
    channels = 9 if "concat" in line else 3
    assert front_of(line).preprocess(pixels(1, 31, 33)).shape == (1, channels, 31, 33)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_is_the_smallest_image_of_its_own_detector(window):
    detector = front_of(f"--npr_window {window}")
    assert (detector.data_config.min_side, NPRDetector.data_config.min_side) == (window, 2)
    with pytest.raises(ValueError, match=f"{window}x{window}"):
        detector(pixels(1, window - 1, 9))


# --- what conv1 sees


@pytest.mark.parametrize("space", SPACES)
def test_the_map_is_that_of_the_converted_and_normalised_image(space):
    images = pixels(2, 12, 18)
    expected = published_map(normalised(images, space)) * 2 / 3
    torch.testing.assert_close(front_of(f"--npr_color {space}").preprocess(images), expected)


@pytest.mark.parametrize("space", ["rgb", "lab", "gray"])
def test_norm_after_takes_the_map_of_the_raw_image(space):
    images = pixels(2, 12, 18)
    expected = published_map(SPACES[space].convert(images.float() / 255)) * 2 / 3
    torch.testing.assert_close(front_of(f"--npr_color {space} --npr_norm none").preprocess(images), expected)


@pytest.mark.parametrize("space", ["rgb", "hsv", "gray"])
def test_no_front_is_the_normalised_image(space):
    images = pixels(2, 11, 18)
    result = front_of(f"--npr_front none --npr_color {space}").preprocess(images)
    torch.testing.assert_close(result, normalised(images, space))


def test_no_front_without_normalisation_is_the_image_in_0_to_1():
    images = pixels(2, 11, 18)
    assert torch.equal(front_of("--npr_front none --npr_norm none").preprocess(images), images.float() / 255)


def test_the_local_gradient_is_not_scaled():
    images = pixels(2, 11, 18)
    result = front_of("--npr_front local_grad").preprocess(images)
    torch.testing.assert_close(result, local_gradient(normalised(images)))
    assert result.max() > 2 / 3 + 0.1


@pytest.mark.parametrize("factor", [0.25, 0.3, 0.75])
def test_one_factor_is_scaled_by_two_thirds(factor):
    images = pixels(1, 13, 18)
    expected = slow_map(normalised(images), factor) * 2 / 3
    torch.testing.assert_close(front_of(f"--npr_factor {factor}").preprocess(images), expected)


def test_windows_are_scaled_by_two_thirds_and_trimmed():
    images = pixels(1, 13, 18)
    result = front_of("--npr_window 4 --npr_ref max").preprocess(images)
    x = normalised(images)[..., :12, :16]
    largest = F.max_pool2d(x, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(result, (x - largest) * 2 / 3)


@pytest.mark.parametrize("spelt", ["--npr_factor 0.5", "--npr_mode nearest", "--npr_window 2 --npr_ref w1"])
def test_the_published_layer_spelt_out_has_the_published_bits(spelt):
    images = pixels(2, 32, 33)
    assert torch.equal(front_of(spelt).preprocess(images), front_of().preprocess(images))


# --- several scales


def maps_of(images, factors):
    x = normalised(images)
    return {factor: slow_map(x, factor) for factor in factors}


FACTORS = pytest.mark.parametrize("factors", [(0.25, 0.5, 0.75), (0.9, 0.1), (0.2, 0.4, 0.6, 0.8)])


def fused(factors, fusion):
    return stir(build(f"--npr_factors {','.join(map(str, factors))} --npr_fusion {fusion}"))


@FACTORS
def test_learned_weights_are_a_softmax_times_the_learned_scale(factors):
    detector, images = fused(factors, "weights"), pixels(2, 13, 18)
    powers = [math.exp(weight) for weight in detector.npr_weights.tolist()]
    expected = 0
    for power, one in zip(powers, maps_of(images, factors).values(), strict=True):
        expected = expected + power / sum(powers) * one
    torch.testing.assert_close(
        detector.preprocess(images), expected * detector.npr_scale_factor.item(), rtol=1e-4, atol=1e-5
    )


@FACTORS
def test_learned_weights_start_as_a_mean_times_two_thirds(factors):
    listed = ",".join(map(str, factors))
    detector, images = build(f"--npr_factors {listed}"), pixels(1, 13, 18)
    assert detector.npr_weights.tolist() == [1.0] * len(factors)
    assert detector.npr_scale_factor.item() == pytest.approx(2 / 3)
    average = build(f"--npr_factors {listed} --npr_fusion average")
    torch.testing.assert_close(detector.preprocess(images), average.preprocess(images))


@FACTORS
def test_concat_puts_the_maps_in_the_order_of_the_factors(factors):
    detector, images = fused(factors, "concat"), pixels(2, 13, 18)
    result = detector.preprocess(images)
    assert result.shape[1] == detector.conv1.in_channels == 3 * len(factors)
    for number, one in enumerate(maps_of(images, factors).values()):
        torch.testing.assert_close(result[:, 3 * number : 3 * number + 3], one * 2 / 3)


@FACTORS
def test_average_is_the_mean_of_the_maps(factors):
    images = pixels(2, 13, 18)
    expected = sum(maps_of(images, factors).values()) / len(factors) * 2 / 3
    torch.testing.assert_close(fused(factors, "average").preprocess(images), expected, rtol=1e-4, atol=1e-5)


@FACTORS
def test_scale_attention_weighs_every_image_by_its_own_mean_colour(factors):
    detector = fused(factors, "scale_attention")
    images = torch.cat([pixels(1, 13, 18) // 3, 255 - pixels(1, 13, 18, seed=1) // 2])
    first, second = detector.scale_attention.attention[0], detector.scale_attention.attention[2]
    maps, weights = maps_of(images, factors), []
    for number, image in enumerate(normalised(images)):
        hidden = (first.weight @ image.flatten(1).mean(dim=1) + first.bias).clamp(min=0)
        powers = (second.weight @ hidden + second.bias).exp().tolist()
        weights.append([power / sum(powers) for power in powers])
        expected = sum(w * one[number] for w, one in zip(weights[-1], maps.values(), strict=True))
        torch.testing.assert_close(
            detector.preprocess(images)[number], expected * 2 / 3, rtol=1e-4, atol=1e-5
        )
    assert abs(weights[0][0] - weights[1][0]) > 1e-3  # the two images differ


# --- attention


ATTENTION = {
    "none": [],
    "channel": ["ca"],
    "spatial": ["spatial_att"],
    "channel_spatial": ["ca", "spatial_att"],
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_sits_where_cvimgdetection_has_it(kind):
    """Channel attention before the pooling and after layer1, spatial after layer1 and after layer2."""
    detector, order = build(f"--npr_attention {kind}").eval(), []
    for name, module in detector.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    detector(pixels())
    expected = "conv1 bn1 relu ca1 maxpool layer1 ca2 spatial_att1 layer2 spatial_att2 fc1".split()
    absent = [
        name
        for other in ("ca", "spatial_att")
        if other not in ATTENTION[kind]
        for name in (other + "1", other + "2")
    ]
    assert order == [name for name in expected if name not in absent]


@pytest.mark.parametrize("form", ["sum", "cbam"])
def test_the_logits_with_attention_are_those_of_a_network_spelt_out(form):
    detector = stir(build(f"--npr_attention channel_spatial --npr_attention_form {form}")).eval()
    state = detector.state_dict()

    def channel(x, place):
        answers = []
        for summary in (x.mean(dim=(2, 3)), x.flatten(2).max(dim=2).values):
            hidden = F.relu(summary @ state[f"ca{place}.fc.0.weight"].T)
            answers.append(hidden @ state[f"ca{place}.fc.2.weight"].T)
        mean, largest = answers
        gate = mean.sigmoid() + largest.sigmoid() if form == "sum" else (mean + largest).sigmoid()
        return x * gate[..., None, None]

    def spatial(x, place):
        summary = torch.stack([x.mean(dim=1), x.max(dim=1).values], dim=1)
        return x * F.conv2d(summary, state[f"spatial_att{place}.conv.weight"], padding=3).sigmoid()

    images = pixels(3, 40, 36)
    with torch.no_grad():
        x = published_map(normalised(images)) * 2 / 3
        x = F.relu(detector.bn1(F.conv2d(x, state["conv1.weight"], stride=2, padding=1)))
        x = F.max_pool2d(channel(x, 1), 3, stride=2, padding=1)
        x = spatial(channel(detector.layer1(x), 2), 1)
        x = spatial(detector.layer2(x), 2)
        expected = x.mean(dim=(2, 3)) @ state["fc1.weight"][0] + state["fc1.bias"]
        torch.testing.assert_close(detector(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["channel", "spatial", "channel_spatial"])
def test_unused_attention_changes_no_logit_and_is_named(kind):
    images, detector = pixels(), stir(build(f"--npr_unused {kind}")).eval()
    with torch.no_grad():
        assert torch.equal(detector(images), trained()(images))
    extra = {name for name, _ in detector.named_parameters()} - {
        name for name, _ in build().named_parameters()
    }
    assert unused_entries(detector) == extra != set()


# --- stem and stages


@pytest.mark.parametrize(
    ("stem", "shape", "side"),
    [("3x3s2", (64, 3, 3, 3), 16), ("7x7s2", (64, 3, 7, 7), 16), ("3x3s1", (64, 3, 3, 3), 32)],
)
def test_a_stem_has_its_kernel_and_stride(stem, shape, side):
    detector = build(f"--npr_stem {stem}")
    assert detector.conv1.weight.shape == shape and detector.conv1.bias is None
    assert detector.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 64, side, side)


def test_all_stages_with_the_large_stem_and_no_front_are_torchvisions_resnet50(full_size):
    detector = stir(build("--npr_front none --npr_stem 7x7s2 --npr_stages 4")).eval()
    plain = resnet50(num_classes=1).eval()
    plain.load_state_dict({key.replace("fc1.", "fc."): value for key, value in detector.state_dict().items()})
    images = pixels(2, 64, 64)
    with torch.no_grad():
        expected = plain(normalised(images))[:, 0]
        torch.testing.assert_close(detector(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stages", "width"), [(2, 512), (3, 1024), (4, 2048)])
def test_the_last_stage_feeds_the_head_and_the_activation_map(full_size, stages, width):
    detector = build(f"--npr_stages {stages}")
    assert detector.fc1.in_features == width
    assert detector.cam_layer is getattr(detector, f"layer{stages}")[-1]
    assert not hasattr(detector, f"layer{stages + 1}")


# --- parameters and keys

FUSION_KEYS = {"npr_weights": (3,), "npr_scale_factor": ()}
CHANNEL_KEYS = {
    "ca1.fc.0.weight": (4, 64),
    "ca1.fc.2.weight": (64, 4),
    "ca2.fc.0.weight": (16, 256),
    "ca2.fc.2.weight": (256, 16),
}
SPATIAL_KEYS = {"spatial_att1.conv.weight": (1, 2, 7, 7), "spatial_att2.conv.weight": (1, 2, 7, 7)}


@pytest.mark.parametrize(
    ("line", "count", "entries"),
    [
        ("", 1_437_761, 146),
        (CVIMG, 1_446_665, 154),
        (THREE, 1_437_765, 148),
        (f"{THREE} --npr_fusion scale_attention", 1_437_876, 150),
        (f"{THREE} --npr_fusion concat", 1_441_217, 146),
        (f"{THREE} --npr_fusion average", 1_437_761, 146),
        ("--npr_color gray", 1_436_609, 146),
        ("--npr_stem 7x7s2", 1_445_441, 146),
        ("--npr_stem 3x3s1", 1_437_761, 146),
        ("--npr_stages 4 --npr_stem 7x7s2", 23_510_081, 320),  # torchvision's resnet50 with one output
    ],
)
def test_a_variant_has_its_number_of_parameters_and_entries(full_size, line, count, entries):
    detector = build(line)
    assert (parameters(detector), len(detector.state_dict())) == (count, entries)


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        (CVIMG, FUSION_KEYS | CHANNEL_KEYS | SPATIAL_KEYS),
        (THREE, FUSION_KEYS),
        ("--npr_attention channel", CHANNEL_KEYS),
        ("--npr_unused channel", CHANNEL_KEYS),
        ("--npr_attention spatial", SPATIAL_KEYS),
        ("--npr_attention channel_spatial --npr_attention_form cbam", CHANNEL_KEYS | SPATIAL_KEYS),
        ("--npr_attention spatial --npr_unused channel", CHANNEL_KEYS | SPATIAL_KEYS),
        ("--npr_window 3 --npr_color lab", {}),
        ("--npr_front local_grad", {}),
    ],
)
def test_a_variant_adds_exactly_these_keys(line, extra):
    shapes, plain = (
        {name: tuple(value.shape) for name, value in build(one).state_dict().items()} for one in (line, "")
    )
    assert shapes == plain | extra


SAME_SHAPES = [
    THREE,
    f"{THREE} --npr_fusion scale_attention",
    "--npr_attention channel_spatial",
    CVIMG,
    "--npr_window 3",
    "--npr_stem 3x3s1",
    "--npr_front none",
]


@pytest.mark.parametrize("line", SAME_SHAPES)
def test_a_seed_gives_variants_with_a_trunk_of_one_shape_the_same_trunk(line):
    plain, state = build(seed=5).state_dict(), build(line, seed=5).state_dict()
    trunk = [name for name in plain if state[name].shape == plain[name].shape]
    assert {name for name in plain if name not in trunk} <= {"conv1.weight", "fc1.weight"}
    differing = [name for name in trunk if not name.startswith("fc1") and (state[name] != plain[name]).any()]
    assert differing == []


# --- every choice, and combinations of them


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """own(line) -> a checkpoint as train.py writes it; written once for all tests."""
    folder = tmp_path_factory.mktemp("own")

    @functools.cache
    def path(line):
        name = folder / f"{len(list(folder.iterdir()))}.pth"
        checkpoint.save(name, trained(line), options=vars(parse(line)))
        return name

    return path


@functools.cache
def published_logits():
    with torch.no_grad():
        return trained()(pixels(2, 33, 36))


def trains(detector):
    """One step of Adam; every parameter in use gets a gradient other than 0, and no other."""
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    labels = torch.tensor([0, 1, 0, 1])
    detector.train().loss({"image": pixels(4, 36, 36), "label": labels})["total"].backward()
    gradients = {name: value.grad for name, value in detector.named_parameters()}
    assert all(grad is None or torch.isfinite(grad).all() for grad in gradients.values())
    dead = {name for name, grad in gradients.items() if grad is None or not grad.any()}
    assert dead == unused_entries(detector)
    optimizer.step()


@pytest.mark.parametrize("line", ["", *EVERY_CHOICE, *COMBINED])
def test_every_choice_keeps_the_contract(own, line):
    """Its own output, the smallest image, images alone and in a batch, pixels and floats, a round trip."""
    detector = trained(line)
    images = torch.cat([pixels(2, 33, 36), pixels(1, 33, 36, seed=1) // 4])
    floats, side = images.float() / 255, detector.data_config.min_side
    before = floats.clone()
    with torch.no_grad():
        together = detector(images)
        alone = torch.cat([detector(image[None]) for image in images])
        assert torch.equal(detector(floats), together)
        assert torch.isfinite(detector(pixels(1, side, side))).all()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = detector(images) if detector.variant.stages == 2 else together  # slow on a CPU
    assert (together.shape, together.dtype, rounded.dtype) == ((3,), torch.float32, torch.float32)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rounded, together, rtol=0.1, atol=0.2)
    assert torch.equal(floats, before)
    same = torch.allclose(together[:2], published_logits(), rtol=1e-4, atol=1e-4)
    assert same == (line in ("", "--npr_unused channel_spatial"))

    loaded = load(own(line))
    assert loaded.detector.variant == detector.variant and loaded.notes == []
    assert same_logits(loaded.detector, detector)
    assert loaded.identity.get("detector") == (detector.config if line else None)
    if line in COMBINED and "unused" not in line:
        assert load(own(line), line).detector.variant == detector.variant
    trains(build(line))


def test_every_choice_has_its_own_words_config_and_logits():
    built = [trained(line) for line in dict.fromkeys(["", *EVERY_CHOICE, *COMBINED])]
    assert len({networks.describe(detector) for detector in built}) == len(built)
    assert len({str(detector.config) for detector in built}) == len(built)
    assert [detector.config for detector in built].count({}) == 1
    with torch.no_grad():
        used = [detector for detector in built if detector.variant.unused == "none"]
        assert len({tuple(detector(pixels(2, 36, 36)).tolist()) for detector in used}) == len(used)


def laplacian(x, _net):
    """Each pixel minus the mean of its four neighbours."""
    kernel = torch.tensor([[0, -0.25, 0], [-0.25, 1, -0.25], [0, -0.25, 0]]).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def maximum(maps, _x, _net):
    """The largest of the maps at each position."""
    return scaled(torch.stack(maps).amax(0))


@pytest.mark.parametrize(
    ("table", "name", "entry", "line"),
    [
        (FRONTS, "laplacian", laplacian, "--npr_front laplacian"),
        (FUSIONS, "maximum", Fusion(maximum), f"{THREE} --npr_fusion maximum"),
    ],
)
def test_a_new_front_or_fusion_is_a_function_and_a_line_in_its_dict(
    monkeypatch, tmp_path, capsys, table, name, entry, line
):
    monkeypatch.setitem(table, name, entry)
    detector = stir(build(line)).eval()
    checkpoint.save(tmp_path / "a.pth", detector, options=vars(parse(line)))
    loaded = load(tmp_path / "a.pth", line).detector
    assert name in networks.describe(loaded) and name in str(loaded.config)
    assert same_logits(loaded, detector)
    with torch.no_grad():
        assert not torch.allclose(detector(pixels(2, 33, 36)), published_logits(), atol=1e-3)
    trains(build(line))
    with pytest.raises(SystemExit):
        TrainOptions().parse(f"{line}_of_another_name".split())
    assert name in capsys.readouterr().err


def test_bf16_autocast_leaves_what_conv1_sees_in_float32():
    for line in ("", "--npr_window 3 --npr_ref mean", THREE, "--npr_front local_grad", "--npr_color lab"):
        detector, images = front_of(line), pixels()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            seen = detector.preprocess(images)
        assert seen.dtype == torch.float32
        assert torch.equal(seen, detector.preprocess(images))


# --- flags

REFUSED = {
    "--npr_factor 0.5 --npr_factors 0.25,0.5": ["--npr_factor,", "--npr_factors"],
    "--npr_factor 0.5 --npr_window 2": ["--npr_factor,", "--npr_window"],
    "--npr_window 2 --npr_factors 0.25,0.5": ["--npr_factors", "--npr_window"],
    "--npr_window 2 --npr_mode nearest": ["--npr_window", "--npr_mode"],
    "--npr_window 2 --npr_fusion concat": ["--npr_window", "--npr_fusion"],
    "--npr_window 5": ["--npr_window", "5", "2, 3, 4"],
    "--npr_ref w1": ["needs --npr_window"],
    "--npr_ref mean --npr_factor 0.25": ["needs --npr_window"],
    "--npr_window 2 --npr_ref w5": ["--npr_window 2", "w1, w2, w3, w4, mean, max", "'w5'"],
    "--npr_window 2 --npr_ref w0": ["'w0'"],
    "--npr_window 3 --npr_ref w10": ["w9", "'w10'"],
    "--npr_window 3 --npr_ref median": ["'median'"],
    "--npr_fusion concat": ["needs --npr_factors"],
    "--npr_fusion weights --npr_factor 0.25": ["needs --npr_factors"],
    "--npr_front none --npr_factor 0.5": ["--npr_front none", "--npr_factor"],
    "--npr_front none --npr_factors 0.25,0.5": ["--npr_front none", "--npr_factors"],
    "--npr_front none --npr_mode area": ["--npr_front none", "--npr_mode"],
    "--npr_front local_grad --npr_window 2": ["--npr_front local_grad", "--npr_window"],
    "--npr_front local_grad --npr_ref w1": ["--npr_front local_grad", "--npr_ref"],
    "--npr_attention_form cbam": ["--npr_attention_form needs --npr_attention channel"],
    "--npr_attention spatial --npr_attention_form sum": ["--npr_attention_form needs"],
    "--npr_factors 0.5": ["--npr_factors", "at least two", "'0.5'", "--npr_factor"],
    "--npr_factors 0.5,0.5": ["--npr_factors", "different", "'0.5,0.5'"],
    "--npr_factors 0.5,0.25,0.50": ["different"],
    "--npr_factors 0.5,1": ["--npr_factors", "between 0 and 1", "'1'"],
    "--npr_factors 0,0.5": ["between 0 and 1", "'0'"],
    "--npr_factors=-0.5,0.5": ["between 0 and 1", "'-0.5'"],
    "--npr_factors 0.5,nan": ["between 0 and 1", "'nan'"],
    "--npr_factors half,0.25": ["between 0 and 1", "'half'"],
    "--npr_factors 0.5,,0.25": ["between 0 and 1", "''"],
    "--npr_factors 0.5;0.25": ["between 0 and 1", "'0.5;0.25'"],
    "--npr_factor 0": ["--npr_factor", "between 0 and 1", "'0'"],
    "--npr_factor 1": ["between 0 and 1", "'1'"],
    "--npr_factor -0.5": ["between 0 and 1", "'-0.5'"],
    "--npr_factor nan": ["between 0 and 1", "'nan'"],
    "--npr_factor inf": ["between 0 and 1", "'inf'"],
    "--npr_factor half": ["between 0 and 1", "'half'"],
    "--npr_mode lanczos": ["--npr_mode", "'lanczos'"],
    "--npr_stages 5": ["--npr_stages", "2, 3, 4"],
    "--npr_stem 5x5s2": ["--npr_stem", "'5x5s2'"],
}


def refused_line(capsys, script, argv):
    with pytest.raises(SystemExit) as stopped:
        script().parse(argv)
    assert stopped.value.code == 2
    usage, _, message = capsys.readouterr().err.rpartition(f"{script.script}: error: ")
    assert usage.startswith("usage: ")
    assert message.endswith("\n") and message.count("\n") == 1  # one line, and the last
    return message


@pytest.mark.parametrize("line", REFUSED)
def test_flags_that_do_not_go_together_are_refused_in_one_line(capsys, line):
    message = refused_line(capsys, TrainOptions, line.split())
    assert [words for words in REFUSED[line] if words not in message] == []


def test_evaluation_leaves_the_rules_to_the_file_and_refuses_flags_that_no_file_fits(tmp_path):
    """The attention form of a file whose keys say channel attention is a question that a flag may answer."""
    cvimg = write(tmp_path / "a.pth", trained(CVIMG).state_dict())
    assert load(cvimg, "--npr_attention_form cbam").detector.variant.attention_form == "cbam"
    upstream = write(tmp_path / "b.pth", trained().state_dict())
    assert "attention_form needs" in refused(upstream, "--npr_attention_form cbam")
    assert "leave out --npr_mode" in refused(upstream, "--npr_window 2 --npr_mode area")


@pytest.mark.parametrize(
    "flags",
    [
        {"npr_factor": 0.5, "npr_factors": (0.25, 0.5)},
        {"npr_ref": "w1"},
        {"npr_attention_form": "cbam"},
        {"npr_window": 5, "npr_ref": "w26"},
        {"npr_front": "laplacian"},
        {"npr_norm": "after"},
    ],
)
def test_the_same_rules_hold_without_a_command_line(flags):
    with pytest.raises(UserError, match="--npr_"):
        Variant.from_options(Namespace(**flags))


def test_no_flag_is_the_published_detector():
    assert Variant.from_options(Namespace()) == Variant() == Variant.from_options(parse(""))
    assert NPRDetector().config == {} and Variant().published_map


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("--npr_factor 0.5 --npr_mode nearest --npr_stages 2", {}),
        ("--npr_factor 0.25", {"factor": 0.25}),
        ("--npr_window 3", {"factor": None, "mode": None, "window": 3, "ref": "w1"}),
        ("--npr_factors 0.5,0.25", {"factor": None, "factors": (0.5, 0.25), "fusion": "weights"}),
        ("--npr_front none", {"front": "none", "factor": None, "mode": None}),
        (
            "--npr_attention channel --npr_attention_form cbam",
            {"attention": "channel", "attention_form": "cbam"},
        ),
    ],
)
def test_the_configuration_holds_what_differs_from_the_published_detector(line, changed):
    assert build(line).config == changed


def npr_flags(script, line=""):
    """The detector's own flags among the parsed options."""
    return {name for name in vars(script().parse(line.split())) if name.startswith("npr_")}


def test_evaluation_options_hold_the_detectors_flags_only_where_given(capsys):
    assert len(npr_flags(TrainOptions)) == 13
    assert (
        npr_flags(ValOptions, "--model_path x") == npr_flags(ValOptions, "--model_path x --arch npr") == set()
    )
    given = npr_flags(ValOptions, "--model_path x --arch npr --npr_factor 0.25 --npr_color rgb")
    assert given == {"npr_factor", "npr_color"}
    refused_line(capsys, ValOptions, ["--model_path", "x", "--npr_factor", "0.25"])


# --- weight files


def write(path, state):
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    return path


def load(path, line=""):
    """What val.py does with a weight file and these flags of the detector."""
    given = ["--arch", "npr", *line.split()] if line else []
    opt = ValOptions().parse(["--model_path", str(path), *given])
    return checkpoint.load(opt.model_path, opt.arch, opt)


def refused(path, line=""):
    with pytest.raises(CheckpointError) as caught:
        load(path, line)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


def same_logits(first, second):
    images = pixels(2, 33, 36)
    with torch.no_grad():
        return torch.equal(first.eval()(images), second.eval()(images))


def joined(kinds):
    return "_".join(kind for kind in ("channel", "spatial") if kind in kinds) or "none"


@pytest.mark.parametrize("line", ["", THREE, CVIMG, "--npr_stem 7x7s2", "--npr_stages 3"])
def test_a_published_file_whose_keys_decide_needs_no_flag(tmp_path, line):
    detector = trained(line)
    loaded = load(write(tmp_path / "a.pth", detector.state_dict()))
    assert same_logits(loaded.detector, detector)
    assert loaded.detector.variant == detector.variant
    assert networks.describe(loaded.detector) in loaded.notes[0]
    assert loaded.identity.get("detector", {}) == detector.config


HALF_KNOWN = [
    (fusion, there)
    for fusion in ("", THREE)
    for there in ("channel", "spatial", "channel_spatial")
    if (fusion, there) != (THREE, "channel_spatial")
]


@pytest.mark.parametrize(("fusion", "there"), HALF_KNOWN)
def test_attention_in_a_published_file_that_may_be_unused_asks_for_a_flag(tmp_path, fusion, there):
    path = write(tmp_path / "a.pth", trained(f"{fusion} --npr_unused {there}").state_dict())
    for line in ("", "--npr_mode nearest"):
        reason = refused(path, line)
        assert "--arch npr --npr_attention none|" in reason
        assert all(kind in reason for kind in there.split("_"))


@pytest.mark.parametrize(
    ("fusion", "there", "used"),
    [
        (fusion, there, used)
        for fusion, there in [*HALF_KNOWN, (THREE, "channel_spatial")]
        for used in ("none", "channel", "spatial", "channel_spatial")
        if used == "none" or set(used.split("_")) <= set(there.split("_"))
    ],
)
def test_a_flag_says_which_attention_of_a_published_file_is_used(tmp_path, fusion, there, used):
    rest = joined(set(there.split("_")) - set(used.split("_")))
    detector = trained(f"{fusion} --npr_attention {used} --npr_unused {rest}")
    path = write(tmp_path / "a.pth", detector.state_dict())
    loaded = load(path, f"--npr_attention {used}").detector
    assert loaded.variant == detector.variant
    assert same_logits(loaded, detector)


@pytest.mark.parametrize(
    "line",
    [
        "--npr_factors 0.25,0.5",
        "--npr_factors 0.1,0.2,0.3",
        f"{THREE} --npr_fusion concat",
        f"{THREE} --npr_fusion average",
        f"{THREE} --npr_fusion scale_attention",
        "--npr_factor 0.25",
        "--npr_window 3 --npr_ref mean",
        "--npr_color gray",
        "--npr_stem 3x3s1",
        "--npr_stem 7x7s2 --npr_stages 3",
        "--npr_front local_grad --npr_norm none",
        "--npr_attention channel --npr_attention_form cbam",
    ],
)
def test_what_keys_cannot_say_is_taken_from_the_flags(tmp_path, line):
    detector = trained(line)
    loaded = load(write(tmp_path / "a.pth", detector.state_dict()), line).detector
    assert loaded.variant == detector.variant
    assert same_logits(loaded, detector)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_scales_asks_for_the_factors(tmp_path, count):
    listed = ",".join(f"0.{number + 1}" for number in range(count))
    path = write(tmp_path / "a.pth", trained(f"--npr_factors {listed}").state_dict())
    for line in ("", THREE):
        reason = refused(path, line)
        assert f"{count} scales" in reason and "--npr_factors" in reason


REFUSED_FILES = [
    ("", "--npr_attention channel"),
    ("", "--npr_stages 3"),
    ("", "--npr_stem 7x7s2"),
    ("", "--npr_color gray"),
    ("", THREE),
    ("", f"{THREE} --npr_fusion concat"),
    ("--npr_stages 3", "--npr_stages 2"),
    ("--npr_stem 7x7s2", "--npr_stem 3x3s2"),
    ("--npr_stem 7x7s2", "--npr_stem 3x3s1"),
    (THREE, "--npr_factor 0.5"),
    (THREE, "--npr_window 2"),
    (THREE, "--npr_front none"),
    (THREE, "--npr_factors 0.25,0.5"),
    (THREE, f"{THREE} --npr_fusion average"),
    (THREE, f"{THREE} --npr_fusion concat"),
    (THREE, "--npr_attention channel"),
    ("--npr_unused channel", "--npr_attention spatial"),
    ("--npr_unused channel", "--npr_attention channel_spatial"),
    (CVIMG, "--npr_stages 3"),
]


@pytest.mark.parametrize(
    ("built", "flags"),
    [
        *REFUSED_FILES,
    ],
)
def test_a_flag_that_contradicts_the_keys_of_a_published_file_is_refused(tmp_path, built, flags):
    refused(write(tmp_path / "a.pth", trained(built).state_dict()), flags)


WRONG_ENTRIES = [
    ("strange.weight", (2,)),
    ("npr_scale_factor", None),
    ("ca2.fc.0.weight", None),
    ("spatial_att2.conv.weight", None),
    ("ca1.fc.0.weight", (8, 64)),
    ("spatial_att1.conv.weight", (1, 2, 3, 3)),
    ("npr_scale_factor", (1,)),
    ("npr_weights", (3, 1)),
    ("npr_weights", (0,)),
    ("npr_weights", ()),
    ("conv1.weight", (64, 3, 5, 5)),
    ("conv1.weight", ()),
]


@pytest.mark.parametrize(("key", "shape"), WRONG_ENTRIES)
def test_a_published_file_with_an_entry_too_many_too_few_or_of_another_shape_is_refused(tmp_path, key, shape):
    state = {name: value for name, value in trained(CVIMG).state_dict().items() if name != key or shape}
    if shape is not None:
        state = {key: torch.zeros(shape), **{name: value for name, value in state.items() if name != key}}
    path = write(tmp_path / "a.pth", state)
    for flags in ("--npr_mode nearest", *([""] if key == "strange.weight" else [])):
        reason = refused(path, flags)
        assert key != "strange.weight" or key in reason


# --- our own checkpoints


@pytest.mark.parametrize(
    ("line", "repeated"),
    [
        ("", "--npr_factor 0.5"),
        ("", "--npr_mode nearest --npr_color rgb --npr_stages 2"),
        (THREE, "--npr_mode nearest"),
        (THREE, f"{THREE} --npr_fusion weights"),
        ("--npr_window 3", "--npr_window 3 --npr_ref w1"),
        (CVIMG, "--npr_attention channel --npr_attention_form sum"),
    ],
)
def test_flags_may_repeat_what_a_checkpoint_of_ours_is(own, line, repeated):
    assert same_logits(load(own(line), repeated).detector, trained(line))


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("", "--npr_factor 0.25"),
        ("--npr_factor 0.5", "--npr_factor 0.25"),
        ("--npr_factor 0.25", "--npr_factor 0.5"),
        ("", "--npr_mode area"),
        ("", "--npr_window 2"),
        ("", "--npr_front none"),
        ("", "--npr_norm none"),
        ("", "--npr_color lab"),
        ("", "--npr_attention channel"),
        ("", "--npr_stem 3x3s1"),
        ("", "--npr_stages 3"),
        ("", f"{THREE} --npr_fusion average"),
        (THREE, "--npr_factor 0.5"),
        (THREE, "--npr_factors 0.75,0.5,0.25"),
        (f"{THREE} --npr_fusion concat", f"{THREE} --npr_fusion average"),
        ("--npr_window 2", "--npr_window 3"),
        ("--npr_window 2", "--npr_window 2 --npr_ref w2"),
        ("--npr_window 2", "--npr_factor 0.5"),
        ("--npr_front none", "--npr_factor 0.5"),
        (CVIMG, "--npr_attention none"),
        (CVIMG, "--npr_attention channel_spatial"),
        ("--npr_attention channel", "--npr_attention channel --npr_attention_form cbam"),
    ],
)
def test_flags_that_contradict_a_checkpoint_of_ours_are_refused(own, line, flags):
    assert "was trained" in refused(own(line), flags)


def test_a_checkpoint_whose_options_do_not_fit_its_weights_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.pth", trained(), options=vars(parse("--npr_attention channel")))
    assert "4 missing: ca1.fc.0.weight" in refused(tmp_path / "a.pth")


# --- the page of ablations and the GPU


@pytest.mark.slow
def test_the_page_of_ablations_lists_what_every_variant_costs(full_size, capsys):
    text = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    benchmark.main(["variants", "--side", "224"])
    assert capsys.readouterr().out.strip() in text


@pytest.mark.cuda
@pytest.mark.parametrize("line", ["", *EVERY_CHOICE, *COMBINED])
def test_cuda_gives_the_logits_of_the_cpu(line):
    detector, images = trained(line), pixels(2, 33, 36)
    with torch.no_grad():
        expected = detector(images)
        found = detector.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
