"""Calibration: recovers a known shift, keeps its promises on fresh images."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import evaluate, results
from scipy import stats

import train
from common import UserError
from data.transforms import Geometry
from networks import checkpoint
from util import calibrate
from util.calibrate import Calibration, fit
from util.metrics import measure
from util.results import read_scores


def detector(seed, count=4_000, shift=0.0, temperature=1.0, spread=2.0, reals=0.5):
    """Labels, and logits whose true probability is sigmoid((logit + shift) / temperature)."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) >= reals).astype(int)
    # Two normal classes at -m and m with variance 2 m have the log odds x.
    mean = spread**2 / 2
    log_odds = rng.normal(np.where(labels == 1, mean, -mean), spread)
    return labels, temperature * log_odds - shift


@pytest.mark.parametrize("shift, temperature", [(0, 1), (3, 1), (-4, 2), (1, 0.5)])
@pytest.mark.parametrize("reals", [0.5, 0.9])
def test_a_known_shift_and_temperature_are_recovered(shift, temperature, reals):
    found = fit(*detector(0, 40_000, shift, temperature, reals=reals))
    assert found.shift == pytest.approx(shift, abs=0.12 * max(1, temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    assert found.threshold == pytest.approx(0.5, abs=0.08)


def test_calibration_repairs_accuracy_and_calibration_of_fresh_images():
    labels, logits = detector(1, shift=4.0, temperature=2.0)
    fresh, fresh_logits = detector(2, shift=4.0, temperature=2.0)
    calibration = fit(labels, logits)
    raw, repaired = Calibration().probability(fresh_logits), calibration.probability(fresh_logits)
    metrics = ("bal_acc", "ece_bal", "nll", "auc")
    before = measure(fresh, raw, metrics)
    after = measure(fresh, repaired, metrics, calibration.threshold)
    assert after["bal_acc"] > before["bal_acc"] + 0.05
    assert after["ece_bal"] < 0.03 < before["ece_bal"]
    assert after["nll"] < before["nll"]
    assert after["auc"] == pytest.approx(before["auc"], abs=1e-6)  # the order of images stays


def test_the_default_changes_nothing():
    logits = np.array([-200.0, -1.0, 0.0, 3.0, 200.0])
    expected = [0, 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-3)), 1]
    np.testing.assert_allclose(Calibration().probability(logits), expected, atol=1e-7)
    assert [Calibration().verdict(p) for p in (0.5, 0.51)] == ["real", "fake"]


def test_classes_that_are_apart_keep_a_finite_temperature():
    found = fit([0, 0, 1, 1], [-9.0, -8.0, 2.0, 3.0])
    assert calibrate.TEMPERATURES[0] < found.temperature
    probability = found.probability([-8.0, 2.0])
    assert 0.1 < probability[0] < found.threshold < probability[1] < 0.9  # Platt's targets: 1/4 and 3/4


def slow_threshold(labels, scores):
    """The best balanced accuracy of any threshold."""
    values = sorted({0.0, *scores.tolist()})
    return max(measure(labels, scores, ("bal_acc",), threshold=value)["bal_acc"] for value in values)


@pytest.mark.parametrize("seed", range(10))
def test_the_threshold_has_the_best_balanced_accuracy(seed):
    labels, logits = detector(seed, 60)
    scores = Calibration().probability(logits).round(1)
    threshold = calibrate.best_threshold(labels, scores)
    found = measure(labels, scores, ("bal_acc",), threshold)["bal_acc"]
    assert found == pytest.approx(slow_threshold(labels, scores))


def test_the_accuracy_of_reals_is_kept_on_fresh_images():
    kept = []
    for seed in range(200):
        labels, logits = detector(seed, 600, spread=1.5)
        calibration = fit(labels, logits, real_accuracy=0.9)
        truth = stats.norm.cdf(  # the share of reals whose logit is below the threshold
            (np.log(calibration.threshold / (1 - calibration.threshold)) * calibration.temperature)
            - calibration.shift,
            -1.125,
            1.5,
        )
        kept.append(truth >= 0.9)
    assert 0.91 <= np.mean(kept) <= 1  # promised: 0.95


def test_the_guarded_threshold_is_the_smallest_that_a_search_finds():
    scores = np.random.default_rng(0).random(300).astype(np.float32).round(2)
    found = calibrate.guarded_threshold(scores, 0.8)
    passing = [
        value
        for value in sorted(set(scores.tolist()))
        if stats.binomtest(int(np.sum(scores <= value)), 300, 0.8, "greater").pvalue <= 0.05
    ]
    assert found == passing[0]


def test_too_few_images_are_refused_with_how_many_it_takes():
    assert calibrate.least_reals(0.95) == 59
    scores = np.linspace(0, 1, 59)
    calibrate.guarded_threshold(scores, 0.95)
    with pytest.raises(UserError, match="59"):
        calibrate.guarded_threshold(scores[1:], 0.95)
    with pytest.raises(UserError, match="19"):
        fit([0] * 18 + [1] * 30, np.arange(48.0), error=0.05)
    with pytest.raises(UserError, match="fake"):
        fit([0, 0], [1.0, 2.0])


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2])
def test_the_unsure_band_has_its_share_of_errors(error):
    wrong = []
    for seed in range(200):
        labels, logits = detector(seed, 400, spread=1.0)
        calibration = fit(labels[:200], logits[:200], error=error)
        verdicts = [calibration.verdict(p) for p in calibration.probability(logits[200:])]
        pairs = zip(labels[200:], verdicts, strict=True)
        wrong.append(np.mean([verdict == ("fake", "real")[label] for label, verdict in pairs]))
    assert np.mean(wrong) == pytest.approx(error, abs=0.02)


def test_a_detector_without_errors_has_no_band_and_says_so():
    labels, logits = detector(0, spread=8.0)
    found = fit(labels, logits, error=0.2)
    assert found.low is None
    assert "20.0%" in calibrate.describe_band(found, [])


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0, 8.0])
@pytest.mark.parametrize("real_accuracy", [None, 0.3, 0.9, 0.99])
def test_the_verdicts_keep_the_share_of_errors_and_the_threshold(spread, real_accuracy):
    """Whether there is a band or not, and wherever the threshold is."""
    labels, logits = detector(3, 2_000, spread=spread)
    found = fit(labels, logits, real_accuracy, error=0.1)
    assert found.low is None or found.low <= found.threshold <= found.high
    scores = found.probability(logits)
    verdicts = np.array(list(map(found.verdict, scores)))
    for label, wrong in enumerate(("fake", "real")):
        assert np.mean(verdicts[labels == label] == wrong) <= 0.1
    assert not np.any((verdicts == "fake") & (scores <= found.threshold))
    assert not np.any((verdicts == "real") & (scores > found.threshold))


def test_it_survives_json():
    calibration = fit(*detector(0), error=0.1, fitted_on={"images": 4_000})
    assert Calibration(**json.loads(json.dumps(calibration.as_dict()))) == calibration


# ----- calibrations of weight files -----


def table(folder):
    with open(folder / "table.csv", newline="") as file:
        return {row["generator"]: row for row in csv.DictReader(file)}


def test_val_fits_a_calibration_and_later_tables_show_both(weights, tree, capsys):
    root = tree(["a"], count=30)
    evaluate(weights, root, "--calibrate", "--unsure", "0.2")
    side = json.loads(calibrate.side_file(weights).read_text())
    rows = read_scores(results() / "scores.csv")
    labels, logits = (np.array([row[i] for row in rows]) for i in (2, 4))
    expected = fit(labels, logits, error=0.2)
    assert side["shift"] == pytest.approx(expected.shift) and side["low"] == expected.low
    assert (side["fitted_on"]["reals"], side["fitted_on"]["fakes"]) == (30, 30)
    capsys.readouterr()

    # Other images: both accuracies.
    other = tree(["a", "b"], name="other", count=12)
    evaluate(weights, other, "--metrics", "acc,ece,auc")
    found = table(results("other"))
    for name in ("a", "b"):
        own = [row for row in read_scores(results("other") / "scores.csv") if row[1] == name]
        labels, logits = (np.array([row[i] for row in own]) for i in (2, 4))
        after = measure(labels, expected.probability(logits), ("acc", "ece"), expected.threshold)
        assert float(found[name]["cal_acc"]) == pytest.approx(after["acc"])
        assert float(found[name]["cal_ece"]) == pytest.approx(after["ece"], abs=1e-6)
    assert "NOTE" not in capsys.readouterr().out

    # The same images: marked.
    evaluate(weights, root, "--name", "again")
    assert "NOTE" in capsys.readouterr().out


def test_a_calibration_is_not_lost_and_belongs_to_its_weights(weights, tree, capsys):
    root = tree(["a"], count=6)
    evaluate(weights, root, "--calibrate")
    first = calibrate.side_file(weights).read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        evaluate(weights, root, "--calibrate", "--name", "second")
    assert calibrate.side_file(weights).read_bytes() == first
    evaluate(weights, root, "--calibrate", "--resume")
    other = json.loads(first) | {"weights_sha256": "0" * 64}
    calibrate.side_file(weights).write_text(json.dumps(other))
    with pytest.raises(UserError, match="other weights"):
        evaluate(weights, root, "--name", "third")
    damaged = {"shift": "a", "temperature": math.nan, "threshold": 1.5, "low": 0.2, "fitted_on": [3]}
    for name, value in [*damaged.items(), ("temperature", 0), ("high", True), ("fitted_on", {"error": "x"})]:
        calibrate.side_file(weights).write_text(json.dumps(json.loads(first) | {name: value}))
        with pytest.raises(UserError, match=rf"calibration\.json is damaged \({name}"):
            evaluate(weights, root, "--name", "third")
    assert not list(Path("results").glob("third/*/scores.csv"))


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--real_accuracy", "0.95"), "--calibrate"),
        (("--calibrate", "--views", "web"), "native"),
        (("--calibrate", "--real_accuracy", "0.95"), "59"),
        (("--calibrate", "--unsure", "2"), "between 0 and 1"),
        (("--calibrate", "--unsure", "1e-320"), "unsure"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(weights, tree, flags, word, capsys):
    with pytest.raises((UserError, SystemExit)) as stopped:
        evaluate(weights, tree(["a"]), *flags)
    assert word in str(stopped.value) + capsys.readouterr().err
    assert not calibrate.side_file(weights).exists()


def test_training_stores_the_calibration_of_each_validation(toy, tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        tree(["a"], name=f"data/{split}", count=8)
    argv = "--arch toy --name r --dataroot data --niter 2 --batch_size 4 --num_threads 0 --device cpu"
    train.main(argv.split())
    loaded = checkpoint.load("checkpoints/r/model_epoch_last.pth")
    calibration = calibrate.of(loaded)
    evaluate("checkpoints/r/model_epoch_last.pth", "data/val", "--name", "v")
    rows = read_scores(results("val") / "scores.csv")
    labels, logits = (np.array([row[i] for row in rows]) for i in (2, 4))
    expected = fit(labels, logits)
    assert calibration.shift == pytest.approx(expected.shift, abs=1e-3)
    assert calibration.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert "NOTE" in capsys.readouterr().out  # the very images of the validation


def test_the_threshold_and_the_band_hold_under_every_view():
    rng = np.random.default_rng(4)
    labels = np.tile(np.repeat([0, 1], 300), 3)
    views = np.repeat([0, 1, 2], 600)
    logits = rng.normal(np.where(labels == 1, 2.0, -2.0) + np.array([0, 1.5, -1])[views], 1)
    found = fit(labels, logits, 0.9, 0.05, views=views)
    assert (found.fitted_on["images"], found.fitted_on["reals"]) == (600, 300)
    scores = found.probability(logits)
    for view in range(3):
        reals, fakes = (scores[(views == view) & (labels == label)] for label in (0, 1))
        assert np.mean(reals <= found.threshold) >= 0.9
        assert np.mean(reals > found.high) <= 0.05
        assert np.mean(fakes < found.low) <= 0.05
    alone = fit(labels[views == 1], logits[views == 1], 0.9)
    shifted = alone.probability(logits) > alone.threshold
    assert np.mean(shifted == (scores > found.threshold)) > 0.99  # the view with the highest scores decides


def test_a_damaged_calibration_inside_a_weight_file_is_refused(weights):
    detector = checkpoint.load(weights).detector
    checkpoint.save("own.pth", detector, options={}, calibration={"temperature": 0.0})
    with pytest.raises(UserError, match=r"own\.pth is damaged \(temperature"):
        calibrate.of(checkpoint.load("own.pth"))


def test_other_crops_than_those_of_the_fit_are_noticed():
    fitted = Calibration(fitted_on={"crop": 64, "crops": 3})
    assert not fitted.misfit(Geometry(None, 64, crops=3)) and not Calibration().misfit(Geometry(None, 64))
    for other in (Geometry(None, 96, crops=3), Geometry(None, 64), Geometry(None, None)):
        assert "3 crops of 64 px" in fitted.misfit(other)
