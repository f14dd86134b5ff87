"""--views of val.py, test.py and predict.py: what they score, leave, resume, print and refuse."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import evaluate, results
from PIL import Image

import predict
import test as test_script
import val
from data.folder import RealFakeFolder, discover, scan
from data.perturb import parse_view, parse_views
from data.transforms import Geometry
from util import views
from util.metrics import measure
from util.results import read_scores

SEVERAL = "native,aligned,noise:3,crop:0.75+jpeg:50"


def logits(path):
    return {row[0]: float(row[4]) for row in read_scores(path)}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_several_views_of_an_image_are_the_views_taken_one_at_a_time(tree):
    root = tree(["a", "b"], size=(40, 33))
    found, chosen = scan(root, discover(root)), parse_views(SEVERAL)
    together = RealFakeFolder(found, Geometry(None, 24), seed=5, views=chosen)
    for index in range(len(together)):
        items = together[index]
        assert [item["index"] for item in items] == [index * 4 + number for number in range(4)]
        for view, item in zip(chosen, items, strict=True):
            single = RealFakeFolder(found, Geometry(None, 24), seed=5, views=(view,))[index]
            assert torch.equal(item["image"], single["image"])
            with Image.open(root / found.samples[index].path) as stored:
                seen = Geometry(None, 24).evaluation_view(view(stored.convert("RGB"), (5, index)))
            np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), np.asarray(seen))


@pytest.mark.parametrize("script", [val, test_script])
def test_each_view_leaves_the_scores_of_images_that_were_degraded_beforehand(weights, tree, script, tmp_path):
    root = tree(["biggan", "stargan"], "ForenSynths", size=(40, 33))
    flags = ["--protocol_file", "own.yaml"] if script is test_script else []
    Path("own.yaml").write_text("{slug: Own, generators: [biggan, stargan], roots: [.]}")
    evaluate(weights, root, "--classes", "biggan,stargan", "--views", "native,jpeg:50", *flags, script=script)
    folder = next(Path("results").glob("*/*"))
    for path in root.rglob("*.png"):
        image = parse_view("jpeg:50")(Image.open(path).convert("RGB"))
        degraded = tmp_path / "done" / "ForenSynths" / path.relative_to(root)
        degraded.parent.mkdir(parents=True, exist_ok=True)
        image.save(degraded)
    flags += ["--classes", "biggan,stargan", "--name", "done"]
    evaluate(weights, degraded.parents[2], *flags, script=script)
    expected = logits(next(Path("results/done").glob("*/scores.csv")))
    assert logits(folder / "scores.jpeg-50.csv") == pytest.approx(expected, abs=1e-5)
    assert logits(folder / "scores.csv") != pytest.approx(expected, abs=1e-5)


def test_it_leaves_scores_and_a_table_per_view_and_says_which_is_which(weights, tree, capsys):
    evaluate(weights, tree(["a", "b"]), "--views", "web+noise:2,native")
    folder, slug = results(), "fit-768_jpeg-60_noise-2"
    assert names(folder) == {
        *("scores.csv", "table.csv", "table.md", "meta.json", "views.csv"),
        *(f"scores.{slug}.csv", f"table.{slug}.csv", f"table.{slug}.md"),
    }
    meta = json.loads((folder / "meta.json").read_text())
    record = meta["views"]["fit:768+jpeg:60+noise:2"]
    assert record["file"] == f"scores.{slug}.csv" and record["chain"].startswith("fit:768:bicubic+jpeg:60")
    assert set(record["finished"]) == set(meta["finished"]) == {"a", "b"}
    out = capsys.readouterr().out
    assert "view native" in out and "change" in out


def test_an_evaluation_without_views_leaves_what_it_always_left(weights, tree):
    evaluate(weights, tree(["a"]))
    assert names(results()) == {"scores.csv", "meta.json", "table.csv", "table.md"}
    assert "views" not in json.loads((results() / "meta.json").read_text())


def test_resume_scores_only_the_views_and_generators_that_are_missing(weights, tree, monkeypatch):
    root = tree(["a", "b"])
    evaluate(weights, root, "--views", "native", "--classes", "a")
    first = (results() / "scores.csv").read_text()
    scored = []
    original = RealFakeFolder._item
    monkeypatch.setattr(
        RealFakeFolder, "_item", lambda self, *args: scored.append((self, args)) or original(self, *args)
    )
    evaluate(weights, root, "--views", "native,web", "--resume")
    done = [(part.samples[args[2] // len(part.views)].generator, args[1].name) for part, args in scored]
    assert set(done) == {("a", "web"), ("b", "native"), ("b", "web")}
    assert (results() / "scores.csv").read_text().startswith(first)
    evaluate(weights, root, "--views", "web,native", "--name", "whole")
    for name in ("scores.csv", "scores.web.csv"):
        whole = logits(Path("results/whole/tree") / name)
        assert logits(results() / name) == pytest.approx(whole, abs=1e-5)


def test_an_image_that_only_a_view_makes_too_small_is_missing_there_only(weights, tree, capsys):
    root = tree(["a"], size=(32, 32))
    Image.new("RGB", (4, 4)).save(root / "a" / "0_real" / "tiny.png")
    flags = ("--no_resize", "--no_crop", "--on_bad_image", "skip", "--views", "native,crop:0.5")
    evaluate(weights, root, *flags)
    paths = {name: set(logits(results() / name)) for name in ("scores.csv", "scores.crop-0.5.csv")}
    assert paths["scores.csv"] - paths["scores.crop-0.5.csv"] == {"a/0_real/tiny.png"}
    meta = json.loads((results() / "meta.json").read_text())
    assert not meta["bad_files"] and set(meta["views"]["crop:0.5"]["bad_files"]) == {"a/0_real/tiny.png"}
    assert "crop:0.5" in capsys.readouterr().out


def test_a_broken_file_is_missing_under_every_view(weights, tree):
    root = tree(["a"])
    (root / "a" / "0_real" / "broken.png").write_bytes(b"no image")
    evaluate(weights, root, "--on_bad_image", "skip", "--views", "native,web")
    meta = json.loads((results() / "meta.json").read_text())
    assert set(meta["bad_files"]) == set(meta["views"]["web"]["bad_files"]) == {"a/0_real/broken.png"}


def test_predict_takes_one_view(weights, tree, capsys):
    root = tree(["a"])
    evaluate(weights, root, "--views", "jpeg:50")
    argv = ["--model_path", str(weights), "--input", str(root), "--num_threads", "0", "--device", "cpu"]
    predict.main([*argv, "--views", "jpeg:50", "--output", "out.csv"])
    with open("out.csv", newline="") as file:
        found = {
            Path(row["path"]).relative_to(root).as_posix(): float(row["logit"])
            for row in csv.DictReader(file)
        }
    assert found == pytest.approx(logits(results() / "scores.jpeg-50.csv"), abs=1e-5)
    with pytest.raises(SystemExit):
        predict.main([*argv, "--views", "native,web"])
    assert "--views" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--views", "jpg:50"), "jpeg"),
        (("--views", ""), "native"),
        (("--views", "native", "--jpeg", "50"), "--views"),
        (("--blur", "1"), "--views"),
        (("--jpg_qual", "90"), "--views"),
        (("--metrics", "accuracy"), "bal_acc"),
        (("--threshold", "1.5"), "0 to 1"),
        (("--ci", "5"), "50"),
    ],
)
def test_what_cannot_be_is_refused(weights, tree, capsys, flags, word):
    with pytest.raises(SystemExit) as stopped:
        evaluate(weights, tree(["a"]), *flags)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_expect_is_refused_with_views(weights, tree, capsys):
    with pytest.raises(SystemExit):
        evaluate(weights, tree(["biggan"]), "--expect", "issue4", "--views", "web", script=test_script)
    assert "--views" in capsys.readouterr().err


# ----- tables -----


def table(folder, name="table.csv"):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def test_columns_threshold_and_order_are_those_asked_for(weights, tree):
    root = tree(["a", "b", "c"], count=8)
    flags = ("--metrics", "tpr5,bal_acc,brier", "--threshold", "0.7", "--order", "worst", "--ci", "95")
    evaluate(weights, root, *flags)
    rows = table(results())
    scores = read_scores(results() / "scores.csv")
    *generators, mean = rows
    for row in generators:
        own = [(label, score) for _, name, label, score, _ in scores if name == row["generator"]]
        labels, values = map(np.array, zip(*own, strict=True))
        expected = measure(labels, values, ("tpr5", "bal_acc", "brier"), threshold=0.7)
        assert {name: float(row[name]) for name in ("tpr5", "bal_acc", "brier")} == pytest.approx(
            {name: expected[name] for name in ("tpr5", "bal_acc", "brier")}
        )
        assert float(row["bal_acc_low"]) <= float(row["bal_acc"]) <= float(row["bal_acc_high"])
        assert row["acc"] == ""
    values = [float(row["tpr5"]) for row in generators]
    assert values == sorted(values) and mean["generator"] == "Mean"
    assert float(mean["bal_acc_low"]) <= float(mean["bal_acc"]) <= float(mean["bal_acc_high"])


def test_the_summary_has_means_spread_lowest_and_flips(weights, tree):
    root = tree(["a", "b"], count=8)
    evaluate(weights, root, "--views", "native,gamma:3", "--threshold", "0.4")
    rows = {row["view"]: row for row in table(results(), "views.csv")}
    before, after = (
        {row[0]: (row[2], row[3] > 0.4) for row in read_scores(results() / name)}
        for name in ("scores.csv", "scores.gamma-3.csv")
    )
    for label, column in enumerate(("r_flips", "f_flips")):
        changed = [before[path] != after[path] for path in before if before[path][0] == label]
        assert float(rows["gamma:3"][column]) == pytest.approx(sum(changed) / len(changed))
    native = {row["generator"]: row for row in table(results())}
    seen = {row["generator"]: row for row in table(results(), "table.gamma-3.csv")}
    values = [float(seen[name]["bal_acc"]) for name in "ab"]
    assert float(rows["gamma:3"]["std"]) == pytest.approx(np.std(values))
    assert float(rows["gamma:3"]["min"]) == min(values)
    assert float(rows["gamma:3"]["bal_acc_drop"]) == pytest.approx(
        float(seen["Mean"]["bal_acc"]) - float(native["Mean"]["bal_acc"])
    )


def test_generators_without_a_number_come_after_the_worst():
    rows = [
        {"generator": name, "acc": value}
        for name, value in [("a", 0.9), ("b", math.nan), ("c", 0.2), ("Mean", 0.5)]
    ]
    assert [row["generator"] for row in views.worst_first(rows)] == ["c", "a", "b", "Mean"]


def test_only_lossless_leaves_lossy_files_out_and_says_where_too_few_are_left(weights, tree, capsys):
    root = tree(["a", "b"], count=22)
    for path in sorted((root / "b" / "0_real").glob("*.png"))[:5]:
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    Image.open(root / "a" / "0_real" / "0.png").convert("RGB").save(
        root / "a" / "0_real" / "x.webp", quality=80
    )
    Image.open(root / "a" / "0_real" / "0.png").convert("RGB").save(
        root / "a" / "0_real" / "y.webp", lossless=True
    )
    evaluate(weights, root, "--only", "lossless")
    rows = {row["generator"]: row for row in table(results())}
    assert (rows["a"]["images"], rows["b"]["images"]) == ("45", "39")
    assert rows["b"]["acc"] == rows["b"]["f_acc"] == "nan" and "17" in rows["b"]["reason"]
    assert rows["Mean"]["acc"] == rows["a"]["acc"] != "nan"
    paths = {row[0] for row in read_scores(results() / "scores.csv")}
    assert "a/0_real/y.webp" in paths and not any(path.endswith(".jpg") for path in paths)
    assert "6 of lossy containers" in capsys.readouterr().out
    with pytest.raises(ValueError, match="files"):
        evaluate(weights, root, "--resume")


def test_a_prediction_is_resumed_under_its_own_view_only(weights, tree):
    argv = [
        "--model_path",
        str(weights),
        "--input",
        str(tree(["a"])),
        "--num_threads",
        "0",
        "--device",
        "cpu",
    ]
    predict.main([*argv, "--views", "hard", "--output", "out.csv"])
    with pytest.raises(ValueError, match="view"):
        predict.main([*argv, "--output", "out.csv", "--resume"])


def test_one_generator_of_an_earlier_evaluation_is_measured_and_calibrated_alone(weights, tree):
    root = tree(["a", "b"], count=8)
    evaluate(weights, root)
    evaluate(weights, root, "--classes", "a", "--resume", "--ci", "95", "--calibrate")
    side = json.loads(Path(f"{weights}.calibration.json").read_text())
    assert side["fitted_on"]["images"] == 16
    assert {row["generator"] for row in table(results())} == {"a", "Mean"}


def test_several_views_have_the_same_scores_with_and_without_workers(weights, tree):
    root = tree(["a", "b"])
    for workers in "02":
        evaluate(weights, root, "--views", "native,noise:5,web", "--num_threads", workers, "--name", workers)
    for name in ("scores.csv", "scores.noise-5.csv", "scores.web.csv"):
        assert Path("results/0/tree", name).read_bytes() == Path("results/2/tree", name).read_bytes()


def test_overwrite_with_other_views_leaves_no_file_of_the_old_ones(weights, tree):
    root = tree(["a"])
    evaluate(weights, root, "--views", "native,web")
    evaluate(weights, root, "--views", "hard", "--overwrite")
    names = {path.name for path in results().iterdir()}
    assert names == {"meta.json", "scores.hard.csv", "table.hard.csv", "table.hard.md"}
