"""tools/matrix.py: a detector on every training set of a protocol; scripts/train_val.sh and test.sh."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, JobsInThisProcess, make_tree

from common import UserError
from data import protocols, published
from experiments import cells
from experiments.cells import Experiment
from tools import matrix
from util.results import read_scores, write_scores

NAMES = ("nature", "ai")
FOLDERS = {  # GenImage's original names; images per class in the test folder
    "imagenet_midjourney": 2,
    "imagenet_ai_0419_sdv4": 3,
    "imagenet_ai_0508_adm": 2,
}
SMALL = (40, 40)
TRAIN = "--niter 1 --batch_size 4 --cropSize 32 --no_resize --num_threads 0 --device cpu --amp off"
TEST = "--num_threads 0 --device cpu"
SSP_FLAGS = (
    "--ssp_upscale 33 --lr_policy step --no_pretrained --niter 1 --batch_size 4 --num_threads 0 --device cpu "
    "--amp off"
)


def make_images(root):
    """Three generators of GenImage below root/GenImage, 4 + 4 images each to train."""
    for number, (folder, count) in enumerate(FOLDERS.items()):
        place = root / "GenImage"
        make_tree(place, [f"{folder}/train"], NAMES, count=4, size=(40 + 2 * number, 40))
        make_tree(place, [f"{folder}/val"], NAMES, count=count, size=SMALL)
    return root


def flags_of(root, *more):
    """A call of the tool for npr on the images of root."""
    words = ["--arch", "npr", "--dataroot", root, "--output", root / "out"]
    words += [f"--train_flags={TRAIN}", f"--test_flags={TEST}", "--jobs", "1", *more]
    return [str(word) for word in words]


def long_rows(root):
    with open(root / "out" / "matrix.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_of(text, title="Accuracy in percent"):
    """[[trained on, method, number, ...]] of one Markdown table, heading first."""
    part = text.partition(f"## {title}\n\n")[2].partition("\n\n")[0].splitlines()
    return [[word.strip() for word in line.strip("|").split("|")] for line in part if "---" not in line]


def refused(*words):
    with pytest.raises(UserError) as told:
        matrix.main([str(word) for word in words])
    assert "\n" not in str(told.value)
    return str(told.value)


# --- end to end


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two training sets and three test sets, really trained and tested."""
    root = make_images(tmp_path_factory.mktemp("done"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "Jobs", JobsInThisProcess)
        matrix.main(flags_of(root, "--train_on", "midjourney", "imagenet_ai_0419_sdv4"))
    return root


def by_hand(path):
    """{generator: accuracy} of a scores.csv, and over all its images: slow and independent."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            (one["generator"], (float(one["score"]) > 0.5) == (one["label"] == "1"))
            for one in csv.DictReader(file)
        ]
    groups = {name: [right for other, right in rows if other == name] for name, _ in rows}
    groups["Mean"] = [right for _, right in rows]
    return {name: sum(group) / len(group) for name, group in groups.items()}


def test_cells_are_those_of_scores_csv_and_the_mean_is_over_images(done):
    ours = [row for row in long_rows(done) if row["method"] == "ours"]
    for name in ("Midjourney", "SDv1.4"):
        found = {row["test_on"]: float(row["acc"]) for row in ours if row["train_on"] == name}
        path = done / "out" / "tests" / f"{name}-seed42" / "GenImage-SSP" / "scores.csv"
        expected = by_hand(path)
        assert len(read_scores(path)) == 14
        assert found == pytest.approx(expected)
        assert list(found) == ["Midjourney", "SDv1.4", "ADM", "Mean"]
    assert {row["seed"] for row in ours} == {"42"}
    assert all(0 <= float(row["ap"]) <= 1 for row in ours)


def test_each_was_trained_on_its_own_set(done):
    for name in ("Midjourney", "SDv1.4"):
        saved = json.loads((done / "out" / "runs" / f"{name}-seed42" / "opt.json").read_text())
        assert (saved["classes"], saved["protocol"], saved["seed"]) == ([name], "GenImage-SSP", 42)
        meta = json.loads(
            (done / "out" / "tests" / f"{name}-seed42" / "GenImage-SSP" / "meta.json").read_text()
        )
        assert meta["checkpoint"] == "model_epoch_best.pth"


def test_the_table_has_ours_above_the_published_rows_of_the_same_set(done):
    text = (done / "out" / "matrix.md").read_text()
    heading, *rows = table_of(text)
    assert heading == [
        "trained on",
        "method",
        *(g.name for g in protocols.get("GenImage-SSP").generators),
        "Mean",
    ]
    assert [row[:2] for row in rows] == [
        ["Midjourney", "ours"],
        ["Midjourney", "SSP-MJ"],
        ["Midjourney", "ResNet50-MJ"],
        ["SDv1.4", "ours"],
        ["SDv1.4", "SSP"],
        ["SDv1.4", "ResNet50"],
    ]
    assert rows[1][2:] == "**93.6** 91.0 90.9 84.2 94.8 89.8 90.3 63.7 87.4".split()
    assert rows[5][2:] == "54.9 **99.9** 99.7 53.5 61.9 98.2 56.2 52.0 72.1".split()
    values = {
        (row["train_on"], row["test_on"]): float(row["acc"])
        for row in long_rows(done)
        if row["method"] == "ours"
    }
    for row in (rows[0], rows[3]):
        expected = {name: values.get((row[0], name)) for name in heading[2:]}
        shown = {name: "-" if value is None else f"{100 * value:.1f}" for name, value in expected.items()}
        shown[row[0]] = f"**{shown[row[0]]}**"
        assert row[2:] == list(shown.values())
        assert row.count("-") == 5
    assert [row[:2] for row in table_of(text, "AP in percent")[1:]] == [
        ["Midjourney", "ours"],
        ["SDv1.4", "ours"],
    ]


def test_the_notes_say_what_was_done(done):
    text = (done / "out" / "matrix.md").read_text()
    expected = (
        "no images to test on: SDv1.5, GLIDE, Wukong,",
        "mean of ours: over all images; mean over 3 of 8",
        "the best on 10 % of the training images",
        "--niter 1 --batch_size 4",
        "SSP chose its epoch on",
        "README of SSP",
        "--classes Midjourney,SDv1.4,",
    )
    for words in expected:
        assert words in text
    assert "select_on_test" not in text
    assert "Mean" not in text.partition("no images")[2].splitlines()[0]


def test_running_again_trains_nothing_and_says_the_same(done, monkeypatch, capsys):
    before = {name: (done / "out" / name).read_bytes() for name in ("matrix.md", "matrix.csv", "results.csv")}
    monkeypatch.setattr(Experiment, "work", pytest.fail)
    matrix.main(flags_of(done, "--train_on", "SDV4,Midjourney", "--test_on", "all"))
    assert "2 finished" in capsys.readouterr().out
    assert before == {name: (done / "out" / name).read_bytes() for name in before}


def test_print_only_shows_what_is_finished_without_the_flags_of_training(done, capsys):
    before = {path: path.stat().st_mtime_ns for path in (done / "out").rglob("*")}
    matrix.main(["--arch", "npr", "--print_only", "--output", str(done / "out"), "--train_on", "adm"])
    said = capsys.readouterr().out
    lines = [row[:2] for row in table_of(said)]
    for pair in (["ADM", "ours"], ["ADM", "SSP-ADM"], ["SDv1.4", "ours"], ["Midjourney", "ours"]):
        assert pair in lines
    assert "not trained and tested here yet: ADM" in said
    assert "--niter 1" in said
    assert before == {path: path.stat().st_mtime_ns for path in (done / "out").rglob("*")}


def test_a_folder_of_another_detector_or_protocol_is_refused(done):
    told = refused(*flags_of(done, "--arch", "cnndet", "--train_flags=--niter 1"))
    assert "train: " in told
    show = ("--print_only", "--output", done / "out")
    assert "holds npr on GenImage-SSP" in refused(*show, "--arch", "ssp")
    told = refused(*show, "--arch", "npr", "--protocol", "GenImage-NPR")
    assert "holds npr on GenImage-SSP" in told
    assert "train: " in refused(*flags_of(done, "--train_flags", "--lr 0.1"))
    assert "test: " in refused(*flags_of(done, "--test_on", "adm"))


# --- with cells that only pretend


@pytest.fixture
def go(tmp_path, monkeypatch):
    """go(flags...) runs the tool with cells that only leave scores; `go.worked`: those, `go.failing`."""
    make_images(tmp_path)
    monkeypatch.setattr("experiments.cells.POLL_SECONDS", 0.02)

    def work(one, cell, _execute):
        call.worked.append(cell.name)
        if cell.name in call.failing:
            raise UserError("no luck today")
        rng = np.random.default_rng(cell.seed)
        rows = [
            (f"{name}{number}.png", name, number % 2, np.float32(rng.random()), 0.0)
            for name, count in (("SDv1.4", 4), ("ADM", 40))
            for number in range(count)
        ]
        place = one.tests / cell.name / next(iter(one.test_roots))
        place.mkdir(parents=True)
        write_scores(place / "scores.csv", rows)
        facts = {"parameters": 1, "epochs": 1, "description": "pretended", "GenImage/ADM/acc": 0.5}
        one.ledger.record(cell, status="finished", **facts, train_seconds=1.0, test_seconds=1.0)

    def call(*more):
        matrix.main(flags_of(tmp_path, *more))
        return (tmp_path / "out" / "matrix.md").read_text()

    call.worked, call.failing = [], set()
    monkeypatch.setattr(Experiment, "work", work)
    return call


def test_several_seeds_are_averaged_and_kept_apart_in_the_csv(go, tmp_path):
    text = go("--train_on", "adm", "--seeds", "1,2,3")
    assert go.worked == ["ADM-seed1", "ADM-seed2", "ADM-seed3"]
    found = {
        seed: by_hand(tmp_path / "out" / "tests" / f"ADM-seed{seed}" / "GenImage-SSP" / "scores.csv")
        for seed in "123"
    }
    rows = [row for row in long_rows(tmp_path) if row["method"] == "ours"]
    assert {(row["seed"], row["test_on"]): float(row["acc"]) for row in rows} == pytest.approx(
        {(seed, name): value for seed, one in found.items() for name, value in one.items()}
    )
    heading, mine, *_ = table_of(text)
    assert mine[1] == "ours, mean of 3 seeds"
    shown = dict(zip(heading[2:], mine[2:], strict=True))
    for name in ("SDv1.4", "Mean"):
        assert shown[name] == f"{100 * np.mean([one[name] for one in found.values()]):.1f}"
    assert shown["ADM"].strip("*") == f"{100 * np.mean([one['ADM'] for one in found.values()]):.1f}"


def test_the_mean_is_over_generators_where_the_protocol_says_so(go, tmp_path):
    text = go("--train_on", "adm", "--protocol", "GenImage-NPR")
    assert go.worked == ["ADM-seed70"]  # the seed of that row
    found = by_hand(tmp_path / "out" / "tests" / "ADM-seed70" / "GenImage-NPR" / "scores.csv")
    mine = table_of(text)[1]  # SDv1.4 is no column there
    assert mine[-1] == f"{100 * found['ADM']:.1f}"
    assert "mean of ours: mean over 1 of 7" in text


def test_another_training_set_joins_the_same_folder(go):
    go("--train_on", "sdv4")
    text = go("--train_on", "midjourney")
    assert go.worked == ["SDv1.4-seed42", "Midjourney-seed42"]
    assert [row[0] for row in table_of(text)[1:] if row[1] == "ours"] == ["Midjourney", "SDv1.4"]
    go("--train_on", "sdv4", "--overwrite")
    assert go.worked[2:] == ["SDv1.4-seed42"]


def test_a_failed_cell_is_told_and_tried_again(go, tmp_path):
    go.failing = {"ADM-seed42"}
    with pytest.raises(SystemExit, match="1 cells"):
        go("--train_on", "adm", "sdv4")
    text = (tmp_path / "out" / "matrix.md").read_text()
    assert "failed: ADM-seed42: no luck today" in text
    assert next(row for row in table_of(text) if row[:2] == ["ADM", "ours"])[2:] == ["-"] * 9
    go.failing = set()
    assert "* failed" not in go("--train_on", "adm", "sdv4")
    assert go.worked == ["SDv1.4-seed42", "ADM-seed42", "ADM-seed42"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--train_flags", f"{TRAIN} --select_on_test"), "the best on the test images (--select_on_test)"),
        (("--train_flags", f"{TRAIN} --val_fraction 0.25"), "the best on 25 % of the training images"),
        (("--checkpoint", "last"), "epoch of ours: the last one"),
        (("--checkpoint", "last", "--train_flags", f"{TRAIN} --val_split none"), "the last one"),
    ],
)
def test_the_table_says_how_the_epoch_was_chosen(go, flags, told):
    assert told in go("--train_on", "sdv4", *flags)


def test_the_published_mean_stands_only_beside_all_generators(go):
    text = go("--train_on", "sdv4", "--test_on", "imagenet_ai_0508_adm", "SDv1.4")
    heading, _, theirs, _ = table_of(text)
    assert heading[2:] == ["SDv1.4", "ADM", "Mean"]
    assert theirs[2:] == ["**99.4**", "87.4", "-"]


# --- what is refused before training


@pytest.mark.parametrize("flag", ["--train_on", "--test_on"])
@pytest.mark.parametrize("asked", ["sdv6", ",", "all,sdv4"])
def test_an_unknown_set_is_refused_with_the_list(go, flag, asked):
    with pytest.raises(UserError, match=rf"^{flag}: .*Midjourney"):
        go(flag, asked)
    assert go.worked == []


def test_every_spelling_means_the_same_set():
    row = protocols.get("genimage-ssp")
    for one in row.training:
        for part in ("train", "test"):
            for name in (one.name, *one.aliases, one.name.upper()):
                assert matrix.chosen(row, [name], part) == [one.name]
    everything = [one.name for one in row.generators]
    assert matrix.chosen(row, ["ALL"], "train") == everything
    assert matrix.chosen(row, ["BigGAN,adm", "sdv4"], "train") == ["SDv1.4", "ADM", "BigGAN"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--protocol", "GANGen-Detection"), "ForenSynths, GenImage-NPR"),
        (("--protocol", "GenImage-SPS"), "'GenImage-SPS'"),
        (("--train_flags", "--niter 1 --itern 2"), "--itern 2"),
        (("--train_flags", "--classes=sdv4 --seed 1"), "--classes, --seed of train.py"),
        (("--test_flags", "--protocols DFIG"), "--protocols of test.py"),
        (("--test_flags", "--lr 0.1"), "test.py: --lr"),
        (("--train_flags", f"{TRAIN} --val_split none"), "checkpoint best"),
        (("--dataroot", "nowhere"), "nowhere"),
        (("--train_on", "glide"), "imagenet_glide"),
        (("--train_on", "sdv4", "--test_on", "glide", "VQDM"), "VQDM"),
    ],
)
def test_what_cannot_work_is_refused_before_training(go, flags, told):
    with pytest.raises(UserError) as refusal:
        go(*flags)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert go.worked == []


WRONG = (
    "--seeds 1,1",
    "--seeds x",
    "--seeds -1",
    "--gpus ,",
    "--gpus 0,1 --jobs 3",
    "--arch nrp",
    "--overwrite --print_only",
    '--train_flags "\'"',
)


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_value_exits_with_status_2(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        matrix.main(shlex.split(flags))
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in refused("--print_only", "--output", tmp_path)


# --- published rows


def test_print_only_on_nothing_prints_the_published_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matrix.main(["--print_only"])
    said = capsys.readouterr().out
    rows = table_of(said)[1:]
    methods = [row[1] for row in rows]
    assert methods[:6] == ["SSP-MJ", "ResNet50-MJ", "SSP", "ResNet50", "SSP-SDv1.5", "ResNet50-SDv1.5"]
    assert len(methods) == 16
    numbers = {
        (row["method"], row["generator"]): row["acc"]
        for row in published._rows()
        if row["protocol"] == "GenImage-SSP"
    }
    order = [*(one.name for one in protocols.get("GenImage-SSP").generators), "Mean"]
    for _, method, *shown in rows:
        assert [cell.strip("*") for cell in shown] == [numbers[method, name] for name in order]
    assert "AP in percent" not in said
    assert list(tmp_path.iterdir()) == []


def test_published_methods_are_told_by_their_training_set():
    row = protocols.get("GenImage-SSP")
    found = {name: matrix.trained_on(name, row) for name in published.methods(row.slug)}
    assert found["SSP-MJ"] == found["ResNet50-MJ"] == "Midjourney"
    assert found["SSP"] == found["ResNet50"] == "SDv1.4"
    assert found["SSP-rerun"] is found["NPR-rerun"] is None
    assert sorted(filter(None, found.values())) == sorted(2 * [one.name for one in row.training])
    others = {
        (slug, name): which
        for slug, row in protocols.PROTOCOLS.items()
        if slug != "GenImage-SSP"
        for name in published.methods(slug)
        if row.train_places
        if (which := matrix.trained_on(name, row))
    }
    assert others == {("GenImage-NPR", "NPR"): "SDv1.4"}


# --- scripts


@pytest.mark.slow
def test_the_two_scripts_train_and_test_ssp_from_any_folder(tmp_path):
    make_images(tmp_path)
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def bash(script, *flags):
        command = ["bash", str(ROOT / "scripts" / script), "--dataroot", str(tmp_path), *map(str, flags)]
        run = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    bash("train_val.sh", *SSP_FLAGS.split(), "--checkpoints_dir", tmp_path)
    saved = json.loads((tmp_path / "ssp-sdv4" / "opt.json").read_text())
    assert (saved["arch"], saved["protocol"], saved["seed"]) == ("ssp", "GenImage-SSP", 42)
    assert saved["classes"] == ["imagenet_ai_0419_sdv4"]
    weights = tmp_path / "ssp-sdv4" / "model_epoch_best.pth"
    said = bash("test.sh", "--model_path", weights, "--results_dir", tmp_path / "results", *shlex.split(TEST))
    assert "pub. acc" in said
    rows = read_scores(tmp_path / "results" / "ssp-sdv4" / "GenImage-SSP" / "scores.csv")
    assert len(rows) == 2 * sum(FOLDERS.values())


@pytest.mark.parametrize("script", ["train_val", "test"])
def test_a_script_passes_flags_on_after_its_own(script, tmp_path):
    words = tmp_path / "words"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\npwd >{words}; printf "%s\\n" "$@" >>{words}\n')
    python.chmod(0o755)
    command = ["bash", os.path.relpath(ROOT / "scripts" / f"{script}.sh", tmp_path), "--name", "a b"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHON": str(python)}, check=True)
    folder, *given = words.read_text().splitlines()
    assert Path(folder) == ROOT
    assert given[-2:] == ["--name", "a b"]
