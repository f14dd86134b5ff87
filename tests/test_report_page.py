"""tools.report: the numbers of its page, what is safe in it, and what it refuses."""

import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_script
from common import UserError
from data.folder import Sample
from networks import checkpoint
from tools import audit
from tools.report import evaluation
from tools.report.__main__ import main
from util.identity import file_list_sha256
from util.results import sigmoid, write_scores

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tables as lists of rows, headings, links and images of a page whose tags are all closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tables, self.headings, self.sources, self.images = [], [], [], [], []
        self.text = Path(path).read_text(encoding="utf-8")
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            self.images.append(attrs["alt"])
        if tag == "th":
            assert attrs["scope"] in ("row", "col")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"th", "td"} & {*self.open}:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def folder(tmp_path):
    """folder(logits of generators, views, **meta): a results folder without tables."""

    def make(generators, name="Set", views=(), **meta):
        place = tmp_path / "results" / "run" / name
        place.mkdir(parents=True)
        rows = [
            (f"{name}/{number}.png", name, label, sigmoid([logit])[0], np.float32(logit))
            for name, labelled in generators.items()
            for number, (label, logit) in enumerate(labelled)
        ]
        done = {
            "finished": {
                name: {"images": len(rows), "files_sha256": ""} for name, rows in generators.items()
            },
            "bad_files": {},
        }
        counts = {
            name: [sum(row[0] == label for row in rows) for label in (0, 1)]
            for name, rows in generators.items()
        }
        write_scores(place / "scores.csv", rows)
        for view in views:
            write_scores(place / f"scores.{view}.csv", rows)
        known = {"protocol": name, "checkpoint": "w.pth", "checkpoint_sha256": "0" * 64, "counts": counts}
        others = {view: {"file": f"scores.{view}.csv", "chain": "c", **done} for view in views}
        (place / "meta.json").write_text(json.dumps(known | done | {"views": others} | meta))
        return place

    return make


BOTH = [(0, -2.0), (0, -1.0), (0, 0.5), (1, 2.0), (1, 1.0), (1, -0.5)]


def page(tmp_path, *words):
    output = tmp_path / "report.html"
    main([*map(str, words), "-o", str(output)])
    return Page(output)


def test_numbers_are_those_of_the_tables_that_test_py_wrote(make_weights, tree, tmp_path):
    weights = make_weights()
    root = tree(["nearest", "bilinear", "bicubic", "transposed", "pixelshuffle"])
    flags = ["--model_path", weights, "--dataroot", root, "--protocols", "Sample", "--num_threads", "0"]
    more = ["--views", "native,web", "--metrics", "acc,bal_acc,ap", "--ci", "95", "--device", "cpu"]
    test_script.main([*map(str, flags), *more, "--name", "run"])
    place = Path("results/run/Sample")
    output = ["--model_path", weights, "--dataroot", root, "--images", "1", "--latex", tmp_path / "tex"]
    seen = page(tmp_path, place, *output)
    with open(place / "table.csv") as file, open(place / "table.web.csv") as other:
        native, web = list(csv.DictReader(file)), list(csv.DictReader(other))
    table = [dict(zip(seen.tables[0][0], line, strict=True)) for line in seen.tables[0][1:]]
    assert [row["generator"] for row in table] == [row["generator"] for row in native]
    for row, first, second in zip(table, native, web, strict=True):
        low, high = (100 * float(first[f"bal_acc_{side}"]) for side in ("low", "high"))
        assert row["native %"] == f"{100 * float(first['bal_acc']):.1f}"
        assert row["web %"] == f"{100 * float(second['bal_acc']):.1f}"
        assert row["95 % interval"] == f"{low:.1f} to {high:.1f}"
    with open(tmp_path / "tex" / "run-Sample-accuracy.csv") as file:
        written = list(csv.DictReader(file))
    assert [row["native"] for row in written] == [row["bal_acc"] for row in native]
    assert (tmp_path / "tex" / "run-Sample-views.tex").read_text().count(r" \\") == 3
    meta = json.loads((place / "meta.json").read_text())
    assert meta["checkpoint_sha256"] in seen.text and html.escape(meta["environment"]["argv"]) in seen.text
    assert "NPR map" in seen.images and seen.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))


def test_a_page_needs_no_network_and_escapes_names(folder, tmp_path):
    name = '<b>"&'
    bad = {"bad_files": {"<i>.png": "truncated"}}
    seen = page(tmp_path, folder({name: BOTH, "x": BOTH}, views=["web"], **bad))
    assert "&lt;i&gt;.png: truncated" in seen.text
    assert "<b>" not in seen.text
    assert name in [line[0] for line in seen.tables[0]]
    assert all(source.startswith(("data:image/", "#")) for source in seen.sources)
    assert not re.search(r"<script|<link|@import|url\(", seen.text)
    assert len(seen.images) == 4 and all(seen.images)  # robustness, ROC, precision-recall, reliability


@pytest.mark.parametrize(("label", "words"), [(1, "recall"), (0, "accuracy of reals")])
def test_a_set_of_one_class_shows_what_it_has(folder, tmp_path, label, words):
    seen = page(tmp_path, folder({"a": [(label, 1.0), (label, -1.0), (label, 2.0), (label, 3.0)]}))
    assert words in seen.text.lower()
    row = dict(zip(*seen.tables[0][:2], strict=True))
    assert row["native %"] == ("75.0" if label else "25.0")


def test_published_numbers_and_calibrated_ones_of_table_csv_are_shown(folder, tmp_path):
    place = folder({"ProGAN": BOTH}, name="ForenSynths")
    (place / "table.csv").write_text("generator,cal_acc\nProGAN,0.75\nMean,0.75\n")
    table = page(tmp_path, place, "--published", "npr").tables[0]
    row = dict(zip(*table[:2], strict=True))
    assert row["calibrated %"] == "75.0" and row["pub. acc"] == "99.8" and row["diff"]


def test_the_choices_of_the_last_tables_hold_unless_others_are_made(folder, tmp_path):
    place = folder({"ProGAN": BOTH}, name="ForenSynths", printed={"threshold": 0.7, "published": None})
    row = dict(zip(*page(tmp_path, place).tables[0][:2], strict=True))
    assert row["native %"] == "83.3" and "pub. acc" not in row  # reals 3 of 3, fakes 2 of 3
    more = ["--threshold", "0.5", "--published", "NPR", "--overwrite"]
    row = dict(zip(*page(tmp_path, place, *more).tables[0][:2], strict=True))
    assert row["native %"] == "66.7" and row["pub. acc"] == "99.8"


def test_fakes_only_have_the_fpr_of_the_reals_that_their_table_had(folder, tmp_path):
    reals = folder({"a": BOTH}, name="Reals", precision="fp32")
    printed = {"threshold": 0.3, "published": None, "reals_from": str(reals)}
    place = folder({"a": [(1, 1.0), (1, -1.0)]}, printed=printed, precision="fp32")
    seen = page(tmp_path, place)
    row = dict(zip(*seen.tables[0][:2], strict=True))
    assert "FPR 33.3% of 3 reals of run/Reals" in row["note"]
    assert dict(zip(*seen.tables[1][:2], strict=True))["FPR %"] == "33.3"
    reals.rename(tmp_path / "elsewhere")
    assert "no FPR of other reals" in page(tmp_path, place, "--overwrite").text


def test_an_unfinished_view_has_no_mean_over_fewer_generators(folder, tmp_path):
    place = folder({"a": BOTH, "b": BOTH[:2] + BOTH[3:5]}, views=["web"])
    lines = (place / "scores.web.csv").read_text().splitlines(keepends=True)
    (place / "scores.web.csv").write_text("".join(lines[:7]))
    meta = json.loads((place / "meta.json").read_text())
    del meta["views"]["web"]["finished"]["b"]
    (place / "meta.json").write_text(json.dumps(meta))
    seen = page(tmp_path, place)
    assert "web %" not in seen.tables[0][0] and "1 of 2 generators" in seen.text


def test_weights_bring_their_calibration(folder, tmp_path, weights):
    digest = checkpoint.load(weights).sha256
    content = {"shift": -1.0, "temperature": 1.0, "threshold": 0.5, "weights_sha256": digest}
    samples = [Sample(f"a/{number}.png", "a", label) for number, (label, _) in enumerate(BOTH)]
    content["fitted_on"] = {"images": 6, "set": "Set", "files_sha256": file_list_sha256(samples)}
    Path(f"{weights}.calibration.json").write_text(json.dumps(content))
    seen = page(tmp_path, folder({"a": BOTH}, checkpoint_sha256=digest), "--model_path", weights)
    assert "optimistic" in seen.text
    row = dict(zip(*seen.tables[0][:2], strict=True))
    assert row["native %"] == "66.7" and row["calibrated %"] == "66.7"
    assert "logit -1.00" in seen.text


def test_verdict_says_what_is_low_what_is_left_and_how_sure(folder):
    place = folder({"good": BOTH[:2] + BOTH[3:5], "bad": [(0, 1.0), (1, 1.0)]}, views=["web"])
    words = " ".join(evaluation.verdict(evaluation.read(place, {})))
    for part in ("75.0 %", "3 real and 3 fake", "bad with 50.0 %", "(web, +0.0 points)", "95 % interval"):
        assert part in words


def test_audit_and_several_results_are_on_one_page(folder, tree, tmp_path):
    audit.main(
        ["--dataroot", str(tree(["a"], count=6)), "--output", str(tmp_path / "au"), "--num_threads", "0"]
    )
    places = [folder({"a": BOTH}, name=name) for name in ("One", "Two")]
    seen = page(tmp_path, places[0].parent, "--audit", tmp_path / "au" / "audit.json")
    assert [line[0] for line in seen.tables[0]] == ["evaluation", "run on One", "run on Two"]
    assert "bytes_per_pixel" in seen.text or "bytes per pixel" in seen.text
    assert places[1].name in seen.text


def test_images_that_are_elsewhere_and_a_missing_package_are_one_line(folder, tmp_path, weights, monkeypatch):
    place = folder({"a": BOTH}, checkpoint_sha256=checkpoint.load(weights).sha256)
    seen = page(tmp_path, place, "--model_path", weights, "--dataroot", tmp_path)
    assert seen.text.count("are not below") == 1

    def missing(*_):
        raise UserError("Grad-CAM needs the package grad-cam: pip install grad-cam")

    monkeypatch.setattr("tools.report.drawings.grad_cam", missing)
    monkeypatch.setattr("tools.report.drawings.located", lambda *_: tmp_path / "x.png")
    pixels = torch.zeros(3, 300, 40, dtype=torch.uint8)
    monkeypatch.setattr("tools.report.drawings.prepared", lambda *_: pixels)
    seen = page(tmp_path, place, "--model_path", weights, "--dataroot", tmp_path, "--overwrite")
    assert seen.text.count("pip install grad-cam") == 1
    assert seen.images.count("NPR map") == 6 and "Grad-CAM" not in seen.images


def damage(place):
    lines = (place / "scores.csv").read_text().splitlines(keepends=True)
    (place / "scores.csv").write_text("".join(lines[:-1]))


REFUSED = {
    "no results": (lambda place, tmp: [tmp / "nothing"], "nothing"),
    "no meta": (lambda place, tmp: (place / "meta.json").unlink() or [place], "meta.json"),
    "lost scores": (lambda place, tmp: damage(place) or [place], "scores.csv"),
    "a folder": (lambda place, tmp: (tmp / "report.html").mkdir() or [place], "folder"),
    "in the way": (lambda place, tmp: (tmp / "report.html").touch() or [place], "--overwrite"),
    "no method": (lambda place, tmp: [place, "--published", "Nobody"], "Nobody"),
    "other audit": (lambda place, tmp: [place, "--audit", place / "meta.json"], "verdict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(folder, tmp_path, case):
    prepare, word = REFUSED[case]
    words = prepare(folder({"a": BOTH}), tmp_path)
    with pytest.raises(UserError, match=word) as refused:
        page(tmp_path, *words)
    assert "\n" not in str(refused.value)


def test_weights_of_other_results_are_refused(folder, tmp_path, weights):
    with pytest.raises(UserError, match="toy"):
        page(tmp_path, folder({"a": BOTH}), "--model_path", weights)
