"""Blur and JPEG: against scipy and by their properties, and how Augment draws them."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from data import perturb, transforms
from data.perturb import JPEG_METHODS, gaussian_blur
from data.transforms import Augment


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height=64, width=48):
    """A picture that JPEG can keep: two gradients and their mean."""
    rows, columns = np.mgrid[:height, :width]
    red, green = 255 * rows // (height - 1), 255 * columns // (width - 1)
    return np.dstack([red, green, (red + green) // 2]).astype(np.uint8)


def distance(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("size", [(32, 40), (7, 5), (1, 1)])
def test_blur_is_scipys_on_each_channel(sigma, size):
    pixels = noise(*size)
    expected = np.empty_like(pixels)
    for channel in range(3):
        gaussian_filter(pixels[:, :, channel], output=expected[:, :, channel], sigma=sigma)
    result = gaussian_blur(pixels, sigma)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


def test_blur_with_sigma_0_is_the_identity():
    pixels = noise(9, 8)
    np.testing.assert_array_equal(gaussian_blur(pixels, 0), noise(9, 8))


def test_blur_leaves_its_input_alone():
    pixels = noise(9, 8)
    gaussian_blur(pixels, 1.0)
    np.testing.assert_array_equal(pixels, noise(9, 8))


def test_blur_does_not_leak_between_channels():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[8, 8, 0] = 255
    result = gaussian_blur(pixels, 1.0)
    assert 0 < result[8, 8, 0] < 255 and result[8, 7, 0] > 0
    assert not result[..., 1:].any()


def test_a_larger_sigma_blurs_more():
    spread = [gaussian_blur(noise(64, 64), sigma).std() for sigma in (0, 0.5, 1, 2)]
    assert spread == sorted(spread, reverse=True) and spread[-1] < spread[0] / 3


methods = pytest.mark.parametrize("method", JPEG_METHODS.values(), ids=JPEG_METHODS)


@methods
@pytest.mark.parametrize("size", [(32, 32), (17, 33), (1, 1), (8, 3)])
@pytest.mark.parametrize("quality", [1, 75, 100])
def test_jpeg_keeps_shape_and_type(method, size, quality):
    result = method(noise(*size), quality)
    assert result.shape == (*size, 3) and result.dtype == np.uint8 and result.flags.c_contiguous


@methods
def test_jpeg_at_quality_100_is_closer_than_at_10(method):
    for pixels in (smooth(), noise(48, 48)):
        fine, coarse = distance(method(pixels, 100), pixels), distance(method(pixels, 10), pixels)
        assert 0 < fine < coarse - 2


@methods
def test_jpeg_at_quality_100_barely_changes_a_smooth_picture(method):
    assert distance(method(smooth(), 100), smooth()) < 2


@methods
@pytest.mark.parametrize("channel", [0, 1, 2], ids=["red", "green", "blue"])
def test_jpeg_keeps_the_order_of_channels(method, channel):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., channel] = 255
    assert np.abs(method(pixels, 95).astype(int) - pixels).max() <= 4


@methods
def test_jpeg_keeps_the_orientation(method):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:8, :16] = 255
    result = method(pixels, 95)
    assert result[:6, :14].min() > 200 and result[10:].max() < 60 and result[:, 18:].max() < 60


@methods
def test_jpeg_leaves_its_input_alone_and_repeats_exactly(method):
    pixels = noise(24, 24)
    first, second = method(pixels, 50), method(pixels, 50)
    np.testing.assert_array_equal(pixels, noise(24, 24))
    np.testing.assert_array_equal(first, second)


def test_both_encoders_agree_on_what_quality_means():
    for quality in (30, 75, 95):
        results = [method(smooth(), quality) for method in JPEG_METHODS.values()]
        assert distance(*results) < 2


def test_probability_0_leaves_the_image_untouched():
    image = Image.fromarray(noise(20, 20))
    for seed in range(50):
        result = Augment(blur_prob=0, jpeg_prob=0).degradation(np.random.default_rng(seed)).apply(image)
        np.testing.assert_array_equal(np.asarray(result), noise(20, 20))


def test_probability_1_always_degrades():
    image = Image.fromarray(noise(20, 20))
    blurred = gaussian_blur(noise(20, 20), 0.8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        result = np.asarray(Augment(blur_prob=1, blur_sigma=(0.8,)).degradation(rng).apply(image))
        np.testing.assert_array_equal(result, blurred)


def test_blur_comes_before_jpeg():
    augment = Augment(blur_prob=1, blur_sigma=(1.0,), jpeg_prob=1, jpeg_methods=("pil",), jpeg_quality=(30,))
    result = augment.degradation(np.random.default_rng(0)).apply(Image.fromarray(noise(24, 24)))
    expected = perturb.jpeg_pil(gaussian_blur(noise(24, 24), 1.0), 30)
    np.testing.assert_array_equal(np.asarray(result), expected)


@pytest.fixture
def drawn(monkeypatch):
    """Lists of the sigmas, and of the (encoder, quality) pairs, that Augment asks for."""
    sigmas, jpegs = [], []

    def blur(pixels, sigma):
        sigmas.append(sigma)
        return pixels

    def encoder(name):
        def jpeg(pixels, quality):
            jpegs.append((name, quality))
            return pixels

        return jpeg

    monkeypatch.setattr(transforms, "gaussian_blur", blur)
    for name in JPEG_METHODS:
        monkeypatch.setitem(transforms.JPEG_METHODS, name, encoder(name))
    return sigmas, jpegs


def degrade_often(augment, times=600):
    image, rng = Image.fromarray(noise(4, 4)), np.random.default_rng(0)
    for _ in range(times):
        augment.degradation(rng).apply(image)


@pytest.mark.parametrize("given", [(75,), (90, 92), (1, 100)])
def test_the_range_of_qualities_includes_both_ends(drawn, given):
    degrade_often(Augment(jpeg_prob=1, jpeg_quality=given), times=1500)
    assert {quality for _, quality in drawn[1]} == set(range(given[0], given[-1] + 1))
    assert all(type(quality) is int for _, quality in drawn[1])


def test_sigma_fills_its_range(drawn):
    degrade_often(Augment(blur_prob=1, blur_sigma=(0.5, 3.0)))
    sigmas = np.array(drawn[0])
    assert len(sigmas) == 600 and sigmas.min() >= 0.5 and sigmas.max() <= 3.0
    assert sigmas.min() < 0.55 and sigmas.max() > 2.95 and abs(sigmas.mean() - 1.75) < 0.1


def test_a_single_sigma_is_used_as_it_is(drawn):
    degrade_often(Augment(blur_prob=1, blur_sigma=(0.5,)), times=20)
    assert drawn[0] == [0.5] * 20


@pytest.mark.parametrize("given", [("cv2",), ("pil",), ("cv2", "pil")])
def test_every_encoder_given_is_drawn_equally_often(drawn, given):
    degrade_often(Augment(jpeg_prob=1, jpeg_methods=given))
    names = [name for name, _ in drawn[1]]
    assert set(names) == set(given)
    assert all(abs(names.count(name) - 600 / len(given)) < 60 for name in given)


def test_blur_and_jpeg_are_drawn_independently_with_their_probabilities(drawn):
    degrade_often(Augment(blur_prob=0.3, jpeg_prob=0.6), times=2000)
    assert abs(len(drawn[0]) - 600) < 80
    assert abs(len(drawn[1]) - 1200) < 80
