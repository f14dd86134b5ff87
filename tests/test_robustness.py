"""tools.visualize robustness: the numbers of its lines, areas and intervals; how views become panels."""

import json
import math
from argparse import Namespace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from common import UserError
from data.perturb import PERTURBATIONS, parse_view, parse_views
from tools.visualize import robustness
from tools.visualize.__main__ import main
from util import significance
from util.metrics import balanced_accuracy
from util.results import file_for, read_scores, write_scores

FEW = "native,jpeg:50,jpeg:90,social,resize:0.5,resize:1.5,resize:0.75"


def folder_of(tmp_path, name, views=FEW, generators="abc", protocol="Set"):
    """A results folder with made-up scores of these views."""
    folder, rng, meta = tmp_path / name / protocol, np.random.default_rng(len(name)), {"views": {}}
    folder.mkdir(parents=True)
    every = {part: {"images": 20} for part in generators}
    for view in parse_views(views):
        shift = rng.uniform(0, 0.4)
        rows = [
            (f"{part}/{n}.png", part, int(n > 8), np.float32(rng.normal(0.5 + shift * (n > 8), 0.2)), 0.0)
            for part in generators
            for n in range(20)
        ]
        write_scores(folder / file_for(view, "scores.csv"), rows)
        if view.steps:
            meta["views"][view.name] = {
                "file": file_for(view, "scores.csv"),
                "finished": every,
                "bad_files": {},
            }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def slow_mean(path, threshold=0.5):
    """Balanced accuracy, mean over generators, as util/metrics.py measures it."""
    _, generators, labels, scores, _ = (np.array(column) for column in zip(*read_scores(path), strict=True))
    own = [generators == name for name in np.unique(generators)]
    return np.mean([balanced_accuracy(labels[mask], scores[mask], threshold) for mask in own])


def test_lines_and_printed_areas_are_those_of_the_scores(tmp_path, capsys):
    folders = [folder_of(tmp_path, name) for name in ("first", "second-run")]
    figure = robustness.draw_robustness(Namespace(results=folders))
    jpeg, smaller, larger, others = figure.axes[:4]
    names = {
        jpeg: ("native", "jpeg:90", "jpeg:50"),
        smaller: ("native", "resize:0.75", "resize:0.5"),
        larger: ("native", "resize:1.5"),
        others: ("native", "social"),
    }
    for axis, views in names.items():
        for folder, (line, _, (bars,)) in zip(folders, axis.containers, strict=True):
            paths = [folder / file_for(parse_view(view), "scores.csv") for view in views]
            expected = [100 * slow_mean(path) for path in paths]
            np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-9)
            for (low, high), value in zip(
                [part[:, 1] for part in bars.get_segments()], expected, strict=True
            ):
                assert low <= value <= high
    assert [axis.get_title() for axis in names] == ["jpeg", "resize < 1", "resize > 1", "other views"]
    assert [label.get_text() for label in smaller.get_xticklabels()] == ["native", "0.75", "0.5"]
    heading, _, *lines = capsys.readouterr().out.strip().splitlines()[2:]
    assert heading.split("  ")[0] == "detector" and heading.split()[1:3] == ["native", "jpeg"]
    for folder, line in zip(folders, lines, strict=True):
        paths = [folder / file_for(parse_view(view), "scores.csv") for view in names[jpeg]]
        accuracies = [slow_mean(path) for path in paths]
        wanted = [folder.parent.name, f"{100 * accuracies[0]:.1f}", f"{100 * np.mean(accuracies):.1f}"]
        assert line.split()[:3] == wanted


def test_the_interval_is_the_bootstrap_over_images_and_generators(tmp_path):
    rows = read_scores(folder_of(tmp_path, "run") / "scores.csv")
    drawn, rng = [], np.random.default_rng(5)
    parts = [[row for row in rows if row[1] == name] for name in "abc"]
    for _ in range(3000):
        values = []
        for part in [parts[number] for number in rng.integers(3, size=3)]:
            groups = [[row for row in part if row[2] == label] for label in (0, 1)]
            again = [rng.integers(len(group), size=len(group)) for group in groups]
            right = [
                [(group[number][3] > 0.5) == group[number][2] for number in numbers]
                for group, numbers in zip(groups, again, strict=True)
            ]
            values.append(np.mean([np.mean(group) for group in right]))
        drawn.append(np.mean(values))
    found = robustness.accuracy(rows, tmp_path)
    assert (found.low, found.high) == pytest.approx(significance.interval(drawn), abs=0.015)


def test_resampled_accuracies_are_those_of_the_bootstrap():
    rng = np.random.default_rng(0)
    labels, scores = np.repeat([0, 1], [60, 40]), rng.uniform(size=100)
    slow = significance.bootstrap(labels, scores, resamples=20_000)["bal_acc"]
    right = [np.sum((scores > 0.5) == labels, where=labels == label) for label in (0, 1)]
    fast = significance.resampled_accuracy(right, (60, 40), resamples=20_000)
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.002)
    assert fast.std() == pytest.approx(slow.std(), rel=0.03)


def test_views_are_ordered_by_what_they_do_not_by_how_they_were_typed():
    typed = "noise:5,native,noise:2,hard,gamma:2,gamma:0.5,gamma:0.8,jpeg:80:cv2"
    families = robustness.families_of(parse_views(f"{typed},blur:1+jpeg:90,fit:256,fit:512,webp:90"))
    names = {title: [view.name for view in views] for title, views in families.items()}
    assert names == {
        "noise": ["native", "noise:2", "noise:5"],
        "gamma > 1": ["native", "gamma:2"],
        "gamma < 1": ["native", "gamma:0.8", "gamma:0.5"],
        "jpeg, cv2": ["native", "jpeg:80:cv2"],
        "fit": ["native", "fit:512", "fit:256"],
        "webp": ["native", "webp:90"],
        "other views": ["native", "hard", "blur:1+jpeg:90"],
    }
    assert list(names)[-1] == "other views"


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_harmless_value_leaves_the_image_as_it_is(name):
    known, image = PERTURBATIONS[name], Image.effect_noise((20, 16), 80).convert("RGB")
    assert name in robustness.MEANING
    if math.isinf(known.harmless) or known.harmless < known.lowest:
        return
    same = parse_view(f"{name}:{known.harmless:g}")(image, (0,))
    assert same.tobytes() == image.tobytes()


def test_only_views_that_all_results_have_are_drawn(tmp_path, capsys):
    folders = [folder_of(tmp_path, "a"), folder_of(tmp_path, "b", "native,jpeg:50,blur:1")]
    output = tmp_path / "new" / "r.png"
    main(["robustness", *map(str, folders), "--output", str(output)])
    out = capsys.readouterr().out
    assert "jpeg:90" in out.splitlines()[0] and "blur:1" in out.splitlines()[0]
    with Image.open(output) as picture:
        assert picture.width > 300


def change(folder, edit):
    meta = json.loads((folder / "meta.json").read_text())
    edit(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def test_an_unfinished_view_is_left_out_and_named(tmp_path, capsys):
    folder = folder_of(tmp_path, "run", "native,jpeg:50,social")
    path = folder / "scores.social.csv"
    write_scores(path, [row for row in read_scores(path) if row[1] == "a"])
    change(folder, lambda meta: meta["views"]["social"].update(finished={"a": {"images": 20}}))
    figure = robustness.draw_robustness(Namespace(results=[folder]))
    assert [axis.get_title() for axis in figure.axes] == ["jpeg"]
    line = capsys.readouterr().out.splitlines()[0]
    assert "social" in line and "1 of 3" in line


def test_a_view_without_its_file_in_meta_json_is_an_error_in_words(tmp_path):
    folder = folder_of(tmp_path, "run", "native,web")
    change(folder, lambda meta: meta["views"]["web"].pop("file"))
    with pytest.raises(UserError, match="file"):
        robustness.draw_robustness(Namespace(results=[folder]))


def test_the_threshold_is_that_of_the_last_tables(tmp_path):
    folder = folder_of(tmp_path, "run", "native,web")
    change(folder, lambda meta: meta.update(printed={"threshold": 0.7}))
    figure = robustness.draw_robustness(Namespace(results=[folder]))
    drawn = figure.axes[0].containers[0][0].get_ydata()[0]
    assert drawn == pytest.approx(100 * slow_mean(folder / "scores.csv", 0.7))
    assert drawn != pytest.approx(100 * slow_mean(folder / "scores.csv"))
    assert "0.7" in figure.get_suptitle()


@pytest.mark.parametrize("views", ["native", "web"])
def test_results_without_native_or_without_another_view_are_refused(tmp_path, views):
    with pytest.raises(UserError, match="--views"):
        robustness.draw_robustness(Namespace(results=[folder_of(tmp_path, "a", views)]))


def test_fakes_only_are_refused(tmp_path):
    folder = folder_of(tmp_path, "a", "native,web")
    for path in folder.glob("scores*"):
        write_scores(path, [row for row in read_scores(path) if row[2]])
    with pytest.raises(UserError, match="a/Set"):
        robustness.draw_robustness(Namespace(results=[folder]))


def test_detectors_are_told_apart_by_name_protocol_or_path(tmp_path):
    one, other = tmp_path / "x" / "run" / "Set", tmp_path / "y" / "run" / "Set"
    assert robustness.names_of([one, tmp_path / "new" / "Set"]) == ["run", "new"]
    assert robustness.names_of([one, tmp_path / "run" / "More"]) == ["run, Set", "run, More"]
    assert robustness.names_of([one, other]) == [str(one), str(other)]


def test_no_two_texts_of_a_panel_overlap(tmp_path):
    views = "sweep,web,hard,aligned,blur:1+jpeg:75+noise:2,jpeg:75+resize:0.5"
    folders = [folder_of(tmp_path, name, views, "ab") for name in ("npr-with-a-rather-long-name", "b", "ccc")]
    figure = robustness.draw_robustness(Namespace(results=folders))
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
        assert not any(one.overlaps(two) for one, two in pairwise(boxes))
