"""Statistics of an ablation against slow versions written here, and what a verdict may never do."""

import itertools
import math
import random
import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from util import stats
from util.stats import (
    ALPHA,
    Comparison,
    between_groups,
    bootstrap,
    compare,
    compare_pairs,
    over_seeds,
    paired,
    profile,
    sentence,
    summarise,
)

pytestmark = pytest.mark.filterwarnings("error")
RESAMPLES = stats.RESAMPLES
GENERATORS = ("ProGAN", "StyleGAN", "BigGAN", "ADM", "SDv1", "Midjourney", "DALLE", "GLIDE")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Tests of the bootstrap itself put RESAMPLES back."""
    monkeypatch.setattr(stats, "RESAMPLES", 500)


def frame(cells, seeds=None, generators=GENERATORS):
    cells = np.asarray(cells, dtype=float)
    return pd.DataFrame(
        cells, index=seeds or range(len(cells)), columns=list(generators)[: cells.shape[1]], dtype=float
    )


def noise(rng, seeds=3, generators=8, shift=0.0, scale=0.02):
    """Accuracies with a level per generator that every call shares, and independent noise in each cell."""
    levels = np.linspace(0.6, 0.9, generators)
    return frame(levels + shift + scale * rng.standard_normal((seeds, generators)))


def only(differences):
    """The comparison whose pairs are exactly these differences, (S, G)."""
    differences = np.asarray(differences, dtype=float)
    base = np.full(differences.shape, 0.5)
    return compare({"a": frame(base), "b": frame(base + differences)}, "a")[0]


def slow_holm(p_values):
    """Step down: the k-th smallest of m is multiplied by m - k, and never falls below the one before it."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def slow_t(differences):
    """Two-sided p-value of t = mean / (s / sqrt(n)), the tail integrated over the density of Student's t."""
    count, mean = len(differences), sum(differences) / len(differences)
    variance = sum((value - mean) ** 2 for value in differences) / (count - 1)
    t, freedom = abs(mean) / math.sqrt(variance / count), count - 1
    scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    grid = (np.arange(200_000) + 0.5) * t / 200_000
    inside = scale * np.sum((1 + grid**2 / freedom) ** (-(freedom + 1) / 2)) * t / 200_000
    return 1 - 2 * inside


def slow_wilcoxon(differences):
    """Share of sign patterns whose signed-rank sum is at least as far from 0; mean ranks in ties."""
    sizes = [abs(value) for value in differences if value]
    ranks = [sum(o < s for o in sizes) + (sum(o == s for o in sizes) + 1) / 2 for s in sizes]
    signs = [math.copysign(1, value) for value in differences if value]
    seen = abs(sum(sign * rank for sign, rank in zip(signs, ranks, strict=True)))
    patterns = itertools.product((-1, 1), repeat=len(ranks))
    sums = [abs(sum(sign * rank for sign, rank in zip(signs, ranks, strict=True))) for signs in patterns]
    return sum(total >= seen for total in sums) / len(sums)


def slow_bootstrap(cells, resamples=3000):
    """Draws rows and columns one by one with `random`, and sorts the means."""
    draw, (rows, columns), means = random.Random(5), np.shape(cells), []
    for _ in range(resamples):
        picked = [draw.randrange(columns) for _ in range(columns)]
        total = 0.0
        for row in [draw.randrange(rows) for _ in range(rows)]:
            total += sum(cells[row][column] for column in picked)
        means.append(total / (rows * columns))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def slow_profile(differences):
    """F of the generators with seeds as blocks, and its p-value, from least squares with dummy variables.

    The model of seeds and generators against that of seeds only.  differences: (S, G).
    """
    seeds, generators = differences.shape
    place = [(seed, generator) for seed in range(seeds) for generator in range(generators)]
    blocks = np.array([[seed == other for other in range(seeds)] for seed, _ in place], dtype=float)
    columns = np.array([[generator == other for other in range(1, generators)] for _, generator in place])
    return nested_f(blocks, np.hstack([blocks, columns]), differences.ravel())


def slow_crossed(first, second):
    """p-value of variant x generator with seeds as subjects of both, from least squares.

    The error term of the interaction is its own with the seeds, as in a repeated-measures analysis: each seed
    has a level per variant and a level per generator.  first, second: (S, G).
    """
    cells = np.stack([first, second])
    place = list(np.ndindex(cells.shape))
    pairs = [[(v, s) for v, s, _ in place], [(s, g) for _, s, g in place]]
    levels = [[pair == other for other in sorted(set(column))] for column in pairs for pair in column]
    half = len(place)
    base = np.hstack([np.array(levels[:half], dtype=float), np.array(levels[half:], dtype=float)])
    crossed = [[(v, g) == other for other in sorted({(v, g) for v, _, g in place})] for v, _, g in place]
    return nested_f(base, np.hstack([base, np.array(crossed, dtype=float)]), cells.ravel())[1]


def nested_f(small, large, values):
    """(F, p) of the columns that a linear model gains."""
    fits = []
    for model in (small, large):
        solution = np.linalg.lstsq(model, values, rcond=None)[0]
        fits.append((np.sum((values - model @ solution) ** 2), np.linalg.matrix_rank(model)))
    (error_small, rank_small), (error_large, rank_large) = fits
    gained, rest = rank_large - rank_small, len(values) - rank_large
    ratio = (error_small - error_large) / gained / (error_large / rest)
    return ratio, reference.f.sf(ratio, gained, rest)


# --- one variant


def test_a_summary_has_the_macro_mean_and_the_spread_of_the_seeds():
    summary = summarise(frame([[0.5, 0.7], [0.6, 0.8], [0.9, 0.7]]))
    assert summary.mean == pytest.approx(0.7)  # seeds: 0.6, 0.7, 0.8
    assert summary.std == pytest.approx(0.1)
    assert (summary.seeds, summary.generators) == (3, 2)
    assert 0.5 < summary.low < 0.7 < summary.high < 0.9


def test_a_summary_of_one_seed_has_no_spread_and_one_of_nothing_no_numbers():
    single, empty = summarise(frame([[0.5, 0.7]])), summarise(frame([[math.nan, math.nan]]))
    assert single.mean == pytest.approx(0.6) and math.isnan(single.std) and single.low == 0.5
    assert math.isnan(empty.mean) and math.isnan(empty.low) and empty.seeds == 0


def test_a_generator_without_both_classes_and_a_failed_seed_are_left_out():
    holes = frame([[0.5, math.nan, 0.7], [0.7, math.nan, 0.9], [math.nan] * 3])
    assert summarise(holes) == summarise(holes.iloc[:2, [0, 2]])
    assert (summarise(holes).seeds, summarise(holes).generators) == (2, 2)
    assert summarise(holes).mean == pytest.approx(0.7)


# --- the bootstrap


@pytest.mark.parametrize("shape", [(3, 8), (6, 4), (1, 8), (5, 1)])
def test_bootstrap_equals_a_loop_that_draws_rows_and_columns(shape, monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", RESAMPLES)
    cells = np.random.default_rng(1).random(shape)
    low, high = bootstrap(frame(cells))
    slow_low, slow_high = slow_bootstrap(cells.tolist())
    assert low == pytest.approx(slow_low, abs=0.08 * (high - low))
    assert high == pytest.approx(slow_high, abs=0.08 * (high - low))


def test_bootstrap_of_two_entries_is_their_range_and_of_one_nothing():
    # Two seeds: means 0.2, 0.3, 0.4 with chances 1/4, 1/2, 1/4, so the outer 2.5 % are the entries.
    assert bootstrap(frame([[0.2], [0.4]])) == (0.2, 0.4)
    assert all(map(math.isnan, bootstrap(frame([[0.2]]))))


def test_bootstrap_varies_both_axes():
    """A shift shared by a whole row, or column, is not averaged away by the other axis."""
    for shift in (np.array([[-0.1], [0.1]]), np.array([[-0.1, 0.1]])):
        low, high = bootstrap(frame(np.zeros((2, 2)) + shift))
        assert (low, high) == pytest.approx((-0.1, 0.1))


def test_bootstrap_repeats_with_its_seed_and_keeps_the_number_of_resamples(monkeypatch):
    cells = noise(np.random.default_rng(2))
    assert bootstrap(cells, seed=4) == bootstrap(cells, seed=4)
    assert bootstrap(cells, seed=4) != bootstrap(cells, seed=5)
    monkeypatch.setattr(stats, "RESAMPLES", 1)
    low, high = bootstrap(cells)
    assert low == high  # fewer than a chunk


def test_bootstrap_covers_the_true_mean_under_row_and_column_effects(monkeypatch):
    """8 seeds x 12 generators, 200 draws: nominal 0.95, bound 0.88; resampled cells cover about 0.5."""
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng, covered = np.random.default_rng(3), 0
    for seed in range(200):
        effects = 0.02 * rng.standard_normal((8, 1)) + 0.04 * rng.standard_normal((1, 12))
        low, high = bootstrap(frame_wide(0.8 + effects + 0.02 * rng.standard_normal((8, 12))), seed)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 1


def frame_wide(cells):
    return frame(cells, generators=[f"g{number:02}" for number in range(cells.shape[1])])


# --- the tests of a comparison


@pytest.mark.parametrize("seed", range(5))
def test_p_values_effect_and_difference_equal_the_slow_versions(seed):
    cells = np.random.default_rng(seed).normal(0.01, 0.02, (3, 4)).round(6)
    result, pairs = only(cells), cells.ravel().tolist()
    spread = math.sqrt(sum((value - sum(pairs) / 12) ** 2 for value in pairs) / 11)
    assert result.difference == pytest.approx(sum(pairs) / 12, abs=1e-12)
    assert result.effect == pytest.approx(sum(pairs) / 12 / spread, rel=1e-9)
    assert result.t_p == pytest.approx(slow_t(pairs), abs=1e-8)
    assert result.wilcoxon_p == pytest.approx(slow_wilcoxon(pairs), abs=1e-12)
    assert result.seed_p == pytest.approx(slow_t(cells.mean(axis=1).tolist()), abs=1e-8)
    assert (result.low, result.high) == pytest.approx(bootstrap(frame(cells)), abs=1e-9)


def test_t_of_a_worked_example():
    """Differences 1 to 4 hundredths: t = 0.025 / (0.0129 / 2) = 3.873, 3 degrees of freedom."""
    assert only([[0.01, 0.02], [0.03, 0.04]]).t_p == pytest.approx(0.030466, abs=1e-6)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]], 2 / 64),
        ([[-0.01, 0.02, 0.03], [0.04, 0.05, 0.06]], 4 / 64),  # sums 0 and 1 are one pattern each
        ([[0.01, 0.01, 0.01], [0.01, 0.01, 0.02]], 2 / 64),  # ties
        ([[-0.01, 0.01, 0.02], [0.02, 0.02, 0.0]], None),  # ties and a zero
        ([[-0.01, 0.01], [-0.02, 0.02]], 1.0),
    ],
)
def test_wilcoxon_equals_the_enumeration_of_sign_patterns(cells, expected):
    p = only(cells).wilcoxon_p
    assert p == pytest.approx(slow_wilcoxon(np.ravel(cells).tolist()), abs=1e-12)
    assert expected is None or p == pytest.approx(expected)


def test_wilcoxon_of_many_pairs_is_the_normal_limit():
    cells = np.random.default_rng(0).permutation(np.arange(-20, 44)).reshape(8, 8) / 1000
    sizes = np.abs(cells[cells != 0]).round(9)
    ranks = reference.rankdata(sizes)
    sign = np.sign(cells[cells != 0])
    z = (sign * ranks).sum() / math.sqrt((ranks**2).sum())
    assert only(cells).wilcoxon_p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=1e-6)


def test_equal_gains_are_ties_whatever_the_level():
    """0.91 - 0.90 and 0.51 - 0.50 differ in the last bit; as ranks they would not tie."""
    base = frame([[0.9, 0.5, 0.3], [0.7, 0.1, 0.8]])
    result = compare({"a": base, "b": base + 0.01}, "a")[0]
    assert result.t_p == 0 and result.wilcoxon_p == 2 / 64 and math.isnan(result.effect)
    assert (result.low, result.high, result.seed_p) == (0.01, 0.01, 0)
    assert result.verdict == "better"
    assert compare({"a": base, "b": base - 0.01}, "a")[0].verdict == "worse"


def test_a_constant_shift_of_few_pairs_is_not_enough_for_wilcoxon():
    result = only([[0.01, 0.01], [0.01, 0.01]])
    assert result.wilcoxon_p == 2 / 16 and result.verdict == "within noise"


def test_equal_variants_are_within_noise():
    base = noise(np.random.default_rng(0))
    for result in compare({"a": base, "b": base, "c": base.copy()}, "a"):
        assert (result.difference, result.low, result.high) == (0, 0, 0)
        assert result.t_p == result.wilcoxon_p == result.t_holm == result.wilcoxon_holm == result.seed_p == 1
        assert math.isnan(result.effect) and result.verdict == "within noise"


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_a_step_down_loop_over_all_comparisons(seed):
    rng = np.random.default_rng(seed)
    values = {name: noise(rng, shift=0.004 * number) for number, name in enumerate("abcdef")}
    results = compare(values, "a")
    assert [r.variant for r in results] == list("bcdef")
    for raw, adjusted in (("t_p", "t_holm"), ("wilcoxon_p", "wilcoxon_holm"), ("seed_p", "seed_holm")):
        expected = slow_holm([getattr(r, raw) for r in results])
        assert [getattr(r, adjusted) for r in results] == pytest.approx(expected, abs=1e-12)


# --- pairing


def test_missing_seeds_and_generators_are_paired_by_inner_join():
    rng = np.random.default_rng(4)
    a, b = noise(rng, seeds=4), noise(rng, seeds=4, shift=0.01)
    partial = b.loc[[1, 3]].drop(columns="ADM")
    result = compare({"a": a.drop(columns="GLIDE"), "b": partial}, "a")[0]
    kept = [name for name in GENERATORS if name not in ("ADM", "GLIDE")]
    assert result.difference == pytest.approx((b - a).loc[[1, 3], kept].to_numpy().mean(), abs=1e-12)
    assert (result.pairs, result.seeds) == (12, 2)


def test_a_failed_seed_written_as_nan_and_a_nan_generator_equal_their_absence():
    rng = np.random.default_rng(5)
    a, b = noise(rng), noise(rng, shift=0.01)
    holes = b.copy()
    holes.loc[2], holes["ADM"] = math.nan, math.nan
    assert compare({"a": a, "b": holes}, "a") == compare({"a": a, "b": b.loc[:1].drop(columns="ADM")}, "a")


def test_the_order_of_seeds_and_generators_does_not_matter():
    rng = np.random.default_rng(6)
    values = {"a": noise(rng), "b": noise(rng, shift=0.01)}
    mixed = {"a": values["a"].iloc[::-1, ::-1], "b": values["b"].iloc[[1, 2, 0], [3, 1, 0, 2, 7, 5, 6, 4]]}
    assert compare(mixed, "a") == compare(values, "a")
    assert summarise(mixed["b"]) == summarise(values["b"])
    assert paired(mixed["b"], mixed["a"]).equals(paired(values["b"], values["a"]))
    assert profile(mixed["b"], mixed["a"]) == profile(values["b"], values["a"])


def test_a_variant_without_common_cells_is_left_out_of_holm():
    rng = np.random.default_rng(7)
    values = {"a": noise(rng), "b": noise(rng, shift=0.01), "c": noise(rng, shift=0.02)}
    far = values["b"].set_axis([7, 8, 9])
    other = values["b"].set_axis([name.lower() for name in GENERATORS], axis=1)
    results = {r.variant: r for r in compare({**values, "far": far, "other": other}, "a")}
    assert results["far"].verdict == "no common seeds"
    assert results["other"].verdict == "no common generators"
    assert [results["b"], results["c"]] == compare(values, "a")
    for name in ("far", "other"):
        row = asdict(results[name])
        assert all(math.isnan(row[key]) for key in ("difference", "low", "effect", "t_p", "t_holm", "seed_p"))
        assert (row["pairs"], row["seeds"]) == (0, 0)


def test_an_unknown_reference_and_a_repeated_seed_are_refused():
    values = {"a": noise(np.random.default_rng(0)), "b": noise(np.random.default_rng(1))}
    with pytest.raises(KeyError, match="c"):
        compare(values, "c")
    with pytest.raises(ValueError, match="repeat"):
        summarise(values["a"].set_axis([0, 0, 1]))
    assert compare({"a": values["a"]}, "a") == []


# --- verdicts


def test_null_data_is_within_noise():
    """Independent noise, no variant differs: at most 5 of 100 experiments may say that one does."""
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(100):
        results = compare({name: noise(rng) for name in "abc"}, "a")
        found += any(r.verdict != "within noise" for r in results)
    assert found <= 5


def test_trainings_that_shift_all_generators_alike_are_within_noise_too():
    """The tests over pairs alone would call 20 of 100 such experiments; Holm over seeds calls about 5."""
    rng = np.random.default_rng(11)
    called = pairs_alone = 0
    for _ in range(100):
        values = {name: noise(rng).add(0.02 * rng.standard_normal(3), axis=0) for name in "abc"}
        results = compare(values, "a")
        called += any(r.verdict in ("better", "worse") for r in results)
        pairs_alone += any(r.verdict == "within noise of the seeds" for r in results)
    assert called <= 10 and pairs_alone >= 10


def test_a_clear_effect_is_found_in_both_directions(monkeypatch):
    rng = np.random.default_rng(9)
    for _ in range(3):
        values = {"a": noise(rng), "up": noise(rng, shift=0.05), "down": noise(rng, shift=-0.05)}
        assert [r.verdict for r in compare(values, "a")] == ["better", "worse"]
    monkeypatch.setattr(stats, "ALPHA", 1e-30)
    assert [r.verdict for r in compare(values, "a")] == ["within noise"] * 2


def test_one_seed_never_gives_a_verdict():
    rng = np.random.default_rng(10)
    values = {"a": noise(rng, seeds=1), "b": noise(rng, seeds=3, shift=0.3)}
    result = compare(values, "a")[0]
    assert result.t_holm < ALPHA and result.wilcoxon_holm < ALPHA and result.low > 0
    assert result.verdict == "one seed: no verdict" and math.isnan(result.seed_p)


def test_one_pair_gives_no_t_test_and_no_verdict():
    result = only([[0.1]])
    assert math.isnan(result.t_p) and math.isnan(result.t_holm) and math.isnan(result.low)
    assert (result.wilcoxon_p, result.pairs, result.verdict) == (1, 1, "one seed: no verdict")


def test_pairs_that_agree_within_a_seed_only_do_not_convince_the_interval():
    """Each seed moves all generators alike: 24 pairs say p < 0.05, three seeds do not."""
    result = only(np.array([[0.03], [0.02], [-0.011]]) + np.linspace(-1e-3, 1e-3, 8))
    assert result.t_holm < ALPHA and result.wilcoxon_holm < ALPHA and result.seed_p > 0.3
    assert result.low < 0 and result.verdict == "within noise"


def test_a_sentence_reads_as_in_the_log():
    numbers = [-0.013, -0.029, 0.004, -0.41, 0.1, 0.1, 0.21, 0.18, 0.3, 0.45, 15, 3]
    line = sentence(Comparison("0.25", "0.5", *numbers, "within noise"))
    assert line == (
        "0.25 against 0.5: -1.3 points [-2.9, +0.4], d_z -0.41, Holm p 0.21 (t) 0.18 (Wilcoxon) "
        "over 15 pairs, 0.45 (t) over 3 seeds: within noise"
    )
    numbers = [0.1, -0.0001, 0.2, 2.0, 0.1, 0.1, 0.0001, 0.0312, math.nan, math.nan, 1, 1]
    line = sentence(Comparison("b", "a", *numbers, "one seed: no verdict"), unit="AP points")
    assert "+10.0 AP points [+0.0, +20.0]" in line
    assert "p <0.001 (t) 0.031 (Wilcoxon) over 1 pair, - (t) over 1 seed:" in line
    assert sentence(Comparison("b", "a", verdict="no common seeds")) == "b against a: no common seeds"


# --- pairs of one's own choice


@pytest.mark.parametrize("shift", [0.05, -0.05, 0.001])
def test_the_other_way_round_signs_interval_and_verdict_are_swapped(shift):
    rng = np.random.default_rng(12)
    values = {"a": noise(rng), "b": noise(rng, shift=shift)}
    [one] = compare_pairs(values, [("a", "b")])
    [other] = compare(values, "a")
    assert [one] == compare(values, "b")
    assert (one.variant, one.reference) == (other.reference, other.variant) == ("a", "b")
    sides = {"better": "worse", "worse": "better"}
    assert one.verdict == sides.get(other.verdict, other.verdict)
    numbers = (-other.difference, -other.high, -other.low, -other.effect)
    assert (one.difference, one.low, one.high, one.effect) == pytest.approx(numbers, rel=1e-9, abs=1e-11)
    for name in ("t_p", "wilcoxon_p", "seed_p", "t_holm", "wilcoxon_holm", "seed_holm", "pairs", "seeds"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)


def test_holm_is_over_all_pairs_of_a_call():
    rng = np.random.default_rng(12)
    values = {name: noise(rng, shift=0.01 * number) for number, name in enumerate("abc")}
    results = compare_pairs(values, [("c", "a"), ("c", "b")])
    assert [(r.variant, r.reference) for r in results] == [("c", "a"), ("c", "b")]
    assert [r.t_holm for r in results] == pytest.approx(slow_holm([r.t_p for r in results]), abs=1e-12)


# --- profiles


@pytest.mark.parametrize("shape", [(2, 2), (2, 5), (3, 8), (5, 3), (4, 6)])
def test_profile_equals_repeated_measures_by_least_squares(shape):
    rng = np.random.default_rng(sum(shape))
    second = rng.normal(0.8, 0.02, shape)
    first = second + rng.normal(0, 0.02, shape) + np.linspace(0, 0.03, shape[1])
    p, careful = profile(frame(first), frame(second))
    ratio, expected = slow_profile(first - second)
    assert p == pytest.approx(expected, rel=1e-6)
    assert p == pytest.approx(slow_crossed(first, second), rel=1e-6)
    assert careful == pytest.approx(reference.f.sf(ratio, 1, shape[0] - 1), rel=1e-6)


def test_with_two_generators_both_p_values_are_the_paired_t_test_between_them():
    differences = np.random.default_rng(13).normal(0, 0.02, (4, 2))
    expected = slow_t((differences[:, 0] - differences[:, 1]).tolist())
    assert profile(frame(0.5 + differences), frame(np.full((4, 2), 0.5))) == pytest.approx([expected] * 2)


def test_profile_finds_a_bend_but_no_shift():
    rng = np.random.default_rng(14)
    base, other = noise(rng), noise(rng)
    assert profile(other + np.linspace(-0.1, 0.1, 8), base)[0] < 1e-4
    assert all(p < 0.02 for p in profile(other + np.linspace(-0.3, 0.3, 8), base))
    assert all(p > 0.05 for p in profile(other, base))
    assert profile(other + 0.1, base) == pytest.approx(profile(other, base), rel=1e-6)
    assert profile(base, other) == pytest.approx(profile(other, base), rel=1e-9)


def test_profile_does_not_see_a_shift_per_seed():
    rng = np.random.default_rng(15)
    base, other = noise(rng), noise(rng) + np.linspace(-0.02, 0.02, 8)
    moved = other.add([0.3, -0.2, 0.05], axis=0)
    assert profile(moved, base) == pytest.approx(profile(other, base), rel=1e-6)


def test_profile_is_nan_without_two_common_seeds_and_generators():
    rng = np.random.default_rng(0)
    base, other = noise(rng), noise(rng)
    cases = [
        (base, other.iloc[:1]),
        (base, other.iloc[:0]),
        (base, other[["ADM"]]),
        (base[["ADM", "SDv1"]], other[["GLIDE", "SDv1"]]),
        (base[["ADM", "SDv1"]], other[["GLIDE", "DALLE"]]),
        (base, other.set_axis([7, 8, 9])),
        (base, other.set_axis([2, 8, 9])),
    ]
    assert all(map(math.isnan, (p for case in cases for p in profile(*case))))


def test_profile_without_any_error():
    base = frame(np.tile([0.7, 0.8, 0.91], (3, 1)))
    assert profile(base, base) == (1, 1)
    assert profile(base + 0.01, base) == (1, 1)
    assert profile(base.add([0.01, 0.02, -0.03], axis=0), base) == (1, 1)
    assert profile(base + np.array([0.0, 0.01, 0.0]), base) == (0, 0)
    assert profile(base.add([0.01, 0.02, -0.03], axis=0) + np.array([0.0, 0.01, 0.0]), base) == (0, 0)


def test_profile_takes_what_both_have():
    rng = np.random.default_rng(16)
    a, b = noise(rng, seeds=4), noise(rng, seeds=4)
    kept = [name for name in GENERATORS if name not in ("ADM", "GLIDE")]
    expected = profile(a.loc[[1, 3], kept], b.loc[[1, 3], kept])
    assert profile(a.drop(columns="GLIDE"), b.loc[[3, 1]].drop(columns="ADM")) == expected
    holes = b.loc[[0, 1, 3]].assign(ADM=math.nan)
    holes.loc[0] = math.nan  # a failed cell
    assert profile(a.assign(GLIDE=math.nan), holes) == expected


def test_paired_is_the_difference_of_what_both_have_in_one_order():
    a = frame([[0.9, 0.5, 0.3], [0.7, 0.1, 0.8]], seeds=[5, 3])
    b = frame([[0.4, 0.2, math.nan], [0.6, 0.4, 0.2]], seeds=[3, 4])
    found = paired(a, b)
    assert found.to_dict("index") == {3: {"ProGAN": 0.3, "StyleGAN": -0.1}}
    assert [*paired(a, a).index] == [3, 5] and [*found.columns] == ["ProGAN", "StyleGAN"]


# --- groups of generators


def test_groups_over_seeds_by_a_t_test_by_hand():
    rng = np.random.default_rng(17)
    first, second = rng.normal(0.02, 0.02, (4, 3)), rng.normal(0, 0.02, (4, 5))
    contrast = [sum(one) / 3 - sum(other) / 5 for one, other in zip(first, second, strict=True)]
    p = over_seeds(frame(first), frame(second))
    assert p == pytest.approx(slow_t(contrast), abs=1e-8)
    assert over_seeds(frame(second), frame(first)) == pytest.approx(p, rel=1e-9)
    assert over_seeds(frame(first).iloc[::-1], frame(second)) == pytest.approx(p, rel=1e-9)


def test_groups_over_seeds_of_a_worked_example():
    """Contrasts of 1, 2 and 3 points: t = 0.02 / (0.01 / sqrt(3)) = 3.464, 2 degrees of freedom."""
    first, second = frame([[0.02, 0.0], [0.03, 0.01], [0.03, 0.03]]), frame(np.zeros((3, 4)))
    assert over_seeds(first, second) == pytest.approx(0.07418, abs=1e-5)


def test_groups_over_seeds_without_spread_or_with_one_seed():
    flat = frame(np.tile([0.1, 0.3], (3, 1)))
    assert over_seeds(flat, flat.iloc[:, ::-1]) == 1
    assert over_seeds(flat + 0.1, flat) == 0
    assert over_seeds(flat.add([0.1, 0.2, 0.3], axis=0), flat.add([0.1, 0.2, 0.3], axis=0)) == 1
    assert math.isnan(over_seeds(flat.iloc[:1], flat)) and math.isnan(over_seeds(flat, flat.iloc[:0]))


def nulls(shift):
    """p-values of 60 nulls in four arrays: profile's, careful, Welch's over generators, over seeds.

    3 seeds, 8 + 8 generators; a shift per (family, seed) and noise of 2 points per entry.
    """
    rng, found = np.random.default_rng(18), []
    for _ in range(60):
        shifts = np.repeat(shift * rng.standard_normal((3, 2)), 8, axis=1)
        second = frame_wide(np.tile(np.linspace(0.5, 0.9, 16), (3, 1)))
        first = second + shifts + 0.02 * rng.standard_normal((3, 16))
        differences = paired(first, second)
        groups = differences.iloc[:, :8], differences.iloc[:, 8:]
        bold = between_groups(*(group.mean() for group in groups))
        found.append((*profile(first, second), bold, over_seeds(*groups)))
    return np.transpose(found)


def test_families_that_share_errors_seldom_differ_over_generators_and_seeds():
    """Shifts of 2 points: at most 10 of 60 nulls have both p-values below alpha; Welch's alone has 25."""
    _, _, bold, seeds = nulls(0.02)
    assert np.sum((bold < ALPHA) & (seeds < ALPHA)) <= 10
    assert np.sum(bold < ALPHA) > 15


@pytest.mark.parametrize("shift", [0.02, 0.06])
def test_generators_that_share_errors_seldom_have_another_profile(shift):
    """At most 8 of 60 nulls have both p-values below alpha; with 6 points the bold one alone has more."""
    p, careful, _, _ = nulls(shift)
    assert np.sum((p < ALPHA) & (careful < ALPHA)) <= 8
    assert shift < 0.06 or np.sum(p < ALPHA) > 10


def test_groups_of_generators_by_the_formula_of_welch():
    gan, diffusion = np.array([0.01, 0.03, 0.02, 0.05]), np.array([-0.02, 0.01, -0.04])
    difference, p = gan.mean() - diffusion.mean(), between_groups(gan, diffusion)
    parts = [group.var(ddof=1) / len(group) for group in (gan, diffusion)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    assert p == pytest.approx(2 * reference.t.sf(difference / math.sqrt(sum(parts)), freedom), rel=1e-9)


def test_groups_without_spread():
    assert between_groups([0.1, 0.1], [0.1, 0.1]) == 1
    assert between_groups([0.3, 0.3], [0.1, 0.1]) == 0
    # A one-sample t-test with 1 degree of freedom.
    assert between_groups([0.1, 0.1, 0.1], [0.2, 0.4]) == pytest.approx(2 * reference.t.sf(2, 1))


def test_no_warning_escapes_on_extreme_cells():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cells in (np.ones((3, 4)), np.zeros((3, 4)), np.eye(3), 1e-12 * np.eye(3) + 0.5, np.ones((2, 1))):
            values = {"a": frame(cells), "b": frame(cells[::-1] * 0.5), "c": frame(1 - cells)}
            assert len([sentence(result) for result in compare(values, "a")]) == 2
            assert all(summarise(values[name]).seeds == len(cells) for name in values)
            p, careful = profile(values["a"], values["b"])
            assert math.isnan(p) == math.isnan(careful) == (cells.shape[1] == 1)
            assert 0 <= over_seeds(values["a"], values["b"]) <= 1
