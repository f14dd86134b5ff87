"""experiments/figures.py: plots the sweep's numbers, leaves out what is absent, writes readable text."""

import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from experiments import figures
from experiments.results import Sweep, write_results
from util import pictures
from util.stats import Comparison, summarise

A, B, C = ("p", "a"), ("p", "b"), ("q", "c")
FAMILIES = {A: "gan", B: "gan", C: "diffusion"}
VARIANTS = {"low": "0.25", "half": "0.5", "half2": "0.5", "all": "0.25 0.5", "plain": ""}


def rows(variants, accuracies, seeds=(0, 1), **more):
    """A finished row per variant and seed; accuracies: {(protocol, generator): {(variant, seed): share}}."""
    found = []
    for name, factors in variants.items():
        for seed in seeds:
            row = {"cell": f"{name}-{seed}", "variant": name, "seed": seed, "status": "finished"}
            row |= {"factors": factors, "parameters": 1, "epochs": 1, "loss": "", "val_acc": ""}
            row |= {"scale_weights": ""}
            row |= {key: value(name, seed) for key, value in more.items()}
            for (protocol, generator), table in accuracies.items():
                acc = table.get((name, seed))
                tested = (
                    {}
                    if acc is None
                    else {"acc": acc, "ap": acc, "r_acc": acc, "f_acc": 0.5, "reals": 10, "fakes": 4}
                )
                row |= {f"{protocol}/{generator}/{metric}": value for metric, value in tested.items()}
            found.append(row)
    return found


def make_sweep(folder, *args, **more):
    write_results(folder / "results.csv", rows(*args, **more))
    return Sweep.read(folder / "results.csv")


def grid(variants=VARIANTS, generators=(A, B, C), seeds=(0, 1)):
    """Accuracies that all differ: 0.5, +0.1 per generator, +0.02 per variant, +0.004 per seed."""
    return {
        pair: {
            (name, seed): min(1, 0.5 + 0.1 * g + 0.02 * v + 0.004 * seed)
            for v, name in enumerate(variants)
            for seed in seeds
        }
        for g, pair in enumerate(generators)
    }


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(
        tmp_path,
        VARIANTS,
        grid(),
        epochs=lambda *_: 3,
        loss=lambda name, seed: f"0.6 0.4 {0.2 + 0.1 * seed}",
        val_acc=lambda name, seed: f"0.5 0.7 {0.8 + 0.1 * seed}",
        scale_weights=lambda name, seed: (
            f"0.25:{0.4 - 0.2 * seed} 0.5:{0.6 + 0.2 * seed}" if name == "all" else ""
        ),
    )


@pytest.fixture
def drawn(monkeypatch):
    """Figures in the order in which they were saved, without writing them."""
    kept = []

    def keep(figure, path):
        figure.draw_without_rendering()
        kept.append(figure)
        return path

    monkeypatch.setattr(figures, "save", keep)
    return kept


def test_factor_table_holds_mean_and_interval_of_each_family(sweep):
    table = figures.factor_table(sweep, FAMILIES).set_index(["variant", "family"])
    assert table.loc[("low", "gan"), "mean"] == pytest.approx(100 * (0.5 + 0.6 + 0.004) / 2)
    assert table.loc[("low", "diffusion"), "mean"] == pytest.approx(100 * (0.7 + 0.002))
    expected = summarise(sweep.values("acc")["half"][[A, B]])
    got = table.loc[("half", "gan"), ["low", "high"]].astype(float)
    assert got.to_numpy() == pytest.approx([100 * expected.low, 100 * expected.high])


def test_only_a_single_factor_met_first_has_a_place_on_the_axis(sweep):
    table = figures.factor_table(sweep, FAMILIES)
    place = table.drop_duplicates("variant").set_index("variant").factor
    assert place[["low", "half"]].tolist() == [0.25, 0.5]
    assert place[["half2", "all"]].isna().all() and "plain" not in place


def test_by_factor_draws_the_table_and_error_bars_stand_apart(sweep, drawn, tmp_path):
    figures.by_factor(sweep, FAMILIES, tmp_path / "f.png")
    accuracy = drawn[0].axes[0]
    lines = [bar[0] for bar in accuracy.containers]
    assert lines[0].get_ydata() == pytest.approx([55.2, 57.2])
    assert not set(lines[0].get_xdata()) & set(lines[2].get_xdata())
    assert lines[0].get_xdata() == pytest.approx([0.25, 0.5], abs=0.02)
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["0.25", "0.5", "half2", "all"]
    assert min(accuracy.get_xticks()[2:]) > 1


def test_heatmap_table_is_the_mean_over_seeds_in_percent(sweep):
    table = figures.heatmap_table(sweep)
    assert table.loc[B, "half"] == pytest.approx(62.2)
    assert table.loc[("", "mean"), "low"] == pytest.approx(60.2)
    assert list(table.columns) == list(VARIANTS) and list(table.index) == [A, B, C, ("", "mean")]


def test_heatmap_mean_runs_over_generators_that_every_variant_has(tmp_path):
    accuracies = grid({"low": "0.25", "half": "0.5"})
    for seed in (0, 1):
        del accuracies[C]["half", seed]
    table = figures.heatmap_table(make_sweep(tmp_path, {"low": "0.25", "half": "0.5"}, accuracies))
    assert math.isnan(table.loc[C, "half"])
    assert table.loc[("", "mean of 2 common"), "low"] == pytest.approx(55.2)


def test_heatmap_writes_every_number_where_it_belongs_and_readably(sweep, drawn, tmp_path):
    figures.heatmap(sweep, tmp_path / "f.png")
    axis = drawn[0].axes[0]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == ["p", "a", "b", "q", "c", "mean"]
    image = axis.images[0]
    for text in axis.texts:
        column, row = text.get_position()
        value = image.get_array()[row, column]
        assert text.get_text() == f"{value:.1f}"
        assert contrast(text.get_color(), image.cmap(image.norm(value))) >= 4.5
    assert len(axis.texts) == 4 * 5


def contrast(name, colour):
    """Contrast ratio of WCAG 2.1 between "black" or "white" and a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    light = np.dot([0.2126, 0.7152, 0.0722], linear)
    return 1.05 / (light + 0.05) if name == "white" else (light + 0.05) / 0.05


def test_ink_contrasts_on_every_colour_of_the_map():
    import matplotlib

    for colour in matplotlib.colormaps["cividis"](np.linspace(0, 1, 256)):
        assert contrast(pictures.ink(colour), colour) >= 4.5


def test_learning_curves_show_mean_and_range_over_seeds_from_epoch_one(sweep, drawn, tmp_path):
    figures.learning_curves(sweep, tmp_path / "f.png")
    loss, accuracy = drawn[0].axes
    assert len(loss.lines) == len(VARIANTS)
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3]
    assert loss.lines[0].get_ydata() == pytest.approx([0.6, 0.4, 0.25])
    assert accuracy.lines[0].get_ydata() == pytest.approx([50, 70, 85])
    band = accuracy.collections[0].get_paths()[0].vertices
    assert {80, 90} <= set(np.round(band[np.isclose(band[:, 0], 3), 1], 6))
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_confusion_shows_counts_and_percent_of_their_class(sweep, drawn, tmp_path):
    figures.confusion(sweep, tmp_path / "f.png")
    axis = drawn[0].axes[0]
    right = 2 * 10 * (0.5 + 0.6 + 0.7) + 10 * 3 * 0.004  # reals of "low" called real, two seeds
    text = [one.get_text() for one in axis.texts]
    assert text[0] == f"{round(right)}\n{100 * round(right) / 60:.1f} %"
    assert text[2:] == ["12\n50.0 %", "12\n50.0 %"]
    assert [one.get_title() for one in drawn[0].axes[:5]] == list(VARIANTS)


def test_scale_weights_are_bars_of_means_with_a_point_per_seed(sweep, drawn, tmp_path):
    figures.scale_weights(sweep, tmp_path / "f.png")
    axis = drawn[0].axes[0]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([0.3, 0.7])
    assert axis.lines[0].get_ydata() == pytest.approx([0.4, 0.2])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["all"]


def test_differences_are_in_points_with_noise_in_grey(drawn, tmp_path):
    comparisons = [
        Comparison("low", "half", -0.05, -0.07, -0.03, verdict="worse"),
        Comparison("half2", "half", verdict="no common seeds"),
        Comparison("all", "half", 0.02, -0.01, 0.03, verdict="within noise"),
    ]
    figures.differences(comparisons, tmp_path / "f.png")
    axis = drawn[0].axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["low", "half2", "all"]
    assert [one.get_text() for one in axis.texts] == ["-5.0  worse", "no common seeds", "+2.0  within noise"]
    assert list(axis.lines[0].get_xdata()) == pytest.approx([-7, -3])
    assert axis.lines[1].get_xdata()[0] == pytest.approx(-5)
    grey = [axis.lines[number].get_color() for number in (1, 5)]
    assert grey[1] == "0.55" != grey[0]


def test_what_a_sweep_does_not_have_is_not_drawn(tmp_path):
    plain = make_sweep(tmp_path, {"plain": ""}, {A: {("plain", 0): 0.9}}, seeds=(0,))
    drawn = figures.draw_all(plain, {}, [], tmp_path / "plots")
    assert [path.name for path in drawn] == ["heatmap_acc.png", "heatmap_ap.png", "confusion.png"]
    untested = make_sweep(tmp_path, {"half": "0.5"}, {})
    assert figures.draw_all(untested, {}, [], tmp_path / "none") == []
    assert figures.draw_all(Sweep([]), {}, [], tmp_path / "none") == []


def test_one_seed_and_one_generator_have_points_without_intervals(tmp_path):
    single = make_sweep(tmp_path, {"half": "0.5"}, {A: {("half", 0): 0.9}}, seeds=(0,))
    assert figures.factor_table(single, {})[["low", "high"]].isna().all(axis=None)
    assert figures.by_factor(single, {}, tmp_path / "f.png").is_file()


def test_all_figures_are_written_in_either_format(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "DPI", 40)
    comparison = Comparison("low", "half", -0.05, -0.07, -0.03, verdict="worse")
    names = ("by_factor heatmap_acc heatmap_ap learning_curves confusion scale_weights differences").split()
    for suffix in (".png", ".pdf"):
        drawn = figures.draw_all(sweep, FAMILIES, [comparison], tmp_path / "plots", suffix)
        assert drawn == [tmp_path / "plots" / f"{name}{suffix}" for name in names]
        for path in drawn:
            if suffix == ".pdf":
                assert path.read_bytes().startswith(b"%PDF")
            else:
                assert Image.open(path).size[0] <= 1.02 * pictures.WIDTH * pictures.DPI


def test_the_same_figure_gives_the_same_pdf(sweep, tmp_path):
    first = figures.scale_weights(sweep, tmp_path / "1.pdf").read_bytes()
    assert figures.scale_weights(sweep, tmp_path / "2.pdf").read_bytes() == first


def test_labels_of_twelve_long_variants_and_many_generators_do_not_overlap(tmp_path, drawn):
    variants = {f"variant_{number}_with_a_rather_long_name": f"0.{number + 10}" for number in range(12)}
    pairs = [("first" if number < 20 else "second", f"generator_{number}") for number in range(38)]
    big = make_sweep(tmp_path, variants, grid(variants, pairs, seeds=(0,)), seeds=(0,))
    figures.heatmap(big, tmp_path / "f.png")
    figure, axis = drawn[0], drawn[0].axes[0]
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
        assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    widest = max(text.get_window_extent().width for text in axis.texts)
    assert widest < axis.get_window_extent().width / 12


def test_another_suffix_is_refused(sweep, tmp_path):
    with pytest.raises(ValueError, match=r"f\.svg"):
        figures.confusion(sweep, tmp_path / "f.svg")
    assert not (tmp_path / "f.svg").exists()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("short", ["short"]),
        ("one_two_three", ["one_two_", "three"]),
        ("x" * 20, ["x" * 8, "x" * 8, "x" * 4]),
        ("", [""]),
    ],
)
def test_names_are_wrapped_between_words_and_lose_nothing(name, lines):
    assert pictures.wrap(name, 8).split("\n") == lines


def test_lines_differ_in_more_than_colour():
    looks = [pictures.style(number) for number in range(12)]
    assert len({tuple(look.values()) for look in looks}) == 12
    assert len({(look["marker"], look["linestyle"]) for look in looks[:8]}) == 8
