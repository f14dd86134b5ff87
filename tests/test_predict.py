"""predict.py as a user runs it: what is scored, what the CSV holds, how a stopped run goes on."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Toy, interrupt_after
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, recall_score

import data
import predict
import val
from common import UserError, owned
from networks import checkpoint
from networks.resnet import NPRDetector
from options import PredictOptions, TrainOptions
from util import batching, calibrate, run, score
from util.calibrate import Calibration
from util.predictions import PredictionFile

NATIVE = ("--no_resize", "--no_crop")


SIZES = [(16, 16), (17, 16), (16, 24), (24, 31), (9, 13), (32, 32), (20, 20)]  # (width, height)


def make_weights(path, seed=0, kind=Toy):
    """A published-style file of random weights."""
    torch.manual_seed(seed)
    detector = kind()
    if kind is Toy:  # noise of full contrast scores low, faint noise high
        with torch.no_grad():
            detector.fc.weight.mul_(8)
            detector.fc.bias.zero_()
    torch.save({"model": {f"module.{name}": value for name, value in detector.state_dict().items()}}, path)
    return path


@pytest.fixture
def weights(tmp_path, toy, monkeypatch):
    """The weight file; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_git", lambda *_: "")
    return make_weights(tmp_path / "toy.pth")


@pytest.fixture
def picture(tmp_path, rng):
    """picture(path, size, contrast) saves noise below tmp_path and returns the path relative to it."""

    def make(path, size=(16, 16), contrast=None):
        contrast = rng.integers(2, 256) if contrast is None else contrast
        pixels = rng.integers(0, contrast, (size[1], size[0], 3), dtype=np.uint8)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / path, "PNG")
        return path

    return make


@pytest.fixture
def photos(picture):
    """photos/0.png ... photos/6.png of seven sizes."""
    return [picture(f"photos/{number}.png", size) for number, size in enumerate(SIZES)]


@pytest.fixture
def scored(weights):
    """scored(flags...) runs predict.py on the CPU with --output out.csv and returns the rows of the CSV."""

    def go(*flags, output="out.csv", model=weights):
        command = ["--model_path", model, "--num_threads", "0", "--device", "cpu", *flags]
        predict.main([str(word) for word in [*command, *(["--output", output] if output else [])]])
        return table(output) if output else None

    return go


def table(path="out.csv"):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def by_hand(path, model="toy.pth", prepare=lambda image: image):
    """The logit of one file, alone."""
    detector = checkpoint.load(model).detector.eval()
    pixels = np.array(prepare(Image.open(path).convert("RGB")))
    with torch.inference_mode():
        return detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]).item()


def upstreams_view(image):
    """256x256, then the central 224x224."""
    return image.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))


def share(logit):
    return 1 / (1 + np.exp(-logit))


@pytest.fixture
def seen(monkeypatch):
    """A list that gets the number of images of each forward pass."""
    counts, real = [], Toy.forward

    def forward(self, images):
        counts.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Toy, "forward", forward)
    monkeypatch.setattr(Toy, "fused", lambda self: (self, ""))  # no images of a parity check
    return counts


# --- what is scored, and what comes out ---


def test_one_file_is_scored_as_published_files_are_prepared(scored, picture):
    make_weights("NPR.pth", kind=NPRDetector)
    [row] = scored("--input", picture("a.png", (40, 300), 256), model="NPR.pth")
    assert list(row) == ["path", "verdict", "probability", "score", "logit", "label", "error"]
    logit = by_hand("a.png", "NPR.pth", upstreams_view)
    assert float(row["logit"]) == pytest.approx(logit, rel=1e-5)
    assert float(row["score"]) == pytest.approx(share(logit), rel=1e-6)
    assert (row["path"], row["label"], row["error"]) == ("a.png", "", "")


def test_scores_are_sigmoids_of_the_detectors_own_logits_at_mixed_native_sizes(scored, photos):
    rows = scored("--input", *photos, *NATIVE)
    assert [row["path"] for row in rows] == photos
    for row in rows:
        logit = by_hand(row["path"])
        # Other batches and another memory layout are another order of float32 sums: the error is relative to
        # their terms, which are about 1, and not to the logit.
        assert float(row["logit"]) == pytest.approx(logit, rel=1e-5, abs=1e-5)
        assert float(row["score"]) == pytest.approx(share(logit), rel=1e-5, abs=1e-5)
    assert len({float(row["score"]) > 0.5 for row in rows}) == 2


def test_scores_are_those_of_val_py(scored, picture):
    for number, size in enumerate(SIZES):
        picture(f"set/g/{('0_real', '1_fake')[number % 2]}/{number}.png", size)
    rows = scored("--input", "set", *NATIVE)
    val.main(
        ["--model_path", "toy.pth", "--dataroot", "set", "--num_threads", "0", "--device", "cpu", *NATIVE]
    )
    [folder] = Path("results").glob("*/set")
    theirs = {f"set/{row['path']}": float(row["logit"]) for row in table(folder / "scores.csv")}
    assert {row["path"] for row in rows} == theirs.keys()
    for row in rows:
        assert float(row["logit"]) == pytest.approx(theirs[row["path"]], rel=1e-5, abs=1e-5)


def test_nine_digits_bring_back_the_float32_values(scored, photos):
    for row in scored("--input", *photos, *NATIVE):
        score, logit = np.float32(row["score"]), np.float32(row["logit"])
        assert (row["score"], row["logit"]) == (f"{score:.9g}", f"{logit:.9g}")
        assert score == torch.sigmoid(torch.tensor(logit)).item()


def test_rows_stand_in_the_order_of_the_inputs_whatever_their_sizes_and_batches(scored, photos):
    order = [photos[place] for place in (3, 0, 6, 1, 5, 2, 4)]
    first = scored("--input", *order, *NATIVE, "--batch_size", "2")
    assert [row["path"] for row in first] == order
    again = {row["path"]: row for row in scored("--input", *photos, *NATIVE, output="again.csv")}
    for row in first:
        assert float(row["logit"]) == pytest.approx(float(again[row["path"]]["logit"]), rel=1e-5, abs=1e-5)


def test_a_folder_gives_its_images_recursively_sorted_without_hidden_and_other_files(
    scored, picture, tmp_path
):
    for name in (
        "p/b.png",
        "p/a.JPG",
        "p/z/1.webp",
        "p/c/d/2.png",
        "p/c/1.png",
        "p/.hidden.png",
        "p/.dot/1.png",
    ):
        picture(name)
    (tmp_path / "p" / "notes.txt").write_text("not an image")
    picture("p/unnamed")
    paths = [row["path"] for row in scored("--input", "p", *NATIVE)]
    assert paths == ["p/a.JPG", "p/b.png", "p/c/1.png", "p/c/d/2.png", "p/z/1.webp"]


def test_a_file_without_a_known_extension_is_scored_when_it_is_named(scored, picture):
    rows = scored("--input", picture("unnamed"), picture("photo.dat"), *NATIVE)
    assert [row["path"] for row in rows] == ["unnamed", "photo.dat"]
    assert all(row["score"] for row in rows)


def test_files_and_folders_mix_and_a_file_named_twice_is_scored_once(scored, photos, picture, seen):
    extra = picture("more.png")
    rows = scored("--input", photos[4], extra, "photos", "./photos/", extra, *NATIVE)
    assert [row["path"] for row in rows] == [photos[4], extra, *(p for p in photos if p != photos[4])]
    assert sum(seen) == 8


def test_a_dot_and_a_file_in_it_name_the_same_file(scored, picture, monkeypatch, tmp_path):
    picture("here/a.png")
    monkeypatch.chdir(tmp_path / "here")
    assert len(scored("--input", ".", "a.png", *NATIVE)) == 1


def test_a_linked_folder_is_followed_as_in_val(scored, photos, picture, tmp_path):
    picture("all/a.png")
    (tmp_path / "all" / "more").symlink_to(tmp_path / "photos")
    assert len(scored("--input", "all", *NATIVE)) == 8


def test_files_that_cannot_be_used_are_rows_with_the_reason_and_no_score(scored, photos, tmp_path, capsys):
    whole = (tmp_path / photos[5]).read_bytes()
    for name, content in {
        "empty.png": b"",
        "half.png": whole[: len(whole) // 2],
        "text.jpg": b"hello",
    }.items():
        (tmp_path / "photos" / name).write_bytes(content)
    Image.new("RGB", (1, 9)).save(tmp_path / "photos" / "thin.png")
    rows = {row["path"]: row for row in scored("--input", "photos", *NATIVE)}
    assert list(rows) == sorted(rows)
    assert len(rows) == 11
    bad = {path: row for path, row in rows.items() if row["error"]}
    assert set(bad) == {"photos/empty.png", "photos/half.png", "photos/text.jpg", "photos/thin.png"}
    assert all((row["score"], row["logit"]) == ("", "") for row in bad.values())
    assert bad["photos/empty.png"]["error"] == "empty file"
    assert "truncated" in bad["photos/half.png"]["error"]
    assert bad["photos/text.jpg"]["error"] == "not an image of a known format"
    assert "too small" in bad["photos/thin.png"]["error"]
    assert all(row["score"] for path, row in rows.items() if path not in bad)
    out = capsys.readouterr().out
    assert "7 files scored" in out
    assert "4 files could not be scored, see the column error" in out


def test_on_bad_image_stop_names_the_file(scored, photos, tmp_path):
    (tmp_path / photos[2]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"photos/2\.png"):
        scored("--input", "photos", *NATIVE, "--on_bad_image", "stop")


def test_the_geometry_of_an_own_checkpoint_is_used_and_flags_win_over_it(scored, picture, tmp_path):
    opt = TrainOptions().parse(["--arch", "toy", "--no_resize", "--cropSize", "64", "--name", "mine"])
    detector = checkpoint.load("toy.pth").detector
    checkpoint.save(tmp_path / "mine.pth", detector, options=vars(opt))
    path = picture("large.png", (100, 80), 256)
    [row] = scored("--input", path, model="mine.pth")
    cropped = by_hand(path, prepare=lambda image: image.crop((18, 8, 82, 72)))
    assert float(row["logit"]) == pytest.approx(cropped, rel=1e-5)
    [row] = scored("--input", path, "--no_crop", model="mine.pth", output="whole.csv")
    assert float(row["logit"]) == pytest.approx(by_hand(path), rel=1e-5)
    assert by_hand(path) != pytest.approx(cropped, rel=1e-4)


def test_without_output_there_is_one_line_per_file_and_nothing_is_written(scored, photos, tmp_path, capsys):
    (tmp_path / photos[2]).write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    scored("--input", "photos", *NATIVE, output=None)
    lines = capsys.readouterr().out.splitlines()
    shown = [next(line for line in lines if path in line) for path in photos]
    assert sum("photos/" in line for line in lines) == 7
    assert shown == sorted(shown, key=lines.index)
    assert "empty file" in shown[2]
    for place in (0, 1, 3, 4, 5, 6):
        score = share(by_hand(photos[place]))
        assert float(shown[place].split()[0]) == pytest.approx(score, abs=6e-5)
        assert shown[place].split()[1] == ("fake" if score > 0.5 else "real")
    assert sorted(tmp_path.rglob("*")) == before


def test_json_beside_the_csv_says_what_made_it(scored, photos):
    scored("--input", "photos", *NATIVE)
    with open("out.csv.json") as file:
        meta = json.load(file)
    assert meta["checkpoint"] == "toy.pth"
    assert meta["checkpoint_sha256"] == checkpoint.sha256("toy.pth")
    assert meta["input"] == "stored size, no crop"
    assert meta["precision"] == "fp32"
    assert meta["environment"]["torch"] == torch.__version__


# --- labels ---


@pytest.fixture
def labelled(picture):
    """labelled(real name, fake name) makes set/<generator>/<label>/<n>.png, all of the same noise."""

    def make(real, fake):
        for generator in ("x", "y"):
            for name in (real, fake):
                for number in range(6):
                    picture(f"set/{generator}/{name}/{number}.png")
        return "set"

    return make


def printed_numbers(out):
    """The words of the table's one row."""
    return next(line for line in out.splitlines() if line.startswith("labelled files")).split()[2:]


@pytest.mark.parametrize("names", [("0_real", "1_fake"), ("nature", "ai"), ("real", "fake")])
def test_labels_from_folders_give_the_numbers_of_sklearn(scored, labelled, capsys, names):
    rows = scored("--input", labelled(*names), *NATIVE, "--labels", "folder")
    truth = [int(row["path"].split("/")[2] == names[1]) for row in rows]
    assert [int(row["label"]) for row in rows] == truth
    scores = [float(row["score"]) for row in rows]
    calls = [int(score > 0.5) for score in scores]
    expected = [
        accuracy_score(truth, calls),
        average_precision_score(truth, scores),
        recall_score(truth, calls, pos_label=0),
        recall_score(truth, calls, pos_label=1),
    ]
    assert all(0.1 < value < 0.95 for value in expected)
    shown = printed_numbers(capsys.readouterr().out)
    assert shown[:4] == [f"{100 * value:.1f}" for value in expected]
    assert shown[-1] == "24"


def test_the_outermost_label_folder_decides_and_files_without_one_are_counted(scored, picture, capsys):
    expected = {
        "in/fake/0_real/a.png": "1",
        "in/nature/AI/b.png": "0",
        "in/0_real/deep/er/c.png": "0",
        "in/1_fake/d.png": "1",
        "in/e.png": "",
        "in/other/f.png": "",
    }
    for path in expected:
        picture(path)
    rows = scored("--input", "in", *NATIVE, "--labels", "folder")
    assert {row["path"]: row["label"] for row in rows} == expected
    out = capsys.readouterr().out
    assert printed_numbers(out)[-1] == "4"
    assert "2 scored files have no label folder above them" in out
    assert "notice: 2 images" in out


def test_without_the_flag_no_label_is_written(scored, labelled):
    assert {row["label"] for row in scored("--input", labelled("0_real", "1_fake"), *NATIVE)} == {""}


def test_one_class_only_gives_its_own_accuracy_and_the_reason(scored, picture, capsys):
    contrasts = (255, 3, 255, 255)
    paths = [picture(f"1_fake/{number}.png", contrast=value) for number, value in enumerate(contrasts)]
    rows = scored("--input", "1_fake", *NATIVE, "--labels", "folder")
    right = sum(share(by_hand(path)) > 0.5 for path in paths)
    assert [row["label"] for row in rows] == ["1"] * 4
    out = capsys.readouterr().out
    shown = printed_numbers(out)
    assert shown[:4] == ["-", "-", "-", f"{100 * right / 4:.1f}"]
    assert "no real images" in out


def test_labels_without_any_label_folder_say_so(scored, photos, capsys):
    rows = scored("--input", "photos", *NATIVE, "--labels", "folder")
    assert {row["label"] for row in rows} == {""}
    assert "label name" in capsys.readouterr().out


def test_bad_files_keep_their_label_and_do_not_count(scored, labelled, tmp_path, capsys):
    root = labelled("0_real", "1_fake")
    (tmp_path / root / "x" / "1_fake" / "0.png").write_bytes(b"")
    rows = {row["path"]: row for row in scored("--input", root, *NATIVE, "--labels", "folder")}
    assert rows["set/x/1_fake/0.png"]["label"] == "1"
    assert printed_numbers(capsys.readouterr().out)[-1] == "23"


def test_when_no_file_could_be_scored_the_label_folders_are_not_denied(scored, tmp_path, capsys):
    for name in ("0_real", "1_fake"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        scored("--input", "0_real", "1_fake", "--labels", "folder")
    out = capsys.readouterr().out
    assert "0 files scored" in out
    assert "2 files could not be scored" in out
    assert "no file lies below" not in out


def test_folders_above_the_named_one_give_no_label(scored, picture):
    picture("real/photos/a.png")
    picture("real/photos/1_fake/b.png")
    rows = {
        row["path"]: row["label"] for row in scored("--input", "real/photos", *NATIVE, "--labels", "folder")
    }
    assert rows == {"real/photos/a.png": "", "real/photos/1_fake/b.png": "1"}


def test_a_named_file_has_the_label_of_its_own_folder(scored, picture):
    fake, plain = picture("set/1_fake/a.png"), picture("real/photos/b.png")
    rows = scored("--input", fake, plain, *NATIVE, "--labels", "folder")
    assert [row["label"] for row in rows] == ["1", ""]


def test_resume_tries_a_failed_file_again(scored, photos, tmp_path):
    whole = (tmp_path / photos[2]).read_bytes()
    (tmp_path / photos[2]).write_bytes(b"")
    before = scored("--input", "photos", *NATIVE)
    assert before[2]["error"] == "empty file"
    (tmp_path / photos[2]).write_bytes(whole)
    after = scored("--input", "photos", *NATIVE, "--resume")
    assert [row["path"] for row in after] == photos
    assert after[2]["score"] and not after[2]["error"]
    assert after[:2] + after[3:] == before[:2] + before[3:]


# --- errors ---


def status_of(*flags):
    """(exit status, last line on stderr) of predict.py under run.guard, as the interpreter would give it."""
    with pytest.raises(SystemExit) as left:
        run.guard(lambda: predict.main(["--num_threads", "0", "--device", "cpu", *flags]))
    message = left.value.code
    return (1, message) if isinstance(message, str) else (message, "")


def test_a_missing_path_is_one_clear_line_and_status_one(weights, photos):
    status, message = status_of("--model_path", "toy.pth", "--input", photos[0], "nowhere/x.png")
    assert (status, message) == (1, "error: no file or folder nowhere/x.png")


def test_a_folder_without_images_is_one_clear_line_that_says_what_it_holds(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    status, message = status_of("--model_path", "toy.pth", "--input", "empty", "--output", "o.csv")
    assert status == 1
    assert message.startswith("error: no images in empty; found nothing; known extensions: ")
    (tmp_path / "empty" / "a.heic").write_bytes(b"x")
    assert "found 1 .heic" in status_of("--model_path", "toy.pth", "--input", "empty")[1]
    assert not (tmp_path / "o.csv").exists()


def test_when_no_file_could_be_scored_the_exit_status_is_not_zero(weights, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    status, _ = status_of("--model_path", "toy.pth", "--input", "a.png", "--output", "o.csv")
    assert status != 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--input", "a.png", "--resume"], "--resume needs --output"),
        ([], "image files"),
        (["--input", "a.png", "--output", "o.csv", "--resume", "--overwrite"], "exclude each other"),
        (["--input", "a.png", "--labels", "file"], "invalid choice"),
    ],
)
def test_flags_that_make_no_sense_exit_with_status_two(weights, capsys, flags, words):
    assert status_of("--model_path", "toy.pth", *flags)[0] == 2
    assert words in capsys.readouterr().err


def test_a_calibration_decides_the_verdicts_and_leaves_the_scores(scored, photos, weights, capsys):
    logits = [float(row["logit"]) for row in scored("photos")]
    low, high = np.quantile(logits, [0.3, 0.7])
    wanted = Calibration(1.0, 2.0, *(1 / (1 + np.exp(-(np.array([low, low, high]) + 1) / 2))))
    calibrate.save(wanted, checkpoint.load(weights))
    rows = scored("photos", "--overwrite")
    assert [float(row["logit"]) for row in rows] == logits
    assert {row["verdict"] for row in rows} == {"real", "fake", "unsure"}
    capsys.readouterr()
    scored("photos", output=None)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(".png")]
    for (value, verdict, _), logit, row in zip(lines, logits, rows, strict=True):
        assert (value, verdict) == (f"{float(row['probability']):.4f}", row["verdict"])
        assert float(value) == pytest.approx(1 / (1 + np.exp(-(logit + 1) / 2)), abs=1e-4)
        assert verdict == ("real" if logit < low else "fake" if logit > high else "unsure")


def test_the_accuracy_of_labelled_files_is_that_of_the_calibrated_threshold(scored, photos, weights, capsys):
    Path("photos/0_real").mkdir()
    for name in photos[:4]:
        Path(name).rename(Path("photos/0_real") / Path(name).name)
    Path("photos/1_fake").mkdir()
    for name in photos[4:]:
        Path(name).rename(Path("photos/1_fake") / Path(name).name)
    rows = scored("photos", "--labels", "folder")
    lowest = min(float(row["logit"]) for row in rows)
    calibrate.save(Calibration(threshold=share(lowest - 1)), checkpoint.load(weights))
    capsys.readouterr()
    scored("photos", "--labels", "folder", "--overwrite")
    assert re.search(r"labelled files.* 0\.0 +100\.0 ", capsys.readouterr().out)


# --- --output, --resume, --overwrite ---


def test_an_existing_output_is_refused_and_left_alone(scored, photos, tmp_path, seen):
    (tmp_path / "out.csv").write_text("years of work")
    for flags in ((), ("--resume",)):
        with pytest.raises(ValueError, match="--overwrite"):
            scored("--input", *photos, *NATIVE, *flags)
    assert (tmp_path / "out.csv").read_text() == "years of work"
    assert seen == []
    assert len(scored("--input", *photos, *NATIVE, "--overwrite")) == 7


def test_overwrite_replaces_scores_of_another_evaluation(scored, photos):
    scored("--input", *photos, *NATIVE)
    rows = scored("--input", photos[0], "--no_resize", "--cropSize", "8", "--overwrite")
    assert [row["path"] for row in rows] == photos[:1]
    assert scored("--input", photos[0], "--no_resize", "--cropSize", "8", "--resume") == rows


def test_resume_scores_nothing_twice_and_leaves_the_file_as_it_is(scored, photos, tmp_path, seen, capsys):
    scored("--input", "photos", *NATIVE)
    before, count = (tmp_path / "out.csv").read_bytes(), sum(seen)
    summary = capsys.readouterr().out.splitlines()[-2:]
    scored("--input", "photos", *NATIVE, "--resume")
    assert (tmp_path / "out.csv").read_bytes() == before
    assert sum(seen) == count == 7
    assert capsys.readouterr().out.splitlines()[-2:] == summary


def test_resume_scores_added_files_and_counts_all(scored, photos, picture, seen, capsys):
    before = scored("--input", "photos", *NATIVE)
    picture("photos/05.png")
    after = scored("--input", "photos", *NATIVE, "--resume")
    assert sum(seen) == 8
    assert [row for row in after if row["path"] != "photos/05.png"] == before
    assert {row["path"] for row in after} == {*photos, "photos/05.png"}
    assert "8 files scored" in capsys.readouterr().out


def test_resume_with_nothing_there_yet_starts(scored, photos):
    assert len(scored("--input", "photos", *NATIVE, "--resume")) == 7


def test_resume_refuses_another_checkpoint_geometry_or_labels(scored, photos, tmp_path):
    scored("--input", "photos", *NATIVE)
    before = (tmp_path / "out.csv").read_bytes()
    with pytest.raises(ValueError, match="geometry"):
        scored("--input", "photos", "--no_resize", "--cropSize", "16", "--resume")
    with pytest.raises(ValueError, match="checkpoint_sha256"):
        scored("--input", "photos", *NATIVE, "--resume", model=make_weights(tmp_path / "other.pth", seed=1))
    with pytest.raises(ValueError, match="labels"):
        scored("--input", "photos", *NATIVE, "--resume", "--labels", "folder")
    assert (tmp_path / "out.csv").read_bytes() == before


@pytest.mark.parametrize("damage", ["gone", "half"])
def test_resume_refuses_when_the_json_is_lost(scored, photos, tmp_path, damage):
    scored("--input", "photos", *NATIVE)
    meta = tmp_path / "out.csv.json"
    meta.unlink() if damage == "gone" else meta.write_text(meta.read_text()[:40])
    with pytest.raises(ValueError, match=r"out\.csv\.json"):
        scored("--input", "photos", *NATIVE, "--resume")


def test_a_half_written_last_line_is_dropped_and_scored_again(scored, photos, tmp_path, seen):
    scored("--input", "photos", *NATIVE)
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").write_bytes(whole[: whole.index(b"photos/5.png") + 17])
    scored("--input", "photos", *NATIVE, "--resume")
    assert sum(seen) == 7 + 2
    assert [row["path"] for row in table()] == photos
    assert (tmp_path / "out.csv").read_bytes() == whole


def rewritten(tmp_path, names, cut):
    """Bytes of a prediction file that was cut and then completed by a resumed run, and of a whole one."""
    numbers = {"verdict": "real", "probability": 0.125, "score": 0.25, "logit": -1.5}
    rows = [{"path": name, **numbers, "label": None, "error": None} for name in names]
    path = tmp_path / "p.csv"
    first = PredictionFile(path, {"weights": "w"})
    first.open(False, True, {})
    first.add(rows)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    second = PredictionFile(path, {"weights": "w"})
    second.open(True, False, {})
    second.add([row for row in rows if row["path"] not in second.rows])
    return path.read_bytes(), whole


HEADER = len("path,verdict,probability,score,logit,label,error\r\n")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["a.png", "b.png", "c, d.png"], id="plain"),
        pytest.param(
            ["a.png", "b\nc.png", 'd"e\n.png'],
            id="newlines",
        ),
    ],
)
def test_wherever_a_csv_was_cut_resume_completes_it(tmp_path, names):
    _, whole = rewritten(tmp_path, names, None)
    wrong = [cut for cut in range(HEADER, len(whole)) if rewritten(tmp_path, names, cut)[0] != whole]
    assert not wrong


@pytest.mark.parametrize("cut", [0, 10, HEADER - 1])
def test_a_csv_cut_in_its_heading_is_begun_again(tmp_path, cut):
    resumed, whole = rewritten(tmp_path, ["a.png"], cut)
    assert resumed == whole


def test_resume_leaves_a_csv_of_other_columns_as_it_is(tmp_path):
    path = tmp_path / "p.csv"
    PredictionFile(path, {"weights": "w"}).open(False, False, {})
    path.write_text("name,price\r\nbread,2")
    with pytest.raises(ValueError, match="columns"):
        PredictionFile(path, {"weights": "w"}).open(True, False, {})
    assert path.read_bytes() == b"name,price\r\nbread,2"


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_an_interrupted_run_is_completed_to_the_same_csv(scored, photos, tmp_path, monkeypatch, seen, looks):
    monkeypatch.setattr(predict, "ROWS_AT_ONCE", 3)  # a small file list that still has several writes
    monkeypatch.setattr(batching, "CPU_PIXELS", 1)  # no image waits for others of its size
    flags = ("--input", "photos", *NATIVE, "--batch_size", "2")
    scored(*flags, output="whole.csv")
    del seen[:]
    with monkeypatch.context() as patch:
        interrupt_after(patch, looks)  # the batches are 2, 2, 2, 1
        with pytest.raises(run.Interrupted, match="--resume"):
            scored(*flags)
    kept = [row["path"] for row in table()]
    assert kept == photos[: 2 * looks]
    del seen[:]
    scored(*flags, "--resume")
    assert sum(seen) == 7 - len(kept)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_interruption_keeps_the_images_scored_so_far(scored, photos, monkeypatch):
    monkeypatch.setattr(batching, "CPU_PIXELS", 1)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(run.Interrupted):
            scored("--input", "photos", *NATIVE, "--batch_size", "1")
    assert len(table()) >= 4


def test_an_interruption_without_output_says_that_nothing_was_kept(scored, photos, monkeypatch):
    interrupt_after(monkeypatch, 1)
    with pytest.raises(run.Interrupted, match="scores"):
        scored("--input", "photos", *NATIVE, "--batch_size", "1", output=None)


# --- names ---


def test_commas_quotes_newlines_and_bytes_that_are_no_utf8_survive_the_csv(scored, picture, tmp_path, seen):
    names = [
        "a,b.png",
        'say "hi".png',
        "two\nlines.png",
        "umlaut ä.png",
        os.fsdecode(b"latin \xe4.png"),
        " .png",
    ]
    paths = [picture(f"odd/{name}") for name in names]
    rows = scored("--input", *paths, *NATIVE)
    assert [row["path"] for row in rows] == paths
    assert all(row["score"] and not row["error"] for row in rows)
    assert b"odd/latin \xe4.png," in (tmp_path / "out.csv").read_bytes()
    assert scored("--input", *paths, *NATIVE, "--resume") == rows
    assert sum(seen) == 6


def test_names_that_no_terminal_can_print_are_spelled_out(weights, picture, monkeypatch):
    picture(os.fsdecode(b"odd/latin \xe4.png"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    command = ["--model_path", "toy.pth", "--input", "odd", "--num_threads", "0", "--device", "cpu", *NATIVE]
    run.guard(lambda: predict.main(command))
    assert b"1 files scored" in written.getvalue()
    assert b"latin \\udce4.png" in written.getvalue()


# --- files that somebody else has touched ---


def test_a_csv_saved_again_by_a_spreadsheet_is_resumed(scored, photos, picture, tmp_path, seen):
    before = scored("--input", "photos", *NATIVE)
    path = tmp_path / "out.csv"
    cells = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\ufeff" + "\n".join(";".join(row[::-1]) for row in cells).replace("0.", "0,"), "utf-8")
    path.write_text(path.read_text("utf-8").replace("0,png", "0.png") + "\n", "utf-8")
    picture("photos/7.png")
    after = scored("--input", "photos", *NATIVE, "--resume")
    assert after[:7] == before and sum(seen) == 8


def test_output_that_names_a_folder_says_what_to_type(scored, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="--output"):
        scored("--input", "photos", output="out")


def test_two_processes_do_not_write_one_file(scored, photos):
    with owned("out.csv", file=True), pytest.raises(UserError, match=r"out\.csv"):
        scored("--input", "photos")
    assert len(scored("--input", "photos")) == 7


def test_a_page_gets_rows_from_the_function_below_the_script(weights, photos, toy):
    opt = PredictOptions().parse(["--model_path", str(weights), "--input", "photos", *NATIVE])
    detector = checkpoint.load(weights).detector.eval()
    geometry = data.eval_geometry(opt, detector.data_config, trained={})
    dataset = data.evaluation_images(opt, data.files_scan(["photos"]), detector.data_config, geometry)
    loader = data.loader_over(opt, dataset, range(7), torch.device("cpu"))
    passes = score.score(detector, loader, torch.device("cpu"), score.BadImages("skip", dataset))
    rows = [row for scored in passes for row in scored]
    assert {row["path"] for row in rows} == set(photos)
    assert all(row["logit"] == pytest.approx(by_hand(row["path"]), rel=1e-4, abs=1e-5) for row in rows)
