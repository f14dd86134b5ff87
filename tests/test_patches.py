"""Which patches of an image a detector of patches sees, against a slow search in NumPy."""

import io
import zlib

import numpy as np
import pytest
import torch
from conftest import make_tree
from PIL import Image
from scipy.ndimage import gaussian_filter

from data import patches
from data.folder import RealFakeFolder, Scan, discover, scan
from data.loader import create_dataloader
from data.perturb import AS_STORED, parse_views
from data.sample import load_photograph
from data.transforms import Augment, Degradation, Geometry, augmented
from networks.base import Patches

STORED = Geometry(None, None)
SELECTIONS = ("random64", "grid", "dense")
PHOTOGRAPHS = ("china.jpg", "flower.jpg", "coffee.png", "chelsea.png", "astronaut.png")


def photograph(name="china.jpg"):
    return np.ascontiguousarray(load_photograph(name).permute(1, 2, 0).numpy())


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow(patch):
    """Texture diversity of one patch, equation 1 of the paper, pair by pair."""
    p = patch.astype(np.int64)
    pairs = ((p[:, :-1], p[:, 1:]), (p[:-1], p[1:]), (p[:-1, :-1], p[1:, 1:]), (p[:-1, 1:], p[1:, :-1]))
    return int(sum(np.abs(one - other).sum() for one, other in pairs))


def slow_at(pixels, places, size=32):
    return [slow(pixels[top : top + size, left : left + size]) for top, left in places]


def apart(places, most, size=32):
    """The first places, at most so many, that share no pixel with one taken before."""
    taken = []
    for top, left in places:
        if len(taken) < most and not any(abs(top - y) < size and abs(left - x) < size for y, x in taken):
            taken.append((top, left))
    return taken


def slow_simplest(pixels, places, size=32):
    """The first place of the smallest diversity, by a loop."""
    best, least = None, None
    for place, value in zip(places, slow_at(pixels, places, size), strict=True):
        if least is None or value < least:
            best, least = place, value
    return best


def drawn(pixels, rng):
    """64 places: all tops, then all lefts."""
    tops = rng.integers(0, pixels.shape[0] - 31, 64)
    return list(zip(tops.tolist(), rng.integers(0, pixels.shape[1] - 31, 64).tolist(), strict=True))


def all_places(pixels, step, size=32):
    height, width = pixels.shape[:2]
    return [(y, x) for y in range(0, height - size + 1, step) for x in range(0, width - size + 1, step)]


def seen(pixels, rule, seed=0):
    tops, lefts, diversities = patches.candidates(pixels, rule, np.random.default_rng(seed))
    return list(zip(tops.tolist(), lefts.tolist(), strict=True)), diversities


def evaluated(pixels, seed=100, **rule):
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    return patches.patch_sample(image, STORED, Patches(**rule), seed)["image"]


def as_array(tensor):
    return tensor.permute(1, 2, 0).numpy()


def find(patch, pixels):
    """Every (top, left) at which the pixels show this patch."""
    size = len(patch)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size, 3))[:, :, 0]
    hits = np.argwhere((windows[:, :, 0] == patch[0]).all(axis=(2, 3)))
    return [(int(y), int(x)) for y, x in hits if np.array_equal(windows[y, x], patch)]


# --- texture diversity ---


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_diversity_of_200_real_crops_equals_the_slow_sum(name, rng):
    pixels = photograph(name)
    tops, lefts = rng.integers(0, len(pixels) - 31, 200), rng.integers(0, pixels.shape[1] - 31, 200)
    found = patches.diversity(pixels, 32, tops, lefts)
    assert found.dtype == np.int64
    assert found.tolist() == slow_at(pixels, zip(tops, lefts, strict=True))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_simplest_of_64_random_places_is_that_of_the_slow_search(name):
    pixels = photograph(name)
    for seed in range(4):
        expected = slow_simplest(pixels, drawn(pixels, np.random.default_rng(seed)))
        assert patches.simplest(pixels, Patches(), np.random.default_rng(seed)) == [expected]


@pytest.mark.parametrize("select", SELECTIONS)
def test_among_equal_patches_the_first_place_wins(select, rng):
    tiles = rng.integers(0, 2, (8, 8, 3), dtype=np.uint8)  # repeated every 8 px: many patches are alike
    pixels = np.tile(tiles, (12, 15, 1))
    places, diversities = seen(pixels, Patches(select=select), seed=3)
    assert len(set(diversities.tolist())) < len(places)
    for vote in (1, 40):
        chosen = patches.simplest(pixels, Patches(select=select, vote=vote), np.random.default_rng(3))
        order = sorted(range(len(places)), key=slow_at(pixels, places).__getitem__)  # sorted is stable
        assert chosen == apart([places[number] for number in order], vote)


@pytest.mark.parametrize("size", [8, 32, 33])
@pytest.mark.parametrize("stride", [1, 7, 8, 32])
@pytest.mark.parametrize("block", [None, 1, 3 * 97 * 50])
def test_dense_diversity_equals_the_slow_sum_whole_and_in_blocks(monkeypatch, stride, size, block):
    pixels = photograph()[200:288, 300:397] if stride > 1 else photograph()[200:270, 300:345]
    calls, whole = [], patches._block
    monkeypatch.setattr(patches, "_block", lambda *args: calls.append(len(args[0])) or whole(*args))
    if block is not None:
        monkeypatch.setattr(patches, "BLOCK_VALUES", block)
    tops, lefts = (np.arange(0, side - size + 1, stride) for side in pixels.shape[:2])
    found = patches.dense_diversity(pixels, size, tops, lefts)
    assert found.dtype == np.int64 and found.shape == (len(tops), len(lefts))
    assert found.ravel().tolist() == slow_at(pixels, all_places(pixels, stride, size), size)
    if block == 1:
        assert len(calls) == len(tops) and set(calls) == {size}


def test_blocks_are_as_tall_as_their_sums_allow(monkeypatch):
    pixels, rows = noise(40, 200), []
    whole = patches._block
    monkeypatch.setattr(patches, "_block", lambda *args: rows.append(len(args[0])) or whole(*args))
    monkeypatch.setattr(patches, "BLOCK_VALUES", 3 * 40 * 80)
    patches.dense_diversity(pixels, 32, np.arange(169), np.arange(9))
    assert max(rows) == 80 and len(rows) == 4


CHECKERS = 3 * 255 * 2 * 31 * 32  # straight neighbours all differ, diagonal ones not at all
STRIPES = 3 * 255 * (31 * 32 + 2 * 31 * 31)


@pytest.mark.parametrize(("height", "width"), [(2600, 2500), (32, 100_000), (40_000, 33)])
@pytest.mark.parametrize(("pattern", "expected"), [("checkers", CHECKERS), ("stripes", STRIPES)])
def test_extreme_pixels_of_large_images_do_not_overflow(height, width, pattern, expected):
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    bright = (rows + columns if pattern == "checkers" else columns + 0 * rows) % 2 == 1
    pixels = np.repeat((255 * bright).astype(np.uint8)[..., None], 3, axis=2)
    for select in SELECTIONS:
        _, diversities = seen(pixels, Patches(select=select, stride=33))
        assert set(diversities.tolist()) == {expected}


# --- places ---


@pytest.mark.parametrize(("width", "height"), [(200, 120), (33, 2000), (2000, 33), (32, 32), (32, 90)])
def test_random64_looks_at_64_places_tops_drawn_before_lefts(width, height):
    pixels = noise(width, height)
    places, diversities = seen(pixels, Patches(), seed=5)
    assert len(places) == 64
    assert places == drawn(pixels, np.random.default_rng(5))
    assert all(0 <= top <= height - 32 and 0 <= left <= width - 32 for top, left in places)
    assert diversities.tolist() == slow_at(pixels, places)


def test_random64_draws_every_position_equally_often():
    pixels, rng = noise(36, 35), np.random.default_rng(0)
    draws = []
    for _ in range(60):
        tops, lefts, _ = patches.candidates(pixels, Patches(), rng)
        draws += zip(tops.tolist(), lefts.tolist(), strict=True)
    positions, counts = np.unique(draws, axis=0, return_counts=True)
    assert positions.tolist() == [[top, left] for top in range(4) for left in range(5)]
    expected = 60 * 64 / 20  # 192 of each, sigma 13.5
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square of 19, p = 0.001


@pytest.mark.parametrize(("width", "height"), [(200, 120), (33, 2000), (2000, 33), (32, 32), (63, 64)])
@pytest.mark.parametrize(("select", "step"), [("grid", 32), ("dense", 8), ("dense", 5), ("dense", 1)])
def test_grid_and_dense_look_at_every_place_of_their_step_row_by_row(width, height, select, step):
    pixels = noise(width, height)
    places, diversities = seen(pixels, Patches(select=select, stride=step))
    assert places == all_places(pixels, step)
    assert len(diversities) == len(places)


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize(("width", "height"), [(33, 2000), (2000, 33), (64, 64)])
def test_the_chosen_patch_is_cut_where_the_slow_search_finds_it(select, width, height):
    pixels = np.ascontiguousarray(np.resize(photograph(), (height, width, 3)))
    seed = (100, zlib.crc32(pixels))
    places = {
        "random64": drawn(pixels, np.random.default_rng(seed)),
        "grid": all_places(pixels, 32),
        "dense": all_places(pixels, 8),
    }[select]
    top, left = slow_simplest(pixels, places)
    np.testing.assert_array_equal(
        as_array(evaluated(pixels, select=select)), pixels[top : top + 32, left : left + 32]
    )


@pytest.mark.parametrize("select", SELECTIONS)
def test_an_image_of_exactly_one_patch_is_that_patch(select):
    pixels = noise(32, 32)
    result = evaluated(pixels, select=select)
    assert result.dtype == torch.uint8 and result.is_contiguous()
    np.testing.assert_array_equal(as_array(result), pixels)


@pytest.mark.parametrize("select", ["grid", "dense"])
@pytest.mark.parametrize("size", [(31, 200), (200, 31), (31, 31), (5, 9), (1, 1), (1, 500)])
def test_an_image_without_room_for_a_patch_becomes_a_square_of_256(select, size):
    image = Image.fromarray(noise(*size))
    square = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    top, left = slow_simplest(square, all_places(square, {"grid": 32, "dense": 8}[select]))
    expected = square[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(as_array(evaluated(image, select=select)), expected)


def test_random_positions_of_a_small_image_are_in_its_square():
    image = Image.fromarray(noise(20, 31))
    square = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    rng = np.random.default_rng((100, zlib.crc32(square.tobytes())))
    top, left = slow_simplest(square, drawn(square, rng))
    np.testing.assert_array_equal(as_array(evaluated(image)), square[top : top + 32, left : left + 32])


def test_a_patch_larger_than_256_scales_the_image_to_its_own_side():
    image = Image.fromarray(noise(280, 299))
    expected = np.asarray(image.resize((300, 300), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(as_array(evaluated(image, size=300, select="grid")), expected)


@pytest.mark.parametrize(("select", "first"), [("grid", (0, 0)), ("dense", (0, 0)), ("random64", None)])
def test_of_a_black_image_the_first_place_seen_is_taken(select, first):
    pixels, rule = np.zeros((90, 70, 3), np.uint8), Patches(select=select)
    first = first or drawn(pixels, np.random.default_rng(4))[0]
    assert patches.simplest(pixels, rule, np.random.default_rng(4)) == [first]


def test_a_greyscale_file_gives_three_equal_channels(tmp_path):
    grey = noise(50, 40)[..., 0]
    make_tree(tmp_path, ["a"], count=1)
    Image.fromarray(grey).save(tmp_path / "a" / "0_real" / "0.png")
    item = dataset(tmp_path, select="grid")[0]
    rgb = np.repeat(grey[..., None], 3, axis=2)
    top, left = slow_simplest(rgb, all_places(rgb, 32))
    np.testing.assert_array_equal(as_array(item["image"]), rgb[top : top + 32, left : left + 32])


# --- several patches ---


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("vote", [2, 5])
def test_a_vote_takes_the_simplest_patches_simplest_first(select, vote):
    pixels = photograph()[:150, :170]
    rule = Patches(select=select, vote=vote)
    places, _ = seen(pixels, rule, seed=1)
    expected = apart(sorted(places, key=lambda place: slow_at(pixels, [place])[0]), vote)
    assert len(expected) > 1
    assert patches.simplest(pixels, rule, np.random.default_rng(1)) == expected


def test_a_small_image_gives_its_only_patch_once():
    rule = Patches(vote=5)
    assert patches.simplest(noise(32, 32), rule, np.random.default_rng(0)) == [(0, 0)]


def test_patches_of_a_vote_are_stacked_and_a_single_one_is_not():
    pixels = np.ascontiguousarray(photograph()[:150, :170])
    several, one = evaluated(pixels, select="grid", vote=3), evaluated(pixels, select="grid")
    assert several.shape == (3, 3, 32, 32) and several.dtype == torch.uint8
    assert one.shape == (3, 32, 32) and torch.equal(several[0], one)


@pytest.mark.parametrize(("size", "count"), [((32, 32), 1), ((64, 32), 2), ((64, 64), 4), ((96, 64), 5)])
def test_a_vote_takes_what_there_is_where_places_are_fewer(size, count):
    assert evaluated(noise(*size), select="grid", vote=5).shape == (count, 3, 32, 32)


# --- what an evaluation's choice depends on ---


def dataset(root, augment=None, seed=100, clean_pair=False, geometry=STORED, views=(AS_STORED,), **rule):
    found = root if isinstance(root, Scan) else scan(root, discover(root))
    return RealFakeFolder(
        found,
        geometry,
        augment,
        seed=seed,
        patches=Patches(**rule),
        clean_pair=clean_pair,
        views=views,
    )


@pytest.fixture
def textured(tmp_path):
    """Three files of one picture among others, under two generators."""
    make_tree(tmp_path / "tree", ["a", "b"], count=2, size=(90, 80))
    for place in ("a/0_real/zz.png", "b/0_real/0.png", "b/1_fake/other name.png"):
        Image.fromarray(noise(150, 130)).save(tmp_path / "tree" / place)
    return tmp_path / "tree"


COPIES = {"a/0_real/zz.png", "b/0_real/0.png", "b/1_fake/other name.png"}


def test_equal_pixels_give_the_equal_patch_whatever_the_path_index_and_order(textured):
    images = dataset(textured)
    order = Scan(images.root, images.samples[::-1], images.scan.folders)
    chosen = [
        item["image"]
        for one in (images, dataset(order))
        for item in map(one.__getitem__, range(10))
        if one.samples[item["index"]].path in COPIES
    ]
    assert len(chosen) == 6
    assert all(torch.equal(chosen[0], other) for other in chosen)


def test_workers_batches_and_epochs_do_not_change_an_evaluations_patches(textured):
    images = dataset(textured, vote=2)

    def collected(workers, batches):
        found = {}
        for batch in create_dataloader(images, batches, workers):
            for part in batch["parts"]:
                found.update(zip(part["index"].tolist(), part["image"], strict=True))
        return found

    alone = collected(0, [[index] for index in range(10)])
    helped = collected(2, [[8, 0, 7], [1, 6, 2, 9], [5, 3, 4]])
    assert alone.keys() == helped.keys() == set(range(10))
    assert all(torch.equal(alone[index], helped[index]) for index in alone)


@pytest.fixture
def looks(monkeypatch):
    """A list to which every patch_sample adds the places that it looked at."""
    found, real = [], patches.candidates

    def spy(*args):
        tops, lefts, diversities = real(*args)
        found.append(list(zip(tops.tolist(), lefts.tolist(), strict=True)))
        return tops, lefts, diversities

    monkeypatch.setattr(patches, "candidates", spy)
    return found


def test_another_seed_and_other_pixels_look_at_other_places(looks):
    pixels = noise(150, 130)
    first = evaluated(pixels)
    again, other_seed = evaluated(pixels.copy()), evaluated(pixels, seed=7)
    pixels[0, 0, 0] ^= 1
    evaluated(pixels)
    assert looks[0] == looks[1] and torch.equal(first, again)
    assert looks[0] != looks[2] and not torch.equal(first, other_seed)
    assert looks[3] != looks[0]


def test_grid_and_dense_do_not_depend_on_the_seed():
    pixels = noise(150, 130)
    for select in ("grid", "dense"):
        assert torch.equal(evaluated(pixels, seed=1, select=select), evaluated(pixels, seed=2, select=select))


def test_training_depends_on_seed_epoch_and_index_alone(textured, looks):
    augment = Augment(blur_prob=0.5, blur_sigma=(0.0, 1.0), jpeg_prob=0.5, jpeg_quality=(90, 100))
    images, twin = (dataset(textured, augment) for _ in range(2))
    keys = [(epoch, index) for epoch in range(2) for index in range(10)]
    first = {key: images[key]["image"] for key in keys}
    places = dict(zip(keys, looks, strict=True))
    assert all(torch.equal(first[key], twin[key]["image"]) for key in keys[::-1])
    del looks[:]
    assert len({tuple(one) for one in places.values()}) == len(keys)  # copies of one picture as well
    dataset(textured, augment, seed=1)[0, 0]
    assert looks[0] != places[0, 0]


# --- ESSP's pairs ---


def jpeg_by_pillow(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def blurred(pixels, sigma=1.0):
    return np.dstack([gaussian_filter(pixels[..., channel], sigma) for channel in range(3)])


BLUR = Augment(blur_prob=1, blur_sigma=(1.0,), flip=False)
COMPRESS = Augment(jpeg_prob=1, jpeg_methods=("pil",), jpeg_quality=(50,), flip=False)
DEGRADED = [(BLUR, blurred, (1, 0)), (COMPRESS, lambda pixels: jpeg_by_pillow(pixels, 50), (0, 1))]


def trained(pixels, augment, seed=0, geometry=STORED, clean=True, **rule):
    return patches.patch_sample(
        Image.fromarray(pixels), geometry, Patches(**rule), 100, augment, np.random.default_rng(seed), clean
    )


@pytest.mark.parametrize(("augment", "degrade", "labels"), DEGRADED, ids=["blur", "jpeg"])
@pytest.mark.parametrize("select", SELECTIONS)
def test_the_clean_patch_is_the_stored_image_where_the_degraded_one_is_simplest(
    augment, degrade, labels, select
):
    pixels = np.ascontiguousarray(photograph()[100:190, 200:310])
    sample = trained(pixels, augment, select=select)
    degraded = degrade(pixels)
    [(top, left)] = find(as_array(sample["image"]), degraded)
    np.testing.assert_array_equal(as_array(sample["clean"]), pixels[top : top + 32, left : left + 32])
    assert not torch.equal(sample["image"], sample["clean"])
    assert (sample["blurred"], sample["compressed"]) == labels
    if select != "random64":
        step = {"grid": 32, "dense": 8}[select]
        assert (top, left) == slow_simplest(degraded, all_places(degraded, step))


def test_pairs_of_a_vote_lie_at_the_same_places():
    pixels = np.ascontiguousarray(photograph()[100:190, 200:310])
    sample, degraded = trained(pixels, BLUR, vote=3, select="dense"), blurred(pixels)
    assert sample["image"].shape == sample["clean"].shape == (3, 3, 32, 32)
    for image, clean in zip(sample["image"], sample["clean"], strict=True):
        [(top, left)] = find(as_array(image), degraded)
        np.testing.assert_array_equal(as_array(clean), pixels[top : top + 32, left : left + 32])


def test_pairs_of_an_image_below_the_patch_come_from_the_two_squares():
    pixels = noise(20, 25)
    square, soft = (
        np.asarray(Image.fromarray(one).resize((256, 256), Image.Resampling.BILINEAR))
        for one in (pixels, blurred(pixels))
    )
    sample = trained(pixels, BLUR)
    [(top, left)] = find(as_array(sample["image"]), soft)
    np.testing.assert_array_equal(as_array(sample["clean"]), square[top : top + 32, left : left + 32])


def test_without_degradation_a_pair_is_twice_the_same_patch_with_labels_0():
    pixels = noise(90, 70)
    sample = trained(pixels, Augment(flip=False))
    assert torch.equal(sample["image"], sample["clean"])
    assert (sample["blurred"], sample["compressed"]) == (0, 0)
    assert find(as_array(sample["image"]), pixels)


def test_blur_and_jpeg_together_have_both_labels_and_blur_comes_first():
    pixels = np.ascontiguousarray(photograph()[100:190, 200:310])
    both = Augment(
        blur_prob=1, blur_sigma=(1.0,), jpeg_prob=1, jpeg_methods=("pil",), jpeg_quality=(50,), flip=False
    )
    sample = trained(pixels, both)
    assert (sample["blurred"], sample["compressed"]) == (1, 1)
    assert len(find(as_array(sample["image"]), jpeg_by_pillow(blurred(pixels), 50))) == 1


def test_items_carry_a_pair_in_training_only_and_only_where_asked(textured):
    beside = {"clean", "blurred", "compressed"}
    assert beside <= dataset(textured, BLUR, clean_pair=True)[0, 0].keys()
    assert not beside & dataset(textured, BLUR)[0, 0].keys()
    assert not beside & dataset(textured, clean_pair=True)[0].keys()


def test_a_pair_has_the_same_patch_as_a_training_without_pairs():
    pixels = noise(90, 70)
    pair, single = trained(pixels, BLUR, seed=3), trained(pixels, BLUR, seed=3, clean=False)
    assert set(single) == {"image"} and torch.equal(pair["image"], single["image"])


# --- degradation and views ---


def test_no_degradation_returns_the_image_itself():
    image = Image.fromarray(noise(9, 7))
    assert Degradation().apply(image) is image
    assert Degradation(None, None, "cv2").apply(image) is image


def test_a_blur_of_sigma_0_changes_no_pixel():
    pixels = noise(40, 30)
    np.testing.assert_array_equal(np.asarray(Degradation(0.0).apply(Image.fromarray(pixels))), pixels)


def test_a_degradation_equals_scipy_then_pillow():
    pixels = noise(41, 30)
    result = Degradation(1.5, 60, "pil").apply(Image.fromarray(pixels))
    np.testing.assert_array_equal(np.asarray(result), jpeg_by_pillow(blurred(pixels, 1.5), 60))


def test_an_evaluation_degrades_before_it_chooses(textured):
    item = dataset(textured, select="dense", views=parse_views("blur:1"))[0]
    with Image.open(textured / "a" / "0_real" / "0.png") as image:
        soft = blurred(np.asarray(image))
    top, left = slow_simplest(soft, all_places(soft, 8))
    np.testing.assert_array_equal(as_array(item["image"]), soft[top : top + 32, left : left + 32])


@pytest.mark.parametrize(
    ("degradation", "words"),
    [
        (Degradation(), ""),
        (Degradation(1.0), "blur 1.0"),
        (Degradation(0.5, 90), "blur 0.5, JPEG 90 (pil)"),
        (Degradation(None, 75, "cv2"), "JPEG 75 (cv2)"),
    ],
)
def test_a_degradation_says_what_it_does(degradation, words):
    assert degradation.describe() == words


def test_both_views_have_the_same_resize_crop_and_flip():
    pixels = np.ascontiguousarray(photograph()[:120, :150])
    augment = Augment(blur_prob=1, blur_sigma=(1.0,), interpolations=("bilinear", "nearest"))
    filters = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    seen_filters, seen_flips = set(), set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        (soft, sharp), _ = augmented(Image.fromarray(pixels), Geometry(80, 48), augment, rng, clean=True)
        wholes = {kind: np.asarray(Image.fromarray(pixels).resize((80, 80), kind)) for kind in filters}
        [(kind, flip, place)] = [
            (kind, flip, place)
            for kind, whole in wholes.items()
            for flip in (1, -1)
            for place in find(np.asarray(soft)[:, ::flip], blurred(whole))
        ]
        whole = wholes[kind]
        expected = whole[place[0] : place[0] + 48, place[1] : place[1] + 48][:, ::flip]
        np.testing.assert_array_equal(np.asarray(sharp), expected)
        seen_filters.add(kind)
        seen_flips.add(flip)
    assert len(seen_filters) == len(seen_flips) == 2


# --- words ---


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Patches(), "simplest of 64 random 32x32 patches, seed 9"),
        (Patches(select="grid"), "simplest of all non-overlapping 32x32 patches"),
        (Patches(48, "dense", 4, 3), "3 simplest of all (every 4 px) 48x48 patches"),
    ],
)
def test_a_rule_says_what_it_chooses(rule, words):
    assert patches.describe_patches(rule, 9) == words


def test_the_input_is_described_by_geometry_and_patches(textured):
    images = dataset(textured, seed=3, geometry=Geometry(None, 40))
    words = "stored size, centre crop 40, simplest of 64 random 32x32 patches, seed 3"
    assert images.describe_input() == words
    assert images.fixed_size
