"""tools.compare: differences, changed verdicts, and what it refuses."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats

from common import UserError
from data.perturb import parse_view
from tools import compare
from util import significance
from util.results import file_for, read_scores, write_scores

# path, generator, label, score of the first run, score of the second
IMAGES = [
    ("a/r1.png", "a", 0, 0.1, 0.2),
    ("a/r2.png", "a", 0, 0.7, 0.3),  # wrong, then right
    ("a/f1.png", "a", 1, 0.9, 0.8),
    ("a/f2.png", "a", 1, 0.6, 0.4),  # right, then wrong
    ("b/r1.png", "b", 0, 0.8, 0.1),  # wrong, then right
    ("b/f1.png", "b", 1, 0.9, 0.5),  # exactly 0.5 is real: right, then wrong
    ("b/f2.png", "b", 1, 0.9, 0.9),
]


def results(folder, column, leave_out=()):
    rows = [
        (*image[:3], np.float32(image[column]), np.float32(0))
        for image in IMAGES
        if image[0] not in leave_out
    ]
    folder.mkdir(parents=True)
    write_scores(folder / "scores.csv", rows)
    return str(folder)


@pytest.fixture
def two(tmp_path):
    return results(tmp_path / "A" / "Set", 3), results(tmp_path / "B" / "Set", 4)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_two_runs_give_differences_mean_and_flips(two, tmp_path, capsys):
    compare.main([*two, "--output", str(tmp_path / "out")])
    a, b, mean = read(tmp_path / "out" / "compare.csv")
    assert (float(a["acc"]), float(a["other_acc"]), float(a["diff_acc"])) == (0.75, 0.75, 0.0)
    assert (float(b["acc"]), float(b["other_acc"])) == pytest.approx((2 / 3, 2 / 3))
    assert float(b["ap"]) == pytest.approx(1.0) and float(b["other_ap"]) == pytest.approx(1.0)
    assert [(row["gained"], row["lost"]) for row in (a, b, mean)] == [("1", "1"), ("1", "1"), ("2", "2")]
    assert float(mean["acc"]) == pytest.approx((0.75 + 2 / 3) / 2)
    flips = {(row["path"], row["change"]) for row in read(tmp_path / "out" / "flips.csv")}
    assert flips == {
        ("a/r2.png", "gained"),
        ("a/f2.png", "lost"),
        ("b/r1.png", "gained"),
        ("b/f1.png", "lost"),
    }
    assert "4 of 7 images flipped" in capsys.readouterr().out
    assert "| Mean |" in (tmp_path / "out" / "compare.md").read_text()


def test_only_shared_images_are_compared(tmp_path, capsys):
    first = results(tmp_path / "A" / "Set", 3, leave_out=("a/r1.png",))
    second = results(tmp_path / "B" / "Set", 4, leave_out=("b/f2.png",))
    compare.main([first, second])
    out = capsys.readouterr().out
    assert "4 of 5 images flipped" in out
    assert "2 images are in only one of the two" in out


def test_whole_runs_are_compared_on_the_protocols_both_have(tmp_path, capsys):
    for name in ("One", "Two"):
        results(tmp_path / "A" / name, 3)
    for name in ("Two", "Three"):
        results(tmp_path / "B" / name, 4)
    compare.main([str(tmp_path / "A"), str(tmp_path / "B")])
    out = capsys.readouterr().out
    assert "\nTwo\n" in out and "\nOne\n" not in out and "\nThree\n" not in out


def test_a_published_method_is_the_second(tmp_path, capsys):
    rows = [(f"progan/{n}.png", "ProGAN", n % 2, np.float32(n % 2), np.float32(0)) for n in range(4)]
    folder = tmp_path / "run" / "ForenSynths"
    folder.mkdir(parents=True)
    write_scores(folder / "scores.csv", rows)
    compare.main([str(folder), "ISSUE4", "--output", str(tmp_path / "out")])
    progan = read(tmp_path / "out" / "compare.csv")[0]
    assert (float(progan["acc"]), float(progan["other_acc"])) == (1.0, 0.998)
    assert math.isclose(float(progan["diff_acc"]), -0.002, abs_tol=1e-9)
    assert "issue #4" in capsys.readouterr().out


@pytest.mark.parametrize("second", ["nobody", "no/such/folder"])
def test_neither_folder_nor_method_stops_with_the_methods_of_the_protocol(tmp_path, second):
    first = results(tmp_path / "A" / "ForenSynths", 3)
    with pytest.raises(UserError, match=f"{second}.*issue4"):
        compare.main([first, second])


def test_folders_without_scores_or_common_images_are_refused(two, tmp_path):
    with pytest.raises(UserError, match=r"scores\.csv"):
        compare.main([str(tmp_path), two[1]])
    (tmp_path / "C" / "Set").mkdir(parents=True)
    write_scores(tmp_path / "C" / "Set" / "scores.csv", [("x.png", "a", 0, np.float32(0), np.float32(0))])
    with pytest.raises(UserError, match="image"):
        compare.main([two[0], str(tmp_path / "C" / "Set")])
    with pytest.raises(UserError, match="Set"):
        compare.main([two[0], "ISSUE4"])


def test_an_existing_comparison_is_replaced_only_on_request(two, tmp_path, capsys):
    compare.main([*two, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        compare.main([*two, "--output", str(tmp_path / "out")])
    compare.main([*two, "--output", str(tmp_path / "out"), "--overwrite"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(compare.FILES)
    with pytest.raises(SystemExit):
        compare.main([*two, "--output", str(tmp_path / "out" / "flips.csv")])
    assert "argument --output" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [36, 45, 50])
def test_a_cut_scores_csv_is_one_clear_error(two, tmp_path, cut):
    path = tmp_path / "B" / "Set" / "scores.csv"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"scores\.csv"):
        compare.main(list(two))


def test_scores_that_meta_json_counts_and_scores_csv_lacks_are_an_error(two, tmp_path):
    folder = tmp_path / "B" / "Set"
    (folder / "meta.json").write_text('{"finished": {"a": {"images": 4}, "b": {"images": 4}}}')
    with pytest.raises(UserError, match=r"scores\.csv"):
        compare.main(list(two))
    (folder / "meta.json").write_text('{"finished": ')
    with pytest.raises(UserError, match=r"meta\.json"):
        compare.main(list(two))


def test_what_the_two_were_made_with_is_said_where_it_differs(two, tmp_path, capsys):
    for name, size in (("A", "stored size"), ("B", "resize 256x256")):
        meta = {"protocol": "Set", "input": size, "precision": "fp32", "checkpoint": f"{name}.pth"}
        meta |= {"checkpoint_sha256": name * 64, "notes": []}
        (tmp_path / name / "Set" / "meta.json").write_text(json.dumps(meta))
    compare.main(list(two))
    out = capsys.readouterr().out
    assert "first: Set, stored size, fp32, weights A.pth (AAAAAAAAAAAA)" in out
    assert "note: input differs: stored size and resize 256x256" in out
    assert "precision differs" not in out


def scored(folder, seed, generators="ab", count=40, views=("native",)):
    """A results folder of made-up scores, the same images for every seed; returns its rows of native."""
    rng, meta = np.random.default_rng(seed), {"views": {}}
    folder.mkdir(parents=True)
    for view in map(parse_view, views):
        rows = [
            (f"{name}/{number}.png", name, number % 2, np.float32(score), np.float32(0))
            for name in generators
            for number, score in enumerate(rng.normal(0.5 + 0.2 * (np.arange(count) % 2 - 0.5), 0.2))
        ]
        write_scores(folder / file_for(view, "scores.csv"), rows)
        if view.steps:
            finished = {name: {"images": count} for name in generators}
            record = {"file": file_for(view, "scores.csv"), "finished": finished, "bad_files": {}}
            meta["views"][view.name] = record
    (folder / "meta.json").write_text(json.dumps(meta))
    return [row[1:4] for row in read_scores(folder / "scores.csv")]


def slow_holm(p_values):
    """Step down from the smallest: times the tests that are left, never below the one before."""
    adjusted, running = {}, 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = running
    return [adjusted[index] for index in range(len(p_values))]


def test_tests_adds_p_values_per_generator_and_of_the_mean(tmp_path, capsys):
    first, second = (scored(tmp_path / str(seed) / "Set", seed, "abc") for seed in (1, 2))
    folders = [str(tmp_path / str(seed) / "Set") for seed in (1, 2)]
    compare.main([*folders, "--tests", "--output", str(tmp_path / "out")])
    *rows, mean = read(tmp_path / "out" / "compare.csv")
    names, labels, one = (np.array(column) for column in zip(*first, strict=True))
    two = np.array([row[2] for row in second])
    raw = {"p_acc": [], "p_auc": [], "p_ap": []}
    for row in rows:
        own = names == row["generator"]
        right, now_right = ((scores[own] > 0.5) == labels[own] for scores in (one, two))
        gained, lost = np.sum(now_right & ~right), np.sum(right & ~now_right)
        raw["p_acc"].append(stats.binomtest(min(gained, lost), gained + lost).pvalue)
        for name, test in (("p_auc", significance.delong), ("p_ap", significance.permute_ap)):
            raw[name].append(test(labels[own], one[own], two[own]))
    for name, values in raw.items():
        assert [float(row[name]) for row in rows] == pytest.approx(slow_holm(values)), name
    assert float(mean["p_auc"]) == pytest.approx(significance.delong(labels, one, two, names))
    assert float(mean["p_ap"]) == pytest.approx(significance.permute_ap(labels, one, two, names))
    assert float(mean["auc"]) == pytest.approx(np.mean([float(row["auc"]) for row in rows]))
    for text in (capsys.readouterr().out, (tmp_path / "out" / "compare.md").read_text()):
        assert compare.MEANING[0] in text


def test_without_tests_nothing_is_tested(two, tmp_path, capsys):
    compare.main([*two, "--output", str(tmp_path / "out")])
    assert not set(compare.TESTED) & set(read(tmp_path / "out" / "compare.csv")[0])
    assert compare.MEANING[0] not in capsys.readouterr().out


def test_a_protocol_averaged_over_images_is_tested_over_images(tmp_path):
    first, second = (scored(tmp_path / str(seed) / "Set", seed) for seed in (1, 2))
    (tmp_path / "1" / "Set" / "meta.json").write_text('{"protocol_row": {"average": "micro"}}')
    compared, _ = compare.compare_runs(
        *(compare.results_of(tmp_path / str(seed), parse_view("native")) for seed in (1, 2)), tests=True
    )
    _, labels, one = (np.array(column) for column in zip(*first, strict=True))
    expected = significance.delong(labels, one, [row[2] for row in second])
    assert compared["Set"][0][-1]["p_auc"] == pytest.approx(expected)


def test_a_generator_of_one_class_has_no_p_of_its_ranks_and_does_not_count(tmp_path):
    rows = [(f"{n}.png", "fakes", 1, np.float32(0.9), np.float32(0)) for n in range(4)]
    for seed in (1, 2):
        folder = tmp_path / str(seed) / "Set"
        scored(folder, seed, "ab")
        write_scores(folder / "scores.csv", [*read_scores(folder / "scores.csv"), *rows])
    compare.main([*(str(tmp_path / name) for name in "12"), "--tests", "--output", str(tmp_path / "out")])
    *_, alone, mean = read(tmp_path / "out" / "compare.csv")
    assert alone["p_auc"] == alone["p_ap"] == "nan" and float(alone["p_acc"]) == 1
    assert 0 < float(mean["p_auc"]) < 1 and 0 < float(mean["p_ap"]) <= 1


def test_the_row_of_the_mean_counts_the_generators_of_the_mean_only(tmp_path, capsys):
    for seed, score in ((1, 0.1), (2, 0.9)):  # a set of fakes that the second gets right
        scored(folder := tmp_path / str(seed) / "Set", seed)
        fakes = [(f"{n}.png", "fakes", 1, np.float32(score), np.float32(0)) for n in range(50)]
        write_scores(folder / "scores.csv", [*read_scores(folder / "scores.csv"), *fakes])
    compare.main([*(str(tmp_path / name) for name in "12"), "--tests", "--output", str(tmp_path / "out")])
    *both, alone, mean = read(tmp_path / "out" / "compare.csv")
    gained, lost = (sum(int(row[name]) for row in both) for name in ("gained", "lost"))
    assert (alone["gained"], mean["gained"], mean["lost"]) == ("50", str(gained), str(lost))
    assert float(mean["p_acc"]) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert "nan" not in capsys.readouterr().out


def test_views_of_two_folders_or_of_one_are_compared(tmp_path, capsys):
    for seed in (1, 2):
        scored(tmp_path / str(seed) / "Set", seed, views=("native", "web", "jpeg:75"))
    of_view = {
        (seed, view): [row[3] for row in read_scores(tmp_path / seed / "Set" / f"scores{view}.csv")]
        for seed in "12"
        for view in ("", ".web", ".jpeg-75")
    }
    for number, (second, flags, sides) in enumerate(
        [
            ("2", ["--view", "web"], (("1", ".web"), ("2", ".web"))),
            ("1", ["--second_view", "jpeg:75"], (("1", ""), ("1", ".jpeg-75"))),
            ("2", ["--view", "web", "--second_view", "native"], (("1", ".web"), ("2", ""))),
        ]
    ):
        out = tmp_path / f"out{number}"
        compare.main([str(tmp_path / "1"), str(tmp_path / second), *flags, "--output", str(out)])
        before, after = (np.array(of_view[side]) > 0.5 for side in sides)
        assert len(read(out / "flips.csv")) == np.sum(before != after)
    assert "view web" in (tmp_path / "out0" / "compare.md").read_text()


@pytest.mark.parametrize("flags", [["--tests"], ["--view", "web"], ["--second_view", "web"]])
def test_published_numbers_have_no_tests_and_no_views(tmp_path, flags):
    scored(tmp_path / "run" / "ForenSynths", 0, views=("native", "web"))
    with pytest.raises(UserError, match=flags[0]):
        compare.main([str(tmp_path / "run"), "ISSUE4", *flags])


def test_a_view_that_is_missing_or_cut_is_named(tmp_path):
    folder = tmp_path / "run" / "Set"
    scored(folder, 0, views=("native", "web"))
    with pytest.raises(UserError, match=r"scores\.hard\.csv"):
        compare.main([str(folder), str(folder), "--second_view", "hard"])
    lines = (folder / "scores.web.csv").read_text().splitlines()
    (folder / "scores.web.csv").write_text("\n".join(lines[:-3]))
    with pytest.raises(UserError, match=r"scores\.web\.csv"):
        compare.main([str(folder), str(folder), "--second_view", "web"])
