"""cnndet, ssp and essp through the scripts: training, evaluation, what is recorded and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import interrupt_after, make_tree, toy_image
from PIL import Image

import networks
import predict
import test as test_script
import train
import val
from networks import checkpoint
from options import TrainOptions
from tools.visualize import __main__ as visualize
from tools.visualize import cam
from util import run
from util.results import read_scores

SIZES = [(20, 31), (33, 200), (32, 32), (64, 64), (200, 33), (1, 1)]  # (width, height)
LOCAL = ("--num_threads", "0", "--device", "cpu")
WEIGHTS = {"perception": 0.5, "restoration": 2.0}


pytestmark = pytest.mark.usefixtures("small_resnet50", "small_npr")  # these tests are about the scripts


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def flags_of(arch):
    small = {"cnndet": "--loadSize 40 --cropSize 32", "npr": "--no_resize --cropSize 32"}
    return ["--arch", arch, *small.get(arch, f"--{arch}_upscale 33").split()]


def train_on(root, arch, folder, *flags):
    command = [*flags_of(arch), "--dataroot", root, "--name", arch, "--checkpoints_dir", folder]
    command += ["--niter", "1", "--batch_size", "4", "--lr_policy", "step", *LOCAL, *flags]
    train.main([str(word) for word in command] + ([] if arch == "npr" else ["--no_pretrained"]))
    return Path(folder) / arch


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory):
    """train and val with 8 and 4 images of 40x48; the sides of two others are below a patch."""
    root = tmp_path_factory.mktemp("data")
    make_tree(root / "train", ["car"], count=4, size=(40, 48))
    make_tree(root / "val", ["car"], count=2, size=(48, 40))
    for label in ("0_real", "1_fake"):
        toy_image(np.random.default_rng(1), label == "1_fake", (20, 70)).save(
            root / "train" / "car" / label / "0.png"
        )
    return root


@pytest.fixture(scope="module")
def trained(dataroot, tmp_path_factory):
    """trained(arch) -> the folder of one epoch."""
    folder, done = tmp_path_factory.mktemp("checkpoints"), {}

    def go(arch):
        if arch not in done:
            weights = [f"--essp_{name}_weight={value}" for name, value in WEIGHTS.items()]
            done[arch] = train_on(dataroot, arch, folder, *(weights if arch == "essp" else ()))
        return done[arch]

    return go


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """untrained(arch, flags...) -> a checkpoint of ours with random weights."""
    folder = tmp_path_factory.mktemp("untrained")

    def go(arch, *flags):
        path = folder / f"{'-'.join([arch, *flags])}.pth"
        if not path.exists():
            opt = TrainOptions().parse([*flags_of(arch), "--name", arch, *flags])
            torch.manual_seed(3)
            checkpoint.save(path, networks.create(opt), options=vars(opt))
        return path

    return go


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two generators: 40x48 throughout, and every size of SIZES."""
    root, rng = tmp_path_factory.mktemp("sets") / "mixed", np.random.default_rng(2)
    make_tree(root, ["a"], count=3, size=(40, 48))
    for label in ("0_real", "1_fake"):
        (root / "b" / label).mkdir(parents=True)
        for size in SIZES:
            toy_image(rng, label == "1_fake", size).save(root / "b" / label / f"{size[0]}x{size[1]}.png")
    return root


def evaluate(weights, root, name, *flags, script=val):
    """Runs val.py or test.py and returns the results folder."""
    command = ["--model_path", weights, "--dataroot", root, "--name", name, *LOCAL, *flags]
    script.main([str(word) for word in command])
    [folder] = Path("results", name).iterdir()
    return folder


@pytest.fixture(scope="module")
def plain(untrained, mixed, tmp_path_factory):
    """The results folder of the untrained ssp on `mixed` without any flag."""
    root = tmp_path_factory.mktemp("plain")
    command = ["--model_path", str(untrained("ssp")), "--dataroot", str(mixed), "--results_dir", str(root)]
    val.main([*command, *LOCAL])
    return root / "ssp" / "mixed"


def meta(folder):
    return json.loads((folder / "meta.json").read_text())


def logits(folder):
    return {row[0]: row[4] for row in read_scores(folder / "scores.csv")}


def files_of(root):
    return {path.relative_to(root).as_posix() for path in Path(root).glob("*/*/*.png")}


def rows_of(folder):
    with open(folder / "train.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def read(folder, which="last"):
    return torch.load(folder / f"model_epoch_{which}.pth", weights_only=True)


# --- training ---


@pytest.mark.parametrize("arch", ["cnndet", "ssp", "essp"])
def test_one_epoch_is_trained_validated_and_saved_and_val_scores_every_image(arch, trained, mixed):
    folder = trained(arch)
    [row] = rows_of(folder)
    assert row["step"] == 2 and 0 <= row["val_acc"] <= 1
    assert read(folder)["arch"] == read(folder, "best")["arch"] == arch
    scored = logits(evaluate(folder / "model_epoch_best.pth", mixed, "all"))
    assert scored.keys() == files_of(mixed)


def test_training_moves_every_weight_but_the_fixed_filters(trained):
    detector = checkpoint.load(trained("ssp") / "model_epoch_last.pth").detector
    torch.manual_seed(42)  # the recipe's
    start = networks.get("ssp").from_options(TrainOptions().parse(flags_of("ssp")))
    state = start.state_dict()
    still = [name for name, value in detector.named_parameters() if torch.equal(value, state[name])]
    assert still == ["srm.kernel"]


def test_the_terms_of_essp_are_columns_whose_weighted_sum_is_the_loss(trained):
    [row] = rows_of(trained("essp"))
    assert {name for name in row if name.startswith("loss")} == {
        "loss",
        "loss_bce",
        "loss_perception",
        "loss_restoration",
    }
    parts = row["loss_bce"] + sum(weight * row[f"loss_{name}"] for name, weight in WEIGHTS.items())
    assert row["loss"] == pytest.approx(parts, rel=1e-5)
    assert all(row[f"loss_{name}"] > 0 for name in ("bce", *WEIGHTS))


@pytest.mark.parametrize("arch", ["cnndet", "ssp"])
def test_a_loss_of_one_term_is_one_column(arch, trained):
    assert [name for name in rows_of(trained(arch))[0] if name.startswith("loss")] == ["loss"]


def test_an_interrupted_essp_run_gives_the_same_weights_bit_for_bit(dataroot, tmp_path, monkeypatch):
    flags = ("--niter", "2", "--val_split", "none")
    whole = train_on(dataroot, "essp", tmp_path / "whole", *flags)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(run.Interrupted):
            train_on(dataroot, "essp", tmp_path / "broken", *flags)
    assert rows_of(tmp_path / "broken" / "essp")[0]["epoch"] == 0
    broken = train_on(dataroot, "essp", tmp_path / "broken", *flags, "--continue_train")
    one, other = read(whole)["model"], read(broken)["model"]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    for row, twin in zip(rows_of(whole), rows_of(broken), strict=True):
        assert [row[name] for name in row if name.startswith("loss")] == [
            twin[name] for name in twin if name.startswith("loss")
        ]


def test_workers_do_not_change_the_weights_of_essp(trained, dataroot, tmp_path):
    weights = [f"--essp_{name}_weight={value}" for name, value in WEIGHTS.items()]
    helped = train_on(dataroot, "essp", tmp_path, *weights, "--num_threads", "2")
    one, other = read(trained("essp"))["model"], read(helped)["model"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_validation_sees_the_patches_that_val_sees_with_the_runs_seed(dataroot, tmp_path, monkeypatch):
    found, real = [], train.predict
    monkeypatch.setattr(train, "predict", lambda *args, **kw: found.append(real(*args, **kw)) or found[-1])
    folder = train_on(dataroot, "ssp", tmp_path)
    scored = evaluate(folder / "model_epoch_last.pth", dataroot / "val", "again")
    [(_, expected)] = found
    np.testing.assert_allclose(list(logits(scored).values()), expected, rtol=1e-5, atol=1e-6)


def test_several_patches_an_image_are_trained_on_and_validated(dataroot, tmp_path):
    folder = train_on(dataroot, "essp", tmp_path, "--essp_select", "dense", "--essp_vote", "2")
    assert np.isfinite(rows_of(folder)[0]["loss"])


# --- an evaluation repeats ---


def test_two_evaluations_are_equal_byte_for_byte_with_and_without_workers(untrained, mixed, plain):
    for workers in ("0", "2"):
        again = evaluate(untrained("ssp"), mixed, f"{workers} workers", "--num_threads", workers)
        assert (again / "scores.csv").read_bytes() == (plain / "scores.csv").read_bytes()
    assert len(set(logits(plain).values())) > 10  # not one score for all


@pytest.mark.parametrize("batch", [1, 5])
def test_the_batch_size_does_not_change_scores(untrained, mixed, plain, batch):
    one, other = logits(plain), logits(evaluate(untrained("ssp"), mixed, "n", "--batch_size", batch))
    assert one.keys() == other.keys()
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-5, atol=1e-5)


def test_another_seed_is_recorded_and_moves_some_scores(untrained, mixed, plain):
    usual, other = plain, evaluate(untrained("ssp"), mixed, "other", "--seed", "7")
    assert meta(other)["input"] == "stored size, no crop, simplest of 64 random 32x32 patches, seed 7"
    assert meta(usual)["input"].endswith("seed 100")
    assert logits(usual) != logits(other)
    alone = "b/1_fake/32x32.png"  # one place only
    assert logits(usual)[alone] == pytest.approx(logits(other)[alone], abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        ("--arch", "ssp", "--ssp_select", "grid"),
        ("--seed", "7"),
        ("--arch", "ssp", "--ssp_vote", "2"),
    ],
)
def test_resume_refuses_scores_of_other_patches(untrained, mixed, plain, change):
    shutil.copytree(plain, "results/n/mixed")
    with pytest.raises(ValueError, match="input"):
        evaluate(untrained("ssp"), mixed, "n", "--resume", *change)


def simplest_of_grid(pixels, count):
    """The `count` simplest non-overlapping 32x32 patches, by a loop; a small image is a square of 256."""
    if min(pixels.shape[:2]) < 32:
        pixels = np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR))
    found = []
    for top in range(0, len(pixels) - 31, 32):
        for left in range(0, pixels.shape[1] - 31, 32):
            patch = pixels[top : top + 32, left : left + 32]
            p = patch.astype(int)
            pairs = (
                (p[1:], p[:-1]),
                (p[:, 1:], p[:, :-1]),
                (p[1:, 1:], p[:-1, :-1]),
                (p[1:, :-1], p[:-1, 1:]),
            )
            found.append((sum(np.abs(one - other).sum() for one, other in pairs), len(found), patch))
    return [patch for *_, patch in sorted(found, key=lambda one: one[:2])[:count]]


@pytest.mark.parametrize(("arch", "vote"), [("ssp", 1), ("ssp", 3), ("essp", 3)])
def test_scores_of_all_sizes_are_the_mean_logit_of_the_simplest_patches(arch, vote, untrained, mixed):
    weights = untrained(arch)
    folder = evaluate(
        weights, mixed, "grid", "--arch", arch, f"--{arch}_select", "grid", f"--{arch}_vote", vote
    )
    detector, found = checkpoint.load(weights).detector.eval(), logits(folder)
    assert found.keys() == files_of(mixed)
    for path, logit in found.items():
        patches = simplest_of_grid(np.asarray(Image.open(mixed / path)), vote)
        with torch.inference_mode():
            each = detector(torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2))
        assert logit == pytest.approx(each.mean().item(), rel=1e-5, abs=1e-5)


def test_predict_gives_a_file_the_score_that_val_gives_it(untrained, mixed, plain):
    expected = logits(plain)
    photo = "b/1_fake/33x200.png"
    shutil.copy(mixed / photo, "elsewhere.png")
    argv = ["--model_path", str(untrained("ssp")), "--input", "elsewhere.png", "--output", "out.csv"]
    predict.main([*argv, *LOCAL])
    with open("out.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["logit"]) == pytest.approx(expected[photo], abs=1e-6)


# --- flags, geometry, records ---


@pytest.mark.parametrize("script", [val, predict])
def test_a_patch_flag_without_arch_stops_with_the_flag_that_is_missing(script, untrained, mixed, capsys):
    place = ["--dataroot", str(mixed)] if script is val else ["--input", str(mixed)]
    with pytest.raises(SystemExit) as stopped:
        script.main(["--model_path", str(untrained("ssp")), *place, "--ssp_select", "grid"])
    assert stopped.value.code == 2
    assert "--ssp_select is not an option here: it needs --arch ssp" in capsys.readouterr().err


def test_with_arch_a_file_of_ours_takes_another_choice_of_patches(untrained, mixed, capsys):
    flags = ("--arch", "ssp", "--ssp_select", "grid")
    folder = evaluate(untrained("ssp"), mixed, "grid", *flags)
    assert meta(folder)["input"] == "stored size, no crop, simplest of all non-overlapping 32x32 patches"
    argv = ["--model_path", str(untrained("ssp")), "--input", str(mixed / "b"), *LOCAL]
    predict.main([*argv, *flags])
    assert "simplest of all non-overlapping 32x32 patches" in capsys.readouterr().out


def test_the_choice_of_the_training_is_kept_where_no_flag_says_otherwise(untrained, mixed):
    weights = untrained("ssp", "--ssp_select=dense", "--ssp_stride=4", "--ssp_vote=2")
    folder = evaluate(weights, mixed, "kept")
    assert meta(folder)["input"] == "stored size, no crop, 2 simplest of all (every 4 px) 32x32 patches"
    other = evaluate(weights, mixed, "other", "--arch", "ssp", "--ssp_stride", "9")
    assert meta(other)["input"] == "stored size, no crop, 2 simplest of all (every 9 px) 32x32 patches"


def test_another_size_of_patches_than_the_trained_one_is_refused(untrained, mixed):
    for flags in (("--ssp_patch", "16"), ("--ssp_upscale", "64")):
        with pytest.raises(ValueError, match="upscale"):
            evaluate(untrained("ssp"), mixed, "n", "--arch", "ssp", *flags)


PROTOCOL = "slug: own\ngenerators: [a, b]\nresize: 256\ncrop: 224\n"
NOTE = (
    "patches come from images at their stored size, not from the protocol's resize 256x256, centre crop 224"
)


def on_protocol(weights, root, name, *flags):
    Path("own.yaml").write_text(PROTOCOL)
    return evaluate(weights, root, name, "--protocol_file", "own.yaml", *flags, script=test_script)


def test_a_protocol_that_resizes_leaves_patches_as_stored_and_says_so(untrained, mixed, plain, capsys):
    folder = on_protocol(untrained("ssp"), mixed, "row")
    assert meta(folder)["input"] == "stored size, no crop, simplest of 64 random 32x32 patches, seed 100"
    assert logits(folder) == logits(plain)
    assert f"note: {NOTE}" in capsys.readouterr().out
    assert NOTE in (folder / "table.md").read_text()


def test_the_built_in_row_of_ssp_keeps_the_stored_size(untrained, tree):
    root = tree(["sdv4/val"], name="GenImage", names=("nature", "ai"), size=(40, 48))
    folder = evaluate(untrained("ssp"), root.parent, "ssp", "--protocols", "GenImage-SSP", script=test_script)
    assert meta(folder)["input"].startswith("stored size, no crop, simplest of 64 random")
    assert len(logits(folder)) == 6


def test_an_explicit_resize_is_obeyed(untrained, mixed, plain):
    folder = on_protocol(untrained("ssp"), mixed, "resized", "--loadSize", "64")
    assert meta(folder)["input"] == "resize 64x64, no crop, simplest of 64 random 32x32 patches, seed 100"
    assert logits(folder) != logits(plain)
    same = "b/0_real/64x64.png"
    assert logits(folder)[same] == pytest.approx(logits(plain)[same], abs=1e-6)


def test_the_note_about_the_stored_size_is_absent_where_a_flag_resizes(untrained, mixed):
    folder = on_protocol(untrained("ssp"), mixed, "resized", "--loadSize", "64")
    assert "patches come from images at their stored size" not in (folder / "table.md").read_text()


# --- degraded evaluations ---


# --- pictures ---


@pytest.mark.parametrize("vote", [1, 2])
def test_cam_draws_the_simplest_patch_of_an_image(vote, untrained, mixed):
    pytest.importorskip("pytorch_grad_cam")
    weights = untrained("ssp", f"--ssp_vote={vote}", "--ssp_select=grid")
    photo = mixed / "b" / "1_fake" / "64x64.png"
    image = Image.open(photo)
    prepared = cam.prepared(photo, checkpoint.load(weights))
    [expected] = simplest_of_grid(np.asarray(image), 1)
    np.testing.assert_array_equal(prepared.permute(1, 2, 0).numpy(), expected)
    visualize.main(["cam", "--model_path", str(weights), "--images", str(photo), "--output", "cam.png"])
    assert Image.open("cam.png").width > 100
