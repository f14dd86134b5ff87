"""Pairs: who is whose twin, that both get one random draw and one batch, and how sources are drawn."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import make_tree
from PIL import Image

from common import UserError
from data.augment import CropAugment, parse_chain
from data.folder import RealFakeFolder, Sample, discover, scan, source_of
from data.loader import EpochBatches, create_dataloader, image_weights
from data.pairs import pair_up
from data.transforms import Augment, Geometry

CHAIN = (
    "resize:0.4..1.3@0.7+blur:0..1.5@0.3+noise:0..4@0.3+jpeg/webp:30..95@0.8+jpeg/webp:30..95@0.3"
    "+gamma:0.8..1.2@.2"
)
CROP = Geometry(None, 16)


@pytest.fixture
def twins(tmp_path, rng):
    """Two folders of 4 pairs with the very same pixels in both classes, and 3 fakes without a twin."""
    for folder in ("vae", "esrgan"):
        for label in ("0_real", "1_fake"):
            (tmp_path / folder / label).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
            for label in ("0_real", "1_fake"):
                image.save(tmp_path / folder / label / f"{number}.png")
    for number in range(3):
        image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        image.save(tmp_path / "vae" / "1_fake" / f"alone{number}.png")
    return tmp_path


def training_set(root, augment, seed=3):
    found = scan(root, discover(root))
    pairs = pair_up(found)
    return RealFakeFolder(found, CROP, augment, seed=seed, twins={fake: real for real, fake in pairs}), pairs


AUGMENTS = {
    "chain": CropAugment(parse_chain(CHAIN), rot90=True),
    "published": Augment(0.5, (0.1, 2.0), 0.5, ("cv2", "pil"), (30, 95), ("bilinear", "nearest")),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_a_twin_of_equal_pixels_comes_out_equal_and_others_do_not(twins, augment):
    dataset, pairs = training_set(twins, augment)
    assert len(pairs) == 8
    differ = 0
    for epoch in range(6):
        for real, fake in pairs:
            one, other = dataset[epoch, real], dataset[epoch, fake]
            assert torch.equal(one["image"], other["image"]) and (one["label"], other["label"]) == (0, 1)
            dataset.twins, kept = {}, dataset.twins
            differ += not torch.equal(dataset[epoch, fake]["image"], one["image"])
            dataset.twins = kept
    assert differ > 40  # without the rule each has a draw of its own


def test_pairs_share_a_batch_and_every_image_comes_once(twins):
    dataset, pairs = training_set(twins, AUGMENTS["chain"])
    batches = EpochBatches(dataset.labels, 4, seed=0, pairs=pairs)
    assert len(list(batches)) == len(batches) == 5
    found = [[index for _, index in batch] for batch in batches]
    assert sorted(itertools.chain(*found)) == list(range(19))
    for real, fake in pairs:
        assert any({real, fake} <= set(batch) for batch in found)
    assert found != [
        [index for _, index in batch] for batch in EpochBatches(dataset.labels, 4, 1, pairs=pairs)
    ]


def test_workers_do_not_change_pairs(twins):
    dataset, pairs = training_set(twins, AUGMENTS["chain"])

    def images(workers):
        batches = EpochBatches(dataset.labels, 4, seed=0, pairs=pairs)
        loader = create_dataloader(dataset, batches, workers)
        return [
            (part["index"].tolist(), part["image"].numpy().tobytes()) for b in loader for part in b["parts"]
        ]

    assert images(0) == images(2)


def test_a_table_pairs_files_of_other_names(twins):
    (twins / "vae" / "0_real" / "0.png").rename(twins / "vae" / "0_real" / "photo.png")
    found = scan(twins, discover(twins))
    assert len(pair_up(found)) == 7
    table = twins / "pairs.csv"
    table.write_text("real,fake\nvae/0_real/photo.png,vae/1_fake/0.png\n")
    ((real, fake),) = pair_up(found, table)
    assert (found.samples[real].path, found.samples[fake].path) == (
        "vae/0_real/photo.png",
        "vae/1_fake/0.png",
    )


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ("vae/0_real/0.png,vae/1_fake/9.png", "line 2: fake vae/1_fake/9.png: there is no"),
        ("vae/1_fake/0.png,vae/0_real/0.png", "line 2: real vae/1_fake/0.png: it is not in"),
        ("vae/0_real/0.png,vae/1_fake/0.png\nvae/0_real/0.png,vae/1_fake/1.png", "two"),
        ("", "no pair"),
    ],
)
def test_a_table_that_is_wrong_is_refused(twins, rows, word):
    table = twins / "pairs.csv"
    table.write_text(f"real,fake\n{rows}\n")
    with pytest.raises(UserError, match=word):
        pair_up(scan(twins, discover(twins)), table)


def test_names_that_say_too_little_are_refused(twins, tmp_path):
    Image.open(twins / "vae" / "0_real" / "0.png").save(twins / "vae" / "0_real" / "0.bmp")
    with pytest.raises(UserError, match="vae/0"):
        pair_up(scan(twins, discover(twins)))
    strangers = make_tree(tmp_path / "other", ["a"], count=2)
    for path in (strangers / "a" / "1_fake").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(UserError, match="1_fake"):
        pair_up(scan(strangers, discover(strangers)))


# --- sources ---


def test_sources_of_a_class_are_drawn_equally_often():
    labels = np.array([0] * 90 + [0] * 10 + [1] * 40 + [1] * 2 + [1] * 8)
    sources = ["a"] * 90 + ["b"] * 10 + ["c"] * 40 + ["d"] * 2 + ["e"] * 8
    batches = EpochBatches(labels, 10, 0, class_balance=True, sources=sources, count=60_000)
    counts = Counter(sources[index] for index in batches.order(0))
    for source, share in {"a": 1 / 4, "b": 1 / 4, "c": 1 / 6, "d": 1 / 6, "e": 1 / 6}.items():
        assert counts[source] / 60_000 == pytest.approx(share, abs=0.01)


def test_weights_of_both_rules_by_hand():
    labels, sources = np.array([0, 0, 0, 1]), ["a", "a", "b", "c"]
    assert image_weights(labels, sources=sources) == pytest.approx([0.5, 0.5, 1, 1])
    weights = image_weights(labels, True, sources)
    assert weights / weights[3] == pytest.approx([0.25, 0.25, 0.5, 1])
    weights = image_weights(labels, True)
    assert weights / weights[3] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("count", [7, 10, 25])
def test_an_epoch_has_the_images_asked_for(count):
    batches = EpochBatches(np.arange(10) % 2, 4, 0, count=count)
    order = batches.order(0)
    assert len(order) == count and sum(map(len, batches)) == count
    assert max(Counter(order.tolist()).values()) <= -(-count // 10)  # no image twice before all came once


# --- chains ---


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("crop:0.5", "crop"),
        ("jpeg", "jpeg"),
        ("jpeg:30..101", "101"),
        ("jpeg:90..30", "LOW"),
        ("jpeg:30@2", "share"),
        ("resize:0.5@x", "SHARE"),
        ("blur:0..1+", "steps"),
    ],
)
def test_a_chain_that_is_wrong_is_refused(text, word):
    with pytest.raises(UserError, match=word):
        parse_chain(text)


def test_steps_happen_as_often_and_as_strongly_as_asked(rng):
    (step,) = parse_chain("jpeg/webp:30..60@0.25")
    drawn = [step.draw(rng) for _ in range(8000)]
    values = Counter(entry[1] for entry in drawn if entry)
    assert sum(values.values()) / 8000 == pytest.approx(0.25, abs=0.02)
    assert set(values) == set(range(30, 61)) and max(values.values()) < 3 * min(values.values())
    names = Counter((entry[0], entry[2]) for entry in drawn if entry)
    assert set(names) == {("jpeg", "pil"), ("jpeg", "cv2"), ("webp", "")}
    assert names["webp", ""] / sum(names.values()) == pytest.approx(0.5, abs=0.05)


def test_without_steps_a_crop_is_a_piece_of_the_image_in_any_of_eight_positions(rng):
    pixels = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3) % 251
    image = Image.fromarray(pixels.astype(np.uint8))
    augment = CropAugment(parse_chain("blur:0"), flip=True, rot90=True)
    pieces = {
        np.asarray(image)[top : top + 16, left : left + 16].tobytes(): (top, left)
        for top in range(25)
        for left in range(35)
    }
    seen = set()
    for _ in range(200):
        view = np.asarray(augment.training_view(image, CROP, rng))
        turned = [np.rot90(side, turns) for side in (view, view[:, ::-1]) for turns in range(4)]
        places = [place for place, side in enumerate(turned) if side.tobytes() in pieces]
        assert view.shape == (16, 16, 3) and places
        seen.update(places)
    assert seen == set(range(8))


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (40, 17), (300, 200)])
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_any_image_fills_the_crop(rng, size, factor):
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    augment = CropAugment(parse_chain(f"resize:{factor}"))
    assert augment.training_view(image, CROP, rng).size == (16, 16)
    assert min(augment.training_view(image, Geometry(None, None), rng).size) >= 1


def test_only_the_piece_that_is_needed_is_degraded(rng):
    """A piece scaled by itself is, away from its border, the same piece of the whole image scaled."""
    image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    augment = CropAugment(parse_chain("resize:2"), flip=False)
    whole = np.stack(
        [
            np.asarray(image.resize((128, 128), kernel), np.int16)
            for kernel in (Image.BILINEAR, Image.BICUBIC, Image.LANCZOS, Image.NEAREST)
        ]
    )
    matches = 0
    for _ in range(40):
        inner = np.asarray(augment.training_view(image, CROP, rng), np.int16)[6:10, 6:10]
        windows = np.lib.stride_tricks.sliding_window_view(whole, (4, 4, 3), axis=(1, 2, 3))[:, :, :, 0]
        matches += (np.abs(windows - inner).max(axis=(-1, -2, -3)) <= 2).any()
    assert matches >= 32  # a border of the piece can reach the middle of a small crop


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 1 / 9), (0.5, 1 / 3.828427), (1.0, 1 / 2)])
def test_a_balance_between_images_and_sources(balance, expected):
    sources = ["small"] * 10 + ["large"] * 80
    batches = EpochBatches([1] * 90, 10, 0, sources=sources, source_balance=balance, count=40_000)
    assert np.mean(batches.order(0) < 10) == pytest.approx(expected, abs=0.01)


def test_a_source_is_the_folder_above_the_labels_whatever_the_generator():
    paths = ["images/sd/0_real/a.png", "images/sd/1_fake/deep/a.png", "0_real/a.png"]
    assert [source_of(Sample(path, "x", 0)) for path in paths] == ["images/sd", "images/sd/deep", ""]


@pytest.mark.parametrize("pairs", [0, 5, 300])
def test_classes_are_balanced_whatever_the_pairs_and_the_single_images(pairs):
    labels = np.array([0, 1] * pairs + [0] * 900 + [1] * 30)
    twins = [(2 * number, 2 * number + 1) for number in range(pairs)]
    batches = EpochBatches(labels, 10, 0, class_balance=True, pairs=twins, count=40_000)
    assert labels[batches.order(0)].mean() == pytest.approx(0.5, abs=0.01)
