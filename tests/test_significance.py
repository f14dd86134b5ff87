"""Intervals and tests over images, against scipy, slow versions and simulations."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from util import significance
from util.metrics import average_precision, measure
from util.results import tabulate_scores

SEEDS = range(10)


def sample(seed, reals=60, fakes=40, shift=1.0, digits=1):
    """Labels and the scores of two related detectors, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [reals, fakes]))
    shared = rng.normal(size=len(labels)) + shift * labels
    first, second = (1 / (1 + np.exp(-shared - rng.normal(size=len(labels)))) for _ in range(2))
    return labels, first.round(digits), second.round(digits)


# Newcombe, Statistics in Medicine 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
@pytest.mark.parametrize(
    "successes, total, wilson, exact",
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_proportions_are_newcombes_examples(successes, total, wilson, exact):
    assert significance.wilson(successes, total) == pytest.approx(wilson, abs=6e-5)
    assert significance.clopper_pearson(successes, total) == pytest.approx(exact, abs=6e-5)


def test_a_proportion_of_nothing_is_nan():
    assert all(map(math.isnan, significance.wilson(0, 0)))


def slow_bootstrap(labels, scores, resamples, seed):
    rng, rows = np.random.default_rng(seed), []
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    for _ in range(resamples):
        index = np.concatenate([rng.choice(group, len(group)) for group in groups])
        rows.append(measure(labels[index], scores[index], ("acc", "bal_acc", "r_acc", "f_acc", "auc", "ap")))
    return {
        name: np.array([row[name] for row in rows]) for name in rows[0] if name not in ("images", "reason")
    }


def test_the_bootstrap_draws_what_a_loop_over_resamples_draws():
    labels, scores, _ = sample(0)
    fast = significance.bootstrap(labels, scores, resamples=20_000)
    slow = slow_bootstrap(labels, scores, 800, seed=1)
    assert fast.keys() == slow.keys()
    for name, values in slow.items():
        assert fast[name].mean() == pytest.approx(values.mean(), abs=4 * values.std() / 800**0.5), name
        assert fast[name].std() == pytest.approx(values.std(), rel=0.12), name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resample_with_every_image_once_has_the_metrics_of_the_images(seed, monkeypatch):
    labels, scores, _ = sample(seed)

    class Once:
        def integers(self, high, size, dtype):
            return np.broadcast_to(np.arange(high), size)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Once())
    values = significance.bootstrap(labels, scores, resamples=2)
    row = measure(labels, scores, tuple(values))
    for name, value in values.items():
        assert value == pytest.approx([row[name]] * 2, abs=1e-12), name


@pytest.mark.slow
def test_ten_thousand_resamples_of_ten_thousand_images_take_seconds():
    labels, scores, _ = sample(0, 5_000, 5_000, digits=9)
    start = time.perf_counter()
    values = significance.bootstrap(labels, scores)
    assert len(values["ap"]) == 10_000
    assert time.perf_counter() - start < 60  # about 8 on two cores


def test_the_interval_covers_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    truth = stats.norm.cdf(1 / math.sqrt(2))  # AUC of N(1, 1) over N(0, 1)
    labels = np.repeat([0, 1], 80)
    for seed in range(200):
        scores = rng.normal(size=160) + labels
        low, high = significance.interval(
            significance.bootstrap(labels, scores, resamples=400, seed=seed)["auc"]
        )
        inside += low <= truth <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_one_class_has_no_resamples():
    assert significance.bootstrap([1, 1], [0.2, 0.3]) == {}


def test_drawing_generators_adds_their_spread():
    rng = np.random.default_rng(0)
    means = np.array([0.5, 0.7, 0.9, 0.6])
    resampled = [mean + rng.normal(0, 0.01, 20_000) for mean in means]
    drawn = significance.over_generators(resampled)
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.003)
    assert drawn.var() == pytest.approx((means.var() + 0.01**2) / 4, rel=0.05)


def test_the_mean_over_images_has_the_interval_of_the_pooled_images():
    parts = [sample(seed, 300, 30, shift=2 * seed)[:2] for seed in range(3)]
    scores = [
        (f"{name}{n}", name, label, score, 0)
        for name, part in zip("abc", parts, strict=True)
        for n, (label, score) in enumerate(zip(*part, strict=True))
    ]
    scores += [(f"d{n}", "d", 1, 0.9, 0) for n in range(500)]  # one class: not in the mean
    rows = tabulate_scores(scores, None, "micro", ("acc", "bal_acc", "auc", "ap", "f_acc"))
    significance.add_intervals(rows, scores, average="micro", resamples=1000)
    labels, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    slow = slow_bootstrap(labels, values, 800, seed=1)
    for name in ("acc", "bal_acc", "auc", "ap", "f_acc"):
        found = [rows[-1][f"{name}_{side}"] for side in ("low", "high")]
        assert found == pytest.approx(significance.interval(slow[name]), abs=0.02), name


# ----- two detectors -----


@pytest.mark.parametrize("gained, lost", [(0, 0), (5, 0), (3, 12), (20, 21)])
def test_mcnemar_is_the_sum_of_coin_tosses(gained, lost):
    total = gained + lost
    chances = [math.comb(total, k) / 2**total for k in range(total + 1)]
    expected = min(1.0, 2 * sum(chances[: min(gained, lost) + 1]))
    assert significance.mcnemar(gained, lost) == pytest.approx(expected)


def slow_delong(labels, first, second):
    """Pair by pair, as the paper writes it."""
    fakes, reals = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    kernels = [
        np.array([[float(s[f] > s[r]) + 0.5 * float(s[f] == s[r]) for r in reals] for f in fakes])
        for s in (first, second)
    ]
    s10 = np.cov([kernel.mean(axis=1) for kernel in kernels])
    s01 = np.cov([kernel.mean(axis=0) for kernel in kernels])
    covariance, contrast = s10 / len(fakes) + s01 / len(reals), np.array([1, -1])
    z = (kernels[0].mean() - kernels[1].mean()) / math.sqrt(contrast @ covariance @ contrast)
    return 2 * stats.norm.sf(abs(z))


@pytest.mark.parametrize("seed", SEEDS)
def test_delong_is_the_paper_pair_by_pair(seed):
    labels, first, second = sample(seed, 30, 20)
    assert significance.delong(labels, first, second) == pytest.approx(slow_delong(labels, first, second))


def test_delong_agrees_with_a_paired_bootstrap():
    labels, first, second = sample(3, 150, 150, digits=6)
    second = second - 0.12 * labels
    rng, differences = np.random.default_rng(0), []
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    for _ in range(300):
        index = np.concatenate([rng.choice(group, len(group)) for group in groups])
        areas = [measure(labels[index], scores[index], ("auc",))["auc"] for scores in (first, second)]
        differences.append(areas[1] - areas[0])
    z = np.mean(differences) / np.std(differences)
    assert significance.delong(labels, first, second) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.5)


def test_equal_detectors_do_not_differ():
    labels, first, _ = sample(0)
    assert significance.delong(labels, first, first) == 1
    assert significance.permute_ap(labels, first, first, permutations=50) == 1
    assert significance.delong(labels, first, 2 * first + 1) == 1  # only the order counts


def test_too_few_images_have_no_test():
    assert math.isnan(significance.delong([0, 1, 1], [0, 1, 1], [0, 1, 0]))
    assert math.isnan(significance.permute_ap([1, 1], [0, 1], [1, 0]))


@pytest.mark.parametrize("test", [significance.delong, significance.permute_ap])
def test_false_alarms_are_as_rare_as_they_should_be(test):
    options = {"permutations": 99} if test is significance.permute_ap else {}
    values = [test(*sample(seed, 40, 40, digits=6), **options) for seed in range(200)]
    assert np.mean(np.array(values) <= 0.05) <= 0.10
    assert 0.4 < np.mean(values) < 0.6


def test_a_worse_detector_is_found():
    labels, first, second = sample(0, 200, 200, shift=2, digits=6)
    worse = np.where(labels == 1, second * 0.7, second)
    assert significance.delong(labels, first, worse) < 0.001
    assert significance.permute_ap(labels, first, worse, permutations=999) <= 0.001


@pytest.mark.parametrize("seed", SEEDS)
def test_ap_differences_are_those_of_the_swapped_ranks(seed, monkeypatch):
    labels, first, second = sample(seed)
    monkeypatch.setattr(significance, "PERMUTED", 3 * len(labels))  # in several chunks
    fast = significance._ap_differences(labels, first, second, 7, np.random.default_rng(seed))
    rng, ranks = np.random.default_rng(seed), [stats.rankdata(scores) for scores in (first, second)]
    swaps = np.concatenate([rng.integers(2, size=(size, len(labels)), dtype=bool) for size in (3, 3, 2)])
    swaps[0] = False
    for swap, difference in zip(swaps, fast, strict=True):
        one, two = np.where(swap, ranks[::-1], ranks)
        expected = average_precision(labels, two) - average_precision(labels, one)
        assert difference == pytest.approx(expected, abs=1e-12)


def groups_of(count):
    """The samples of several generators, joined: labels, first, second, groups."""
    parts = [sample(seed, 30 + 5 * seed, 25, digits=3) for seed in range(count)]
    labels, first, second = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = np.repeat([f"g{number}" for number in range(count)], [len(part[0]) for part in parts])
    return labels, first, second, names, parts


def test_delong_over_groups_is_the_test_of_their_mean():
    labels, first, second, names, parts = groups_of(4)
    auc = [[measure(labels, scores, ("auc",))["auc"] for scores in pair] for labels, *pair in parts]
    variances = []
    for (one, two), part in zip(auc, parts, strict=True):
        z = stats.norm.isf(slow_delong(*part) / 2)
        variances.append(((two - one) / z) ** 2)
    z = np.mean([two - one for one, two in auc]) / math.sqrt(sum(variances) / 16)
    p = significance.delong(labels, first, second, names)
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)))
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = significance.delong(*(column[order] for column in (labels, first, second, names)))
    assert p == pytest.approx(shuffled)


def test_permutations_over_groups_swap_within_each_and_average():
    labels, first, second, names, parts = groups_of(3)
    rng = np.random.default_rng(0)
    differences = [significance._ap_differences(*part, 199, rng) for part in parts]
    mean = np.abs(np.mean(differences, axis=0))
    expected = np.mean(mean >= mean[0] - 1e-12)
    assert significance.permute_ap(labels, first, second, names, permutations=199) == pytest.approx(expected)


@pytest.mark.parametrize("test", [significance.delong, significance.permute_ap])
def test_false_alarms_over_groups_are_as_rare_as_they_should_be(test):
    options = {"permutations": 99} if test is significance.permute_ap else {}
    values = []
    for seed in range(150):
        parts = [sample(1000 * seed + number, 20, 20, digits=6) for number in range(4)]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        values.append(test(*columns, np.repeat([*"abcd"], 40), **options))
    assert np.mean(np.array(values) <= 0.05) <= 0.11
    assert 0.4 < np.mean(values) < 0.6


def test_small_differences_of_many_generators_add_up():
    parts = []
    for seed in range(8):
        labels, first, second = sample(seed, 60, 60, digits=6)
        parts.append((labels, first, second - 0.08 * labels))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names = np.repeat([*"abcdefgh"], 120)
    for test in (significance.delong, significance.permute_ap):
        assert test(*columns, names) < min(test(*part) for part in parts)
