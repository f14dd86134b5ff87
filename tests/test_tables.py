"""Tables: fixed width, Markdown and CSV."""

import csv
import math

import numpy as np
import pytest

from util import tables
from util.metrics import PUBLISHED, tabulate

GENERATORS = ["progan"] * 4 + ["a"] * 2
SCORES = np.array([0.1, 0.2, 0.8, 0.9, 0.7, 0.4], np.float32)


@pytest.fixture
def rows():
    return tabulate(GENERATORS, [0, 0, 1, 1, 0, 1], SCORES)


@pytest.fixture
def one_sided():
    return tabulate(GENERATORS, [0, 0, 1, 1, 1, 1], SCORES)


def test_lines_of_text_become_a_table_of_fixed_width():
    lines = [["name", "count", "what"], ["a", "1,000", "first"], ["bcdef", "2", ""]]
    assert tables.fixed_width(lines, "lrl").splitlines() == [
        "name   count  what",
        "-------------------",
        "a      1,000  first",
        "bcdef      2",
    ]
    assert tables.fixed_width(lines, "lrl", summary=True).splitlines()[3:] == [
        "-------------------",
        "bcdef      2",
    ]


def test_lines_of_text_become_markdown():
    lines = [["name", "count"], ["a", "1,000"]]
    assert tables.markdown(lines).splitlines() == ["| name | count |", "| :-- | --: |", "| a | 1,000 |"]
    assert tables.markdown(lines, padded=True).splitlines() == [
        "| name | count |",
        "| :--- | ----: |",
        "| a    | 1,000 |",
    ]


def test_results_on_the_terminal(rows):
    assert tables.results(rows).splitlines() == [
        "generator  acc %   AP %  real %  fake %  AUC %  images",
        "------------------------------------------------------",
        "progan     100.0  100.0   100.0   100.0  100.0       4",
        "a            0.0   50.0     0.0     0.0    0.0       2",
        "------------------------------------------------------",
        "Mean        50.0   75.0    50.0    50.0   50.0       6",
    ]


def test_missing_numbers_are_dashes_with_their_reason(one_sided):
    assert tables.results(one_sided).splitlines() == [
        "generator  acc %   AP %  real %  fake %  AUC %  images  note",
        "------------------------------------------------------------------------",
        "progan     100.0  100.0   100.0   100.0  100.0       4",
        "a              -      -       -    50.0      -       2  no real images",
        "------------------------------------------------------------------------",
        "Mean       100.0  100.0   100.0   100.0  100.0       6  mean over 1 of 2",
    ]


def test_results_in_markdown(one_sided):
    assert tables.results_markdown(one_sided).splitlines() == [
        "| generator | acc % | AP % | real % | fake % | AUC % | images | note |",
        "| :-- | --: | --: | --: | --: | --: | --: | :-- |",
        "| progan | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 4 |  |",
        "| a | - | - | - | 50.0 | - | 2 | no real images |",
        "| Mean | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 6 | mean over 1 of 2 |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.92449, "92.4"), (0.9996, "100.0"), (0.0, "0.0"), (1.0, "100.0")]
)
def test_percentages_have_one_decimal_and_empty_columns_are_left_out(value, text):
    row = {"generator": "a", "acc": value, "images": 7000, "reason": ""}
    lines, sides = tables.as_text([row])
    assert lines == [["generator", "acc %", "images"], ["a", text, "7,000"]] and sides == "lrr"


def test_the_csv_has_every_column_and_fractions_at_full_precision(tmp_path):
    labels, scores = [0, 0, 0, 1, 1, 1, 1], np.array([0.1, 0.7, 0.6, 0.7, 0.8, 0.2, 0.6], np.float32)
    rows = tabulate(["a"] * 7, labels, scores)
    tables.write_results(tmp_path, rows, "caption")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    published = "published_acc,diff_acc,published_ap,diff_ap"
    assert ",".join(read[0]) == f"generator,acc,ap,r_acc,f_acc,auc,images,{published},reason"
    assert [row["generator"] for row in read] == ["a", "Mean"]
    for got, row in zip(read, rows, strict=True):
        assert {name: float(got[name]) for name in PUBLISHED} == {name: row[name] for name in PUBLISHED}
        assert int(got["images"]) == row["images"]


def test_missing_numbers_of_the_csv_read_back_as_nan(tmp_path, one_sided):
    tables.write_results(tmp_path, one_sided, "caption")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[1]
    assert math.isnan(float(row["acc"])) and float(row["f_acc"]) == 0.5 and row["reason"] == "no real images"


def test_a_results_folder_gets_two_tables_the_markdown_with_its_caption(tmp_path, rows):
    tables.write_results(tmp_path, rows, "ForenSynths: 256x256, größer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.md"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text == f"{tables.results_markdown(rows)}\n\nForenSynths: 256x256, größer\n"


def test_a_generators_name_cannot_break_the_markdown_table(rows):
    rows[0]["generator"] = "pro|gan"
    lines = tables.results_markdown(rows).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_latex_is_escaped():
    text = tables.latex([["a_b & <c>", "diff %"], ["x~^\\{}#$", "-1.5"]], "lr")
    assert r"a\_b \& \textless{}c\textgreater{} & diff \% \\" in text
    assert r"x\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\#\$ & $-$1.5 \\" in text
    assert text.startswith(r"\begin{tabular}{lr}") and r"\midrule" in text
