"""The weights of this repository: made by one command, tracked, and with numbers that recompute."""

import csv
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import predict
from common import read_table
from networks import checkpoint
from util import calibrate
from util.results import read_scores

PARTS = {"train": (6, 6), "calibrate": (3, 3)}  # images of each class

WEIGHTS = checkpoint.SHIPPED["open"]
SCORES = WEIGHTS.parent / "results" / "open" / "Open-Test"


def test_a_photo_gets_an_answer_without_a_download(tmp_path, capsys):
    photograph(np.random.default_rng(0), 0).save(tmp_path / "a b.jpg")
    predict.main([str(tmp_path / "a b.jpg"), "--device", "cpu", "--num_threads", "0"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.endswith("a b.jpg")]
    assert line.split()[1] in ("real", "fake", "unsure") and 0 <= float(line.split()[0]) <= 1
    assert "evidence" in "".join(lines)
    assert WEIGHTS.stat().st_size <= 6_000_000


@pytest.mark.parametrize("view", ["", ".aligned", ".web"])
def test_the_numbers_of_the_card_are_those_of_its_scores(view):
    rows = read_scores(SCORES / f"scores{view}.csv")
    assert len(rows) == 465 + 546 == len({row[0] for row in rows})
    labels, scores = (np.array([row[place] for row in rows]) for place in (2, 3))
    reals, fakes = scores[labels == 0], scores[labels == 1]
    above = np.mean((fakes[:, None] > reals) + 0.5 * (fakes[:, None] == reals))
    (table,) = [
        row
        for row in read_table(SCORES / f"table{view}.csv", ("generator", "auc", "r_acc", "f_acc"))
        if row["generator"] == "unseen"
    ]
    assert float(table["auc"]) == pytest.approx(above)
    card = (WEIGHTS.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{100 * above:.1f}" in card
    threshold = json.loads((SCORES / "meta.json").read_text())["printed"]["threshold"]
    for name, share in (("r_acc", np.mean(reals <= threshold)), ("f_acc", np.mean(fakes > threshold))):
        assert float(table[name]) == pytest.approx(share)
        assert f"{100 * share:.1f}" in card


def photograph(rng, label):
    """Smooth noise of 264 px; fakes are enlarged."""
    side = 264 if label == 0 else 132
    image = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
    return image.resize((side, side), Image.Resampling.BICUBIC).resize((264, 264), Image.Resampling.NEAREST)


@pytest.fixture
def manifest(tmp_path):
    """A manifest and a git copy of its images."""
    folder, rng, rows = tmp_path / "mirror" / "me+pictures" / "repo", np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for part, counts in PARTS.items():
        for label, count in enumerate(counts):
            for number in range(count):
                path = folder / f"{part}-{label}-{number}.png"
                photograph(rng, label).save(path)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                rows.append({"path": path.name, "sha256": digest, "label": label, "part": part})
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "pictures"), ("rev-parse", "HEAD")):
        command = ["git", "-C", folder, *identity, *words]
        commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with open(tmp_path / "m.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["repo", "commit", "path", "sha256", "label", "part", "generator", "pixel_state"]
        )
        writer.writeheader()
        writer.writerows({"repo": "me/pictures", "commit": commit, "generator": "x", **row} for row in rows)
    return tmp_path / "m.csv"


@pytest.mark.slow
def test_one_command_makes_the_weights_from_a_manifest_and_resumes(manifest, tmp_path):
    pytest.importorskip("safetensors")
    short = {
        "MANIFEST": manifest,
        "MIRROR": tmp_path / "mirror",
        "DATA": tmp_path / "data",
        "RUNS": tmp_path / "runs",
        "WITH": "upsampler",
        "PAIRS": "4",
        "TRAIN": "--niter 2 --warmup 1 --epoch_images 32 --batch_size 16 --num_threads 0 --device cpu",
        "CALIBRATE": "--num_threads 0 --device cpu",
        "PYTHON": sys.executable,
    }
    command = ["bash", str(ROOT / "scripts" / "train_open.sh")]
    environment = {**os.environ, **{name: str(value) for name, value in short.items()}}
    for _ in range(2):
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    loaded = checkpoint.load(tmp_path / "runs" / "open" / "open.safetensors")
    assert (loaded.options["crops"], loaded.options["niter"]) == (5, 2)
    assert calibrate.of(loaded).fitted_on["views"] == ["native", "aligned", "web"]
    assert len(list((tmp_path / "data" / "aligned" / "train" / "pairs").rglob("*.png"))) == 8
