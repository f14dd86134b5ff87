"""The NPR layer: its values, its index map, odd and refused sizes, memory layouts; and its relatives."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from networks.color import weighted_sum
from networks.npr import (
    factor_residual,
    index_map,
    local_gradient,
    references,
    scaled,
    window_residual,
)

EVEN_SIZES = [(2, 2), (2, 100), (4, 6), (30, 64), (224, 224), (256, 256), (254, 258)]
ODD_SIZES = [(3, 3), (5, 4), (4, 5), (3, 2), (31, 64), (225, 225), (224, 257)]


def random_images(height, width, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def scaled_residual(x):
    """The published layer as the detector feeds it to its first convolution."""
    return scaled(window_residual(x))


def published_residual(x):
    """The layer as upstream computes it: nearest-neighbour interpolation by 0.5, then by 2."""
    small = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    return x - F.interpolate(small, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)


def test_a_4x4_image_worked_by_hand():
    image = torch.tensor([[1, 2, 3, 5], [7, 11, 13, 17], [19, 23, 29, 31], [37, 41, 43, 47]]).float()
    expected = torch.tensor([[0, 1, 0, 2], [6, 10, 10, 14], [0, 4, 0, 2], [18, 22, 14, 18]]).float()
    assert torch.equal(window_residual(image), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_pixel_taken_away_has_index_0_0_2_2_4_4(axis):
    coordinate = torch.arange(6.0).expand(6, 6)
    coordinate = coordinate if axis == 1 else coordinate.T
    taken = coordinate - window_residual(coordinate)
    line = taken[3] if axis == 1 else taken[:, 3]
    assert line.tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("size", EVEN_SIZES)
def test_the_residual_and_the_scaled_one_equal_upstreams_bit_for_bit(size):
    x = random_images(*size)
    assert torch.equal(window_residual(x), published_residual(x))
    assert torch.equal(scaled_residual(x), published_residual(x) * 2.0 / 3.0)
    assert torch.equal(window_residual(x, 2, "w1"), published_residual(x))
    assert torch.equal(factor_residual(x, 0.5), published_residual(x))


def test_the_scale_is_two_steps_because_one_step_gives_other_bits():
    x = random_images(64, 64)
    assert not torch.equal(scaled_residual(x), window_residual(x) * (2 / 3))


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("layer", [window_residual, scaled_residual])
def test_an_odd_size_loses_its_last_row_or_column(layer, size):
    height, width = size
    x = random_images(height, width)
    even = x[:, :, : height // 2 * 2, : width // 2 * 2].contiguous()
    assert torch.equal(layer(x), layer(even))


@pytest.mark.parametrize("size", EVEN_SIZES + ODD_SIZES)
def test_the_result_has_the_even_size(size):
    height, width = size
    assert window_residual(random_images(height, width)).shape == (2, 3, height & ~1, width & ~1)


@pytest.mark.parametrize(
    ("size", "words"), [((1, 1), "1x1"), ((1, 8), "8x1"), ((8, 1), "1x8"), ((0, 4), "4x0")]
)
def test_an_image_one_pixel_wide_or_high_is_refused_with_its_size(size, words):
    with pytest.raises(ValueError, match=words):
        window_residual(torch.zeros(1, 3, *size))


def test_a_quarter_of_the_residual_is_exactly_zero():
    residual = window_residual(random_images(64, 48))
    assert residual[..., ::2, ::2].abs().max() == 0
    assert (residual == 0).float().mean() == 0.25


def test_an_image_of_repeated_2x2_blocks_has_no_residual():
    x = random_images(16, 16).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert window_residual(x).abs().max() == 0


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
    assert torch.equal(window_residual(one.expand(4, 3, 8, 8)), window_residual(one).expand(4, 3, 8, 8))


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (2, 3, 8, 8), (2, 2, 3, 8, 8)])
def test_leading_dimensions_are_free(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    planes = torch.stack([window_residual(plane) for plane in x.reshape(-1, 8, 8)])
    assert torch.equal(window_residual(x), planes.reshape(shape))


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


# --- other factors: which pixel is taken away

PUBLISHED_MAPS = {
    0.25: [0, 0, 0, 0, 4, 4, 4, 4],
    0.5: [0, 0, 2, 2, 4, 4, 6, 6],
    0.75: [0, 0, 1, 2, 4, 4, 5, 6],
}
FRACTIONS = {  # the factor as typed, and the number that was meant
    0.1: Fraction(1, 10),
    0.25: Fraction(1, 4),
    0.29: Fraction(29, 100),
    0.3: Fraction(3, 10),
    1 / 3: Fraction(1, 3),
    0.5: Fraction(1, 2),
    0.6: Fraction(6, 10),
    0.7: Fraction(7, 10),
    0.75: Fraction(3, 4),
    0.9: Fraction(9, 10),
    0.99: Fraction(99, 100),
}
WHOLE_SIZES = [(4, 4), (8, 8), (32, 32), (36, 20), (224, 224), (256, 256), (252, 300)]  # multiples of 4


def slow_index_map(length, factor):
    """Down, then up: every small pixel, then every large one, takes the pixel its left edge falls into."""
    small = max(1, math.floor(length * factor))
    down = [math.floor(Fraction(length, small) * place) for place in range(small)]
    return [down[math.floor(Fraction(small, length) * place)] for place in range(length)]


def published_factor_residual(x, factor):
    small = F.interpolate(x, scale_factor=factor, mode="nearest", recompute_scale_factor=True)
    return x - F.interpolate(small, scale_factor=1 / factor, mode="nearest", recompute_scale_factor=True)


@pytest.mark.parametrize("factor", PUBLISHED_MAPS)
def test_the_index_map_repeats_the_published_one(factor):
    expected = [start + index for start in (0, 8, 16, 24) for index in PUBLISHED_MAPS[factor]]
    assert index_map(32, factor).tolist() == expected


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("factor", PUBLISHED_MAPS)
def test_the_pixel_taken_away_has_the_published_index(factor, axis):
    coordinate = torch.arange(8.0).expand(1, 1, 8, 8)
    coordinate = coordinate if axis == 1 else coordinate.mT
    taken = (coordinate - factor_residual(coordinate, factor))[0, 0]
    for line in taken if axis == 1 else taken.T:
        assert line.tolist() == PUBLISHED_MAPS[factor]


@pytest.mark.parametrize("factor", FRACTIONS)
def test_the_index_map_is_exact(factor):
    for length in [*range(1, 101), 224, 225, 255, 256, 257, 1000, 1023]:
        assert index_map(length, factor).tolist() == slow_index_map(length, FRACTIONS[factor]), length


@pytest.mark.parametrize("factor", FRACTIONS)
@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 34, 224, 225, 1001])
def test_an_index_map_starts_at_0_grows_and_never_looks_ahead(factor, length):
    places = index_map(length, factor).tolist()
    assert len(places) == length and places[0] == 0
    assert places == sorted(places)
    assert all(0 <= taken <= place for place, taken in enumerate(places))
    assert len(set(places)) == max(1, math.floor(length * FRACTIONS[factor]))


@pytest.mark.parametrize("size", WHOLE_SIZES)
@pytest.mark.parametrize("factor", PUBLISHED_MAPS)
def test_a_factor_residual_equals_the_published_layers_bit_for_bit(factor, size):
    x = random_images(*size)
    assert torch.equal(factor_residual(x, factor), published_factor_residual(x, factor))


@pytest.mark.parametrize("factor", FRACTIONS)
@pytest.mark.parametrize("size", [(5, 8), (9, 7), (1, 4)])
def test_the_nearest_residual_equals_a_loop_over_pixels(size, factor):
    x = random_images(*size)
    result = factor_residual(x, factor)
    rows, columns = (slow_index_map(length, FRACTIONS[factor]) for length in size)
    assert result.shape == x.shape
    for row in range(size[0]):
        for column in range(size[1]):
            expected = x[..., row, column] - x[..., rows[row], columns[column]]
            assert torch.equal(result[..., row, column], expected)


# --- other interpolations


def bilinear_weights(length, target):
    """{source: weight} for every target pixel: pixels are points at half-pixel centres, ends are held."""
    for place in range(target):
        at = min(max((place + 0.5) * length / target - 0.5, 0.0), length - 1.0)
        left = math.floor(at)
        yield {left: 1 - (at - left), min(left + 1, length - 1): at - left} if at > left else {left: 1.0}


def area_weights(length, target):
    """Every target pixel is the plain mean of all source pixels that its interval touches."""
    for place in range(target):
        first = math.floor(Fraction(place * length, target))
        last = math.ceil(Fraction((place + 1) * length, target))
        yield dict.fromkeys(range(first, last), 1 / (last - first))


def cubic(distance, a=-0.75):
    """Keys' kernel with the constant that PyTorch takes."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bicubic_weights(length, target):
    """Four points around each half-pixel centre; a point outside is the end pixel again."""
    for place in range(target):
        at = (place + 0.5) * length / target - 0.5
        weights = dict.fromkeys(range(length), 0.0)
        for point in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[min(max(point, 0), length - 1)] += cubic(at - point)
        yield weights


SLOW_MODES = {"bilinear": bilinear_weights, "area": area_weights, "bicubic": bicubic_weights}


def slow_resize(plane, target, mode):
    """A list of rows, resized to target = (height, width) by summing weighted pixels."""
    down = list(SLOW_MODES[mode](len(plane), target[0]))
    across = list(SLOW_MODES[mode](len(plane[0]), target[1]))
    return [
        [
            sum(
                high * wide * plane[row][column]
                for row, high in rows.items()
                for column, wide in columns.items()
            )
            for columns in across
        ]
        for rows in down
    ]


@pytest.mark.parametrize("mode", SLOW_MODES)
@pytest.mark.parametrize("factor", [0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("size", [(6, 9), (8, 8), (11, 5)])
def test_other_modes_equal_a_sum_over_pixels(size, factor, mode):
    x = random_images(*size, dtype=torch.float64)
    small = [max(1, math.floor(length * FRACTIONS[factor])) for length in size]
    result = factor_residual(x, factor, mode)
    assert result.shape == x.shape
    for plane, residual in zip(x.flatten(0, 1)[:3], result.flatten(0, 1)[:3], strict=True):
        copy = slow_resize(slow_resize(plane.tolist(), small, mode), size, mode)
        torch.testing.assert_close(residual, plane - torch.tensor(copy, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["nearest", *SLOW_MODES])
def test_a_flat_image_leaves_no_residual_in_any_mode(mode):
    x = torch.full((1, 3, 13, 10), 0.7, dtype=torch.float64)
    assert factor_residual(x, 0.3, mode).abs().max() < 1e-12


@pytest.mark.parametrize("mode", ["nearest", *SLOW_MODES])
def test_rows_and_columns_are_treated_alike_in_every_mode(mode):
    x = random_images(12, 17, dtype=torch.float64)
    torch.testing.assert_close(factor_residual(x.mT, 0.6, mode), factor_residual(x, 0.6, mode).mT)


# --- windows


def slow_window_residual(plane, window, reference):
    """One plane as a list of rows; every window is gathered pixel by pixel."""
    height, width = (length // window * window for length in (len(plane), len(plane[0])))
    result = [[None] * width for _ in range(height)]
    for top in range(0, height, window):
        for left in range(0, width, window):
            places = [(top + down, left + right) for down in range(window) for right in range(window)]
            values = [plane[row][column] for row, column in places]
            compared = {"mean": sum(values) / len(values), "max": max(values)}
            compared |= {f"w{number}": value for number, value in enumerate(values, start=1)}
            for row, column in places:
                result[row][column] = plane[row][column] - compared[reference]
    return result


def every_reference():
    return [(window, f"w{number}") for window in (2, 3, 4) for number in range(1, window**2 + 1)] + [
        (window, word) for window in (2, 3, 4) for word in ("mean", "max")
    ]


@pytest.mark.parametrize("window", [2, 3, 4])
def test_the_references_of_a_window_are_its_pixels_its_mean_and_its_maximum(window):
    assert {(window, name) for name in references(window)} == {
        pair for pair in every_reference() if pair[0] == window
    }


@pytest.mark.parametrize(("window", "reference"), every_reference())
@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
def test_a_window_residual_equals_a_loop_over_pixels(size, window, reference):
    x = random_images(*size, dtype=torch.float64)
    result = window_residual(x, window, reference)
    planes = [slow_window_residual(plane.tolist(), window, reference) for plane in x.flatten(0, 1)]
    expected = torch.tensor(planes, dtype=torch.float64).unflatten(0, (2, 3))
    tolerance = 1e-12 if reference == "mean" else 0
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


def test_the_pixels_of_a_window_are_counted_row_by_row():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    for number in range(9):
        assert torch.equal(window_residual(image, 3, f"w{number + 1}"), image - number)


@pytest.mark.parametrize("window", [2, 3, 4])
def test_an_image_smaller_than_a_window_is_refused_with_both_sizes(window):
    with pytest.raises(ValueError, match=f"9x{window - 1}"):
        window_residual(torch.zeros(1, 3, window - 1, 9), window)
    assert window_residual(torch.zeros(1, 3, window, window), window).shape == (1, 3, window, window)


# --- the local gradient


def slow_local_gradient(plane):
    """Angle of every pixel's differences, in quarter turns; outside lies 0, and too steep counts as flat."""
    result = []
    for row, line in enumerate(plane):
        result.append([])
        for column, value in enumerate(line):
            right = line[column + 1] if column + 1 < len(line) else 0.0
            below = plane[row + 1][column] if row + 1 < len(plane) else 0.0
            ratio = (below - value) / (right - value + 1e-9)
            ratio = 0.0 if abs(ratio) > 100 else ratio
            result[-1].append((math.atan(ratio) / (math.pi / 2) + 1) / 2)
    return result


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 8), (9, 7)])
def test_the_local_gradient_equals_a_loop_over_pixels(size):
    x = random_images(*size, dtype=torch.float64)
    expected = [slow_local_gradient(plane.tolist()) for plane in x.flatten(0, 1)]
    expected = torch.tensor(expected, dtype=torch.float64).unflatten(0, (2, 3))
    torch.testing.assert_close(local_gradient(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("right", "below", "angle"),
    [
        (0, 0, 0.5),
        (1, 0, 0.5),
        (1, 1, 0.75),
        (1, -1, 0.25),
        (-1, -1, 0.75),
        (0, 1, 0.5),  # straight down: the ratio is beyond the limit
        (0.01, 0.99, 0.5 + math.atan(99) / math.pi),
        (0.01, 1.01, 0.5),
        (-0.01, 0.99, 0.5 - math.atan(99) / math.pi),
        (-0.01, 1.01, 0.5),
    ],
)
def test_the_local_gradient_of_one_pixel_worked_by_hand(right, below, angle):
    image = torch.tensor([[2, 2 + right, 0], [2 + below, 5, 0], [0, 0, 0]], dtype=torch.float64)
    assert local_gradient(image)[0, 0].item() == pytest.approx(angle, abs=1e-6)


def test_the_local_gradient_of_a_flat_image_is_one_half_inside_and_finite_at_the_border():
    result = local_gradient(torch.full((1, 3, 8, 8), 0.3))
    assert torch.equal(result[..., :-1, :-1], torch.full((1, 3, 7, 7), 0.5))
    assert torch.isfinite(result).all()


def test_the_local_gradient_lies_between_0_and_1_and_keeps_shape_and_dtype():
    x = random_images(31, 33)
    result = local_gradient(x)
    assert (result.shape, result.dtype) == (x.shape, x.dtype)
    assert result.min() >= 0 and result.max() <= 1


# --- a sum of several maps


def test_a_weighted_sum_takes_numbers_or_a_weight_per_image():
    maps = [random_images(4, 4).add(number) for number in range(3)]
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    both = weighted_sum(maps, weights.T[..., None, None, None])
    torch.testing.assert_close(both[0], weighted_sum([one[0] for one in maps], [0.5, 0.25, 0.25]))
    assert torch.equal(both[1], maps[1][1])


def test_a_weighted_sum_wants_as_many_weights_as_maps():
    with pytest.raises(ValueError, match="zip"):
        weighted_sum([torch.zeros(1), torch.zeros(1)], [0.5])
