"""Batches: the same for any number of workers, resumable, balanced, never mixing generators, nothing lost."""

import os
import signal
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import make_tree

from data.folder import RealFakeFolder, discover, scan
from data.loader import (
    EpochBatches,
    collate,
    create_dataloader,
    evaluation_images,
    loader_over,
    loaders_over,
)
from data.perturb import AS_STORED
from data.transforms import Augment, Geometry
from networks.base import DataConfig

EVERYTHING = Augment(
    blur_prob=0.5,
    blur_sigma=(0.3, 1.5),
    jpeg_prob=0.5,
    jpeg_methods=("cv2", "pil"),
    jpeg_quality=(40, 95),
    interpolations=("bilinear", "bicubic"),
)
CROP = Geometry(None, 16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("loader"), ["a", "b"], count=5, size=(24, 20))


def training_set(root, seed=0, augment=EVERYTHING):
    return RealFakeFolder(scan(root, discover(root)), CROP, augment, seed=seed)


def contents(loader):
    """All that a loader delivers, as comparable bytes."""

    def content(part):
        return part["index"].tolist(), part["label"].tolist(), part["image"].numpy().tobytes()

    return [[content(part) for part in batch["parts"]] for batch in loader]


def epochs(root, workers, numbers=(0, 1), batch_size=3):
    dataset = training_set(root)
    sampler = EpochBatches(dataset.labels, batch_size, seed=7)
    loader = create_dataloader(dataset, sampler, workers)
    result = []
    for number in numbers:
        sampler.start(number)
        result.append(contents(loader))
    return result


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_training_batches(root, workers):
    assert epochs(root, workers) == epochs(root, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_do_not_depend_on_workers_or_repetition(root, workers):
    dataset = training_set(root, augment=None)
    loader = loader_over(options(num_threads=workers), dataset, range(20), CPU)
    first = contents(loader)
    assert first == contents(loader)
    assert [index for batch in first for indices, _, _ in batch for index in indices] == list(range(20))
    assert first == contents(loader_over(options(), dataset, range(20), CPU))


def test_an_epoch_repeats_exactly_and_another_differs(root):
    first, second, again = epochs(root, 0, numbers=(0, 1, 0))
    assert first == again
    assert first != second


def item_bytes(dataset, key):
    return dataset[key]["image"].numpy().tobytes()


def test_an_item_depends_on_seed_epoch_and_index_alone(root):
    dataset, fresh = training_set(root), training_set(root)
    keys = [(epoch, index) for epoch in (0, 1, 5) for index in (3, 0, 11)]
    before = {key: item_bytes(dataset, key) for key in keys}
    np.random.default_rng(1)
    torch.manual_seed(99)
    np.random.seed(99)
    assert {key: item_bytes(fresh, key) for key in reversed(keys)} == before


@pytest.mark.parametrize(("seed", "epoch", "index"), [(1, 0, 0), (0, 1, 0)])
def test_another_seed_or_epoch_gives_another_item(root, seed, epoch, index):
    augment = Augment()
    base = [item_bytes(training_set(root, 0, augment), (0, place)) for place in range(20)]
    other = [item_bytes(training_set(root, seed, augment), (epoch, place)) for place in range(20)]
    assert sum(one == two for one, two in zip(base, other, strict=True)) <= 3


def test_items_of_one_epoch_draw_independently(tmp_path):
    make_tree(tmp_path, ["a"], count=1, size=(64, 64))
    first = tmp_path / "a/0_real/0.png"
    for number in range(1, 12):
        (first.parent / f"{number}.png").write_bytes(first.read_bytes())
    dataset = training_set(tmp_path, augment=Augment())
    assert len({item_bytes(dataset, (0, index)) for index in range(12)}) >= 11


def test_evaluation_ignores_the_epoch(root):
    dataset = training_set(root, augment=None)
    assert item_bytes(dataset, (0, 2)) == item_bytes(dataset, (9, 2)) == item_bytes(dataset, 2)


def flat(batches):
    return [pair for batch in batches for pair in batch]


LABELS = [0] * 12 + [1] * 11
ORDERS = [{}, {"shuffle": False}, {"class_balance": True}]


@pytest.mark.parametrize("options", ORDERS, ids=["shuffled", "serial", "balanced"])
def test_a_start_inside_an_epoch_gives_exactly_its_tail(options):
    whole, resumed = (EpochBatches(LABELS, 4, seed=3, **options) for _ in range(2))
    whole.start(2)
    full = list(whole)
    assert len(full) == 6
    for batch in range(7):
        resumed.start(2, batch)
        assert list(resumed) == full[batch:]


def test_a_start_in_the_middle_gives_the_same_images_through_the_loader(root):
    whole = epochs(root, 0, numbers=(1,))[0]
    dataset = training_set(root)
    sampler = EpochBatches(dataset.labels, 3, seed=7)
    sampler.start(1, 4)
    assert contents(create_dataloader(dataset, sampler)) == whole[4:]


@pytest.mark.parametrize("options", ORDERS[:2], ids=["shuffled", "serial"])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_an_epoch_shows_every_sample_once(options, batch_size):
    sampler = EpochBatches(LABELS, batch_size, seed=0, **options)
    sampler.start(4)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert sorted(flat(batches)) == [(4, index) for index in range(23)]


def test_serial_batches_keep_the_order_of_the_files():
    assert EpochBatches(LABELS, 4, seed=0, shuffle=False).order(3).tolist() == list(range(23))


def test_the_order_differs_between_epochs_and_seeds_and_repeats():
    orders = [EpochBatches(LABELS, 4, seed).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert list(range(23)) not in orders
    assert EpochBatches(LABELS, 9, 0).order(1).tolist() == orders[1]


@pytest.mark.parametrize("labels", [[0] * 90 + [1] * 10, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1] * 10])
def test_class_balance_draws_both_classes_equally_often(labels):
    labels = np.array(labels)
    sampler = EpochBatches(labels, 10, seed=0, class_balance=True)
    drawn = np.concatenate([sampler.order(epoch) for epoch in range(60)])
    assert len(drawn) == 6000
    assert abs(labels[drawn].mean() - 0.5) < 0.03
    counts = np.bincount(drawn, minlength=100)
    assert counts.min() > 0
    for label in (0, 1):
        own = counts[labels == label]
        expected = 3000 / len(own)
        assert np.abs(own - expected).max() < 5 * np.sqrt(expected)


def test_class_balance_repeats_for_the_same_epoch_and_differs_between_epochs():
    first, again, other = (
        EpochBatches(LABELS, 4, 5, class_balance=True).order(epoch).tolist() for epoch in (0, 0, 1)
    )
    assert first == again != other


def item(index, size):
    return {"image": torch.full((3, *size), index, dtype=torch.uint8), "label": index % 2, "index": index}


def test_collate_groups_by_size_and_loses_nothing():
    sizes = [(4, 6), (6, 4), (4, 6), (5, 5), (6, 4), (4, 6)]
    batch = collate([item(index, size) for index, size in enumerate(sizes)])
    assert [part["index"].tolist() for part in batch["parts"]] == [[0, 2, 5], [1, 4], [3]]
    for part in batch["parts"]:
        assert part["image"].dtype == torch.uint8
        for image, label, index in zip(part["image"], part["label"], part["index"], strict=True):
            assert image.shape == (3, *sizes[index])
            assert image.unique().tolist() == [index] and label == index % 2
    assert batch["bad"] == []


def test_collate_reports_bad_items_beside_the_good():
    bad = [{"index": 1, "bad": "empty file"}, {"index": 3, "bad": "x"}]
    batch = collate([item(0, (4, 4)), bad[0], item(2, (4, 4)), bad[1]])
    assert [part["index"].tolist() for part in batch["parts"]] == [[0, 2]]
    assert batch["bad"] == [(1, "empty file"), (3, "x")]


def test_a_batch_of_bad_items_alone_has_no_parts():
    assert collate([{"index": 4, "bad": "empty file"}]) == {"parts": [], "bad": [(4, "empty file")]}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_does_not_stop_the_loader(tmp_path, workers):
    root = make_tree(tmp_path, ["a"], count=3)
    (root / "a/0_real/1.png").write_bytes(b"")
    dataset = training_set(root, augment=None)
    batches = list(loader_over(options(num_threads=workers, batch_size=6), dataset, range(6), CPU))
    assert len(batches) == 1 and batches[0]["bad"] == [(1, "empty file")]
    assert batches[0]["parts"][0]["index"].tolist() == [0, 2, 3, 4, 5]


def options(**changes):
    return Namespace(
        **{
            "batch_size": 4,
            "num_threads": 0,
            "max_input_mpx": 16.0,
            "large_images": "refuse",
            "max_mpx": 100,
            "seed": 0,
            "views": (AS_STORED,),
            "exif": "ignore",
            **changes,
        }
    )


def test_a_loader_gives_the_samples_asked_for_in_this_order(root):
    dataset = evaluation_images(options(), scan(root, discover(root)), DataConfig(), Geometry(None, None))
    for indices in ([*range(10, 20)], [7, 3, 5], []):
        loader = loader_over(options(), dataset, indices, CPU)
        batches = [part["index"].tolist() for batch in loader for part in batch["parts"]]
        assert batches == [indices[first : first + 4] for first in range(0, len(indices), 4)]


@pytest.mark.parametrize(
    ("changes", "config", "outcome"),
    [
        ({}, DataConfig(), (3, 20, 24)),
        ({}, DataConfig(min_side=21), "too small"),
        ({"max_input_mpx": 0.0004}, DataConfig(), "--max_input_mpx"),
        ({"max_input_mpx": 0.0002, "large_images": "crop"}, DataConfig(), (3, 12, 14)),
        ({"max_mpx": 0.0004}, DataConfig(), "--max_mpx"),
    ],
)
def test_an_evaluation_set_obeys_the_limits_of_detector_and_options(root, changes, config, outcome):
    item = evaluation_images(options(**changes), scan(root, discover(root)), config, Geometry(None, None))[0]
    if isinstance(outcome, str):
        assert outcome in item["bad"]
    else:
        assert item["image"].shape == outcome


def test_workers_fill_shared_memory_themselves_so_that_a_full_one_is_an_error(root, monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    dataset = training_set(root)
    with pytest.raises(RuntimeError, match="memory"):
        contents(create_dataloader(dataset, EpochBatches(dataset.labels, 3, seed=7), 1))


def test_workers_leave_signals_to_their_parent_and_end_when_it_says_so(root):
    dataset = training_set(root)
    loader = create_dataloader(dataset, EpochBatches(dataset.labels, 3, seed=7), 1)
    batches = iter(loader)
    next(batches)
    [worker] = batches._workers
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGHUP)
    for _ in range(3):
        next(batches)
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_of_groups_share_workers_and_keep_their_samples_apart(root, workers):
    dataset = evaluation_images(options(), scan(root, discover(root)), DataConfig(), Geometry(None, None))
    groups = [[3, 0, 7], [], [5], [1, 2]]
    loaders = loaders_over(options(num_threads=workers, batch_size=2), dataset, groups, CPU)
    found = [
        [i for batch in loader for part in batch["parts"] for i in part["index"].tolist()]
        for loader in loaders
    ]
    assert found == groups
    assert [len(loader.batch_sampler) for loader in loaders] == [2, 0, 1, 1]
