"""val.py and test.py as a user runs them: what they write, keep, refuse and leave out."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Toy, evaluate, interrupt_after, results, toy_image
from PIL import Image

import test as test_script
from common import UserError, owned
from data import protocols
from networks import checkpoint
from networks.resnet import NPRDetector
from util import run
from util.results import read_meta, read_scores, sigmoid, write_scores


def table(folder):
    with open(folder / "table.csv", newline="") as file:
        return {row["generator"]: row for row in csv.DictReader(file)}


def test_an_evaluation_leaves_scores_meta_and_tables(weights, tree, capsys):
    evaluate(weights, tree(["biggan", "adm"], count=3))
    folder = results()
    assert folder.parent.name == f"toy-{checkpoint.sha256(weights)[:8]}"
    assert {path.name for path in folder.iterdir()} == {"scores.csv", "meta.json", "table.csv", "table.md"}
    rows = read_scores(folder / "scores.csv")
    assert [row[0] for row in rows[:4]] == [f"adm/0_real/{n}.png" for n in range(3)] + ["adm/1_fake/0.png"]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["checkpoint_sha256"] == checkpoint.sha256(weights)
    assert meta["input"] == "resize 32x32, centre crop 24"
    assert meta["precision"] == "fp32"
    assert meta["counts"] == {"adm": [3, 3], "biggan": [3, 3]}
    out = capsys.readouterr().out
    assert "Mean" in out
    assert "published file" in out  # what was assumed about the foreign file


def test_scores_are_the_float32_sigmoid_of_the_detectors_logits(weights, tree):
    root = tree(["a"], size=(31, 18))
    evaluate(weights, root, "--no_resize", "--no_crop")
    detector = checkpoint.load(weights).detector.eval()
    for path, _, label, score, logit in read_scores(results() / "scores.csv"):
        image = torch.from_numpy(np.array(Image.open(root / path))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = detector(image)
        assert logit == pytest.approx(expected.item(), abs=1e-5)
        assert score == sigmoid([logit])[0]
        assert label == ("1_fake" in path)


def test_scores_survive_the_csv_to_the_last_bit(tmp_path):
    logits = np.random.default_rng(0).normal(0, 60, 2000).astype(np.float32)
    numbers = enumerate(zip(sigmoid(logits), logits, strict=True))
    rows = [(f"{n}.png", "g", 1, score, logit) for n, (score, logit) in numbers]
    write_scores(tmp_path / "scores.csv", rows)
    assert [row[3:] for row in read_scores(tmp_path / "scores.csv")] == [row[3:] for row in rows]


def test_scores_saved_again_by_a_spreadsheet_are_read_by_their_meaning(weights, tree, capsys):
    root = tree(["a"])
    evaluate(weights, root)
    path = results() / "scores.csv"
    before = read_scores(path)
    lines = [[*row, "note"] for row in csv.reader(path.read_text().splitlines())]
    text = "\n".join(";".join([label, *more[::-1]]) for *more, label in (row[::-1] for row in lines))
    path.write_text("\ufeff" + text.replace("0.", "0,").replace(",png", ".png") + "\n", encoding="utf-8")
    assert read_scores(path) == before
    evaluate(weights, root, "--resume")
    assert "1 generators had their scores already" in capsys.readouterr().out


def test_a_results_folder_in_use_by_another_evaluation_is_refused(weights, tree):
    root = tree(["a"])
    with owned(Path("results/toy/tree")), pytest.raises(UserError, match="results/toy/tree"):
        evaluate(weights, root, "--name", "toy")
    evaluate(weights, root, "--name", "toy")


@pytest.mark.parametrize("names", [("0_real", "1_fake"), ("nature", "ai"), ("real", "fake")])
def test_layouts_give_the_same_table(weights, tree, names):
    evaluate(weights, tree(["g"], names=names, count=5))
    labels = {row[0]: row[2] for row in read_scores(results() / "scores.csv")}
    assert {label for path, label in labels.items() if names[1] in path.split("/")} == {1}
    assert sum(labels.values()) == 5


def test_batches_and_workers_do_not_change_scores(weights, tree):
    root = tree(["a", "b"], count=4)
    rng = np.random.default_rng(3)
    for number, size in enumerate([(31, 40), (64, 33), (40, 40)]):
        toy_image(rng, True, size).save(root / "a" / "1_fake" / f"x{number}.png")
    evaluate(weights, root, "--no_resize", "--no_crop", "--batch_size", "1", "--name", "one")
    evaluate(
        weights, root, "--no_resize", "--no_crop", "--batch_size", "9", "--num_threads", "2", "--name", "many"
    )
    one, many = (read_scores(Path("results", name, "tree", "scores.csv")) for name in ("one", "many"))
    assert [row[:3] for row in one] == [row[:3] for row in many]
    np.testing.assert_allclose([row[4] for row in one], [row[4] for row in many], rtol=1e-5, atol=1e-6)


def test_a_second_run_needs_resume_or_overwrite(weights, tree, capsys):
    root = tree(["a", "b"])
    evaluate(weights, root)
    with pytest.raises(ValueError, match="--resume"):
        evaluate(weights, root)
    before = (results() / "scores.csv").read_bytes()
    evaluate(weights, root, "--resume")
    assert "2 generators had their scores already" in capsys.readouterr().out
    assert (results() / "scores.csv").read_bytes() == before
    evaluate(weights, root, "--overwrite")
    assert (results() / "scores.csv").read_bytes() == before


def test_another_threshold_needs_no_scoring_and_the_last_one_is_recorded(weights, tree, capsys):
    root, printed = tree(["a", "b"]), []
    for threshold, flags in (("0.3", ()), ("0.6", ("--resume",))):
        evaluate(weights, root, "--threshold", threshold, *flags)
        printed.append(json.loads((results() / "meta.json").read_text())["printed"])
    assert "2 generators had their scores already" in capsys.readouterr().out
    assert [part["threshold"] for part in printed] == [0.3, 0.6]
    assert printed[0]["published"] is None


def test_resume_refuses_scores_of_other_weights_input_or_files(weights, tree):
    root = tree(["a"])
    evaluate(weights, root, "--name", "n")
    with pytest.raises(ValueError, match=r"geometry\.crop_size"):
        evaluate(weights, root, "--name", "n", "--resume", "--no_crop")
    with pytest.raises(ValueError, match="network: there fused, now published order"):
        evaluate(weights, root, "--name", "n", "--resume", "--no_fuse")
    shutil.copy(root / "a" / "0_real" / "0.png", root / "a" / "0_real" / "new.png")
    with pytest.raises(ValueError, match=r"files\.a"):
        evaluate(weights, root, "--name", "n", "--resume")
    torch.manual_seed(1)
    torch.save(Toy().state_dict(), "other.pth")
    with pytest.raises(ValueError, match="checkpoint_sha256"):
        evaluate("other.pth", root, "--name", "n", "--resume")


def test_an_interrupted_evaluation_keeps_finished_generators_and_resumes_to_the_same_files(
    weights, tree, monkeypatch
):
    root = tree(["a", "b", "c"])
    evaluate(weights, root, "--name", "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(run.Interrupted, match="--resume"):
            evaluate(weights, root, "--name", "broken")
    broken, whole = Path("results/broken/tree"), Path("results/whole/tree")
    assert list(json.loads((broken / "meta.json").read_text())["finished"]) == ["a"]
    evaluate(weights, root, "--name", "broken", "--resume")
    for name in ("scores.csv", "table.csv"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_one_sided_folder_gives_nan_with_the_reason_and_leaves_the_mean(weights, tree, capsys):
    root = tree(["a", "b"])
    shutil.rmtree(root / "b" / "0_real")
    evaluate(weights, root)
    rows = table(results())
    assert math.isnan(float(rows["b"]["acc"])) and math.isnan(float(rows["b"]["ap"]))
    assert rows["b"]["reason"].startswith("no real images; recall ")
    assert rows["Mean"]["acc"] == rows["a"]["acc"]
    assert rows["Mean"]["reason"] == "mean over 1 of 2"
    assert "mean over 1 of 2" in capsys.readouterr().out


def test_a_bad_image_stops_by_default_with_its_path(weights, tree):
    root = tree(["a"])
    (root / "a" / "1_fake" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/1_fake/1\.png"):
        evaluate(weights, root)


def test_a_run_that_stopped_before_its_first_result_does_not_stand_in_the_way(weights, tree):
    root = tree(["a"])
    (root / "a" / "1_fake" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="--on_bad_image"):
        evaluate(weights, root)
    evaluate(weights, root, "--on_bad_image", "skip")


def test_skipped_images_are_counted_listed_and_never_replaced(weights, tree, capsys):
    root = tree(["a"])
    (root / "a" / "1_fake" / "1.png").write_bytes(b"")
    evaluate(weights, root, "--on_bad_image", "skip")
    paths = [row[0] for row in read_scores(results() / "scores.csv")]
    assert len(paths) == len(set(paths)) == 5
    assert json.loads((results() / "meta.json").read_text())["bad_files"] == {"a/1_fake/1.png": "empty file"}
    out = capsys.readouterr().out
    assert "1 bad images were left out" in out
    assert "a/1_fake/1.png: empty file" in out
    assert "1 bad images left out" in (results() / "table.md").read_text()


def test_a_huge_native_image_is_refused_with_its_size_or_cropped_on_request(weights, tree):
    root = tree(["a"])
    Image.new("RGB", (400, 300)).save(root / "a" / "0_real" / "huge.png")
    flags = ["--no_resize", "--no_crop", "--max_input_mpx", "0.05"]
    with pytest.raises(ValueError, match="400x300"):
        evaluate(weights, root, *flags)
    evaluate(weights, root, *flags, "--large_images", "crop", "--name", "cropped")
    assert len(read_scores(Path("results/cropped/tree/scores.csv"))) == 7


def test_own_checkpoints_bring_their_geometry_and_flags_override_it(weights, tree):
    from options import TrainOptions

    opt = TrainOptions().parse(["--arch", "toy", "--no_resize", "--cropSize", "24", "--name", "mine"])
    checkpoint.save("mine.pth", Toy(), options=vars(opt))
    root = tree(["a"])
    evaluate("mine.pth", root)
    meta = Path("results/mine/tree/meta.json")
    assert json.loads(meta.read_text())["input"] == "stored size, centre crop 24"
    evaluate("mine.pth", root, "--loadSize", "64", "--no_crop", "--overwrite")
    assert json.loads(meta.read_text())["input"] == "resize 64x64, no crop"


FORENSYNTHS = ["progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "deepfake"]


def test_the_published_test_command_runs_unchanged(make_weights, tree, capsys):
    make_weights(NPRDetector, "NPR.pth")
    root = tree(FORENSYNTHS[1:], name="datasets/Generalization_Test/ForenSynths_test", count=1)
    for category in ("airplane", "bird"):  # ProGAN is published with a folder per category
        shutil.copytree(root / "deepfake", root / "progan" / category)
    test_script.main(["--model_path", "./NPR.pth", "--batch_size", "64"])
    folder = results("ForenSynths")
    rows = table(folder)
    assert list(rows) == [
        "ProGAN",
        "StyleGAN",
        "StyleGAN2",
        "BigGAN",
        "CycleGAN",
        "StarGAN",
        "GauGAN",
        "Deepfake",
        "Mean",
    ]
    assert rows["ProGAN"]["images"] == "4"
    assert json.loads((folder / "meta.json").read_text())["input"] == "resize 256x256, no crop"
    assert "not found, left out:\nGANGen-Detection: " in capsys.readouterr().out


def test_generators_that_are_not_there_are_named_and_left_out_of_the_mean(weights, tree, capsys):
    root = tree(FORENSYNTHS[:3], name="ForenSynths", count=1)
    evaluate(weights, root.parent, "--protocols", "ForenSynths", script=test_script)
    assert "no folder in" in capsys.readouterr().out
    rows = table(results("ForenSynths"))
    assert rows["Deepfake"]["reason"] == "no images"
    assert rows["Mean"]["reason"] == "mean over 3 of 8"


def test_another_benchmark_that_shares_one_folder_name_is_not_taken_for_forensynths(weights, tree):
    root = tree(["biggan", "adm", "glide"], name="genimage", count=1)
    with pytest.raises(ValueError, match="--dataroot"):
        evaluate(weights, root, "--protocols", "ForenSynths", script=test_script)


def test_a_folder_without_images_is_an_error_and_no_table(weights, tree):
    root = tree(["a"], count=0)
    with pytest.raises(ValueError, match="no images below"):
        evaluate(weights, root)


def test_a_folder_without_label_folders_is_named(weights, tree, capsys):
    root = tree(["a", "biggan/Reals"])
    shutil.move(root / "biggan" / "Reals" / "0_real" / "0.png", root / "biggan" / "0.png")
    shutil.rmtree(root / "biggan" / "Reals")
    evaluate(weights, root)
    assert "folder without label folders (biggan)" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["no meta", "empty meta", "list meta", "no scores", "short scores"])
def test_a_damaged_results_folder_is_neither_resumed_nor_replaced_unasked(weights, tree, damage):
    root = tree(["a"])
    evaluate(weights, root)
    meta, scores = results() / "meta.json", results() / "scores.csv"
    text = scores.read_text()
    if damage == "no meta":
        meta.unlink()
    elif damage == "no scores":
        scores.unlink()
    elif damage.endswith("meta"):
        meta.write_text("[]" if damage.startswith("list") else "")
    else:
        scores.write_text(text[: text.index("a/1_fake/1")])
    with pytest.raises(ValueError, match="--overwrite"):
        evaluate(weights, root)
    with pytest.raises(ValueError, match=r"(meta\.json|scores\.csv)"):
        evaluate(weights, root, "--resume")
    evaluate(weights, root, "--overwrite")
    assert scores.read_text() == text


def test_a_weight_file_cannot_name_a_results_folder_elsewhere(weights, tree, tmp_path):
    checkpoint.save("evil.pth", Toy(), options={"name": "../../elsewhere"})
    evaluate("evil.pth", tree(["a"]))
    assert not (tmp_path.parent / "elsewhere").exists()
    assert results().parent.name.startswith("evil-")


def test_a_protocol_that_is_not_there_is_named_with_what_was_looked_for(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="progan"):
        evaluate(weights, "empty", "--protocols", "ForenSynths", script=test_script)


def test_classes_pick_rows_of_a_protocol_and_a_wrong_one_is_refused(weights, tree):
    root = tree(FORENSYNTHS, name="ForenSynths", count=1)
    evaluate(weights, root, "--classes", "biggan,ProGAN", script=test_script)
    assert list(table(results("ForenSynths"))) == ["ProGAN", "BigGAN", "Mean"]
    with pytest.raises(ValueError, match="BigGAN"):
        evaluate(weights, root, "--classes", "bigan", script=test_script)


def test_every_protocol_has_its_rows_once():
    for row in protocols.PROTOCOLS.values():
        names = [name for generator in row.generators for name in generator.folders]
        assert len(names) == len(set(names))
        assert row.source


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real samples are not at hand")
def test_a_real_mixture_of_formats_and_sizes_is_scored_whole(weights):
    root = SAMPLES / "wild-mini"
    evaluate(weights, root, "--classes", "cifake_32,gan_singles", "--no_resize", "--cropSize", "64")
    with open(root / "index.csv", newline="") as file:
        expected = {
            row["path"] for row in csv.DictReader(file) if row["generator"] in ("cifake_32", "gan_singles")
        }
    assert {row[0] for row in read_scores(results("wild-mini") / "scores.csv")} == expected


META_DAMAGE = [
    ("counts", None),
    ("finished", ["a"]),
    ("finished", {"a": {}}),
    ("bad_files", None),
    ("views", []),
    ("views", {"web": None}),
    ("protocol_row", []),
    ("printed", None),
    ("printed", {"threshold": "x"}),
    ("printed", {"reals_from": 3}),
    ("notes", 3),
    ("checkpoint_sha256", None),
]


@pytest.mark.parametrize(("key", "value"), META_DAMAGE)
def test_an_entry_of_meta_json_that_is_not_of_its_kind_is_named(tmp_path, key, value):
    (tmp_path / "meta.json").write_text(json.dumps({key: value}))
    with pytest.raises(UserError, match=rf"meta\.json is damaged .*{key}"):
        read_meta(tmp_path)


SCORE_DAMAGE = {
    "nan": "b,a,1,nan,0.0\n",
    "infinite": "b,a,1,0.5,inf\n",
    "text": "b,a,1,hello,0.0\n",
    "third class": "b,a,2,0.5,0.0\n",
    "negative class": "b,a,-1,0.5,0.0\n",
    "cut off": "b,a,1\n",
    "twice": "a,a,0,0.5,0.0\n",
    "endless": f'"{"b" * 200_000}",a,1,0.5,0.0\n',
}


@pytest.mark.parametrize("row", SCORE_DAMAGE.values(), ids=SCORE_DAMAGE)
def test_a_row_of_scores_that_would_make_wrong_numbers_is_refused(tmp_path, row):
    path = tmp_path / "scores.csv"
    path.write_text("path,generator,label,score,logit\na,a,0,0.5,0.0\n" + row)
    with pytest.raises(UserError, match=r"scores\.csv is damaged"):
        read_scores(path)
