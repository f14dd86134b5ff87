"""Resize, crop, tile, limits and augmentation of one image, and who decides an evaluation's geometry."""

import io
import math
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image
from scipy.ndimage import gaussian_filter

import networks
from common import BadImage, UserError
from data.transforms import Augment, Geometry, Limits, eval_geometry, prepare
from networks.base import DataConfig

STORED = Geometry(None, None)
SIZES = [(256, 256), (300, 200), (257, 255), (101, 333), (640, 479), (31, 500), (224, 224), (1, 1), (3, 700)]


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def coordinates(width, height):
    """An image whose red channel is the column and whose green channel is the row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8))


def as_array(tensor):
    return tensor.permute(1, 2, 0).numpy()


def evaluated(image, geometry=None, limits=None):
    return as_array(prepare(image, geometry or Geometry(), limits or Limits()))


def trained(image, geometry, augment, rng):
    return as_array(prepare(image, geometry, Limits(), augment, rng))


@pytest.mark.parametrize("size", SIZES)
def test_default_evaluation_equals_torchvision_pixel_for_pixel(size):
    image = noise(*size)
    resize = T.Resize((256, 256), T.InterpolationMode.BILINEAR)
    upstream = T.Compose([resize, T.CenterCrop(224), T.PILToTensor()])
    result = prepare(image, Geometry(), Limits())
    assert result.dtype == torch.uint8 and result.shape == (3, 224, 224) and result.is_contiguous()
    assert torch.equal(result, upstream(image))


@pytest.mark.parametrize("size", SIZES)
def test_default_evaluation_equals_a_pil_resize_and_a_slice(size):
    image = noise(*size)
    resized = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(evaluated(image), resized[16:240, 16:240])


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_each_interpolation_is_pillows_filter_of_that_name(name):
    image = noise(50, 71)
    expected = np.asarray(image.resize((64, 64), Image.Resampling[name.upper()]))
    np.testing.assert_array_equal(evaluated(image, Geometry(64, None, name)), expected)


@pytest.mark.parametrize("size", [(5, 9), (300, 200), (1, 1)])
def test_without_resize_and_crop_the_stored_pixels_pass(size):
    image = noise(*size)
    np.testing.assert_array_equal(evaluated(image, STORED), np.asarray(image))


@pytest.mark.parametrize(("size", "crop"), [((40, 30), 20), ((41, 33), 20), ((40, 30), 30), ((57, 64), 33)])
def test_the_centre_crop_of_a_stored_size_equals_torchvision(size, crop):
    image = noise(*size)
    expected = T.Compose([T.CenterCrop(crop), T.PILToTensor()])(image)
    assert torch.equal(prepare(image, Geometry(None, crop), Limits()), expected)


def tiled(image, crop):
    """NPR's translate_duplicate, written with numpy."""
    width, height = image.size
    if min(width, height) >= crop:
        return np.asarray(image)
    return np.tile(np.asarray(image), (-(-crop // height), -(-crop // width), 1))


@pytest.mark.parametrize("crop", [16, 17])
@pytest.mark.parametrize("size", [(16, 16), (15, 15), (8, 8), (7, 30), (30, 7), (1, 1), (16, 5), (40, 15)])
def test_small_images_are_tiled_by_the_genimage_rule(size, crop):
    image = noise(*size)
    canvas = Geometry(None, crop).tile(image)
    expected = tiled(image, crop)
    width, height = size
    if min(size) < crop:
        assert canvas.size == (width * -(-crop // width), height * -(-crop // height))
    np.testing.assert_array_equal(np.asarray(canvas), expected)


@pytest.mark.parametrize("size", [(7, 30), (15, 15), (100, 3)])
def test_a_tiled_image_is_cropped_at_its_centre(size):
    image = noise(*size)
    expected = T.CenterCrop(16)(Image.fromarray(tiled(image, 16)))
    np.testing.assert_array_equal(evaluated(image, Geometry(None, 16)), np.asarray(expected))


def test_tiling_happens_in_training_too():
    image = noise(7, 5)
    result = trained(image, Geometry(None, 32), Augment(flip=False), np.random.default_rng(3))
    canvas = np.tile(np.asarray(image), (20, 20, 1))
    windows = [canvas[top : top + 32, left : left + 32] for top in range(5) for left in range(7)]
    assert result.shape == (32, 32, 3)
    assert any(np.array_equal(result, window) for window in windows)


@pytest.mark.parametrize("width", [64, 100])
def test_a_training_crop_is_a_window_of_the_image(width):
    rng, image = np.random.default_rng(0), coordinates(width, 80)
    for _ in range(20):
        result = trained(image, Geometry(None, 32), Augment(flip=False), rng)
        left, top = int(result[0, 0, 0]), int(result[0, 0, 1])
        np.testing.assert_array_equal(result, np.asarray(image)[top : top + 32, left : left + 32])


def test_every_crop_position_is_drawn_equally_often():
    rng = np.random.default_rng(0)
    image, augment = coordinates(35, 34), Augment(flip=False)
    draws = [augment.crop_and_flip([image], 32, rng)[0].getpixel((0, 0))[:2] for _ in range(2400)]
    positions, counts = np.unique(draws, axis=0, return_counts=True)
    assert positions.tolist() == [[x, y] for x in range(4) for y in range(3)]
    assert counts.min() > 140 and counts.max() < 260


def test_half_of_the_training_images_are_mirrored():
    rng = np.random.default_rng(0)
    image = coordinates(16, 16)
    plain, mirrored = np.asarray(image), np.asarray(image)[:, ::-1]
    results = [trained(image, STORED, Augment(), rng) for _ in range(1000)]
    flips = [np.array_equal(result, mirrored) for result in results]
    assert all(flip or np.array_equal(result, plain) for flip, result in zip(flips, results, strict=True))
    assert 440 < sum(flips) < 560


def test_no_flip_never_mirrors():
    rng = np.random.default_rng(0)
    image = coordinates(16, 16)
    for _ in range(50):
        result = trained(image, STORED, Augment(flip=False), rng)
        np.testing.assert_array_equal(result, np.asarray(image))


@pytest.mark.parametrize("seed", range(6))
def test_training_equals_a_slow_recomputation_from_the_same_draws(seed):
    image = noise(90, 70, seed)
    augment = Augment(
        blur_prob=0.5,
        blur_sigma=(0.5, 2.0),
        jpeg_prob=0.5,
        jpeg_methods=("pil",),
        jpeg_quality=(40, 90),
        interpolations=("bilinear", "bicubic"),
    )
    result = trained(image, Geometry(64, 48), augment, np.random.default_rng(seed))

    rng = np.random.default_rng(seed)
    resample = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[rng.integers(2)]
    pixels = np.asarray(image.resize((64, 64), resample))
    blur, compress = rng.random() < 0.5, rng.random() < 0.5
    if blur:
        sigma = rng.uniform(0.5, 2.0)
        pixels = np.dstack([gaussian_filter(pixels[..., channel], sigma) for channel in range(3)])
    if compress:
        rng.integers(1)
        pixels = jpeg_by_pillow(pixels, int(rng.integers(40, 91)))
    left, top = int(rng.integers(17)), int(rng.integers(17))
    pixels = pixels[top : top + 48, left : left + 48]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    np.testing.assert_array_equal(result, pixels)


def jpeg_by_pillow(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_training_draws_every_interpolation_it_was_given():
    image, rng = noise(20, 20), np.random.default_rng(0)
    augment = Augment(flip=False, interpolations=("bilinear", "nearest"))
    seen = {prepare(image, Geometry(33, None), Limits(), augment, rng).numpy().tobytes() for _ in range(30)}
    filters = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    expected = {np.asarray(image.resize((33, 33), kind)).transpose(2, 0, 1).tobytes() for kind in filters}
    assert seen == expected


def test_the_same_draws_give_the_same_training_image_and_others_another():
    image = noise(300, 200)
    first, again, other = (
        prepare(image, Geometry(), Limits(), Augment(), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("size", "min_side", "accepted"),
    [((8, 8), 8, True), ((8, 7), 8, False), ((7, 8), 8, False), ((1, 1), 1, True), ((100, 1), 2, False)],
)
def test_images_below_the_detectors_smallest_side_are_refused(size, min_side, accepted):
    if accepted:
        assert evaluated(noise(*size), STORED, Limits(min_side)).shape[:2] == size[::-1]
    else:
        with pytest.raises(BadImage, match=f"{size[0]}x{size[1]}"):
            evaluated(noise(*size), STORED, Limits(min_side))


def test_the_smallest_side_counts_after_the_resize():
    assert evaluated(noise(1, 1), Geometry(8, None), Limits(min_side=8)).shape == (8, 8, 3)


def test_an_input_of_exactly_max_input_mpx_passes_untouched():
    image = noise(50, 40)
    np.testing.assert_array_equal(evaluated(image, STORED, Limits(max_input_mpx=0.002)), np.asarray(image))


def test_a_larger_input_is_refused_with_the_ways_out():
    with pytest.raises(BadImage) as caught:
        evaluated(noise(50, 41), STORED, Limits(max_input_mpx=0.002))
    text = str(caught.value)
    assert all(part in text for part in ("50x41", "--max_input_mpx 0.002", "--large_images crop"))


def test_a_larger_image_passes_when_the_crop_makes_it_small():
    limits = Limits(max_input_mpx=0.002)
    assert evaluated(noise(90, 80), Geometry(None, 40), limits).shape == (40, 40, 3)


def test_crop_large_takes_the_centre():
    image = noise(100, 60)
    result = evaluated(image, STORED, Limits(max_input_mpx=0.0015, crop_large=True))
    np.testing.assert_array_equal(result, np.asarray(image)[15:45, 25:75])


@pytest.mark.parametrize("bound", [0.0004, 0.001, 0.0031])
@pytest.mark.parametrize("size", [(101, 67), (60, 60), (64, 99), (333, 20), (400, 3), (2, 2500)])
def test_crop_large_gives_even_sizes_inside_the_image_and_the_bound(size, bound):
    image = noise(*size)
    height, width = evaluated(image, STORED, Limits(max_input_mpx=bound, crop_large=True)).shape[:2]
    if size[0] * size[1] <= bound * 1e6:
        assert (width, height) == size
        return
    assert width % 2 == 0 and height % 2 == 0
    assert 0 < width <= size[0] and 0 < height <= size[1]
    assert width * height <= bound * 1e6


def test_crop_large_uses_most_of_the_bound_and_keeps_the_shape():
    height, width = evaluated(noise(400, 300), STORED, Limits(max_input_mpx=0.03, crop_large=True)).shape[:2]
    assert width * height > 0.95 * 30000
    assert abs(width / height - 4 / 3) < 0.03


@pytest.mark.parametrize("crop_large", [False, True])
def test_a_small_input_is_never_cut(crop_large):
    image = noise(51, 33)
    np.testing.assert_array_equal(evaluated(image, STORED, Limits(crop_large=crop_large)), np.asarray(image))


FLAGS = {"loadSize": None, "cropSize": None, "resize_rule": None, "rz_interp": None}
CONFIG = DataConfig(load_size=64, crop_size=48)
TRAINED = {"no_resize": False, "loadSize": 128, "cropSize": 112, "rz_interp": ("bicubic", "nearest")}
TRAINED_NATIVE = {"no_resize": True, "loadSize": 256, "cropSize": 96}
ROW = Geometry(200, 180, "lanczos", even=True)
SHORTER = {"resize": "shorter side"}


def asked(row=None, trained=None, config=CONFIG, **flags):
    """The geometry of an evaluation with these flags."""
    flags = {**FLAGS, "no_resize": False, "no_crop": False, **flags}
    return eval_geometry(Namespace(**flags), config, row, trained)


@pytest.mark.parametrize(
    ("flags", "row", "trained", "expected"),
    [
        ({}, None, None, Geometry(64, 48)),
        ({}, None, {}, Geometry(64, 48)),
        ({}, None, TRAINED, Geometry(128, 112, "bicubic")),
        ({}, None, TRAINED_NATIVE, Geometry(None, 96)),
        ({}, ROW, None, ROW),
        ({}, ROW, TRAINED, ROW),
        ({}, ROW, TRAINED_NATIVE, ROW),
        ({}, STORED, None, STORED),
        ({}, STORED, TRAINED, STORED),
        ({"loadSize": 32}, None, None, Geometry(32, 48)),
        ({"loadSize": 32}, None, TRAINED_NATIVE, Geometry(32, 96)),
        ({"loadSize": 32}, ROW, TRAINED, replace(ROW, load_size=32)),
        ({"loadSize": 32}, STORED, TRAINED, Geometry(32, None)),
        ({"cropSize": 24}, None, None, Geometry(64, 24)),
        ({"cropSize": 24}, ROW, TRAINED, replace(ROW, crop_size=24)),
        ({"cropSize": 24}, STORED, TRAINED, Geometry(None, 24)),
        ({"no_resize": True}, None, None, Geometry(None, 48)),
        ({"no_resize": True}, None, TRAINED, Geometry(None, 112, "bicubic")),
        ({"no_resize": True}, ROW, TRAINED, replace(ROW, load_size=None)),
        ({"no_crop": True}, None, None, Geometry(64, None)),
        ({"no_crop": True}, ROW, TRAINED, replace(ROW, crop_size=None)),
        ({"no_resize": True, "no_crop": True}, ROW, TRAINED, replace(ROW, load_size=None, crop_size=None)),
        ({"loadSize": 32, "cropSize": 24}, ROW, TRAINED, replace(ROW, load_size=32, crop_size=24)),
        ({"rz_interp": ("nearest",)}, None, TRAINED, Geometry(128, 112, "nearest")),
        ({"rz_interp": ("nearest",)}, ROW, TRAINED, replace(ROW, interpolation="nearest")),
        ({"resize_rule": "shorter side"}, None, None, Geometry(64, 48, **SHORTER)),
        ({"resize_rule": "shorter side"}, ROW, TRAINED, replace(ROW, **SHORTER)),
        ({"resize_rule": "square"}, replace(ROW, **SHORTER), None, ROW),
        ({}, None, {**TRAINED, "resize_rule": "shorter side"}, Geometry(128, 112, "bicubic", **SHORTER)),
        ({}, ROW, {**TRAINED, "resize_rule": "shorter side"}, ROW),
    ],
)
def test_a_flag_beats_the_row_beats_the_training_run_beats_the_detector(flags, row, trained, expected):
    assert asked(row, trained, **flags) == expected


OLD_RUN = {"no_resize": False, "loadSize": 256, "cropSize": 224}
NEW_RUN = {**OLD_RUN, "resize_rule": "shorter side"}
SQUARE, PROTOCOL = Geometry(256, 224), Geometry(256, None)


@pytest.mark.parametrize(
    ("config", "trained", "row", "expected"),
    [
        # cnndet: a published file takes images as they are stored, an older run resized to a square
        (networks.get("cnndet").data_config, None, None, replace(STORED, **SHORTER)),
        (networks.get("cnndet").data_config, None, PROTOCOL, PROTOCOL),
        (networks.get("cnndet").data_config, OLD_RUN, None, SQUARE),
        (networks.get("cnndet").data_config, NEW_RUN, None, Geometry(256, 224, **SHORTER)),
        (networks.get("cnndet").data_config, NEW_RUN, PROTOCOL, PROTOCOL),
        (networks.get("npr").data_config, None, None, SQUARE),
        (networks.get("npr").data_config, OLD_RUN, None, SQUARE),
        (networks.get("npr").data_config, OLD_RUN, PROTOCOL, PROTOCOL),
        # patches come from the stored size, whatever a protocol says
        (networks.get("ssp").data_config, None, PROTOCOL, STORED),
        (networks.get("ssp").data_config, {"no_resize": True}, PROTOCOL, STORED),
        # res50 and mobilev2: --lnp_eval train and full
        (replace(CONFIG, geometry_source="training"), None, PROTOCOL, Geometry(64, 48)),
        (replace(CONFIG, geometry_source="training"), OLD_RUN, PROTOCOL, SQUARE),
        (replace(CONFIG, geometry_source="stored"), None, PROTOCOL, STORED),
        (replace(CONFIG, geometry_source="stored"), OLD_RUN, PROTOCOL, STORED),
    ],
)
def test_each_kind_of_detector_gets_its_own_geometry(config, trained, row, expected):
    assert asked(row, trained, config) == expected


def test_a_detector_without_resize_keeps_the_stored_size():
    assert asked(config=DataConfig(None, None), rz_interp=("bicubic",)) == Geometry(None, None, "bicubic")


@pytest.mark.parametrize("size", [(300, 200), (101, 333), (64, 64), (30, 500), (257, 255), (1, 1)])
def test_the_shorter_side_is_resized_as_torchvision_does_it(size):
    image, geometry = noise(*size), Geometry(64, None, "bicubic", **SHORTER)
    expected = TF.resize(image, 64, T.InterpolationMode.BICUBIC)
    np.testing.assert_array_equal(evaluated(image, geometry), np.asarray(expected))
    assert min(expected.size) == 64


def test_a_training_crop_of_the_shorter_side_is_a_window_of_the_resized_image():
    image, geometry = coordinates(120, 60), Geometry(30, 20, "nearest", **SHORTER)
    resized = np.asarray(TF.resize(image, 30, T.InterpolationMode.NEAREST))
    result = trained(
        image, geometry, Augment(flip=False, interpolations=("nearest",)), np.random.default_rng(1)
    )
    windows = [resized[top : top + 20, left : left + 20] for top in range(11) for left in range(41)]
    assert any(np.array_equal(result, window) for window in windows)


def test_records_of_a_square_resize_look_as_before_the_rule():
    assert Geometry(256, 224).as_dict() == {
        "load_size": 256,
        "crop_size": 224,
        "interpolation": "bilinear",
        "even": False,
    }
    assert Geometry(**SHORTER).as_dict()["resize"] == "shorter side"


@pytest.mark.parametrize(
    ("geometry", "text", "fixed"),
    [
        (Geometry(), "resize 256x256, centre crop 224", True),
        (Geometry(None, 224), "stored size, centre crop 224", True),
        (Geometry(256, None), "resize 256x256, no crop", True),
        (Geometry(256, 224, **SHORTER), "resize shorter side to 256, centre crop 224", True),
        (Geometry(256, None, **SHORTER), "resize shorter side to 256, no crop", False),
        (Geometry(None, None), "stored size, no crop", False),
    ],
)
def test_a_geometry_describes_itself(geometry, text, fixed):
    assert (geometry.describe(), geometry.fixed_size) == (text, fixed)


def test_a_strip_that_a_resize_would_make_a_giant_is_a_bad_image():
    with pytest.raises(BadImage, match="1x100000"):
        Geometry(256, None, **SHORTER).resized(Image.new("RGB", (1, 100_000)))


def test_a_strip_that_would_be_repeated_into_a_giant_is_a_bad_image():
    with pytest.raises(BadImage, match="1x600000"):
        Geometry(None, 224).tile(Image.new("RGB", (1, 600_000)))


# --- several crops ---


def numbered(width, height):
    """An image whose pixels hold their column and row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(64, 40), (16, 16), (9, 40), (50, 17)])
def test_fixed_crops_are_pieces_of_the_image_the_first_in_the_centre(size):
    image, geometry = numbered(*size), Geometry(None, 16, crops=6)
    crops = prepare(image, geometry, Limits())
    assert crops.shape == (6, 3, 16, 16)
    assert torch.equal(crops[0], prepare(image, replace(geometry, crops=1), Limits()))
    assert torch.equal(crops, prepare(image, geometry, Limits()))
    if min(size) >= 16:
        for piece in crops:
            left, top = int(piece[0, 0, 0]), int(piece[1, 0, 0])
            assert np.array_equal(
                np.asarray(image)[top : top + 16, left : left + 16].transpose(2, 0, 1), piece
            )
    if size == (64, 40):
        assert len({piece.numpy().tobytes() for piece in crops}) == 6


@pytest.mark.parametrize("size", [(64, 40), (16, 16), (33, 32), (5, 40)])
def test_a_grid_of_crops_covers_every_pixel(size):
    image = numbered(*size)
    crops = prepare(image, Geometry(None, 16, crops="grid"), Limits())
    seen = {
        (int(x), int(y)) for piece in crops for x, y in zip(piece[0].ravel(), piece[1].ravel(), strict=True)
    }
    assert seen == {(x, y) for x in range(size[0]) for y in range(size[1])}
    tiled = [math.ceil(16 / length) * length for length in size]
    assert len(crops) == math.prod(math.ceil(length / 16) for length in tiled)


def test_crops_are_on_record_and_need_a_crop():
    assert "crops" not in Geometry().as_dict()
    assert Geometry(None, 16, crops=3).as_dict()["crops"] == 3
    config, trained = networks.get("npr").data_config, {"cropSize": 32, "crops": 5}
    assert eval_geometry(Namespace(), config, trained=trained).crops == 5
    assert eval_geometry(Namespace(crops=1), config, trained=trained).crops == 1
    assert eval_geometry(Namespace(), config, row=Geometry(), trained=trained).crops == 5
    with pytest.raises(UserError, match="--cropSize"):
        eval_geometry(Namespace(crops=2, no_crop=True), config)
    with pytest.raises(UserError, match="patches"):
        eval_geometry(Namespace(crops=2), networks.get("ssp").data_config)
