"""Images of many sizes through one detector: what is joined, in which order it comes out, what it costs."""

import time
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import toy_image
from PIL import Image

from data import Geometry, RealFakeFolder, create_dataloader, discover, scan
from data.transforms import Limits
from networks.resnet import NPRDetector
from util import batching
from util.batching import WAITING_PASSES, SizeBuckets, logits_by_size, logits_of
from util.score import BadImages, predict

CPU = torch.device("cpu")
# (height, width); odd ones, two of equal area, and two that the network trims to the same input
SIZES = [
    (16, 16),
    (17, 16),
    (16, 24),
    (24, 16),
    (9, 13),
    (31, 18),
    (2, 40),
    (33, 33),
    (20, 20),
    (48, 7),
    (8, 8),
    (27, 64),
]


def part_of(size, indices):
    """Black images of one size; the number of each stands in its first two values."""
    images = torch.zeros(len(indices), 3, *size, dtype=torch.uint8)
    for image, index in zip(images, indices, strict=True):
        image[0, 0, 0], image[1, 0, 0] = index // 256, index % 256
    return {"image": images, "index": torch.tensor(indices)}


def number_of(images):
    """A detector whose logit is the number written into an image."""
    return images[:, 0, 0, 0].float() * 256 + images[:, 1, 0, 0]


def random_parts(sizes, parts=60, largest=7):
    """Parts of up to `largest` images; sizes in random order, indices shuffled over all of them."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, largest + 1, parts)
    indices = rng.permutation(counts.sum()).tolist()
    return [
        part_of(sizes[rng.integers(len(sizes))], [indices.pop() for _ in range(count)]) for count in counts
    ]


def passes_of(parts, limit):
    return list(SizeBuckets(CPU, limit).passes(parts))


def run_through(function, parts, *args, **kwargs):
    """The passes of `logits_by_size` of a function as the detector."""
    function.data_config = Namespace(enlargement=1, patches=None)
    return list(logits_by_size(function, parts, CPU, *args, **kwargs))


@pytest.mark.parametrize("limit", [1, 100, 700, 2000, 10**9])
def test_every_image_comes_out_exactly_once_with_its_own_index(limit):
    parts = random_parts(SIZES)
    passes = passes_of(parts, limit)
    indices = torch.cat([index for _, index in passes])
    assert sorted(indices.tolist()) == list(range(sum(len(part["index"]) for part in parts)))
    assert all(number_of(images).tolist() == index.tolist() for images, index in passes)


@pytest.mark.parametrize("limit", [1, 100, 700, 2000])
def test_a_pass_holds_one_size_and_is_above_the_limit_only_for_a_single_image(limit):
    for images, index in passes_of(random_parts(SIZES), limit):
        assert images.dtype == torch.uint8
        assert tuple(images.shape[-2:]) in SIZES
        assert len(images) == len(index) >= 1
        assert len(images) == 1 or len(images) * images.shape[-2] * images.shape[-1] <= limit


def test_a_pass_is_joined_from_several_parts_until_it_is_full():
    buckets = SizeBuckets(CPU, limit=4 * 8 * 8)
    assert buckets.add(part_of((8, 8), [5, 1, 7])) == []
    assert buckets.add(part_of((8, 9), [0])) == []
    [(_, first), (_, second)] = buckets.add(part_of((8, 8), [2, 9, 3, 4, 6, 8]))
    assert (first.tolist(), second.tolist()) == ([5, 1, 7, 2], [9, 3, 4, 6])
    assert sorted(index.tolist() for _, index in buckets.passes([])) == [[0], [8]]
    assert not buckets.waiting


def test_sizes_of_equal_area_are_not_joined():
    passes = passes_of([part_of((8, 16), [0]), part_of((16, 8), [1])], 10**6)
    assert sorted(tuple(images.shape[-2:]) for images, _ in passes) == [(8, 16), (16, 8)]


def test_a_limit_of_one_pixel_is_batch_size_one_in_the_order_of_arrival():
    parts = random_parts(SIZES)
    passes = passes_of(parts, 1)
    assert [index.tolist() for _, index in passes] == [
        [number] for part in parts for number in part["index"].tolist()
    ]


def test_waiting_images_are_bounded_however_many_sizes_come():
    limit = 5000
    buckets, out, most = SizeBuckets(CPU, limit), 0, 0
    for number in range(200):  # 200 distinct sizes, each far below a pass of its own
        out += len(buckets.add(part_of((8, 8 + number), [number])))
        waiting = sum(
            images[..., 0, :, :].numel() for parts in buckets.waiting.values() for images, _ in parts
        )
        assert waiting <= WAITING_PASSES * limit
        most = max(most, waiting)
    assert most > limit  # it does wait for company
    assert out + len(list(buckets.passes([]))) == 200
    assert not buckets.waiting


@pytest.mark.parametrize("limit", [None, 1, 700])
def test_logits_sorted_by_index_are_in_the_original_order(limit):
    parts = random_parts(SIZES)
    passes = run_through(number_of, parts, limit=limit)
    index, logit = (torch.cat(one) for one in zip(*passes, strict=True))
    assert torch.equal(logit[index.argsort()], torch.arange(len(index)).float())


@pytest.fixture(scope="module")
def detector():
    """An NPR detector of random weights whose scores are spread and not at the ends."""
    torch.manual_seed(0)
    return NPRDetector().eval()


def alone(detector, images):
    """Each image's logit in a forward pass of its own, (N,) float64."""
    with torch.inference_mode():
        return np.array([detector(image[None]).item() for image in images])


def score(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))


@pytest.mark.parametrize("limit", [None, 1500])
def test_a_shuffled_mixture_of_twelve_sizes_scores_as_one_by_one(detector, limit):
    generator = torch.Generator().manual_seed(0)
    sizes = [SIZES[number % 12] for number in torch.randperm(72, generator=generator).tolist()]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    parts = [{"image": image[None], "index": torch.tensor([place])} for place, image in enumerate(images)]
    passes = list(logits_by_size(detector, parts, CPU, limit=limit))
    assert len(passes) < 60  # sizes were joined
    index, logit = (torch.cat(one) for one in zip(*passes, strict=True))
    expected = score(alone(detector, images))
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(score(logit[index.argsort()]), expected, rtol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_predict_gives_the_order_of_the_dataset_at_native_sizes(detector, tree, workers):
    root, rng = tree(["a", "b"], count=2), np.random.default_rng(1)
    for number, (height, width) in enumerate(SIZES):
        place = root / "ab"[number % 2] / ("0_real", "1_fake")[number % 3 == 0]
        toy_image(rng, False, (width, height)).save(place / f"x{number}.png")
    dataset = RealFakeFolder(scan(root, discover(root)), Geometry(None, None), limits=Limits(min_side=2))
    order = rng.permutation(len(dataset)).tolist()
    loader = create_dataloader(dataset, [order[first : first + 3] for first in range(0, 20, 3)], workers)
    index, logit = predict(detector, loader, CPU, BadImages("stop", dataset))
    assert index.tolist() == list(range(20))
    pictures = [np.array(Image.open(root / sample.path)) for sample in dataset.samples]
    expected = alone(detector, [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])
    assert len({picture.shape for picture in pictures}) == 13
    np.testing.assert_allclose(score(logit), score(expected), rtol=1e-6)


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    sizes = []

    def narrow(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(images))
        return number_of(images)

    part = part_of((4, 4), list(range(300, 311)))
    passes = run_through(narrow, [part])
    assert torch.cat([logit for _, logit in passes]).tolist() == list(range(300, 311))
    assert sum(sizes) == 11
    parts = random_parts(SIZES)
    index, logit = (torch.cat(one) for one in zip(*run_through(narrow, parts), strict=True))
    assert torch.equal(index.float(), logit)


def test_a_single_image_that_does_not_fit_is_an_error():
    tried = []

    def never(images):
        tried.append(len(images))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="memory"):
        run_through(never, [part_of((4, 4), [0, 1, 2, 3])])
    assert tried == [4, 2, 1]


def test_after_a_batch_that_did_not_fit_later_ones_are_smaller():
    tried = []

    def narrow(images):
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return number_of(images)

    parts = [part_of((4, 4), list(range(first, first + 8))) for first in (300, 308, 316)]
    run_through(narrow, parts, most=8)
    assert [count for count in tried if count > 2] == [8, 4, 4]  # the first pass and its halves, no later one


def test_a_pass_has_no_more_images_than_asked_for():
    tried = []

    def count(images):
        tried.append(len(images))
        return number_of(images)

    run_through(count, [part_of((4, 4), list(range(300, 310)))], most=4)
    assert tried == [4, 4, 2]


@pytest.mark.parametrize(
    ("free", "cached", "pixels"), [(0, 0, 131072), (6e9, 0, 1e7), (0, 6e9, 1e7), (9e12, 0, 2**26)]
)
def test_a_pass_on_a_gpu_fits_what_torch_can_still_use(monkeypatch, free, cached, pixels):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), 8 * 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: int(cached) + 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert batching.pixels_per_pass(torch.device("cuda")) == pixels


def test_other_errors_of_a_detector_are_not_retried():
    tried = []

    def broken(images):
        tried.append(len(images))
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="mismatch"):
        logits_of(broken, part_of((4, 4), [0, 1, 2, 3])["image"], CPU)
    assert tried == [4]


@pytest.mark.parametrize("bf16", [True, False])
def test_bf16_reaches_the_detector_and_its_logits_come_back_as_float32(bf16):
    seen = set()

    def spy(images):
        seen.add((torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        if bf16:
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        flat = images[:, :, 0, 0].float()
        return (flat @ torch.ones(3, 1)).squeeze(1)  # autocast computes products in bf16

    passes = run_through(spy, [part_of((4, 4), [257, 3])], bf16)
    assert seen == {(bf16, True)}
    [(_, logit)] = passes
    assert logit.dtype == torch.float32
    assert logit.tolist() == [2, 3]


@pytest.mark.cuda
def test_joining_sizes_on_cuda_is_at_least_twice_as_fast_as_batch_one(detector, monkeypatch):
    # 1e-5 and not 1e-6: cuDNN picks another kernel for another batch size, with another order of summation.
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # as for inputs of many sizes
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cuda, made = torch.device("cuda"), NPRDetector().eval()
    made.load_state_dict(detector.state_dict())
    made.to(cuda)
    rng = np.random.default_rng(0)
    sizes = [(int(height), int(width)) for height, width in rng.integers(64, 257, (25, 2))]
    places = rng.permutation(500).tolist()
    parts = [
        {
            "image": torch.from_numpy(rng.integers(0, 256, (1, 3, *sizes[place % 25]), dtype=np.uint8)),
            "index": torch.tensor([place]),
        }
        for place in places
    ]

    def timed(limit):
        best = float("inf")
        for _ in range(3):  # the first one loads kernels
            torch.cuda.synchronize()
            started = time.perf_counter()
            passes = list(logits_by_size(made, parts, cuda, limit=limit))
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        index, logit = (torch.cat(one).cpu() for one in zip(*passes, strict=True))
        return best, score(logit[index.argsort()])

    one_by_one, expected = timed(1)
    joined, scores = timed(None)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    assert one_by_one >= 2 * joined, f"{one_by_one:.3f} s one by one, {joined:.3f} s joined"


def test_the_logit_of_several_crops_is_the_mean_of_theirs():
    crops = torch.randint(0, 256, (5, 7, 3, 6, 8), dtype=torch.uint8)
    expected = [np.mean([int(crop[0, 0, 0]) * 256 + int(crop[1, 0, 0]) for crop in image]) for image in crops]
    parts = [{"image": crops, "index": torch.arange(5)}]
    for limit in (50, 10**6):
        passes = run_through(number_of, parts, limit=limit)
        found = dict(zip(*(torch.cat(part).tolist() for part in zip(*passes, strict=True)), strict=True))
        assert [found[index] for index in range(5)] == pytest.approx(expected, rel=1e-6)
