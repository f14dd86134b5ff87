"""The learning rate over a run: three policies, early stopping, and runs that go on."""

import csv
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import interrupt_after

import train
from options import TrainOptions
from util import run
from util.progress import POLICIES, Progress


def options(**changed):
    usual = {
        "lr": 1e-4,
        "lr_policy": "step",
        "delr_freq": 10,
        "niter": 30,
        "min_lr": 1e-6,
        "earlystop_epoch": 0,
        "warmup": 0,
        "select_by": "acc",
    }
    return Namespace(**{**usual, **changed})


def rates(opt, epochs):
    return [POLICIES[opt.lr_policy](opt, Progress(epoch=epoch)) for epoch in range(epochs)]


# --- rates without a validation ---


@pytest.mark.parametrize("every", [1, 2, 3, 10, 20])
def test_step_multiplies_by_09_after_the_steps_of_upstreams_epochs(every):
    expected, rate = [], 2e-4
    for epoch in range(45):
        expected.append(rate)
        if epoch and epoch % every == 0:  # upstream adjusts at the end of these epochs
            rate *= 0.9
    assert rates(options(lr=2e-4, delr_freq=every), 45) == pytest.approx(expected, rel=1e-12)


def test_poly_starts_at_970e_5_and_ends_at_exactly_0():
    found = rates(options(lr_policy="poly"), 30)
    assert f"{found[0]:.2e}" == "9.70e-05"
    assert found[-1] == 0
    assert found == sorted(found, reverse=True) and len(set(found)) == 30
    assert found == pytest.approx([1e-4 * (1 - e / 30) ** 0.9 for e in range(1, 31)], rel=1e-12)


def test_poly_of_one_epoch_trains_at_rate_0():
    assert rates(options(lr_policy="poly", niter=1), 1) == [0]


def test_step_and_poly_depend_on_the_epoch_alone():
    for policy in ("step", "poly"):
        cut = Progress(epoch=12, cuts=3, waited=1, best_acc=0.4, best_epoch=2)
        assert POLICIES[policy](options(), cut) == rates(options(lr_policy=policy), 13)[12]


# --- plateau and early stopping ---


def followed(accuracies, **changed):
    """(rate of every epoch that is trained, Progress at the end, epochs that were better)."""
    opt, progress = options(lr_policy="plateau", earlystop_epoch=2, **changed), Progress()
    found, better = [], []
    for acc in accuracies:
        if progress.stopped_early:
            break
        found.append(POLICIES[opt.lr_policy](opt, progress))
        progress.note_validation({"acc": acc, "ap": 0.5}, opt)
        better += [progress.epoch] if progress.best_epoch == progress.epoch else []
        progress.next_epoch()
    return found, progress, better


def by_hand(accuracies, patience=2, rate=1e-4, least=1e-6):
    """CNNDetection's loop: a counter with a best score and a delta, made anew at each cut."""
    found, best, counter, delta = [], None, 0, -0.001
    for acc in accuracies:
        found.append(rate)
        if best is None:
            best = acc
        elif acc < best - delta:
            counter += 1
        else:
            best, counter = acc, 0
        if counter >= patience:
            rate /= 10
            if rate < 0.999 * least:
                break
            best, counter, delta = None, 0, -0.002
    return found


def test_plateau_cuts_after_the_wait_waits_again_and_stops_below_min_lr():
    found, progress, better = followed([0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert found == pytest.approx([1e-4] * 3 + [1e-5] * 3 + [1e-6] * 3, rel=1e-12)
    assert progress.stopped_early and progress.cuts == 2 and better == [0]


def test_a_better_epoch_starts_the_wait_again():
    found, progress, _ = followed([0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.6, 0.6, 0.8, 0.7, 0.7, 0.7])
    assert found == pytest.approx([1e-4] * 7 + [1e-5] * 4 + [1e-6], rel=1e-12)
    assert not progress.stopped_early


def test_a_worse_epoch_after_a_cut_is_not_better_than_the_best_before_it():
    _, progress, better = followed([0.6, 0.9, 0.5, 0.5, 0.7, 0.8])
    assert progress.cuts == 1 and better == [0, 1]
    assert (progress.best_acc, progress.best_epoch) == (0.9, 1)


@pytest.mark.parametrize("least", [1e-4, 1e-5, 5e-6, 1e-6, 1e-7])
def test_plateau_follows_the_counter_of_cnndetection_on_random_scores(least):
    rng, stops = np.random.default_rng(0), set()
    for _ in range(60):
        accuracies = 0.5 + rng.integers(0, 12, 25) * rng.choice([0.0005, 0.001, 0.04])
        found, progress, _ = followed(accuracies, min_lr=least)
        expected = by_hand(accuracies, least=least)
        assert found == pytest.approx(expected, rel=1e-9)
        stops.add(progress.stopped_early)
    assert True in stops


@pytest.mark.parametrize("policy", ["step", "poly"])
def test_other_policies_stop_where_plateau_would_cut(policy):
    opt, progress = options(lr_policy=policy, earlystop_epoch=3), Progress()
    for acc in (0.5, 0.6, 0.6, 0.6, 0.6):
        assert not progress.stopped_early
        progress.note_validation({"acc": acc, "ap": 0.5}, opt)
        progress.next_epoch()
    assert progress.stopped_early and progress.cuts == 0


def test_without_a_wait_a_run_never_stops_early():
    opt, progress = options(earlystop_epoch=0), Progress()
    for _ in range(20):
        progress.note_validation({"acc": 0.5, "ap": 0.5}, opt)
        progress.next_epoch()
    assert not progress.stopped_early and progress.best_epoch == 0


def test_equal_accuracy_with_a_higher_ap_is_better_but_no_gain_to_plateau():
    opt, progress = options(lr_policy="plateau", earlystop_epoch=2), Progress()
    for ap in (0.1, 0.2, 0.3, 0.4):
        progress.note_validation({"acc": 0.5, "ap": ap}, opt)
        assert progress.best_epoch == progress.epoch
        progress.next_epoch()
    assert progress.cuts == 1


def test_terms_of_a_loss_are_averaged_over_the_images_of_the_epoch_and_then_forgotten():
    progress = Progress()
    losses = train.Losses(progress, None, 400)
    for count, bce, other in ((4, 1.0, 3.0), (2, 4.0, 0.0)):
        terms = {"total": torch.tensor(bce + other), "bce": torch.tensor(bce), "other": torch.tensor(other)}
        losses.add({**terms, "logits": torch.zeros(count)}, torch.zeros(count))
    losses.flush()
    row = progress.row(1e-4, None)
    assert (row["loss_bce"], row["loss_other"], row["loss"]) == (2.0, 2.0, 4.0)
    progress.next_epoch()
    assert not any(name.startswith("loss_") for name in progress.row(1e-4, None))


def test_a_loss_of_one_term_has_no_column_beside_loss():
    progress = Progress()
    losses = train.Losses(progress, None, 400)
    losses.add(
        {"total": torch.tensor(1.0), "bce": torch.tensor(1.0), "logits": torch.zeros(2)}, torch.ones(2)
    )
    losses.flush()
    assert not any(name.startswith("loss_") for name in progress.row(1e-4, None))


# --- runs of train.py ---


@pytest.fixture
def start(tree, toy, tmp_path, monkeypatch):
    """start(flags...) trains a toy on 8 images with the validation accuracies of ACCURACIES."""
    tree(["car"], name="data/train", count=4)
    root = tree(["car"], name="data/val", count=1).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_git", lambda *_: "")

    def validate(state, *_):
        acc = ACCURACIES[state.progress.epoch]
        return {"acc": acc, "ap": acc, "r_acc": acc, "f_acc": acc, "auc": acc}, None

    monkeypatch.setattr(train, "validate", validate)

    def go(*flags, name="run", niter=6):
        command = f"--dataroot {root} --name {name} --niter {niter} --batch_size 4 --no_resize --cropSize 16"
        train.main([*f"{command} --arch toy --recipe npr --num_threads 0 --device cpu".split(), *flags])
        return tmp_path / "checkpoints" / name

    return go


ACCURACIES = [0.7, 0.6, 0.8, 0.7, 0.7, 0.7]
PLATEAU = ("--lr_policy", "plateau", "--earlystop_epoch", "1", "--lr", "1e-4", "--min_lr", "1e-6")
PLATEAU_RATES = [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]


def table(folder):
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: value for name, value in row.items() if "seconds" not in name and "per_second" not in name}
        for row in rows
    ]


def rates_of(folder):
    return [float(row["lr"]) for row in table(folder)]


def read(folder, which="last"):
    return torch.load(folder / f"model_epoch_{which}.pth", weights_only=True)


def same_weights(one, other):
    assert one["model"].keys() == other["model"].keys()
    return all(torch.equal(tensor, other["model"][name]) for name, tensor in one["model"].items())


def test_a_plateau_run_that_goes_on_has_the_rates_and_weights_of_an_unbroken_one(start, monkeypatch):
    whole = start(*PLATEAU, name="whole")
    assert rates_of(whole) == pytest.approx(PLATEAU_RATES, rel=1e-12)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)  # between the two batches of epoch 3, after the cut
        with pytest.raises(run.Interrupted):
            start(*PLATEAU, name="broken")
    assert len(table(start(*PLATEAU, "--continue_train", name="broken"))) == 6
    assert table(whole) == table(whole.parent / "broken")
    assert same_weights(read(whole), read(whole.parent / "broken"))
    best = read(whole, "best")
    assert best["progress"]["best_epoch"] == 2 and best["epoch"] == 3  # a worse one has not replaced it


def test_a_plateau_run_of_three_epochs_trains_on_to_six(start, capsys):
    start(*PLATEAU, niter=3)
    folder = start(*PLATEAU, "--continue_train", niter=6)
    assert rates_of(folder) == pytest.approx(PLATEAU_RATES, rel=1e-12)
    start(*PLATEAU, "--continue_train", niter=9)
    assert "is finished: 6 epochs; it stopped early" in capsys.readouterr().out


def test_another_number_of_epochs_is_refused_under_poly_and_allowed_under_step(start, capsys):
    folder = start("--lr_policy", "poly", "--lr", "1e-4", name="poly", niter=2)
    assert rates_of(folder) == pytest.approx([1e-4 * 0.5**0.9, 0], rel=1e-12)
    with pytest.raises(SystemExit) as stopped:
        start("--lr_policy", "poly", "--continue_train", name="poly", niter=3)
    assert stopped.value.code == 2
    assert "cannot change --niter 3 (was 2)" in capsys.readouterr().err
    start("--lr_policy", "poly", "--continue_train", name="poly", niter=2)
    assert "is finished: 2 epochs" in capsys.readouterr().out
    start(name="step", niter=1)
    assert len(table(start("--continue_train", name="step", niter=2))) == 2


def test_an_interrupted_poly_run_goes_on_with_its_rates(start, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(run.Interrupted):
            start("--lr_policy", "poly", "--lr", "1e-4", niter=3)
    folder = start("--continue_train", niter=3)
    assert rates_of(folder) == pytest.approx([1e-4 * (1 - e / 3) ** 0.9 for e in (1, 2, 3)], rel=1e-12)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lr_policy", "plateau"), "--lr_policy plateau needs --earlystop_epoch"),
        ((*PLATEAU, "--val_split", "none"), "--earlystop_epoch needs a validation set"),
        (("--lr_policy", "linear"), "invalid choice: 'linear'"),
        (("--min_lr", "0"), "expected a number above 0"),
    ],
)
def test_policies_that_cannot_work_are_refused(start, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        start(*flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_another_policy_cannot_take_up_a_run(start, capsys):
    start(niter=1)
    with pytest.raises(SystemExit):
        start("--continue_train", "--lr_policy", "poly", niter=2)
    assert "cannot change --lr_policy poly (was step)" in capsys.readouterr().err


def age(path):
    """Makes a checkpoint what the version before learning-rate policies wrote."""
    saved = torch.load(path, weights_only=True)
    saved["scheduler"] = {"base_lrs": [2e-4], "last_epoch": saved["epoch"], "_last_lr": [2e-4]}
    for group in saved["optimizer"]["param_groups"]:
        group["initial_lr"] = 2e-4
    for name in ("cuts", "reference", "waited", "term_sums"):
        del saved["progress"][name]
    for name in ("lr_policy", "min_lr"):
        del saved["options"][name]
    torch.save(saved, path)


@pytest.mark.parametrize("flags", [(), ("--lr_policy", "step")])
def test_a_run_begun_before_there_were_policies_goes_on_as_it_would_have(start, flags):
    whole = start("--delr_freq", "1", name="whole", niter=4)
    old = start("--delr_freq", "1", name="old", niter=2)
    age(old / "model_epoch_last.pth")
    start("--delr_freq", "1", "--continue_train", *flags, name="old", niter=4)
    assert rates_of(old) == pytest.approx([2e-4, 2e-4, 1.8e-4, 1.62e-4], rel=1e-12)
    assert table(whole) == table(old)
    assert same_weights(read(whole), read(old))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--lr_policy poly --niter 1", "--niter 1 trains nothing"),
        ("--lr_policy plateau --earlystop_epoch 2 --lr 1e-7", "--lr 1e-07 is below --min_lr 1e-06"),
    ],
)
def test_rates_that_would_train_nothing_or_never_change_are_refused(capsys, flags, reason):
    with pytest.raises(SystemExit) as stopped:
        TrainOptions().parse(flags.split())
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


# --- cosine, and what chooses the best epoch ---


def test_cosine_rises_falls_and_ends_near_the_least_rate():
    opt = options(lr=1.0, min_lr=0.0, lr_policy="cosine", warmup=3, niter=13)
    found = [POLICIES["cosine"](opt, Progress(epoch=epoch)) for epoch in range(13)]
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[3:] == pytest.approx(0.5 + 0.5 * np.cos(np.linspace(0, math.pi, 11)[:10]))


def test_the_best_epoch_is_by_the_number_asked_for():
    epochs = [{"acc": 0.9, "ap": 0.5, "auc": 0.5}, {"acc": 0.6, "ap": 0.5, "auc": 0.8}]
    for number, best in (("acc", 0), ("auc", 1)):
        progress = Progress()
        for scores in epochs:
            progress.note_validation(scores, options(select_by=number))
            progress.next_epoch()
        assert progress.best_epoch == best
