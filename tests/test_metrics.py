"""Accuracy, AP and AUC against slow independent versions."""

import itertools
import math

import numpy as np
import pytest

from util.metrics import (
    ECE_BINS,
    METRICS,
    PUBLISHED,
    THRESHOLD,
    accuracy,
    add_recall,
    auc,
    average_precision,
    measure,
    reason,
    tabulate,
)
from util.results import sigmoid

SEEDS = range(25)
TWO_CLASS = ("acc", "ap", "auc")


def slow_average_precision(labels, scores):
    """Step sum of precision over recall, one threshold at a time; all images of a tie enter together."""
    positives, area, recall_before = int((labels == 1).sum()), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = [
            label for label, score in zip(labels.tolist(), scores.tolist(), strict=True) if score >= threshold
        ]
        precision, recall = sum(called) / len(called), sum(called) / positives
        area += (recall - recall_before) * precision
        recall_before = recall
    return area


def slow_auc(labels, scores):
    """Share of (fake, real) pairs in the right order; a tie is half a pair."""
    fakes = [float(score) for score in scores[labels == 1]]
    reals = [float(score) for score in scores[labels == 0]]
    won = sum((fake > real) + 0.5 * (fake == real) for fake in fakes for real in reals)
    return won / (len(fakes) * len(reals))


def tied_sample(seed, levels=7):
    """Labels of both classes and float32 scores with few distinct values."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 80))
    labels = rng.integers(0, 2, count)
    labels[:2] = 0, 1
    return labels, (rng.integers(0, levels, count) / (levels - 1)).astype(np.float32)


# --- the metrics


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_average_precision_equals_a_threshold_by_threshold_sum(seed, levels):
    labels, scores = tied_sample(seed, levels)
    assert average_precision(labels, scores) == pytest.approx(
        slow_average_precision(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_auc_equals_the_count_of_ordered_pairs(seed, levels):
    labels, scores = tied_sample(seed, levels)
    assert auc(labels, scores) == pytest.approx(slow_auc(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracies_equal_a_count_image_by_image(seed):
    labels, scores = tied_sample(seed, levels=9)
    right = [
        (score > 0.5) == bool(label) for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
    ]
    reals = [ok for ok, label in zip(right, labels, strict=True) if label == 0]
    fakes = [ok for ok, label in zip(right, labels, strict=True) if label == 1]
    row = measure(labels, scores)
    assert row["acc"] == pytest.approx(sum(right) / len(right), abs=1e-12)
    assert row["r_acc"] == pytest.approx(sum(reals) / len(reals), abs=1e-12)
    assert row["f_acc"] == pytest.approx(sum(fakes) / len(fakes), abs=1e-12)


def test_a_score_of_exactly_one_half_counts_as_real():
    assert THRESHOLD == 0.5
    row = measure([0, 1], np.array([0.5, 0.5], np.float32))
    assert (row["r_acc"], row["f_acc"], row["acc"]) == (1.0, 0.0, 0.5)


def test_the_next_float_above_one_half_counts_as_fake():
    above = np.nextafter(np.float32(0.5), np.float32(1))
    row = measure([0, 1], np.array([above, above], np.float32))
    assert (row["r_acc"], row["f_acc"], row["acc"]) == (0.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("scores", "ap", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], 1.0, 1.0),
        ([0.9, 0.8, 0.2, 0.1], (1 / 3 + 2 / 4) / 2, 0.0),
        ([0.5] * 4, 0.5, 0.5),
        ([0.1, 0.9, 0.9, 0.2], 0.5 * 0.5 + 0.5 * 2 / 3, 0.625),
    ],
)
def test_values_worked_by_hand(scores, ap, area):
    labels = np.array([0, 0, 1, 1])
    assert average_precision(labels, np.array(scores)) == pytest.approx(ap, abs=1e-12)
    assert auc(labels, np.array(scores)) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("metric", [accuracy, average_precision, auc])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_images_does_not_matter(metric, seed):
    labels, scores = tied_sample(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert metric(labels[order], scores[order]) == pytest.approx(metric(labels, scores), abs=1e-12)


def test_saturated_float32_scores_tie_where_their_logits_do_not():
    labels, logits = np.array([0, 1, 0, 1]), np.array([40.0, 90.0, -200.0, -150.0])
    scores = sigmoid(logits)
    assert scores.dtype == np.float32
    assert scores[0] == scores[1] == 1 and scores[2] == scores[3] == 0
    assert auc(labels, scores) == 0.5 and auc(labels, logits) == 0.75
    assert average_precision(labels, scores) == 0.5 != average_precision(labels, logits)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "no images"),
        ([0], "no fake images"),
        ([0, 0], "no fake images"),
        ([1], "no real images"),
        ([1, 1, 1], "no real images"),
        ([0, 1], ""),
    ],
)
def test_the_reason_says_what_is_missing(labels, words):
    assert reason(np.array(labels, dtype=int)) == words
    assert measure(labels, np.zeros(len(labels), np.float32))["reason"] == words


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0, 0], [1, 1]])
def test_two_class_metrics_of_one_class_are_nan(labels):
    row = measure(labels, np.full(len(labels), 0.7, np.float32))
    assert all(math.isnan(row[name]) for name in TWO_CLASS)


@pytest.mark.parametrize(
    ("labels", "real", "fake"),
    [
        ([0, 0], 0.5, math.nan),
        ([1, 1], math.nan, 0.5),
        ([], math.nan, math.nan),
    ],
)
def test_the_accuracy_of_the_class_that_is_there_is_given(labels, real, fake):
    row = measure(labels, np.array([0.2, 0.9], np.float32)[: len(labels)])
    assert (row["r_acc"], row["f_acc"]) == pytest.approx((real, fake), nan_ok=True)


@pytest.mark.filterwarnings("error")
def test_one_class_and_no_images_give_no_warning():
    for labels in ([], [0], [1]):
        measure(labels, np.zeros(len(labels), np.float32))


def test_a_row_holds_plain_numbers_for_json():
    row = measure(*tied_sample(0))
    assert {type(row[name]) for name in PUBLISHED} == {float}
    assert type(row["images"]) is int


def test_plain_lists_are_taken():
    assert measure([0, 1, 1], [0.1, 0.8, 0.4])["acc"] == pytest.approx(2 / 3)


# --- the table of generators

GENERATORS = ["b"] * 4 + ["a"] * 2
LABELS = [0, 0, 1, 1, 0, 1]
SCORES = np.array([0.1, 0.2, 0.8, 0.9, 0.9, 0.1], np.float32)  # b all right, a all wrong


def test_the_mean_is_over_generators_not_over_images():
    mean = tabulate(GENERATORS, LABELS, SCORES)[-1]
    assert mean["generator"] == "Mean"
    assert mean["acc"] == 0.5  # 4 of 6 images are right
    assert mean["ap"] == pytest.approx((1 + 0.5) / 2)
    assert (mean["r_acc"], mean["f_acc"], mean["auc"], mean["images"], mean["reason"]) == (
        0.5,
        0.5,
        0.5,
        6,
        "",
    )


def test_each_row_is_measured_on_its_own_images():
    b, a, _ = tabulate(GENERATORS, LABELS, SCORES)
    assert b == {"generator": "b", **measure(LABELS[:4], SCORES[:4])}
    assert a == {"generator": "a", **measure(LABELS[4:], SCORES[4:])}


def test_images_of_a_generator_need_not_stand_together():
    order = [5, 0, 2, 4, 1, 3]
    mixed = tabulate([GENERATORS[i] for i in order], [LABELS[i] for i in order], SCORES[order], ["b", "a"])
    assert mixed == tabulate(GENERATORS, LABELS, SCORES)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, ["b", "a", "Mean"]),
        (["a", "b"], ["a", "b", "Mean"]),
        (("b", "a"), ["b", "a", "Mean"]),
        (iter(["a", "b"]), ["a", "b", "Mean"]),
    ],
)
def test_rows_stand_in_the_order_given_or_of_first_appearance(order, expected):
    assert [row["generator"] for row in tabulate(GENERATORS, LABELS, SCORES, order)] == expected


def test_a_generator_with_one_class_is_shown_but_left_out_of_the_mean():
    rows = tabulate(
        [*GENERATORS, "c", "c"], [*LABELS, 1, 1], np.append(SCORES, [0.9, 0.1]).astype(np.float32)
    )
    assert [row["reason"] for row in rows] == ["", "", "no real images", "mean over 2 of 3"]
    assert rows[2]["f_acc"] == 0.5 and math.isnan(rows[2]["acc"])
    assert (rows[3]["acc"], rows[3]["f_acc"], rows[3]["images"]) == (0.5, 0.5, 8)


@pytest.mark.parametrize(("average", "expected"), [("macro", 0.75), ("micro", 2 / 3)])
def test_the_mean_of_a_benchmark_of_fakes_only_is_that_of_the_recalls(average, expected):
    scores = np.array([0.9, 0.8, 0.4], np.float32)
    rows = tabulate(["a", "b", "b"], [1, 1, 1], scores, ["a", "b", "gone"], average)
    assert rows[-1]["f_acc"] == pytest.approx(expected) and math.isnan(rows[-1]["acc"])
    add_recall(rows, 0.5, ("photos", np.array([0.1, 0.2, 0.3, 0.6], np.float32)))
    assert [row.get("fpr") for row in rows] == [0.25, 0.25, None, 0.25]
    assert (
        rows[1]["reason"] == "no real images; recall 50.0% at threshold 0.5; FPR 25.0% of 4 reals of photos"
    )
    assert "mean over 2 of 3" in rows[-1]["reason"] and "recall" in rows[-1]["reason"]


def test_rows_with_reals_say_nothing_of_recall():
    rows = tabulate([*GENERATORS, "c"], [*LABELS, 1], np.append(SCORES, 0.9).astype(np.float32))
    before = [row["reason"] for row in rows]
    add_recall(rows, 0.5, ("photos", SCORES))
    assert [row["reason"] != text for row, text in zip(rows, before, strict=True)] == [
        False,
        False,
        True,
        False,
    ]


def test_a_generator_in_the_order_without_images_is_a_row_of_nan():
    rows = tabulate(GENERATORS, LABELS, SCORES, ["b", "gone", "a"])
    assert (rows[1]["reason"], rows[1]["images"]) == ("no images", 0)
    assert all(math.isnan(rows[1][name]) for name in PUBLISHED)
    assert rows[-1]["reason"] == "mean over 2 of 3"


def test_a_mean_over_nothing_is_nan_and_says_so():
    mean = tabulate(["a", "b"], [0, 1], np.array([0.1, 0.9], np.float32))[-1]
    assert all(math.isnan(mean[name]) for name in PUBLISHED)
    assert mean["reason"] == "mean over 0 of 2"


def test_no_images_at_all_still_make_a_table():
    rows = tabulate([], [], [], ["a"])
    assert [(row["generator"], row["images"], row["reason"]) for row in rows] == [
        ("a", 0, "no images"),
        ("Mean", 0, "mean over 0 of 1"),
    ]


# --- operating points and calibration


def counts_at(labels, scores, threshold):
    """(share of reals, share of fakes) called fake, image by image."""
    called = [score > threshold for score in scores.tolist()]
    reals = [call for call, label in zip(called, labels, strict=True) if label == 0]
    fakes = [call for call, label in zip(called, labels, strict=True) if label == 1]
    return sum(reals) / len(reals), sum(fakes) / len(fakes)


def every_point(labels, scores):
    thresholds = sorted({-1.0, 2.0, *scores.tolist()}, reverse=True)
    return [counts_at(labels, scores, threshold) for threshold in thresholds]


def slow_eer(labels, scores):
    """The crossing of the two error rates, looked for between each two neighbouring thresholds."""
    points = every_point(labels, scores)
    for (fpr, tpr), (next_fpr, next_tpr) in itertools.pairwise(points):
        before, after = (1 - tpr) - fpr, (1 - next_tpr) - next_fpr
        if before >= 0 >= after:
            share = before / (before - after) if before != after else 0
            return fpr + share * (next_fpr - fpr)
    raise AssertionError("the rates never cross")


def slow_ece(labels, scores, weights):
    """Bin by bin, image by image."""
    error = 0.0
    for left in range(ECE_BINS):
        inside = [
            (float(score), int(label), weight)
            for score, label, weight in zip(scores, labels, weights, strict=True)
            if min(int(float(score) * ECE_BINS), ECE_BINS - 1) == left
        ]
        error += abs(sum(weight * (score - label) for score, label, weight in inside))
    return error / sum(weights)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_operating_points_equal_a_search_over_every_threshold(seed, levels):
    labels, scores = tied_sample(seed, levels)
    points = every_point(labels, scores)
    row = measure(labels, scores, METRICS, threshold=0.3)
    fpr, tpr = counts_at(labels, scores, np.float32(0.3))
    expected = {
        "bal_acc": (1 - fpr + tpr) / 2,
        "r_acc": 1 - fpr,
        "f_acc": tpr,
        "oracle": max(1 - fpr + tpr for fpr, tpr in points) / 2,
        "tpr1": max(tpr for fpr, tpr in points if fpr <= 0.01),
        "tpr5": max(tpr for fpr, tpr in points if fpr <= 0.05),
        "tpr10": max(tpr for fpr, tpr in points if fpr <= 0.10),
        "fpr95": min(fpr for fpr, tpr in points if tpr >= 0.95),
        "eer": slow_eer(labels, scores),
        "ece": slow_ece(labels, scores, [1] * len(labels)),
        "ece_bal": slow_ece(labels, scores, [1 / np.sum(labels == label) for label in labels]),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("seed", SEEDS)
def test_brier_and_nll_are_those_of_scikit_learn(seed):
    from sklearn.metrics import brier_score_loss, log_loss

    labels, scores = tied_sample(seed, 1000)
    scores = scores.clip(0.01, 0.99)
    row = measure(labels, scores, ("brier", "nll"))
    assert row["brier"] == pytest.approx(brier_score_loss(labels, scores), abs=1e-7)
    assert row["nll"] == pytest.approx(log_loss(labels, scores.astype(float)), abs=1e-9)


def test_scores_that_saturate_have_a_finite_nll():
    assert measure([0, 1], sigmoid([100.0, -100.0]), ("nll",))["nll"] == pytest.approx(
        24 * math.log(2), rel=1e-3
    )


def test_what_is_defined_with_fakes_only():
    row = measure([1, 1, 1, 1], np.array([0.9, 0.8, 0.2, 0.7], np.float32), METRICS)
    assert row["f_acc"] == 0.75 and row["brier"] > 0 and row["nll"] > 0 and row["ece"] > 0
    for name in ("bal_acc", "tpr1", "tpr5", "tpr10", "fpr95", "eer", "ece_bal", "oracle", "auc", "ap", "acc"):
        assert math.isnan(row[name]), name


@pytest.mark.parametrize("name", METRICS)
def test_no_image_gives_nan(name):
    assert math.isnan(measure([], np.array([], np.float32), (name,))[name])


def test_a_table_shows_the_published_columns_unless_asked_for_others():
    sample = (["a"] * 4, [0, 1, 0, 1], np.array([0.1, 0.9, 0.6, 0.4], np.float32))
    assert set(tabulate(*sample)[0]) == {"generator", *PUBLISHED, "images", "reason"}
    rows = tabulate(*sample, metrics=("bal_acc", "oracle"), threshold=0.3)
    assert {**rows[0]} == {"generator": "a", "bal_acc": 0.75, "oracle": 0.75, "images": 4, "reason": ""}
