"""tools.audit: finds a label in file headers where it is, and none where it is not."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data.decode import read
from data.inspection import header
from data.perturb import parse_view
from tools import audit


def picture(rng, height=24, width=32):
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_set(root, real, fake, number=60, generators=("g",), size=lambda rng: (24, 32)):
    """A folder of pictures; real, fake: save options with the suffix, as {"suffix": ".png", ...}."""
    rng = np.random.default_rng(0)
    for generator in generators:
        for name, options in (("0_real", real), ("1_fake", fake)):
            folder = root / generator / name
            folder.mkdir(parents=True)
            for index in range(number):
                rest = {key: value for key, value in options.items() if key != "suffix"}
                picture(rng, *size(rng)).save(folder / f"{index}{options['suffix']}", **rest)
    return root


def run(capsys, root, *flags):
    audit.main(["--dataroot", str(root), "--num_threads", "0", *flags])
    return capsys.readouterr().out


def audited(root, capsys, tmp_path, *flags):
    run(capsys, root, "--output", str(tmp_path / "audit"), "--overwrite", *flags)
    return json.loads((tmp_path / "audit" / "audit.json").read_text())


PNG, JPEG = {"suffix": ".png"}, {"suffix": ".jpg", "quality": 90}


@pytest.mark.parametrize(
    "real, fake, feature",
    [
        (JPEG, PNG, "container"),
        (JPEG, {"suffix": ".jpg", "quality": 75}, "quality"),
        (JPEG, {**JPEG, "subsampling": 0}, "chroma"),
        (JPEG, {**JPEG, "progressive": True}, "progressive"),
        (PNG, {**PNG, "pnginfo": PngImagePlugin.PngInfo()}, None),
    ],
)
def test_a_label_in_the_header_is_found_and_nothing_else(tmp_path, capsys, real, fake, feature):
    result = audited(make_set(tmp_path / "set", real, fake), capsys, tmp_path)
    areas = {row["feature"]: row["auc"] for row in result["features"]}
    if feature is None:
        assert result["generators"][0]["verdict"] == "healthy"
        return
    assert areas[feature] > 0.99 and areas[audit.TOGETHER] > 0.95
    assert result["generators"][0]["verdict"] == "leak"
    assert areas["width"] == areas["mode"] == 0.5


def test_the_aligned_view_makes_the_format_constant(tmp_path, capsys):
    root = make_set(tmp_path / "set", JPEG, PNG, size=lambda rng: (24, int(rng.integers(20, 40))))
    result = audited(root, capsys, tmp_path, "--view", "aligned")
    areas = {row["feature"]: row["auc"] for row in result["features"]}
    for name in ("container", "mode", "quality", "quantisation", "chroma", "progressive", "metadata", "text"):
        assert areas[name] == 0.5, name
    assert result["view"].startswith("jpeg:96")


@pytest.mark.slow
def test_shuffled_labels_are_no_leak():
    rng = np.random.default_rng(0)
    records = [
        {
            "container": rng.choice(["PNG", "JPEG"]),
            "width": int(rng.integers(64, 2000)),
            "bytes": float(rng.random()),
            "label": index % 2,
            "generator": "g",
            "folder": str(index % 2),
            "path": str(index),
            "digest": str(index),
        }
        for index in range(120)
    ]
    areas = []
    for seed in range(50):
        labels = np.random.default_rng(seed).permutation([record["label"] for record in records])
        shuffled = [{**record, "label": int(label)} for record, label in zip(records, labels, strict=True)]
        areas.append(audit.areas_of(shuffled)[audit.TOGETHER])
    assert max(areas) < audit.HEALTHY  # no false alarm, not even "look into it"
    assert abs(np.mean(areas) - 0.5) < 0.05


def test_copies_of_a_file_do_not_make_a_leak():
    """Each real and each fake ten times: a classifier that saw a copy would know the rest."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(20):
        value = float(rng.random())
        about = {"label": index % 2, "generator": "g", "folder": "f", "path": "p", "digest": str(index)}
        records += [{"bytes": value, **about}] * 10
    assert audit.areas_of(records)["bytes"] < audit.HEALTHY


def test_a_rule_that_holds_inside_folders_only_is_no_leak():
    """Six folders per class, each with a size of its own, and no rule over folders."""
    records = []
    for folder in range(12):
        for index in range(20):
            about = {"label": folder % 2, "generator": "g", "folder": str(folder), "path": "p"}
            records.append({"width": (folder * 7) % 12, **about, "digest": f"{folder}-{index}"})
    assert audit.areas_of(records)["width"] < audit.LEAK
    for record in records:
        record["folder"] = "one"
    assert audit.areas_of(records)["width"] > audit.LEAK


def test_a_small_set_that_gives_the_label_away_is_named():
    rows = [
        {"generator": name, "reals": count, "fakes": count, "auc": auc}
        for name, count, auc in (("big", 60, 0.6), ("small", 9, 1.0), ("fair", 9, 0.5))
    ]
    words = audit.conclusion(rows, parse_view("native"))
    assert words.startswith("Healthy") and "small" in words and "fair" not in words


def test_few_files_have_no_verdict(tmp_path, capsys):
    root = make_set(tmp_path / "set", JPEG, PNG, number=20)
    assert "No verdict" in run(capsys, root)


def test_a_feature_without_an_auc_decides_nothing(tmp_path, capsys):
    """All reals of a generator are one file: no split has reals on both sides."""
    root = make_set(tmp_path / "set", JPEG, PNG, generators=("copies", "fine"), number=60)
    for path in (root / "copies" / "0_real").iterdir():
        path.write_bytes((root / "copies" / "0_real" / "0.jpg").read_bytes())
    (copies, fine, _), out = audited(root, capsys, tmp_path)["generators"], run(capsys, root)
    assert np.isnan(copies["auc"]) and "equal" in copies["verdict"] and copies["best_auc"] == 0.5
    assert fine["verdict"] == "leak" and "1 of 1 (fine)" in out
    shutil.rmtree(root / "fine")
    assert "No verdict" in run(capsys, root) and "equal" in run(capsys, root)


def test_scores_that_follow_the_quality_are_seen(tmp_path, capsys):
    rng = np.random.default_rng(0)
    root, rows = tmp_path / "set", [["path", "generator", "label", "score", "logit"]]
    for label, name in enumerate(("0_real", "1_fake")):
        (root / name).mkdir(parents=True)
        for index in range(30):
            quality = int(rng.integers(40, 96))
            picture(rng).save(root / name / f"{index}.jpg", quality=quality)
            score = quality / 100 if label == 0 else rng.random()
            rows.append([f"{name}/{index}.jpg", "set", label, score, score])
    with open(tmp_path / "scores.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    result = audited(root, capsys, tmp_path, "--scores", str(tmp_path / "scores.csv"))
    quality = next(row for row in result["scores"] if row["feature"] == "quality")
    assert quality["real"] > 0.99 and abs(quality["fake"]) < 0.5


def test_what_it_leaves_and_what_it_refuses(tmp_path, capsys):
    root = make_set(tmp_path / "set", JPEG, PNG, number=6)
    (root / "g" / "0_real" / "broken.png").write_bytes(b"\x89PNG\r\n")
    result = audited(root, capsys, tmp_path)
    assert [path.endswith("broken.png") for path in result["unreadable"]] == [True]
    assert {path.name for path in (tmp_path / "audit").iterdir()} == set(audit.FILES)
    for flags in (["--output", str(tmp_path / "audit")], ["--view", "jpg:5"]):
        with pytest.raises(SystemExit) as error:
            run(capsys, root, *flags)
        assert error.value.code == 2
    with pytest.raises(ValueError, match="each"):
        run(capsys, make_set(tmp_path / "one", JPEG, PNG, number=1))
    with pytest.raises(ValueError, match="each"):
        run(capsys, make_set(tmp_path / "reals", JPEG, {**JPEG, "suffix": ".txt", "format": "JPEG"}))


# ----- headers -----


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 90, 96, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(tmp_path, quality):
    picture(np.random.default_rng(0)).save(tmp_path / "x.jpg", quality=quality)
    assert header(read(tmp_path / "x.jpg"))["quality"] == quality


def test_header_says_what_a_file_is(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat, Steps: 20, Sampler: Euler a")
    picture(np.random.default_rng(0)).convert("P").save(tmp_path / "x.png", pnginfo=info)
    facts = header(read(tmp_path / "x.png"))
    size = (tmp_path / "x.png").stat().st_size
    expected = {"container": "PNG", "mode": "P", "width": 32, "height": 24, "bytes": size, "quality": 0}
    expected |= {"chroma": "none", "text": "yes", "generator named": "yes", "bytes per pixel": size / 768}
    assert expected.items() <= facts.items()


def test_a_view_writes_its_own_container():
    image = picture(np.random.default_rng(0))
    image.info["comment"] = b"made by a generator"
    for view, container, quality in (
        ("aligned", "JPEG", 96),
        ("blur:1+webp:80", "WEBP", 0),
        ("blur:1", "PNG", 0),
    ):
        facts = header(parse_view(view).file(image))
        assert (facts["container"], facts["quality"], facts["text"]) == (container, quality, "no")
