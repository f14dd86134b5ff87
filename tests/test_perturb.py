"""Blur and JPEG: against scipy and by their properties, how Augment draws them; and views."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from common import BadImage, UserError
from data import perturb, transforms
from data.perturb import JPEG_METHODS, SWEEP, VIEWS, gaussian_blur, parse_view, parse_views
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


# ----- views -----


def picture(height=60, width=100, seed=0):
    return Image.fromarray(
        np.clip(smooth(height, width) + noise(height, width, seed) // 8, 0, 255).astype(np.uint8)
    )


def pixels_of(view, image, seed=(0,)):
    return np.array(parse_view(view)(image, seed))


@pytest.mark.parametrize(
    "view, slow",
    [
        ("jpeg:75", lambda image: saved(image, "JPEG", quality=75, subsampling="4:2:0")),
        ("webp:80", lambda image: saved(image, "WEBP", quality=80)),
        ("blur:1.5", lambda image: gaussian_filter(np.array(image), sigma=(1.5, 1.5, 0))),
        ("resize:0.5", lambda image: image.resize((50, 30), Image.Resampling.BICUBIC)),
        ("resize:1.5:nearest", lambda image: image.resize((150, 90), Image.Resampling.NEAREST)),
        ("fit:50:lanczos", lambda image: image.resize((50, 30), Image.Resampling.LANCZOS)),
        ("fit:200", lambda image: image),
        ("crop:0.5", lambda image: image.crop((25, 15, 75, 45))),
        ("gamma:2", lambda image: np.round((np.array(image) / 255.0) ** 2 * 255).astype(np.uint8)),
        ("screenshot", lambda image: image.resize((125, 75), Image.Resampling.BILINEAR)),
        ("native", lambda image: image),
        ("aligned", lambda image: saved(image, "JPEG", quality=96, subsampling="4:2:0")),
        ("crop:0.5+jpeg:40", lambda image: saved(image.crop((25, 15, 75, 45)), "JPEG", quality=40)),
    ],
)
def test_a_view_is_what_its_name_says(view, slow):
    np.testing.assert_array_equal(pixels_of(view, picture()), np.array(slow(picture())))


def saved(image, container, **options):
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return Image.open(buffer).convert("RGB")


def test_noise_has_its_spread_and_depends_on_the_seed_and_the_position_only():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    first = pixels_of("noise:5", grey, (7, 3)).astype(float)
    assert abs(first.std() - 5) < 0.1 and abs(first.mean() - 128) < 0.1
    np.testing.assert_array_equal(first, pixels_of("noise:5", grey, (7, 3)))
    assert (first != pixels_of("noise:5", grey, (7, 4))).any()
    twice = pixels_of("noise:5+noise:5", grey, (7, 3)).astype(float)
    assert abs(twice.std() - 5 * 2**0.5) < 0.15  # two independent draws


@pytest.mark.parametrize("view", [*VIEWS, *SWEEP, "gamma:0.5", "sharpen", "screenshot"])
def test_every_view_gives_rgb_changes_the_pixels_and_leaves_its_input_alone(view):
    image = picture(900, 800)
    before = np.array(image)
    result = parse_view(view)(image, (1, 2))
    np.testing.assert_array_equal(np.array(image), before)
    assert result.mode == "RGB"
    same = result.size == image.size and (np.array(result) == before).all()
    assert same == (view == "native")
    assert parse_view(view)(Image.new("RGB", (1, 1)), (1, 2)).mode == "RGB"  # the smallest image


@pytest.mark.parametrize("view", [*SWEEP, *VIEWS, "jpeg:75:cv2+resize:0.5:lanczos"])
def test_a_view_is_its_chain_and_its_name(view):
    parsed = parse_view(view)
    assert parse_view(parsed.name) == parsed
    if parsed.chain:
        assert parse_view(parsed.chain).steps == parsed.steps


def test_names_are_normalised_and_taken_once():
    assert [view.name for view in parse_views("Native, jpeg:075,jpeg:75:pil,JPEG:75:cv2")] == [
        "native",
        "jpeg:75",
        "jpeg:75:cv2",
    ]
    assert len(parse_views("native,sweep")) == len(SWEEP) <= 16
    assert parse_view("web+noise:2").chain == f"{parse_view('web').chain}+noise:2"
    assert parse_view("native+jpeg:75") == parse_view("jpeg:75 + native") == parse_view("jpeg:75")
    assert parse_view("native+native") == parse_view("native")


def test_slugs_are_safe_for_files_and_different():
    longest = "+".join(f"blur:{number}" for number in range(1, 60))
    names = [*SWEEP, *VIEWS, "crop:0.5+jpeg:5", "crop:0.5", "jpeg:5", longest, longest + "+blur:1"]
    names += ["resize:0.1234567", "resize:0.1234568"]  # equal in six digits
    slugs = [parse_view(name).slug for name in names]
    assert len(set(slugs)) == len(set(names))
    for slug in slugs:
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_") and len(slug) < 100


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "native"),
        ("jpg:75", "jpeg"),
        ("jpeg", "100"),
        ("jpeg:0", "100"),
        ("jpeg:7.5", "whole"),
        ("jpeg:75:ocv", "cv2"),
        ("noise:nan", "255"),
        ("resize:100", "16"),
        ("crop:0.5:3", "crop"),
        ("jpeg:75+", "jpeg"),
        ("jpeg:75:", "cv2"),
    ],
)
def test_a_wrong_view_is_refused_with_the_legal_ones(text, word):
    with pytest.raises(UserError, match=word):
        parse_views(text)


def test_an_enlargement_beyond_memory_is_a_bad_image():
    with pytest.raises(UserError, match="64000"):
        parse_view("resize:16")(Image.new("RGB", (4000, 4000)))


@pytest.mark.parametrize("view", ["webp:80", "jpeg:80", "jpeg:80:cv2"])
def test_a_size_that_an_encoder_refuses_is_a_bad_image(view):
    with pytest.raises(BadImage, match=view[:4]):
        parse_view(view)(Image.new("RGB", (70_000, 2)))
