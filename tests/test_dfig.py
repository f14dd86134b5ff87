"""DFIG from photographs to scores: noise patterns extracted, a detector trained, tested, asked for scores."""

import argparse
import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import interrupt_after, make_tree
from PIL import Image

import data
import predict
import test
import train
from networks import checkpoint
from tools.extract import __main__ as extract
from util import run

CPU = ("--num_threads", "0", "--device", "cpu")
ENCODINGS = {"wrapped": np.uint8, "signed": np.uint16}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """photos/, toys/ and DFIG-<encoding>/DFIG/ with the noise patterns of the photographs."""
    pytest.importorskip("segment_anything")  # `toys` writes a SAM as well
    folder = tmp_path_factory.mktemp("dfig")
    make_tree(folder / "photos", SPLITS, names=("real", "fake"), count=2, size=(32, 32))
    extract.main(["toys", "--output", str(folder / "toys")])
    for encoding in ENCODINGS:
        go_on = ["--weights", folder / "toys" / "cycleisp_toy.pth", "--encoding", encoding, *CPU]
        places = ["--input", folder / "photos", "--output", folder / f"DFIG-{encoding}" / "DFIG"]
        extract.main([str(word) for word in ["lnp", *places, *go_on]])
    return folder


@pytest.fixture
def start(made, tmp_path, monkeypatch):
    """start(encoding, flags...) trains for two epochs as README does; returns the run's folder."""
    monkeypatch.chdir(tmp_path)

    def go(encoding, *flags, name="run", root=None):
        root = root or made / f"DFIG-{encoding}" / "DFIG"
        command = (
            f"--name {name} --dataroot {root} --arch mobilev2 --train_mode 0 --no_pretrained --cropSize 16 "
            f"--batch_size 4 --niter 2 --amp off --lnp_encoding {encoding}"
        )
        train.main([*command.split(), *CPU, *flags])
        return tmp_path / "checkpoints" / name

    return go


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """{encoding: checkpoint of train.py whose running statistics are those of the training files}.

    After two steps they are PyTorch's zeros and ones, for which every input has the same score.
    """
    folder = tmp_path_factory.mktemp("trained")
    paths = {}
    for encoding in ENCODINGS:
        command = (
            f"--name {encoding} --dataroot {made}/DFIG-{encoding}/DFIG --checkpoints_dir {folder} --arch "
            "mobilev2 --train_mode 0 --no_pretrained --cropSize 16 --batch_size 4 --niter 1 --amp off "
            f"--lnp_encoding {encoding}"
        )
        train.main([*command.split(), *CPU])
        paths[encoding] = folder / encoding / "model_epoch_last.pth"
        detector = checkpoint.load(paths[encoding]).detector.train()
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        files = sorted((made / f"DFIG-{encoding}" / "DFIG" / "train").rglob("*.png"))
        with torch.no_grad():
            detector(torch.stack([file_input(path) for path in files]))
        content = torch.load(paths[encoding], weights_only=True)
        torch.save({**content, "model": detector.state_dict()}, paths[encoding])
    return paths


def file_input(path):
    """What the network is fed of a file of noise, read without data/: uint8, or int16 about 0."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].transpose(2, 0, 1).astype(np.int32)
    deep = path.read_bytes()[24] == 16
    return torch.from_numpy((values - 32768).astype(np.int16) if deep else values.astype(np.uint8))


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def scores(model, *flags, output):
    """Runs predict.py image by image; {name of the label folder / file: row}, and the record beside it."""
    words = ["--model_path", model, "--arch", "mobilev2", "--labels", "folder", "--batch_size", "1"]
    predict.main([str(word) for word in [*words, "--output", output, *CPU, *flags]])
    rows = {"/".join(row["path"].split("/")[-2:]): row for row in rows_of(output)}
    assert not [row["error"] for row in rows.values() if row["error"]]
    return rows, json.loads(output.with_name(output.name + ".json").read_text())


# --- extraction ---


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_tree_of_noise_patterns_is_that_of_the_photographs(made, encoding):
    root = made / f"DFIG-{encoding}" / "DFIG"
    photos = {path.relative_to(made / "photos") for path in (made / "photos").rglob("*.png")}
    assert {path.relative_to(root) for path in root.rglob("*.png")} == photos
    assert len(photos) == 12
    for path in photos:
        noise = cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED)
        assert (noise.shape, noise.dtype) == ((32, 32, 3), ENCODINGS[encoding])
        assert noise.std() > 0


# --- training ---


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_two_epochs_train_under_the_plateau_rule(start, encoding, capsys):
    folder = start(encoding)
    out = capsys.readouterr().out
    assert ("source signed" if encoding == "signed" else "mobilev2, default options") in out
    rows = rows_of(folder / "train.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert len({row["loss"] for row in rows}) == 2
    saved = torch.load(folder / "model_epoch_last.pth", weights_only=True)
    wanted = {"recipe": "dfig", "lr_policy": "plateau", "niter": 2, "lnp_encoding": encoding}
    assert wanted.items() <= saved["options"].items()
    assert not any(name.startswith("denoiser") for name in saved["model"])
    best = torch.load(folder / "model_epoch_best.pth", weights_only=True)
    assert best["model"].keys() == saved["model"].keys()


def test_both_layouts_have_the_same_labels_and_losses(start, made, tmp_path):
    numbered = tmp_path / "numbered" / "DFIG"
    shutil.copytree(made / "DFIG-wrapped" / "DFIG", numbered)
    for split in SPLITS:
        (numbered / split / "real").rename(numbered / split / "0_real")
        (numbered / split / "fake").rename(numbered / split / "1_fake")
    found = {}
    for root in (made / "DFIG-wrapped" / "DFIG", numbered):
        place = root / "train"
        found[root] = {
            sample.path.replace("0_real", "real").replace("1_fake", "fake"): sample.label
            for sample in data.scan(place, data.discover(place)).samples
        }
    plain, other = found.values()
    assert plain == other
    assert plain == {"real/0.png": 0, "real/1.png": 0, "fake/0.png": 1, "fake/1.png": 1}
    losses = [
        [row["loss"] for row in rows_of(start("wrapped", name=name, root=root) / "train.csv")]
        for name, root in (("a", None), ("b", numbered))
    ]
    assert losses[0] == losses[1]


def test_classes_of_a_flat_root_choose_nothing_and_that_is_said(start, capsys):
    with_classes = start("wrapped", "--classes", "face", name="a")
    out = capsys.readouterr().out
    assert "--classes has no effect" in out
    without = start("wrapped", name="b")
    assert "has no effect" not in capsys.readouterr().out
    one, other = (
        torch.load(folder / "model_epoch_last.pth", weights_only=True)["model"]
        for folder in (with_classes, without)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("stored", "asked", "words"), [("wrapped", "signed", "16-bit"), ("signed", "wrapped", "--lnp_encoding")]
)
def test_files_of_the_other_encoding_stop_with_one_line(start, made, stored, asked, words):
    with pytest.raises(ValueError, match=words) as stopped:
        start(asked, root=made / f"DFIG-{stored}" / "DFIG")
    assert "\n" not in str(stopped.value)
    assert re.search(r"(real|fake)/\d.png", str(stopped.value))


@pytest.mark.parametrize("flags", [["--loadSize", "48"], ["--blur_prob", "0.5"], ["--jpg_prob", "0.5"]])
def test_signed_noise_is_neither_resized_nor_degraded(start, flags):
    with pytest.raises(ValueError, match="cropped"):
        start("signed", *flags)


def test_a_stopped_run_goes_on_to_the_same_weights(start, monkeypatch):
    whole = start("signed", name="whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)  # in the second epoch
        with pytest.raises(run.Interrupted, match="--continue_train"):
            start("signed", name="broken")
    assert len(rows_of(whole.with_name("broken") / "train.csv")) < 2
    train.main(["--name", "broken", "--continue_train", *CPU])
    one, other = (
        torch.load(folder / "model_epoch_last.pth", weights_only=True)
        for folder in (whole, whole.with_name("broken"))
    )
    assert other["options"]["lnp_encoding"] == "signed"
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


# --- the benchmark ---


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_published_number_stands_beside_ours(made, trained, encoding, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = f"--dataroot {made}/DFIG-{encoding} --protocols DFIG --published DFIG-mobilev2-mode0"
    test.main([*command.split(), "--model_path", str(trained[encoding]), *CPU])  # crops as in training
    out = capsys.readouterr().out
    assert "DFIG-mobilev2-mode0" in out and "centre crop 224" in out and "centre crop 16" in out
    assert f"{8 if encoding == 'wrapped' else 16}-bit noise patterns" in out
    [line] = [line for line in out.splitlines() if line.startswith("StyleGAN")]
    [folder] = (tmp_path / "results").glob("*/DFIG")
    table = {row["generator"]: row for row in rows_of(folder / "table.csv")}
    assert float(table["StyleGAN"]["published_acc"]) == pytest.approx(0.9865)
    accuracy = float(table["StyleGAN"]["acc"])
    assert line.split()[-2:] == ["98.7", f"{100 * accuracy - 98.65:.1f}"]
    rows = rows_of(folder / "scores.csv")
    assert [int(row["label"]) for row in rows] == [int("/fake/" in f"/{row['path']}") for row in rows]
    detector = checkpoint.load(trained[encoding]).detector.eval()
    for row in rows:
        image = file_input(made / f"DFIG-{encoding}" / "DFIG" / row["path"])[:, 8:24, 8:24]
        with torch.inference_mode():
            assert float(row["logit"]) == pytest.approx(detector(image[None]).item(), rel=1e-3, abs=1e-4)


def test_mode_1_prints_the_note_on_ranks(made, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = f"--dataroot {made}/DFIG-wrapped --protocols DFIG --published DFIG-mobilev2-mode1 --cropSize 16"
    test.main([*command.split(), "--model_path", str(trained["wrapped"]), *CPU])
    out = capsys.readouterr().out
    assert "rank modes 1 and 2 differently" in out
    assert "98.3" in out


# --- scores of files and of photographs ---


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_photographs_score_as_the_files_extracted_from_them(made, trained, encoding, tmp_path, capsys):
    full = ("--lnp_eval", "full")
    root = made / f"DFIG-{encoding}" / "DFIG" / "test"
    files, known = scores(trained[encoding], "--input", root, *full, output=tmp_path / "files.csv")
    assert "stored size, no crop" in capsys.readouterr().out
    denoiser = made / "toys" / "cycleisp_toy.pth"
    flags = ["--input", made / "photos" / "test", *full, "--lnp_input", "image", "--lnp_denoiser", denoiser]
    photos, record = scores(trained[encoding], *flags, output=tmp_path / "photos.csv")
    assert files.keys() == photos.keys()
    logits = np.array([[float(rows[name]["logit"]) for rows in (files, photos)] for name in sorted(files)])
    # The noise of a photograph comes from float32 sums in another order than in the extraction, so a value on
    # the edge may be rounded the other way, by one step.  As many random steps move a logit by up to 0.005.
    assert logits[:, 0] == pytest.approx(logits[:, 1], abs=0.02)
    assert np.ptp(logits[:, 0]) > 0.5  # other images would be noticed
    assert all(row["label"] == str(int(name.startswith("fake"))) for name, row in photos.items())
    assert record["denoiser_sha256"] == checkpoint.sha256(denoiser)
    assert "denoiser_sha256" not in known
    assert record["checkpoint_sha256"] == known["checkpoint_sha256"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_noise_of_a_photograph_is_its_files_but_for_single_steps(made, trained, encoding):
    flags = argparse.Namespace(lnp_input="image", lnp_denoiser=str(made / "toys" / "cycleisp_toy.pth"))
    detector = checkpoint.load(trained[encoding], "mobilev2", flags).detector.eval()
    for path in sorted((made / "photos" / "test").rglob("*.png")):
        photo = torch.from_numpy(np.array(Image.open(path)).transpose(2, 0, 1))
        found = detector.noise(photo[None])[0].int()
        file = file_input(made / f"DFIG-{encoding}" / "DFIG" / path.relative_to(made / "photos")).int()
        steps = (found - file).abs()
        if encoding == "wrapped":
            steps = torch.minimum(steps, 256 - steps)
        assert steps.max() <= 1
        assert (steps > 0).float().mean() < 0.03


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_logits_of_whole_files_are_the_detectors_own(made, trained, encoding, tmp_path):
    root = made / f"DFIG-{encoding}" / "DFIG" / "test"
    rows, _ = scores(trained[encoding], "--input", root, "--lnp_eval", "full", output=tmp_path / "a.csv")
    detector = checkpoint.load(trained[encoding]).detector.eval()
    for name, row in rows.items():
        with torch.inference_mode():
            logit = detector(file_input(root / name)[None]).item()
        assert float(row["logit"]) == pytest.approx(logit, rel=1e-3, abs=1e-4)
    cropped, _ = scores(trained[encoding], "--input", root, output=tmp_path / "b.csv")
    assert all(row["logit"] != cropped[name]["logit"] for name, row in rows.items())  # 16 of 32 px


def test_test_py_records_the_denoiser(made, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "DFIG").symlink_to(made / "photos")
    denoiser = made / "toys" / "cycleisp_toy.pth"
    command = (
        f"--model_path {trained['signed']} --arch mobilev2 --dataroot sets --protocols DFIG --published none "
        f"--lnp_input image --lnp_denoiser {denoiser} --lnp_eval full"
    )
    test.main([*command.split(), *CPU])
    [folder] = (tmp_path / "results").glob("*/DFIG")
    assert f'"denoiser_sha256": "{checkpoint.sha256(denoiser)}"' in (folder / "meta.json").read_text()


def test_another_denoiser_gives_other_scores_and_does_not_go_on_in_the_same_file(made, trained, tmp_path):
    extract.main(["toys", "--output", str(tmp_path / "toys"), "--seed", "1"])
    one, two = (folder / "toys" / "cycleisp_toy.pth" for folder in (made, tmp_path))
    flags = ["--input", made / "photos" / "test", "--lnp_input", "image"]
    first, _ = scores(trained["signed"], *flags, "--lnp_denoiser", one, output=tmp_path / "a.csv")
    second, _ = scores(trained["signed"], *flags, "--lnp_denoiser", two, output=tmp_path / "b.csv")
    assert all(abs(float(row["logit"]) - float(second[name]["logit"])) > 0.01 for name, row in first.items())
    with pytest.raises(ValueError, match="denoiser_sha256"):
        scores(trained["signed"], *flags, "--lnp_denoiser", two, "--resume", output=tmp_path / "a.csv")


def test_a_photograph_of_another_size_and_mode_is_scored_whole(made, trained, tmp_path):
    Image.new("RGB", (33, 20), (90, 20, 200)).convert("P").save(tmp_path / "a.png")
    denoiser = made / "toys" / "cycleisp_toy.pth"
    flags = ["--input", tmp_path / "a.png", "--lnp_input", "image", "--lnp_denoiser", denoiser]
    rows, _ = scores(trained["wrapped"], *flags, "--lnp_eval", "full", output=tmp_path / "o.csv")
    [row] = rows.values()
    assert (row["label"], row["error"]) == ("", "")
    assert np.isfinite(float(row["logit"]))


# --- what must not be mixed up ---


def test_a_validation_folder_may_be_called_valid(start, made, tmp_path, capsys):
    root = tmp_path / "faces"
    shutil.copytree(made / "DFIG-wrapped" / "DFIG", root)
    (root / "val").rename(root / "valid")
    start("wrapped", root=root)
    assert f"validation: {root}/valid: " in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_photographs_are_no_files_of_noise(made, trained, encoding, tmp_path):
    words = ["--model_path", trained[encoding], "--input", made / "photos" / "test"]
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(word) for word in [*words, "--output", tmp_path / "s.csv", *CPU]])
    assert stopped.value.code == 1
    rows = rows_of(tmp_path / "s.csv")
    assert len(rows) == 4
    assert all(row["score"] == "" and "noise" in row["error"] for row in rows)


def test_a_run_does_not_go_on_with_another_denoiser(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(made / "toys" / "cycleisp_toy.pth", tmp_path / "denoiser.pth")
    command = (
        f"--name run --dataroot {made}/photos --arch mobilev2 --lnp_input image --lnp_denoiser denoiser.pth "
        "--no_pretrained --cropSize 16 --batch_size 4 --amp off --niter"
    )
    train.main([*command.split(), "1", *CPU])
    content = torch.load("checkpoints/run/model_epoch_last.pth", weights_only=True)
    assert content["companions"] == {"denoiser_sha256": checkpoint.sha256("denoiser.pth")}
    extract.main(["toys", "--output", "other", "--seed", "1"])
    shutil.copy("other/cycleisp_toy.pth", "denoiser.pth")
    with pytest.raises(ValueError, match="denoiser_sha256"):
        train.main([*command.split(), "2", "--continue_train", *CPU])
    notes = checkpoint.load("checkpoints/run/model_epoch_last.pth").notes
    assert "notice: denoiser_sha256 is not that of the training" in notes
    Path("denoiser.pth").unlink()
    with pytest.raises(ValueError, match="--lnp_denoiser"):
        checkpoint.load("checkpoints/run/model_epoch_last.pth")
