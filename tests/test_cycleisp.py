"""CycleISP's denoiser against functional calls on its published names; what LNP files hold; its files."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import CheckpointError
from networks import cycleisp
from networks.cycleisp import REACH, CycleISP

GROUPS, BLOCKS = range(4), range(8)
ATTENTION = "CA.conv_du.2"  # the last layer of a channel attention


def shapes():
    """{published name: shape}, written down by hand."""
    found = {"head.0.weight": (64, 3, 3, 3), "head.0.bias": (64,)}
    for group in GROUPS:
        for block in BLOCKS:
            at = f"body.{group}.body.{block}"
            found |= {
                f"{at}.SA.spatial.conv.weight": (1, 2, 3, 3),
                f"{at}.CA.conv_du.0.weight": (4, 64, 1, 1),
                f"{at}.CA.conv_du.0.bias": (4,),
                f"{at}.CA.conv_du.2.weight": (64, 4, 1, 1),
                f"{at}.CA.conv_du.2.bias": (64,),
                f"{at}.body.0.weight": (64, 64, 3, 3),
                f"{at}.body.0.bias": (64,),
                f"{at}.body.1.weight": (64,),
                f"{at}.body.2.weight": (64, 64, 3, 3),
                f"{at}.body.2.bias": (64,),
                f"{at}.conv1x1.weight": (64, 128, 1, 1),
                f"{at}.conv1x1.bias": (64,),
            }
        found |= {f"body.{group}.body.8.weight": (64, 64, 3, 3), f"body.{group}.body.8.bias": (64,)}
    found |= {"body.4.weight": (64, 64, 3, 3), "body.4.bias": (64,), "body.5.weight": (64,)}
    return found | {"tail.0.weight": (3, 64, 3, 3), "tail.0.bias": (3,)}


def conv(state, name, x):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def slow_added(state, images):
    """What the published network adds to images, step by step."""
    x = conv(state, "head.0", images)
    for group in GROUPS:
        before_group = x
        for block in BLOCKS:
            at = f"body.{group}.body.{block}"
            y = F.prelu(conv(state, f"{at}.body.0", x), state[f"{at}.body.1.weight"])
            y = conv(state, f"{at}.body.2", y)
            both = torch.stack([y.max(1).values, y.mean(1)], dim=1)
            spatial = y * torch.sigmoid(conv(state, f"{at}.SA.spatial.conv", both))
            squeezed = F.relu(conv(state, f"{at}.CA.conv_du.0", F.adaptive_avg_pool2d(y, 1)))
            channel = y * torch.sigmoid(conv(state, f"{at}.CA.conv_du.2", squeezed))
            x = x + conv(state, f"{at}.conv1x1", torch.cat([spatial, channel], dim=1))
        x = before_group + conv(state, f"body.{group}.body.8", x)
    x = F.prelu(conv(state, "body.4", x), state["body.5.weight"])
    return conv(state, "tail.0", x)


def slow_wrapped(noise):
    """clamp, img_as_ubyte, then bytes times 255, modulo 256: the published lines in NumPy."""
    v = np.rint(np.clip(noise, 0, 1) * np.float32(255)).astype(np.uint8)
    return (v.astype(np.int64) * 255 % 256).astype(np.uint8)


def stirred(seed=0):
    """A denoiser with random weights whose noise is large enough to be seen in 8 bits, of both signs."""
    torch.manual_seed(seed)
    net = CycleISP()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "conv_du" in name or "spatial" in name:
                value.normal_(0, 0.7)
        net.body[5].weight.uniform_(0.1, 0.6)
        net.tail[0].weight.mul_(2)
    return net.eval().requires_grad_(False)


def image(height, width, count=1, seed=3):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    """Tests leave it as it was."""
    return stirred()


@pytest.fixture(scope="module")
def local():
    """A denoiser whose channel attention is the same everywhere, so that tiles can be exact."""
    net = stirred(1)
    for name, value in net.named_parameters():
        if f"{ATTENTION}.weight" in name:
            value.zero_()
    return net


# --- the network


def test_it_has_the_published_parameters():
    with torch.device("meta"):
        net = CycleISP()
    assert sum(value.numel() for value in net.parameters()) == 2_834_947
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes()


def test_one_activation_is_shared_by_all_blocks(net):
    state = net.state_dict()
    same = [name for name in state if state[name].data_ptr() == state["body.5.weight"].data_ptr()]
    expected = [f"body.{group}.body.{block}.body.1.weight" for group in GROUPS for block in BLOCKS]
    assert sorted(same) == sorted([*expected, "body.5.weight"])
    assert len(list(net.parameters())) == len(state) - len(expected)
    assert len([module for module in net.modules() if isinstance(module, nn.PReLU)]) == 1


def test_its_noise_is_minus_what_the_published_network_adds(net):
    images = image(13, 17, count=2)
    expected = -slow_added(net.state_dict(), images)
    assert expected.std() > 0.02 and expected.min() < -0.02 and expected.max() > 0.02
    torch.testing.assert_close(net.noise(images), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(images), images - net.noise(images))


@pytest.mark.parametrize(
    "name",
    [
        "body.0.body.0.SA.spatial.conv.weight",
        f"body.3.body.7.{ATTENTION}.weight",
        "body.1.body.3.conv1x1.bias",
        "body.2.body.8.weight",
        "body.5.weight",
    ],
)
def test_the_comparison_sees_each_kind_of_entry(net, name):
    images, state = image(6, 7), net.state_dict()
    changed = slow_added({**state, name: state[name] * 1.5}, images)
    assert (changed + net.noise(images)).abs().max() > 1e-4


def test_denoised_images_are_not_clipped(net):
    denoised = net(torch.cat([torch.zeros(1, 3, 9, 9), torch.ones(1, 3, 9, 9)]))
    assert denoised.min() < -1e-3 or denoised.max() > 1 + 1e-3


# --- encodings


def test_wrapped_values_by_hand():
    noise = torch.tensor([0, 1 / 255, -1 / 255, -3, 7, 0.5, 1, 0.5 / 255, 1.5 / 255, 2.4 / 255])
    found = cycleisp.wrapped(noise)
    assert found.dtype == torch.uint8
    assert found.tolist() == [0, 255, 0, 0, 1, 128, 1, 0, 254, 254]
    assert cycleisp.wrapped(torch.arange(256) / 255).tolist() == [0, *range(255, 0, -1)]


def test_wrapped_is_the_published_encoding_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    halves = (torch.arange(-3, 258) + 0.5) / 255
    near = torch.cat([torch.nextafter(halves, torch.tensor(place)) for place in (-9.0, 9.0)])
    drawn = 0.5 + torch.randn(20_000, generator=generator)
    noise = torch.cat([halves, near, drawn])
    expected = slow_wrapped(noise.numpy())
    assert len(set(expected.tolist())) == 256
    assert np.array_equal(cycleisp.wrapped(noise).numpy(), expected)


def test_signed_values():
    noise = torch.tensor([0.0, 1, -1, 5, -5, 0.4 / 32767, 0.6 / 32767, -0.6 / 32767, 100.3 / 32767, 0.25])
    found = cycleisp.signed(noise)
    assert found.dtype == torch.int16
    assert found.tolist() == [0, 32767, -32767, 32767, -32767, 0, 1, -1, 100, 8192]


def test_signed_keeps_the_noise_to_half_a_step():
    noise = torch.empty(5000).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)).double()
    back = cycleisp.signed(noise.float()).double() / 32767
    assert (back - noise).abs().max() <= 0.51 / 32767
    assert cycleisp.signed(noise.float()).unique().numel() > 4500


def test_wrapped_files_hold_the_noise_of_bgr_in_the_order_rgb(net):
    images = image(8, 9, count=2)
    bgr = torch.stack([images[:, 2], images[:, 1], images[:, 0]], dim=1)
    noise = net.noise(bgr).numpy()
    expected = slow_wrapped(np.stack([noise[:, 2], noise[:, 1], noise[:, 0]], axis=1))
    found = net.encoded_noise(images, "wrapped")
    assert found.dtype == torch.uint8 and (0 < (expected > 0).mean() < 1)
    assert np.array_equal(found.numpy(), expected)
    assert not np.array_equal(expected, slow_wrapped(noise))  # the order matters
    assert not np.array_equal(expected, slow_wrapped(net.noise(images).numpy()))


def test_signed_files_hold_the_noise_of_rgb(net):
    images = image(8, 9, count=2)
    noise = net.noise(images).double().numpy()
    found = net.encoded_noise(images, "signed")
    assert found.dtype == torch.int16
    assert np.abs(found.numpy() - 32767 * noise).max() <= 0.51
    assert noise.min() < -0.01 and noise.max() > 0.01


@pytest.mark.parametrize("encoding", ["wrapped", "signed"])
def test_encoded_noise_in_tiles_is_that_of_the_whole_but_for_rounding(local, encoding):
    images = image(7, 11)
    whole = local.encoded_noise(images, encoding).long()
    tiles = local.encoded_noise(images, encoding, tile=5).long()
    step = (tiles - whole).abs()
    if encoding == "wrapped":
        step = torch.minimum(step, 256 - step)
    assert whole.unique().numel() > 20
    assert step.max() <= 1


# --- tiles


@pytest.mark.parametrize(
    ("count", "height", "width", "side"),
    [
        *[(1, 20, 25, 8), (1, 16, 8, 8), (1, 9, 17, 16), (1, 17, 9, 16), (1, 12, 12, 12), (1, 5, 9, 16)],
        (3, 9, 7, 5),
        (1, 2, 260, 100),  # its margins end inside the image
    ],
)
def test_without_channel_attention_tiles_are_the_whole(local, count, height, width, side):
    images = image(height, width, count=count)
    whole = local.noise(images)
    assert whole.std() > 0.01
    found = local.noise_in_tiles(images, side)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "side", "margin"), [((20, 25), 8, 0), ((20, 25), 8, 2), ((2, 260), 100, 4)])
def test_a_margin_that_is_too_small_shows(local, size, side, margin):
    images = image(*size)
    whole, found = local.noise(images), local.noise_in_tiles(images, side, margin=margin)
    assert found.shape == whole.shape
    assert (found - whole).abs().max() > 1e-3


def test_with_channel_attention_tiles_approximate_the_whole(net):
    images = image(4, 250)
    images[..., 125:] *= 0.1
    whole, found = net.noise(images), net.noise_in_tiles(images, 10)
    assert (found - whole).abs().max() > 1e-4
    assert (found - whole).norm() < 0.5 * whole.norm()


def test_an_image_of_one_tile_is_computed_whole(net, monkeypatch):
    seen = []
    monkeypatch.setattr(net, "noise", lambda images: seen.append(images.shape) or images)
    net.noise_in_tiles(image(8, 5), 8)
    assert seen == [(1, 3, 8, 5)]


def test_a_tile_sees_its_margin_and_no_more(net, monkeypatch):
    seen = []
    monkeypatch.setattr(net, "noise", lambda images: seen.append(tuple(images.shape[-2:])) or images)
    images = image(1, 400)
    found = net.noise_in_tiles(images, 50)
    assert torch.equal(found, images)  # each tile came back to its place
    assert [width for _, width in seen] == [153, 203, 253, 256, 256, 253, 203, 153]


def test_an_output_pixel_sees_103_pixels_to_each_side(local):
    centre, width = 110, 221
    net = CycleISP().double()
    net.load_state_dict(local.state_dict())
    images = image(1, width).double().requires_grad_()
    x = net.tail(net.body(net.head(images)))
    x[..., centre].sum().backward()
    seen = images.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (centre - REACH, centre + REACH)
    assert REACH == 103


# --- files


@pytest.fixture(scope="module")
def stored(net, tmp_path_factory):
    """sidd_rgb.pth as published."""
    path = tmp_path_factory.mktemp("cycleisp") / "sidd_rgb.pth"
    torch.save({"epoch": 7, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, path)
    return path


def test_a_published_file_is_loaded_frozen(net, stored):
    loaded = cycleisp.load(stored)
    images = image(6, 7)
    torch.testing.assert_close(loaded.noise(images), net.noise(images), rtol=1e-4, atol=1e-6)
    assert not [name for name, value in loaded.named_parameters() if value.requires_grad]
    assert not [name for name, module in loaded.named_modules() if module.training]
    state = net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.named_buffers())
    assert not loaded.state_dict()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_files_without_prefix_or_wrapper_are_loaded(net, tmp_path, wrapper):
    state = net.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / "w.pth")
    found = dict(cycleisp.load(tmp_path / "w.pth").named_buffers(remove_duplicate=False))
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"body.2.body.8.bias": None, "tail.0.weight": None}, "2 missing"),
        ({"body.0.body.0.extra": torch.zeros(1)}, "extra"),
        ({"head.0.weight": torch.zeros(64, 1, 3, 3)}, "another shape: head"),
    ],
)
def test_a_wrong_file_is_refused_with_the_entries_that_differ(net, tmp_path, entries, reason):
    state = {
        f"module.{name}": value
        for name, value in {**net.state_dict(), **entries}.items()
        if value is not None
    }
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=reason):
        cycleisp.load(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="sidd_rgb"):
        cycleisp.load(tmp_path / "sidd_rgb.pth")
