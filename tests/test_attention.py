"""Attention over channels, places and scales, against loops over single numbers."""

import math

import pytest
import torch
from torch import nn

from networks.attention import FORMS, ChannelAttention, ScaleAttention, SpatialAttention

FORM = pytest.mark.parametrize("form", FORMS)


def make(module, *arguments, seed=0):
    torch.manual_seed(seed)
    return module(*arguments)


def features(batch=2, channels=32, height=5, width=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def times(matrix, vector):
    """A matrix, as a list of rows, times a list of numbers."""
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


# --- channels


def slow_gates(attention, image, form):
    """The factor of every channel of one image (C, H, W)."""
    planes = [plane.flatten().tolist() for plane in image]
    first, second = attention.fc[0].weight.tolist(), attention.fc[2].weight.tolist()
    answers = []
    for summary in ([sum(plane) / len(plane) for plane in planes], [max(plane) for plane in planes]):
        hidden = [max(0.0, value) for value in times(first, summary)]
        answers.append(times(second, hidden))
    if form == "sum":
        return [sigmoid(mean) + sigmoid(largest) for mean, largest in zip(*answers, strict=True)]
    return [sigmoid(mean + largest) for mean, largest in zip(*answers, strict=True)]


@FORM
@pytest.mark.parametrize("channels", [16, 64, 256])
def test_channel_attention_equals_a_loop_over_channels(channels, form):
    attention, x = make(ChannelAttention, channels, form).double(), features(channels=channels)
    result = attention(x)
    for image, answer in zip(x, result, strict=True):
        for channel, gate in enumerate(slow_gates(attention, image, form)):
            torch.testing.assert_close(answer[channel], image[channel] * gate)


def test_the_form_is_the_sum_of_two_sigmoids_unless_given():
    default, x = make(ChannelAttention, 32).double(), features()
    assert torch.equal(default(x), make(ChannelAttention, 32, "sum").double()(x))
    assert not torch.allclose(default(x), make(ChannelAttention, 32, "cbam").double()(x))


@pytest.mark.parametrize(("form", "gate"), [("sum", 1.0), ("cbam", 0.5)])
def test_channel_attention_without_weights_is_one_factor(form, gate):
    attention, x = make(ChannelAttention, 32, form).double(), features()
    nn.init.zeros_(attention.fc[2].weight)
    torch.testing.assert_close(attention(x), gate * x)


@pytest.mark.parametrize(("form", "highest"), [("sum", 2.0), ("cbam", 1.0)])
def test_the_gate_of_a_form_ends_at_its_limit(form, highest):
    attention = ChannelAttention(32, form)
    large = torch.full((1, 32), 50.0)
    torch.testing.assert_close(attention.gate(large, large), torch.full((1, 32), highest))
    torch.testing.assert_close(attention.gate(-large, -large), torch.zeros(1, 32))


@pytest.mark.parametrize(("channels", "hidden"), [(64, 4), (256, 16)])
def test_channel_attention_has_two_layers_without_bias_shared_by_mean_and_maximum(channels, hidden):
    shapes = {key: tuple(value.shape) for key, value in ChannelAttention(channels).state_dict().items()}
    assert shapes == {"fc.0.weight": (hidden, channels), "fc.2.weight": (channels, hidden)}


@FORM
def test_both_forms_have_the_same_keys_and_start_alike(form):
    first, second = make(ChannelAttention, 64).state_dict(), make(ChannelAttention, 64, form).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


# --- places


def slow_spatial_attention(attention, image):
    """One image (C, H, W), place by place; outside of it lies 0."""
    _, height, width = image.shape
    kernel = attention.conv.weight[0].tolist()
    values = image.tolist()
    places = [[[plane[row][column] for plane in values] for column in range(width)] for row in range(height)]
    means = [[sum(place) / len(place) for place in line] for line in places]
    maxima = [[max(place) for place in line] for line in places]
    result = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            total = 0.0
            for down in range(-3, 4):
                for right in range(-3, 4):
                    if 0 <= row + down < height and 0 <= column + right < width:
                        for weights, summary in zip(kernel, (means, maxima), strict=True):
                            total += weights[down + 3][right + 3] * summary[row + down][column + right]
            result[:, row, column] = image[:, row, column] * sigmoid(total)
    return result


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (8, 8), (11, 7)])
def test_spatial_attention_equals_a_loop_over_places(height, width):
    attention, x = make(SpatialAttention).double(), features(2, 5, height, width)
    with torch.no_grad():
        expected = torch.stack([slow_spatial_attention(attention, image) for image in x])
        torch.testing.assert_close(attention(x), expected)


def test_spatial_attention_has_one_7x7_convolution_without_bias():
    attention = SpatialAttention()
    assert {key: tuple(value.shape) for key, value in attention.state_dict().items()} == {
        "conv.weight": (1, 2, 7, 7)
    }


def test_spatial_attention_sees_the_mean_first_and_the_maximum_second():
    attention = make(SpatialAttention).double()
    nn.init.zeros_(attention.conv.weight)
    with torch.no_grad():
        attention.conv.weight[0, 1, 3, 3] = 1.0
    x = features(1, 4)
    torch.testing.assert_close(attention(x), x * x.max(dim=1, keepdim=True).values.sigmoid())


# --- scales


def slow_scale_weights(attention, image):
    """The weights of one image (C, H, W)."""
    means = [sum(plane.flatten().tolist()) / plane.numel() for plane in image]
    first, second = attention.attention[0], attention.attention[2]
    hidden = [a + b for a, b in zip(times(first.weight.tolist(), means), first.bias.tolist(), strict=True)]
    raw = times(second.weight.tolist(), [max(0.0, value) for value in hidden])
    powers = [math.exp(a + b) for a, b in zip(raw, second.bias.tolist(), strict=True)]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(("channels", "scales"), [(3, 3), (1, 3), (3, 2), (3, 5)])
def test_scale_weights_equal_a_loop_over_numbers(channels, scales):
    attention, x = make(ScaleAttention, channels, scales).double(), features(4, channels)
    expected = [slow_scale_weights(attention, image) for image in x]
    torch.testing.assert_close(attention(x), torch.tensor(expected, dtype=torch.float64))


def test_scale_weights_are_positive_and_sum_to_one():
    weights = make(ScaleAttention, 3, 4)(features(6, 3, dtype=torch.float32))
    assert weights.shape == (6, 4) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))


def test_scale_weights_see_nothing_but_the_mean_colour():
    attention, x = make(ScaleAttention, 3, 3).double(), features(2, 3)
    torch.testing.assert_close(attention(x), attention(x.flatten(2).flip(2).view_as(x)))
    torch.testing.assert_close(attention(x), attention(x.mean(dim=(2, 3), keepdim=True)))


def test_scale_attention_has_16_hidden_units():
    shapes = {key: tuple(value.shape) for key, value in ScaleAttention(3, 3).state_dict().items()}
    assert shapes == {
        "attention.0.weight": (16, 3),
        "attention.0.bias": (16,),
        "attention.2.weight": (3, 16),
        "attention.2.bias": (3,),
    }


# --- all of them


MODULES = {
    "channel, sum": lambda: ChannelAttention(32, "sum"),
    "channel, cbam": lambda: ChannelAttention(32, "cbam"),
    "spatial": SpatialAttention,
    "scale": lambda: ScaleAttention(32, 3),
}
EVERY_MODULE = pytest.mark.parametrize("kind", MODULES)


@EVERY_MODULE
def test_an_image_is_weighed_alike_alone_and_in_a_batch(kind):
    module, x = make(MODULES[kind]).double(), features(3)
    torch.testing.assert_close(module(x), torch.cat([module(image[None]) for image in x]))


@EVERY_MODULE
def test_the_input_is_not_changed(kind):
    module, x = make(MODULES[kind]).double(), features()
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


@EVERY_MODULE
def test_gradients_are_those_of_finite_differences(kind):
    module = make(MODULES[kind]).double()
    x = features(1, 32, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(module, x)


@EVERY_MODULE
def test_a_channels_last_input_gives_the_same(kind):
    module, x = make(MODULES[kind]).double(), features()
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), module(x))
