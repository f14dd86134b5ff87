"""The NPR layer: its values, its index map, odd and refused sizes, memory layouts."""

import pytest
import torch
import torch.nn.functional as F

from networks.npr import neighbour_residual, scaled, trim

EVEN_SIZES = [(2, 2), (2, 100), (4, 6), (30, 64), (224, 224), (256, 256), (254, 258)]
ODD_SIZES = [(3, 3), (5, 4), (4, 5), (3, 2), (31, 64), (225, 225), (224, 257)]


def random_images(height, width, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def scaled_residual(x):
    """The published layer as the detector feeds it to its first convolution."""
    return scaled(neighbour_residual(x))


def published_residual(x):
    """The layer as upstream computes it: nearest-neighbour interpolation by 0.5, then by 2."""
    small = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    return x - F.interpolate(small, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)


def test_a_4x4_image_worked_by_hand():
    image = torch.tensor([[1, 2, 3, 5], [7, 11, 13, 17], [19, 23, 29, 31], [37, 41, 43, 47]]).float()
    expected = torch.tensor([[0, 1, 0, 2], [6, 10, 10, 14], [0, 4, 0, 2], [18, 22, 14, 18]]).float()
    assert torch.equal(neighbour_residual(image), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_pixel_taken_away_has_index_0_0_2_2_4_4(axis):
    coordinate = torch.arange(6.0).expand(6, 6)
    coordinate = coordinate if axis == 1 else coordinate.T
    taken = coordinate - neighbour_residual(coordinate)
    line = taken[3] if axis == 1 else taken[:, 3]
    assert line.tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("size", EVEN_SIZES)
def test_the_residual_equals_upstreams_bit_for_bit(size):
    x = random_images(*size)
    assert torch.equal(neighbour_residual(x), published_residual(x))


@pytest.mark.parametrize("size", EVEN_SIZES)
def test_the_scaled_residual_equals_upstreams_bit_for_bit(size):
    x = random_images(*size)
    assert torch.equal(scaled_residual(x), published_residual(x) * 2.0 / 3.0)


def test_the_scale_is_two_steps_because_one_step_gives_other_bits():
    x = random_images(64, 64)
    assert not torch.equal(scaled_residual(x), neighbour_residual(x) * (2 / 3))


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("layer", [neighbour_residual, scaled_residual])
def test_an_odd_size_loses_its_last_row_or_column(layer, size):
    height, width = size
    x = random_images(height, width)
    even = x[:, :, : height // 2 * 2, : width // 2 * 2].contiguous()
    assert torch.equal(layer(x), layer(even))


@pytest.mark.parametrize("size", EVEN_SIZES + ODD_SIZES)
def test_the_result_has_the_even_size(size):
    height, width = size
    assert neighbour_residual(random_images(height, width)).shape == (2, 3, height & ~1, width & ~1)


@pytest.mark.parametrize("size", EVEN_SIZES)
def test_trim_leaves_even_sizes_alone(size):
    x = random_images(*size)
    assert torch.equal(trim(x, 2), x)


@pytest.mark.parametrize(
    ("size", "words"), [((1, 1), "1x1"), ((1, 8), "8x1"), ((8, 1), "1x8"), ((0, 4), "4x0")]
)
def test_an_image_one_pixel_wide_or_high_is_refused_with_its_size(size, words):
    with pytest.raises(ValueError, match=f"at least 2x2 pixels, got {words}"):
        neighbour_residual(torch.zeros(1, 3, *size))


def test_a_quarter_of_the_residual_is_exactly_zero():
    residual = neighbour_residual(random_images(64, 48))
    assert residual[..., ::2, ::2].abs().max() == 0
    assert (residual == 0).float().mean() == 0.25


def test_an_image_of_repeated_2x2_blocks_has_no_residual():
    x = random_images(16, 16).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert neighbour_residual(x).abs().max() == 0


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second column of a wider image": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "window of a larger image": lambda x: F.pad(x, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    "channels of a larger stack": lambda x: torch.cat([x, x], dim=1)[:, ::2][:, [0, 2, 1]],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(32, 32), (33, 30), (17, 19)])
def test_the_memory_layout_does_not_matter(layout, size):
    x = LAYOUTS[layout](random_images(*size))
    assert torch.equal(scaled_residual(x), scaled_residual(x.clone(memory_format=torch.contiguous_format)))


def test_an_image_expanded_over_the_batch_is_read_right():
    one = random_images(8, 8, batch=1)
    assert torch.equal(neighbour_residual(one.expand(4, 3, 8, 8)), neighbour_residual(one).expand(4, 3, 8, 8))


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (2, 3, 8, 8), (2, 2, 3, 8, 8)])
def test_leading_dimensions_are_free(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    planes = torch.stack([neighbour_residual(plane) for plane in x.reshape(-1, 8, 8)])
    assert torch.equal(neighbour_residual(x), planes.reshape(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype):
    assert scaled_residual(random_images(8, 8, dtype=dtype)).dtype == dtype


def test_the_input_is_not_changed():
    x = random_images(9, 8)
    before = x.clone()
    scaled_residual(x)
    assert torch.equal(x, before)


def test_the_gradient_is_that_of_the_published_layer():
    ours, theirs = (random_images(8, 6).requires_grad_() for _ in range(2))
    weight = random_images(8, 6, batch=2).flip(0)
    (scaled_residual(ours) * weight).sum().backward()
    (published_residual(theirs) * 2.0 / 3.0 * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
