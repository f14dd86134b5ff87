"""train.py as a user runs it: what it writes, how it stops, how it goes on."""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Toy, interrupt_after
from PIL import Image

import data
import networks
import train
from common import UserError
from util import run

COMMAND = "--arch toy --recipe npr --batch_size 4 --no_resize --num_threads 0 --device cpu"


@pytest.fixture
def dataroot(tree):
    tree(["car", "cat"], name="data/train", count=4)
    return tree(["car", "cat"], name="data/val", count=2).parent


@pytest.fixture
def start(dataroot, toy, tmp_path, monkeypatch):
    """start(flags...) runs train.py on two classes of 32 px, batches of 4; returns the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_git", lambda *_: "")

    def go(*flags, name="run", niter=2):
        command = f"--dataroot {dataroot} --name {name} --niter {niter} {COMMAND}"
        train.main([*command.split(), *flags])
        return tmp_path / "checkpoints" / name

    return go


def read(folder, which="last"):
    return torch.load(folder / f"model_epoch_{which}.pth", weights_only=True)


def rows_of(folder):
    with open(folder / "train.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_weights(one, other):
    assert one["model"].keys() == other["model"].keys()
    return all(torch.equal(tensor, other["model"][name]) for name, tensor in one["model"].items())


def test_a_run_leaves_what_the_readme_promises(start):
    folder = start("--classes", "car,cat")
    files = {path.name for path in folder.iterdir()}
    promised = {
        "opt.json",
        "env.json",
        "train.csv",
        "tensorboard",
        "model_epoch_last.pth",
        "model_epoch_best.pth",
    }
    assert files == promised
    assert any((folder / "tensorboard").iterdir())
    assert json.loads((folder / "opt.json").read_text())["cropSize"] == 24
    [session] = json.loads((folder / "env.json").read_text())
    assert session["torch"] == torch.__version__
    assert session["seed"] == 100
    assert session["precision"].split(":")[0] in ("fp32", "bf16")
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [row["step"] for row in rows] == ["4", "8"]
    assert all(0 <= float(row["val_acc"]) <= 1 and float(row["loss"]) > 0 for row in rows)


def test_the_published_command_runs_unchanged_on_a_forensynths_tree(tree, tmp_path, monkeypatch):
    for split in ("train", "val"):
        tree(["car", "cat", "chair", "horse"], name=f"datasets/ForenSynths_train_val/{split}", count=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.Progress, "finished", lambda self, niter: self.epoch >= 1 and niter == 50)
    train.main(
        "--name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val "
        "--classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50".split()
    )
    folder = tmp_path / "checkpoints" / "4class-resnet-car-cat-chair-horse"
    assert len(rows_of(folder)) == 1  # niter was 50; one epoch is enough here
    assert (read(folder)["options"]["loadSize"], read(folder)["arch"]) == (256, "npr")


@pytest.mark.parametrize("checks", [1, 3, 4, 5, 6], ids=lambda checks: f"look_{checks}")
def test_an_interrupted_run_gives_the_same_weights_as_an_unbroken_one(start, monkeypatch, checks):
    whole = start(name="whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, checks)
        with pytest.raises(run.Interrupted, match="--continue_train"):
            start(name="broken")
    broken = start("--continue_train", name="broken")
    one, other = read(whole), read(broken)
    assert same_weights(one, other)
    drop = ("images_per_second", "seconds")
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows_of(whole)] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows_of(broken)
    ]
    for state, twin in zip(
        one["optimizer"]["state"].values(), other["optimizer"]["state"].values(), strict=True
    ):
        assert torch.equal(state["exp_avg_sq"], twin["exp_avg_sq"])


def test_the_number_of_workers_does_not_change_the_weights(start):
    flags = "--blur_prob 0.5 --blur_sig 0,2 --jpg_prob 0.5 --jpg_method cv2,pil --jpg_qual 30,90".split()
    alone = start(*flags, name="alone", niter=1)
    helped = start(*flags, "--num_threads", "2", name="helped", niter=1)
    assert same_weights(read(alone), read(helped))


def test_another_seed_gives_other_weights(start):
    assert not same_weights(read(start(name="a", niter=1)), read(start("--seed", "1", name="b", niter=1)))


def test_a_run_trained_on_reaches_the_weights_of_a_longer_one(start):
    short = start(name="short", niter=1)
    start("--continue_train", name="short", niter=2)
    assert same_weights(read(short), read(start(name="long", niter=2)))


def test_the_learning_rate_drops_after_upstreams_epochs(start):
    folder = start("--delr_freq", "2", niter=6)
    rates = [float(row["lr"]) for row in rows_of(folder)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4, 1.8e-4, 1.8e-4, 1.62e-4])


def test_early_stopping_ends_the_run_only_where_it_is_set(start, monkeypatch):
    scores = {"acc": 0.5, "ap": 0.5, "r_acc": 0.5, "f_acc": 0.5, "auc": 0.5}
    monkeypatch.setattr(train, "validate", lambda *_: (scores, None))
    assert len(rows_of(start(name="unset", niter=5))) == 5
    assert len(rows_of(start("--earlystop_epoch", "2", name="set", niter=5))) == 3


def test_best_is_the_epoch_of_highest_accuracy_then_ap_then_earliest(start, monkeypatch):
    table = iter([(0.6, 0.9), (0.7, 0.8), (0.7, 0.9), (0.7, 0.9), (0.6, 1.0)])

    def validate(*_):
        acc, ap = next(table)
        return {"acc": acc, "ap": ap, "r_acc": 0.0, "f_acc": 0.0, "auc": 0.0}, None

    monkeypatch.setattr(train, "validate", validate)
    best = read(start(niter=5), "best")
    assert best["progress"]["best_epoch"] == 2
    assert best["epoch"] == 3  # epochs completed when it was saved


def test_a_name_already_used_is_refused_and_left_alone(start):
    folder = start(niter=1)
    before = (folder / "model_epoch_last.pth").read_bytes()
    with pytest.raises(ValueError, match="--overwrite"):
        start(niter=1)
    assert (folder / "model_epoch_last.pth").read_bytes() == before
    start("--overwrite", "--seed", "5", niter=1)
    assert read(folder)["options"]["seed"] == 5


def test_overwrite_leaves_a_folder_alone_that_holds_no_run(start, tmp_path):
    (tmp_path / "checkpoints" / "run").mkdir(parents=True)
    (tmp_path / "checkpoints" / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"opt\.json"):
        start("--overwrite")
    assert (tmp_path / "checkpoints" / "run" / "thesis.tex").read_text() == "years of work"


def test_continuing_a_run_whose_images_are_gone_names_the_flag(start):
    start(niter=1)
    with pytest.raises(UserError, match="--dataroot"):
        start("--continue_train", "--dataroot", "nowhere", niter=2)


def test_continuing_a_finished_run_trains_nothing(start, capsys):
    folder = start(niter=1)
    before = (folder / "model_epoch_last.pth").stat().st_mtime_ns
    start("--continue_train", niter=1)
    assert "is finished: 1 epochs" in capsys.readouterr().out
    assert (folder / "model_epoch_last.pth").stat().st_mtime_ns == before


def test_continuing_with_another_rate_is_refused(start, capsys):
    start(niter=1)
    with pytest.raises(SystemExit):
        start("--continue_train", "--lr", "0.5", niter=2)
    assert "cannot change --lr 0.5 (was 0.0002)" in capsys.readouterr().err


def test_continuing_on_other_files_is_refused(start, dataroot):
    start(niter=1)
    (dataroot / "train" / "car" / "0_real" / "0.png").unlink()
    with pytest.raises(UserError, match=r"files\.train"):
        start("--continue_train", niter=2)


def test_continuing_without_a_run_is_refused(start):
    with pytest.raises(ValueError, match="no run at"):
        start("--continue_train")


def test_model_path_starts_from_the_weights_of_the_file(start, tmp_path):
    torch.manual_seed(7)
    source = Toy()
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"model": state, "optimizer": {}, "total_steps": 1}, tmp_path / "NPR.pth")
    folder = start("--model_path", str(tmp_path / "NPR.pth"), "--lr", "1e-30", niter=1)
    trained = read(folder)["model"]
    weights = [name for name, _ in source.named_parameters()]
    assert all(torch.allclose(trained[name], source.state_dict()[name], atol=1e-20) for name in weights)


def test_a_bad_image_stops_the_run_after_saving_and_skip_goes_on(start, dataroot, capsys):
    bad = dataroot / "train" / "cat" / "1_fake" / "2.png"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"bad image .*cat/1_fake/2.png"):
        start()
    folder = start("--continue_train", "--on_bad_image", "skip")
    out = capsys.readouterr().out
    assert "1 bad images were left out" in out
    assert "cat/1_fake/2.png" in out
    assert len(rows_of(folder)) == 2


def test_a_loss_that_is_no_number_stops_with_epoch_and_step_and_keeps_good_weights(start, monkeypatch):
    real_loss, calls = Toy.loss, iter(range(100))

    def loss(self, batch):
        terms = real_loss(self, batch)
        return {**terms, "total": terms["total"] * (math.nan if next(calls) == 6 else 1)}

    monkeypatch.setattr(Toy, "loss", loss)
    with pytest.raises(ValueError, match="step 7"):
        start()
    saved = read(Path("checkpoints/run"))
    assert saved["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())


@pytest.mark.parametrize("label", ["0_real", "1_fake"])
def test_one_sided_training_folders_are_refused_with_their_counts(start, dataroot, label):
    for path in (dataroot / "train" / "cat" / label).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"cat: \d real, \d fake"):
        start()
    assert not Path("checkpoints/run").exists()


def test_a_missing_split_is_named(start, dataroot):
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        start("--train_split", "nowhere")


def test_without_validation_only_the_last_epoch_is_saved(start):
    folder = start("--val_split", "none", niter=1)
    assert not (folder / "model_epoch_best.pth").exists()
    assert "val_acc" not in rows_of(folder)[0]


def test_class_bal_and_serial_batches_reach_the_sampler(start, monkeypatch):
    seen = {}
    real = train.data.EpochBatches

    def spy(labels, batch_size, seed, shuffle, class_balance, *others, **named):
        seen[class_balance, shuffle] = True
        return real(labels, batch_size, seed, shuffle, class_balance, *others, **named)

    monkeypatch.setattr(train.data, "EpochBatches", spy)
    start("--class_bal", name="balanced", niter=1)
    start("--serial_batches", name="serial", niter=1)
    assert set(seen) == {(True, True), (False, False)}


def test_inputs_of_one_shape_even_where_images_are_smaller_than_the_crop(start, dataroot):
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(dataroot / "train" / "car" / "0_real" / "tiny.png")
    assert len(rows_of(start(niter=1))) == 1


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_resume(dataroot, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "--dataroot", str(dataroot), "--niter", "5000"]
    command += "--no_resize --cropSize 24 --batch_size 4 --num_threads 1 --device cpu".split()
    history = tmp_path / "checkpoints" / "experiment_name" / "train.csv"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not history.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "stopped by SIGTERM; resume at the next batch with --continue_train" in out
    assert "Traceback" not in out
    assert read(history.parent)["step"] > 0


def test_ctrl_c_during_the_imports_ends_without_a_traceback():
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while " torch." not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in errors


def test_the_hint_after_an_interruption_holds_for_a_command_with_model_path(start, tmp_path, monkeypatch):
    torch.save(Toy().state_dict(), tmp_path / "flat.pth")
    flags = ["--model_path", str(tmp_path / "flat.pth")]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(run.Interrupted):
            start(*flags)
    assert len(rows_of(start(*flags, "--continue_train"))) == 2


@pytest.mark.parametrize("flag", ["--continue_train", "--overwrite"])
def test_a_run_that_is_continued_twice_at_once_is_refused_the_second_time(start, monkeypatch, flag):
    start(niter=1)
    real, refused = data.training_sets, []

    def slow(opt, data_config):
        with pytest.raises(UserError, match="in use") as caught:
            start(flag)
        refused.append(caught.value)
        return real(opt, data_config)

    monkeypatch.setattr(data, "training_sets", slow)
    folder = start("--continue_train")
    assert len(refused) == 1 and len(rows_of(folder)) == 2
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize(
    ("split", "message"), [("train", "no image of epoch 0"), ("val", "no fake images could be")]
)
def test_a_split_without_a_usable_class_is_an_error(start, dataroot, split, message):
    for path in (dataroot / split).glob("*/*/*.png" if split == "train" else "*/1_fake/*.png"):
        path.write_bytes(b"version https://git-lfs")
    with pytest.raises(ValueError, match=message):
        start("--on_bad_image", "skip")


def test_bad_files_of_both_splits_are_told_apart(start, dataroot, capsys):
    for split in ("train", "val"):
        (dataroot / split / "car" / "0_real" / "0.png").write_bytes(b"")
    start("--on_bad_image", "skip", niter=1)
    out = capsys.readouterr().out
    assert "2 bad images were left out" in out
    assert "val/car/0_real/0.png" in out


def test_continuing_on_other_validation_files_is_refused(start, dataroot):
    start(niter=1)
    (dataroot / "val" / "car" / "0_real" / "0.png").unlink()
    with pytest.raises(UserError, match=r"files\.val"):
        start("--continue_train", niter=2)


def test_every_session_is_recorded(start):
    start(niter=1)
    folder = start("--continue_train", niter=2)
    assert len(json.loads((folder / "env.json").read_text())) == 2


def test_a_run_that_is_killed_at_its_first_save_can_be_overwritten(start, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.State, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            start()
    assert len(rows_of(start("--overwrite", niter=1))) == 1


def test_a_finished_run_writes_its_history_again(start):
    folder = start(niter=1)
    before = (folder / "train.csv").read_text()
    (folder / "train.csv").unlink()
    start("--continue_train", niter=1)
    assert (folder / "train.csv").read_text() == before


class AtOne(Toy):
    """Its batch norm sees a map of 1x1, as that of a ResNet on pictures of 32 pixels."""

    def forward(self, images):
        x = self.toy(self.preprocess(images)).relu().mean((2, 3), keepdim=True)
        return self.logit(self.fc, self.norm(self.norm(x)).flatten(1))


def test_a_last_batch_of_one_image_is_left_out_and_reported_once(start, dataroot, monkeypatch, capsys):
    monkeypatch.setitem(networks._REGISTRY, "toy", AtOne)
    folder = start("--batch_size", "5", "--serial_batches")  # 16 images
    assert capsys.readouterr().out.count("a batch of one image is left out") == 1
    assert [row["step"] for row in rows_of(folder)] == ["3", "6"]
    saved = read(folder)
    assert saved["model"]["norm.num_batches_tracked"] == 2 * 6  # the refused batch left no trace
    last = sorted((dataroot / "train").rglob("*.png"))[-1]
    last.write_bytes(b"")
    assert same_weights(saved, read(start("--batch_size", "5", "--serial_batches", *SKIP, name="without")))
    with pytest.raises(UserError, match="--batch_size 2"):
        start("--batch_size", "1", name="ones")


SKIP = ("--on_bad_image", "skip")


@pytest.mark.parametrize("content", ["", "[{", '[{"device": "cpu"}]'])
def test_a_run_whose_env_json_was_damaged_by_a_power_cut_is_resumed(start, content, capsys):
    folder = start(niter=1)
    (folder / "env.json").write_text(content)
    start("--continue_train")
    assert "env.json is damaged" in capsys.readouterr().out
    [session] = json.loads((folder / "env.json").read_text())
    assert session["seed"] == 100


def test_a_full_disk_names_the_path_and_keeps_the_finished_epoch(start, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = Path("checkpoints/run")
    with monkeypatch.context() as patch:
        patch.setattr(train.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match=r"model_epoch_best\.pth"):
            start(niter=1)
    assert read(folder)["epoch"] == 1
    assert not (folder / "model_epoch_best.pth").exists()
    start("--continue_train", niter=1)
    assert read(folder, "best")["epoch"] == 1


def test_a_closed_pipe_ends_a_run_after_a_save(start, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(train, "report", closed)
        with pytest.raises(BrokenPipeError):
            start()
    assert len(rows_of(start("--continue_train"))) == 2


def test_a_missing_tensorboardx_is_one_line(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="tensorboardX"):
        start()
    assert not Path("checkpoints/run").exists()


# --- pairs and views ---


def test_pairs_and_views_train_and_resume_and_leave_a_column_per_view(start, monkeypatch):
    flags = ["--pairs", "--source_bal", "--degrade", "resize:0.5..1@0.5+jpeg:40..90", "--cropSize", "16"]
    flags += ["--val_views", "native,jpeg:50", "--val_crop", "24", "--select_by", "auc"]
    whole = start(*flags, name="whole")
    for row in rows_of(whole):
        assert float(row["val_auc"]) == min(float(row["val_auc_native"]), float(row["val_auc_jpeg:50"]))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(run.Interrupted):
            start(*flags, name="broken")
    assert same_weights(read(whole), read(start("--continue_train", name="broken")))


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--pairs", "--batch_size", "3"], "even"),
        (["--pairs", "--epoch_images", "3"], "even"),
        (["--degrade", "crop:0.5"], "crop"),
        (["--degrade", "jpeg:50", "--jpg_prob", "0.5"], "--jpg_prob"),
        (["--rot90"], "--degrade"),
        (["--select_view", "web"], "native"),
        (["--lr_policy", "cosine", "--warmup", "2"], "--warmup"),
        (["--source_bal", "--serial_batches"], "--serial_batches"),
    ],
)
def test_flags_of_pairs_and_views_that_contradict_are_refused(start, capsys, flags, word):
    with pytest.raises(SystemExit):
        start(*flags)
    assert word in capsys.readouterr().err


def test_folders_of_one_class_train_as_sources_only(start, dataroot):
    for path in (dataroot / "train" / "car" / "1_fake").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="car"):
        start()
    assert rows_of(start("--source_bal", "--overwrite"))
