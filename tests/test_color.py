"""Colour spaces: values against scikit-image, range, gradients, layouts, and the measured statistics."""

from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pytest
import torch
from skimage import color as reference

from data.sample import load_photograph
from networks.color import IMAGENET_MEAN, IMAGENET_STD, SPACES

PHOTOGRAPHS = (
    "china.jpg flower.jpg astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png".split()
)
MEASURED = [name for name in SPACES if name != "rgb"]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
YCBCR64 = 3e-6  # scikit-image rounds its matrix to three decimals of 224
LEVELS = [0.0, 1e-6, 0.04, 0.04045, 0.0405, 1 / 255, 0.2, 0.5, 0.999, 1.0]


def pixels(colours, dtype=torch.float32):
    """n RGB triples as one image (1, 3, n, 1)."""
    return torch.as_tensor(colours, dtype=dtype).T[None, :, :, None]


def random_images(dtype=torch.float32, batch=2, height=13, width=17):
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def special_images(dtype):
    corners = list(product([0.0, 1.0], repeat=3))
    greys = [[level] * 3 for level in LEVELS]
    dark = list(product([0.0, 1 / 255, 0.04045, 0.05], repeat=3))  # both sides of both knees
    ties = list(product([0.2, 0.7], repeat=3))
    return pixels(corners + greys + dark + ties, dtype)


def lattice(dtype, steps=17):
    return pixels(list(product(np.linspace(0, 1, steps).tolist(), repeat=3)), dtype)


def expected(x, name):
    """The space as scikit-image has it, brought to [0, 1]; x: (B, 3, H, W)."""
    image = np.moveaxis(x.double().numpy(), 1, -1)
    if name == "ycbcr":  # studio range: Y in 16..235, Cb and Cr in 16..240 around 128
        result = (reference.rgb2ycbcr(image) - [16, 128, 128]) / [219, 224, 224] + [0, 0.5, 0.5]
    elif name == "lab":
        result = (reference.rgb2lab(image) + np.array([0, 128, 128])) / [100, 255, 255]
    elif name == "gray":
        result = reference.rgb2yuv(image)[..., :1]  # its rgb2gray weighs by BT.709, its yuv by BT.601
    else:
        result = {"rgb": np.asarray, "hsv": reference.rgb2hsv}[name](image)
    return torch.from_numpy(np.moveaxis(result, -1, 1).copy())


def gradient(x, name, channel):
    x = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(SPACES[name].convert(x)[:, channel].sum(), x)
    return result


def every_channel():
    return [(name, channel) for name, space in SPACES.items() for channel in range(space.channels)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("images", [random_images, special_images, lattice])
def test_the_values_are_those_of_scikit_image(images, name, dtype):
    x = images(dtype)
    tolerance = max(TOLERANCE[dtype], YCBCR64) if name == "ycbcr" else TOLERANCE[dtype]
    torch.testing.assert_close(SPACES[name].convert(x).double(), expected(x, name), rtol=0, atol=tolerance)


def test_the_primaries_in_ycbcr_are_the_published_jpeg_values():
    red, white = SPACES["ycbcr"].convert(pixels([[1, 0, 0], [1, 1, 1]], torch.float64)).flatten(2)[0].T
    assert red.tolist() == pytest.approx([0.299, 0.5 - 0.299 / 1.772, 1.0], abs=1e-12)
    assert white.tolist() == pytest.approx([1.0, 0.5, 0.5], abs=1e-12)


def test_the_hues_of_the_six_pure_colours_are_sixths_of_a_turn():
    pure = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]
    hue, saturation, value = SPACES["hsv"].convert(pixels(pure, torch.float64)).flatten(2)[0]
    assert hue.tolist() == pytest.approx([i / 6 for i in range(6)], abs=1e-12)
    assert saturation.tolist() == value.tolist() == [1.0] * 6


def test_a_grey_pixel_has_hue_and_saturation_0_and_its_level_as_value():
    result = SPACES["hsv"].convert(pixels([[level] * 3 for level in LEVELS], torch.float64))
    hue, saturation, value = result.flatten(2)[0].tolist()
    assert hue == saturation == [0.0] * len(LEVELS)
    assert value == LEVELS


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPACES)
def test_every_channel_stays_in_0_to_1_over_the_rgb_cube(name, dtype):
    result = SPACES[name].convert(lattice(dtype))
    rounding = 4 * torch.finfo(dtype).eps
    assert result.min() >= -rounding and result.max() <= 1 + rounding


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SPACES)
def test_shape_and_dtype(name, dtype):
    result = SPACES[name].convert(random_images(dtype, batch=3, height=5, width=4))
    assert result.shape == (3, SPACES[name].channels, 5, 4)
    assert result.dtype == dtype


@pytest.mark.parametrize("name", SPACES)
def test_the_memory_layout_changes_nothing(name):
    x = random_images()
    layouts = [x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT, x.flip(1).flip(1)]
    for layout in layouts:
        assert torch.allclose(SPACES[name].convert(layout), SPACES[name].convert(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_an_image_does_not_depend_on_its_batch(name):
    x = random_images(batch=3)
    alone = torch.cat([SPACES[name].convert(image[None]) for image in x])
    assert torch.allclose(SPACES[name].convert(x), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_the_input_is_not_changed(name):
    x = special_images(torch.float32)
    before = x.clone()
    SPACES[name].convert(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_is_that_of_finite_differences(name):
    generic = [[0.1, 0.5, 0.8], [0.9, 0.3, 0.2], [0.3, 0.7, 0.4], [0.02, 0.01, 0.03], [0.6, 0.2, 0.55]]
    x = pixels(generic, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(SPACES[name].convert, (x,))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "channel"), every_channel())
def test_the_gradient_is_finite_at_black_white_grey_and_the_corners(name, channel, dtype):
    assert gradient(special_images(dtype), name, channel).isfinite().all()


@pytest.mark.parametrize(("name", "channel"), every_channel())
def test_colours_too_dark_for_their_inverse_have_finite_values_and_gradients(name, channel):
    tiny = torch.finfo(torch.float32).tiny
    x = pixels([[tiny / 64, 0, 0], [tiny, 0, 0], [0, 2 * tiny, tiny], [tiny / 4, tiny / 4, tiny / 2]])
    assert SPACES[name].convert(x).isfinite().all()
    assert gradient(x, name, channel).isfinite().all()


@pytest.mark.parametrize(("name", "channel"), every_channel())
def test_values_just_outside_0_to_1_are_finite_too(name, channel):
    x = pixels(list(product([-0.1, 0.0, 0.5, 1.1], repeat=3)))  # what an interpolation may overshoot to
    assert SPACES[name].convert(x).isfinite().all()
    assert gradient(x, name, channel).isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_white_keeps_a_gradient_in_luma_and_lightness(dtype):
    white = pixels([[1, 1, 1]], dtype)
    for name in ("ycbcr", "lab", "gray"):
        assert (gradient(white, name, 0) > 0).all()


@pytest.fixture(scope="module")
def photographs():
    """The photographs as (1, 3, H, W) float64 in [0, 1]."""
    return [load_photograph(name)[None].double() / 255 for name in PHOTOGRAPHS]


@pytest.mark.parametrize("name", MEASURED)
def test_the_statistics_are_those_of_the_photographs(name, photographs):
    channels = [SPACES[name].convert(x)[0].flatten(1) for x in photographs]
    mean = torch.stack([values.mean(1) for values in channels]).mean(0)
    squares = [(values - mean[:, None]).square().mean(1) for values in channels]
    std = torch.stack(squares).mean(0).sqrt()
    assert SPACES[name].mean == pytest.approx(mean.tolist(), abs=1e-3, rel=0)
    assert SPACES[name].std == pytest.approx(std.tolist(), abs=1e-3, rel=0)


def test_rgb_is_the_identity_with_the_statistics_of_imagenet():
    x = random_images()
    assert torch.equal(SPACES["rgb"].convert(x), x)
    assert (SPACES["rgb"].mean, SPACES["rgb"].std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_the_spaces_their_channels_and_their_constants_agree():
    channels = {name: space.channels for name, space in SPACES.items()}
    assert channels == {"rgb": 3, "ycbcr": 3, "hsv": 3, "lab": 3, "gray": 1}
    assert all(len(space.std) == space.channels for space in SPACES.values())


def test_a_space_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SPACES["rgb"].mean = (0.5, 0.5, 0.5)
