"""results.csv and what is read out of it: tables, verdicts, answers and the report."""

import math
import re
import sys

import numpy as np
import pandas as pd
import pytest

from common import UserError
from experiments.report import QUESTIONS, answers, by_family, common, summary, verdicts, write_report
from experiments.results import FAILED, FINISHED, FIRST, LAST, Sweep, pandas, write_results

GANS, DIFFUSION = ["ProGAN", "StyleGAN", "BigGAN", "GauGAN"], ["ADM", "SDv1", "GLIDE", "DALLE"]
BOTH = [*GANS, *DIFFUSION]
FAMILIES = {("P", name): "gan" for name in GANS} | {("P", name): "diffusion" for name in DIFFUSION}
SMALL = np.random.default_rng(5).normal(0, 0.002, (3, len(BOTH)))  # noise of three seeds
LEVELS = np.linspace(0.7, 0.9, len(BOTH))


def cell(variant, seed, tested=(), **more):
    """A finished row.  tested: {"protocol/generator/metric": value}."""
    row = dict.fromkeys((*FIRST, *LAST), "")
    row |= {"cell": f"{variant}-seed{seed}", "variant": variant, "seed": seed, "status": FINISHED}
    row |= {"description": f"what {variant} is", "parameters": 1234567, "epochs": 2, "factors": "0.5"}
    return row | dict(tested) | more


def failure(variant, seed, error):
    row = {"cell": f"{variant}-seed{seed}", "variant": variant, "seed": seed}
    return row | {"status": FAILED, "error": error}


def cells(variant, table, generators, metrics=("acc",), **more):
    """Rows of a variant from a table (seeds, generators); every metric has the same numbers."""
    return [
        cell(
            variant,
            100 + number,
            {
                f"P/{name}/{metric}": value
                for name, value in zip(generators, line, strict=True)
                for metric in metrics
            },
            **more,
        )
        for number, line in enumerate(np.asarray(table).tolist())
    ]


@pytest.fixture
def sweep(tmp_path):
    """sweep(rows) -> the Sweep that reads them back."""

    def make(rows):
        write_results(tmp_path / "results.csv", rows)
        return Sweep.read(tmp_path / "results.csv")

    return make


# --- results.csv


def test_what_is_written_is_read(sweep, tmp_path):
    rows = [
        cell("a, b", 1, {"P/x/acc": 0.1 + 0.2, "Q/y z/acc": ""}, error='says "no"', train_seconds=1.5),
        failure("c", 2, "error: größe"),
    ]
    found = sweep(rows).rows
    assert [{name: row.get(name, "") for name in found[0]} for row in rows] == [
        {
            **line,
            **{name: rows[number][name] for name in line if not isinstance(rows[number].get(name, ""), str)},
        }
        for number, line in enumerate(found)
    ]
    assert float(found[0]["P/x/acc"]) == 0.1 + 0.2
    assert (found[0]["variant"], found[0]["error"], found[1]["error"]) == (
        "a, b",
        'says "no"',
        "error: größe",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_columns_have_one_order(sweep, tmp_path):
    sweep([failure("c", 2, "x"), cell("a", 1, {"P/x/acc": 1, "P/w/acc": 1}), cell("a", 2, {"O/x/acc": 1})])
    head = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert head == ",".join([*FIRST, "P/x/acc", "P/w/acc", "O/x/acc", *LAST])


def test_writing_again_replaces_the_file(sweep):
    sweep([cell("a", 1), cell("b", 1)])
    assert [row["variant"] for row in sweep([cell("c", 1)]).rows] == ["c"]


def test_a_sweep_that_was_read_writes_the_same_file(sweep, tmp_path):
    found = sweep([cell("a", 1, {"P/x/acc": 1 / 3}), failure("b", 1, "why")])
    before = (tmp_path / "results.csv").read_bytes()
    write_results(tmp_path / "again.csv", found.rows)
    assert (tmp_path / "again.csv").read_bytes() == before


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "cell,variant,seed,status\n"])
def test_a_csv_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(UserError, match=r"other\.csv"):
        Sweep.read(tmp_path / "other.csv")


def test_failed_rows_are_kept_apart(sweep):
    found = sweep([cell("a", 1, {"P/x/acc": 1}), failure("a", 2, "why"), failure("b", 1, "why")])
    assert found.variants == ["a"]
    assert [row["cell"] for row in found.failed] == ["a-seed2", "b-seed1"]
    assert list(found.values()["a"].index) == [1]
    assert found.factors == {"a": (0.5,)}
    assert found.curves("loss") == {}


# --- views


def test_values_are_a_table_per_variant(sweep):
    rows = [
        cell("b", 7, {"P/x/acc": 0.5, "Q/x/acc": 0.25, "P/x/ap": 1}),
        cell("a", 7, {"P/x/acc": 0.75}),
        cell("b", 3, {"P/x/acc": 1, "Q/x/acc": 0, "P/x/ap": 0.5}),
    ]
    found = sweep(rows)
    assert (found.variants, found.protocols) == (["b", "a"], ["P", "Q"])
    assert found.columns == [("P", "x"), ("Q", "x")]
    values = found.values()
    assert list(values) == ["b", "a"]
    assert values["b"].to_dict("index") == {
        7: {("P", "x"): 0.5, ("Q", "x"): 0.25},
        3: {("P", "x"): 1, ("Q", "x"): 0},
    }
    assert values["a"].loc[7, ("P", "x")] == 0.75
    assert math.isnan(values["a"].loc[7, ("Q", "x")])
    assert found.values("ap")["b"].to_dict("index") == {7: {("P", "x"): 1}, 3: {("P", "x"): 0.5}}
    assert list(found.values("acc", "Q")["b"].columns) == [("Q", "x")]


def test_a_generator_without_a_number_in_any_cell_is_left_out(sweep):
    rows = [cell("a", 1, {"P/x/acc": 0.5, "P/one class/acc": "", "P/one class/r_acc": 1})]
    found = sweep([*rows, cell("b", 1, {"P/x/acc": 0.5, "P/one class/acc": ""})])
    assert found.columns == [("P", "x"), ("P", "one class")]
    assert [list(frame.columns) for frame in found.values().values()] == [[("P", "x")]] * 2
    assert found.values("r_acc")["a"].to_dict("index") == {1: {("P", "one class"): 1}}


def test_a_generator_s_name_may_hold_a_slash(sweep):
    found = sweep([cell("a", 1, {"P/x/y/acc": 0.5, "P/x/acc": 1})])
    assert found.columns == [("P", "x/y"), ("P", "x")]
    assert found.values()["a"].iloc[0].tolist() == [0.5, 1]


def test_curves_are_a_table_per_variant(sweep):
    rows = [
        cell("a", 1, loss="0.7 0.5", val_acc="0.5 1.0"),
        cell("a", 2, loss="0.8 0.25", val_acc="0.6 0.9"),
        cell("b", 1, loss="0.1 0.2 0.3", val_acc=""),
    ]
    curves = sweep(rows).curves("loss")
    assert curves["a"].to_dict("index") == {1: {1: 0.7, 2: 0.5}, 2: {1: 0.8, 2: 0.25}}
    assert curves["b"].to_dict("index") == {1: {1: 0.1, 2: 0.2, 3: 0.3}}
    assert list(sweep(rows).curves("val_acc")) == ["a"]


def test_a_run_that_stopped_early_has_a_shorter_curve(sweep):
    [curve] = sweep([cell("a", 1, loss="3 2 1"), cell("a", 2, loss="3")]).curves("loss").values()
    assert curve.loc[1].tolist() == [3, 2, 1]
    assert curve.loc[2].isna().tolist() == [False, True, True]


def test_factors_are_numbers(sweep):
    rows = [cell("a", 1), cell("three", 1, factors="0.25 0.5 0.75"), cell("window", 1, factors="")]
    assert sweep(rows).factors == {"a": (0.5,), "three": (0.25, 0.5, 0.75), "window": ()}


def test_settings_are_text_and_empty_for_the_plain_detector(sweep):
    rows = [cell("a", 1), cell("b", 1, setting="attention=channel, norm=group"), failure("c", 1, "why")]
    assert sweep(rows).settings == {"a": "", "b": "attention=channel, norm=group"}


def test_scale_weights_are_a_table_per_variant_that_learns_them(sweep):
    rows = [
        cell("a", 1),
        cell("f", 1, scale_weights="0.25:0.400000 0.5:0.600000"),
        cell("f", 2, scale_weights="0.25:0.300000 0.5:0.700000"),
    ]
    [(name, frame)] = sweep(rows).scale_weights().items()
    assert name == "f"
    assert frame.to_dict("index") == {1: {0.25: 0.4, 0.5: 0.6}, 2: {0.25: 0.3, 0.5: 0.7}}


def counted(place, r_acc, f_acc, reals, fakes):
    values = {"acc": 0.5, "r_acc": r_acc, "f_acc": f_acc, "reals": reals, "fakes": fakes}
    return {f"{place}/{name}": value for name, value in values.items()}


def test_confusion_counts_images_over_all_cells(sweep):
    one, two = counted("P/x", 0.9, 0.5, 10, 4), counted("Q/y", 1.0, 0.25, 2, 8)
    found = sweep([cell("a", 1, one | two), cell("a", 2, counted("P/x", 0.8, 0.0, 10, 4)), cell("b", 1, one)])
    assert found.confusion("a").tolist() == [[9 + 2 + 8, 1 + 0 + 2], [2 + 6 + 4, 2 + 2 + 0]]
    assert found.confusion("b").tolist() == [[9, 1], [2, 2]]


def test_confusion_of_a_generator_with_one_class(sweep):
    tested = counted("P/x", 0.5, "", 4, 0) | counted("P/y", 1.0, 0.5, 2, 2)
    assert sweep([cell("a", 1, tested)]).confusion("a").tolist() == [[4, 2], [1, 1]]


def test_an_unknown_protocol_is_refused(sweep):
    with pytest.raises(UserError, match=r"'R'.* P, Q"):
        sweep([cell("a", 1, {"P/x/acc": 1, "Q/x/acc": 1})]).values("acc", "R")


# --- tables by hand


def two_by_two(**more):
    """Two seeds on a GAN of P and a diffusion model of Q."""
    lines = [(0.9, 0.7), (0.8, 0.6)]
    return [
        cell("a", seed, {"P/x/acc": gan, "Q/y/acc": other, "P/x/ap": gan, "Q/y/ap": 1.0}, **more)
        for seed, (gan, other) in enumerate(lines)
    ]


def test_the_summary_by_hand(sweep):
    [(name, row)] = summary(sweep(two_by_two())).iterrows()
    assert name == "a"
    assert row["description"] == "what a is"
    assert row[["parameters", "epochs", "seeds", "generators"]].tolist() == [1234567, 2, 2, 2]
    assert row[["mean", "std", "P", "Q"]].tolist() == pytest.approx([0.75, 0.1 / math.sqrt(2), 0.85, 0.65])
    assert (row["low"], row["high"]) == pytest.approx((0.6, 0.9))


def test_one_protocol_has_no_mean_of_its_own(sweep):
    assert list(summary(sweep(cells("a", [[0.5]], ["x"]))).columns)[-1] == "high"


def test_a_seed_that_failed_counts_no_generator_twice(sweep):
    one = summary(sweep([*two_by_two(), failure("a", 2, "why")])).loc["a"]
    assert (one["seeds"], one["mean"]) == (2, pytest.approx(0.75))


def test_means_per_family_by_hand(sweep):
    rows = [cell("a", 1, {"P/x/acc": 0.5, "P/y/acc": 0.75, "P/z/acc": 0.25, "P/new/acc": 1})]
    families = {("P", "x"): "gan", ("P", "y"): "gan", ("P", "z"): "diffusion", ("P", "new"): ""}
    found = by_family(sweep(rows), families)
    assert found.to_dict("index") == {"a": {"gan": 0.625, "diffusion": 0.25, "other": 1}}


def uneven():
    """Variant b has no number for y in one seed, and none at all for z."""
    rows = cells("a", [[0.5, 0.9, 1], [0.7, 0.7, 1]], ["x", "y", "z"], ("acc", "ap"))
    return rows + cells("b", [[0.6, ""], [0.8, 1]], ["x", "y"], ("acc", "ap"))


def test_means_are_over_the_generators_that_every_cell_has(sweep):
    found = sweep(uneven())
    assert {name: list(frame.columns) for name, frame in common(found.values()).items()} == {
        "a": [("P", "x")],
        "b": [("P", "x")],
    }
    table = summary(found)
    assert table["mean"].tolist() == pytest.approx([0.6, 0.7])
    assert table["generators"].tolist() == [1, 1]
    families = {("P", "x"): "gan", ("P", "y"): "gan", ("P", "z"): "diffusion"}
    assert by_family(found, families).to_dict("index") == {
        "a": {"gan": pytest.approx(0.6)},
        "b": {"gan": pytest.approx(0.7)},
    }


def test_the_report_counts_the_common_generators(sweep, tmp_path):
    write_report(tmp_path, sweep(uneven()), "a", {})
    report = (tmp_path / "report.md").read_text()
    assert re.search(r"the 1 of 3 generators of P .*epochs: 2\.", report)
    assert "| a | 60.0 ± 14.1 " in report and "| b | 70.0 ± 14.1 " in report


def test_a_verdict_per_variant_but_the_reference(sweep):
    rows = cells("a", LEVELS + SMALL, BOTH) + cells("b", LEVELS + 0.05 + SMALL[::-1], BOTH)
    rows += cells("c", LEVELS + SMALL, BOTH)
    better, same = verdicts(sweep(rows), "a")
    assert better.startswith("accuracy, b against a: +5.")
    assert better.endswith(": better")
    assert same.startswith("accuracy, c against a: +0.0")
    assert same.endswith(": within noise")


# --- answers


def told(sweep, rows, number, families=FAMILIES, reference=None):
    """The sentences that answer a question.  reference: by default the variant of the first row."""
    found = answers(sweep(rows), families, reference or rows[0]["variant"])
    assert tuple(question for question, _ in found) == QUESTIONS
    return found[number][1]


def pair(apart, noise=SMALL):
    """Rows of factor 0.25, which is `apart` (one number per generator) from 0.5, and of 0.5."""
    coarse = cells("quarter", LEVELS + np.asarray(apart) + noise[::-1], BOTH, factors="0.25")
    return coarse + cells("half", LEVELS + noise, BOTH, factors="0.5")


def test_factors_with_other_profiles_catch_other_artifacts(sweep):
    first, second = told(sweep, pair([0.1, -0.1, 0, 0, 0.05, 0, 0, 0]), 0)
    assert first.startswith("Yes (")
    assert re.search(r"p = \S+, \S+ if errors", first)
    assert second.startswith("0.25 minus 0.5 runs from -10.")
    assert "points on P/StyleGAN to +" in second
    assert second.endswith("points on P/ProGAN.")


def test_factors_with_equal_profiles_are_within_noise(sweep):
    first, second = told(sweep, pair(np.zeros(8)), 0)
    assert first.startswith("Within noise (")
    assert second.startswith("0.25 minus 0.5 runs from ")


def test_a_better_factor_alone_catches_no_other_artifacts(sweep):
    first, _ = told(sweep, pair(np.full(8, 0.1)), 0)
    assert first.startswith("Within noise (")


def test_equal_numbers_of_every_seed_are_within_noise(sweep):
    first, second = told(sweep, pair(np.zeros(8), noise=np.zeros((3, 8))), 0)
    assert first.startswith("Within noise (")
    assert "p = 1, 1 if" in first
    assert second.startswith("0.25 minus 0.5 runs from +0.0 points on ")


def test_a_bend_of_unequal_size_in_each_seed_is_within_noise_of_the_seeds(sweep):
    bends = np.outer([0.06, 0.03, 0.01], [1, 1, 1, 1, -1, -1, -1, -1])
    first, _ = told(sweep, pair(bends), 0)
    assert first.startswith("Within noise of the seeds (")


@pytest.mark.parametrize(
    "rows",
    [
        cells("half", LEVELS + SMALL, BOTH),
        cells("fused", LEVELS + SMALL, BOTH, factors="0.25 0.5"),
        cells("window", LEVELS + SMALL, BOTH, factors=""),
    ],
    ids=["half", "fused", "window"],
)
def test_without_both_factors_the_first_question_is_not_answered(sweep, rows):
    assert told(sweep, rows, 0) == ["Not answered: needs a variant of factor 0.25 and one of 0.5."]


def test_one_seed_does_not_answer_the_first_question(sweep):
    [said] = told(sweep, pair(np.zeros(8), noise=SMALL[:1]), 0)
    assert said.startswith("Not answered: needs two common seeds")


def test_seeds_that_are_not_common_answer_neither_question_on_factors(sweep):
    rows = pair(np.zeros(8))
    for row in rows[3:]:
        row["seed"] += 50
    assert all(told(sweep, rows, number)[0].startswith("Not answered") for number in (0, 1))


def test_families_that_differ_are_found(sweep):
    [said] = told(sweep, pair([0.06, 0.05, 0.04, 0.05, -0.05, -0.06, -0.05, -0.04]), 1)
    assert said.startswith("Yes; 0.25 against 0.5 gives ")
    bold, seeds = re.search(r", p = (\S+) over generators, (\S+) over seeds\)\.$", said).groups()
    assert 0 < float(bold) < 0.05 and 0 < float(seeds) < 0.05
    assert re.search(r"\+5\.\d points on 4 GANs.*-5\.\d points on 4 diffusion models", said)


def test_the_difference_of_the_families_by_hand(sweep):
    apart = [0.06, 0.04, 0.05, 0.05, -0.02, -0.02, -0.03, -0.01]
    [said] = told(sweep, pair(apart, noise=np.zeros((3, 8))), 1)
    assert re.search(r"\+5\.0 points on 4 GANs.*-2\.0 points on 4 diffusion models .*difference \+7\.0", said)


def test_families_that_do_not_differ_are_within_noise(sweep):
    [said] = told(sweep, pair([0.05, -0.05, 0.03, -0.03, 0.04, -0.05, 0.03, -0.02]), 1)
    assert said.startswith("Within noise; 0.25 against 0.5 gives ")


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ((0.06, -0.02, 0.03), "Within noise of the seeds"),
        ((0.06, -0.05, -0.01), "Within noise"),
        ((0.06, 0.05, 0.055), "Yes"),
    ],
    ids=["unequal", "none on average", "equal"],
)
def test_a_shift_of_one_family_must_be_the_same_in_every_seed(sweep, shifts, verdict):
    shares = np.repeat([1, 0], [len(GANS), len(DIFFUSION)])
    [said] = told(sweep, pair(np.outer(shifts, shares)), 1)
    assert said.startswith(f"{verdict}; 0.25 against 0.5 gives ")


def test_one_seed_does_not_answer_the_second_question(sweep):
    [said] = told(sweep, pair([0.06, 0.05, 0.04, 0.05, -0.05, -0.06, -0.05, -0.04], noise=SMALL[:1]), 1)
    assert said.startswith("Not answered for 0.25: ") and "1 seeds" in said


def test_every_other_factor_is_told_and_corrected_for(sweep):
    rows = pair([0.02, 0.0, 0.01, 0.0, -0.01, 0.0, -0.01, 0.0])
    rows += cells("three quarters", LEVELS + SMALL, BOTH, factors="0.75")
    said = told(sweep, rows, 1)
    assert [line.split("; ")[1][:16] for line in said] == ["0.25 against 0.5", "0.75 against 0.5"]
    assert all(line.endswith(" over seeds, corrected for 2 comparisons).") for line in said)


def test_two_comparisons_double_both_p_values_of_the_families(sweep):
    rows = pair([0.02, 0.0, 0.01, 0.01, -0.01, 0.0, -0.01, 0.0])
    more = cells("three quarters", LEVELS + SMALL, BOTH, factors="0.75")
    ps = [
        re.search(r"p = (\S+) over generators, (\S+) over seeds", told(sweep, lines, 1)[0]).groups()
        for lines in (rows, rows + more)
    ]
    assert [float(p) for p in ps[1]] == pytest.approx([2 * float(p) for p in ps[0]], rel=0.01)


@pytest.mark.parametrize(
    ("families", "counts"),
    [
        (dict.fromkeys(FAMILIES, "upsampler"), "0 GANs and 0 diffusion models"),
        ({}, "0 GANs and 0 diffusion models"),
        ({**FAMILIES, **{("P", name): "rendering" for name in GANS[1:]}}, "1 GANs and 4 diffusion models"),
    ],
)
def test_without_both_families_the_second_question_is_not_answered(sweep, families, counts):
    [said] = told(sweep, pair(np.zeros(8)), 1, families)
    assert said.startswith("Not answered for 0.25") and said.endswith(f" {counts}.")


def test_a_factor_without_both_families_does_not_hide_the_answer_of_another(sweep):
    rows = pair([0.06, 0.05, 0.04, 0.05, -0.05, -0.06, -0.05, -0.04])
    more = cells("three quarters", (LEVELS + SMALL)[:, 4:], DIFFUSION, factors="0.75")
    first, second = told(sweep, rows + more, 1)
    assert first.startswith("Yes") and second.startswith("Not answered for 0.75")


def test_a_finished_cell_without_any_value_leaves_the_means_alone(sweep):
    rows = cells("a", [[0.5, 0.6], [0.5, 0.7]], ["x", "y"])
    assert summary(sweep([*rows, cell("a", 9)])).loc["a", "mean"] == pytest.approx(0.575)


def test_without_another_factor_the_second_question_is_not_answered(sweep):
    [said] = told(sweep, cells("half", LEVELS + SMALL, BOTH), 1)
    assert said == "Not answered: needs a variant of factor 0.5 and one of another factor."


def fused(better):
    return cells("all", LEVELS + better + SMALL[:, ::-1], BOTH, factors="0.25 0.5")


def test_fusing_may_be_better_than_every_single_scale(sweep):
    first, *rest = told(sweep, pair(np.zeros(8)) + fused(0.05), 2)
    assert first.startswith("Yes: all")
    assert [line[: line.index(":")] for line in rest] == ["all against quarter", "all against half"]
    assert all(": +5." in line and line.endswith(": better.") for line in rest)


def test_fusing_may_be_worse_than_every_single_scale(sweep):
    first, *rest = told(sweep, pair(np.zeros(8)) + fused(-0.05), 2)
    assert first.startswith("No: all")
    assert len(rest) == 2
    assert all(re.search(r": -(5|4\.9)", line) and line.endswith(": worse.") for line in rest)


def test_fusing_may_be_within_noise(sweep):
    first, *rest = told(sweep, pair(np.zeros(8)) + fused(0.0), 2)
    assert first.startswith("Within noise: all")
    assert len(rest) == 2
    assert all("within noise" in line for line in rest)


def test_fusing_may_be_better_than_one_and_worse_than_another(sweep):
    first, quarter, half = told(sweep, pair(np.full(8, 0.1)) + fused(0.05), 2)
    assert first.startswith("In part: all")
    assert quarter.startswith("all against quarter: -") and quarter.endswith(": worse.")
    assert half.startswith("all against half: +") and half.endswith(": better.")


def test_one_seed_does_not_answer_the_third_question(sweep):
    rows = pair(np.zeros(8), noise=SMALL[:1]) + fused(0.05)[:1]
    assert told(sweep, rows, 2)[0].startswith("Not answered for all")


def test_every_way_of_fusing_is_told(sweep):
    rows = pair(np.zeros(8)) + fused(0.05) + cells("other", LEVELS - 0.05 + SMALL, BOTH, factors="0.25 0.75")
    said = told(sweep, rows, 2)
    assert [line.split(":")[0] for line in said if line.endswith("scale.")] == ["Yes", "No"]


def test_a_single_scale_with_another_setting_does_not_count(sweep):
    other = [row | {"setting": "attention=channel"} for row in pair(np.full(8, -0.2))]
    for row in other:
        row["variant"] += " with attention"
    rows = pair(np.zeros(8)) + fused(0.05)
    for number in range(3):
        assert told(sweep, other + rows, number, reference="half") == told(sweep, rows, number)
    first, *rest = told(sweep, other + rows, 2, reference="half")
    assert first.startswith("Yes: all")
    assert [line[: line.index(":")] for line in rest] == ["all against quarter", "all against half"]


def test_a_reference_with_a_setting_counts_only_its_like(sweep):
    rows = pair(np.zeros(8)) + fused(0.05)
    other = cells("attended", LEVELS + SMALL, BOTH, factors="0.5", setting="attention=channel")
    starts = [told(sweep, rows + other, number, reference="attended")[0] for number in range(3)]
    assert all(said.startswith("Not answered: needs a variant ") for said in starts)


def test_a_fused_variant_with_another_setting_does_not_count(sweep):
    rows = pair(np.zeros(8)) + [row | {"setting": "attention=channel"} for row in fused(0.05)]
    [said] = told(sweep, rows, 2)
    assert said.startswith("Not answered: needs a variant with several factors")


def test_without_fusion_the_third_question_is_not_answered(sweep):
    for rows in (pair(np.zeros(8)), fused(0)):
        [said] = told(sweep, rows, 2)
        assert said == "Not answered: needs a variant with several factors and one with a single factor."


# --- the report


def test_the_report_and_the_table_hold_the_numbers(sweep, tmp_path):
    rows = [*two_by_two(), cell("b", 0, {"P/x/acc": 1, "Q/y/acc": 0.5, "P/x/ap": 1, "Q/y/ap": 0.25})]
    families = {("P", "x"): "gan", ("Q", "y"): "diffusion"}
    figure = tmp_path / "figures" / "one.png"
    said = write_report(
        tmp_path, sweep([*rows, failure("b", 1, "error: no memory")]), "a", families, "Is it?", [figure]
    )
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Is it?\n")
    assert (
        "| a | 75.0 ± 7.1 [60.0, 90.0] | 92.5 ± 3.5 [80.0, 100.0] | 85.0 | 65.0 | 2 | 1,234,567 |" in report
    )
    assert re.search(r"the 2 of 2 generators of P, Q .*epochs: 2\.", report)
    assert "## Against a\n" in report
    assert "* accuracy, b against a: -5.0 points" in report
    assert "one seed: no verdict" in report
    assert (
        "| variant | gan | diffusion |\n| :-- | --: | --: |\n| a | 85.0 | 65.0 |\n| b | 100.0 | 50.0 |"
        in report
    )
    assert "* b-seed1: error: no memory" in report
    assert "![one](figures/one.png)" in report
    assert all(f"**{question}**\n\n* Not answered" in report for question in QUESTIONS)
    assert "75.0 ± 7.1" in said
    table = pd.read_csv(tmp_path / "table.csv", index_col="variant", dtype={"variant": str})
    assert table.loc["a", ["acc_mean", "ap_mean", "P", "Q"]].tolist() == pytest.approx(
        [0.75, 0.925, 0.85, 0.65]
    )
    assert table.loc["b", ["acc_mean", "ap_mean"]].tolist() == pytest.approx([0.75, 0.625])
    assert table["seeds"].tolist() == [2, 1]


def test_one_variant_alone_is_compared_with_nothing(sweep, tmp_path):
    write_report(tmp_path, sweep(two_by_two()), "a", {})
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Experiment\n")
    assert "There is only one variant." in report
    assert "Failed cells" not in report


def test_a_name_with_a_bar_does_not_break_the_table(sweep, tmp_path):
    rows = cells("a|b", [[0.5, 0.5]], ["x", "y"], ("acc", "ap"))
    write_report(tmp_path, sweep(rows), "a|b", {})
    lines = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| a\\|b")]
    assert len(lines) == 2


def test_notes_stand_above_the_table(sweep, tmp_path):
    notes = ["Only two epochs.", "One generator is missing."]
    said = write_report(tmp_path, sweep(two_by_two()), "a", {}, "Is it?", notes=notes)
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Is it?\n\nOnly two epochs.\n\nOne generator is missing.\n\n| variant |")
    assert said.startswith("\nOnly two epochs.\nOne generator is missing.\n| variant |")


def test_a_pdf_is_linked_and_not_shown(sweep, tmp_path):
    drawn = [tmp_path / "figures" / name for name in ("one.png", "two.pdf")]
    write_report(tmp_path, sweep(two_by_two()), "a", {}, drawn=drawn)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "![one](figures/one.png)" in lines and "[two](figures/two.pdf)" in lines


def test_without_pandas_there_is_one_line_with_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pandas"):
        pandas()
