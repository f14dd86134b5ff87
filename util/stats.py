"""Statistics over the cells of an ablation: which variants differ, by how much, and how sure that is.

A frame holds one metric of one variant as fractions in [0, 1]: a row per training seed, a column per test
generator, (S, G); `values` is a dict variant -> frame.  A row without any number is a failed cell and is
left out, and so is a generator that is NaN for some seed.  Two variants are compared on what both have.

"better" and "worse" need three Holm-adjusted p-values below ALPHA (paired t-test and Wilcoxon test over the
pairs (seed, generator), paired t-test over the means of the seeds) and a bootstrap interval without 0.  The
generators of a seed share one network, so the tests over pairs are too sure of themselves: when each training
shifts all its generators by as much as single entries scatter, they gave a false verdict in 25 of 100
simulations with three seeds.  What they find and the seeds do not show is "within noise of the seeds".
Where all differences are 0 every p-value is 1; where they are equal and not 0, that of the t-test is 0.
"""

from dataclasses import dataclass, replace
from math import nan

import numpy as np
from scipy import stats

from util.significance import holm
from util.tables import p_value

ALPHA = 0.05
RESAMPLES = 10_000
CHUNK = 2_000  # resamples held in memory at once
DECIMALS = 12  # 0.91 - 0.90 and 0.51 - 0.50 must be a tie; one image in a billion is still seen
EXACT_PAIRS = 50  # up to here Wilcoxon's p-value is exact, above it is the normal limit, as in scipy


@dataclass(frozen=True)
class Summary:
    """One variant, in fractions: the macro mean over generators, averaged over seeds, and its spread.

    seeds, generators: how many went in; std: sample standard deviation over seeds of the macro mean, NaN with
    one seed; low, high: 95 % two-way bootstrap interval of the mean.
    """

    seeds: int
    generators: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A variant minus the reference over the pairs (seed, generator) that both have, in fractions.

    difference, low, high: mean and 95 % two-way bootstrap interval; effect: Cohen's d_z, mean over sample
    standard deviation of the pairs; t_p, wilcoxon_p: two-sided paired tests over the pairs, and *_holm: the
    same adjusted over all comparisons of the call; seed_p: paired t-test over the macro means of the seeds.
    """

    variant: str
    reference: str
    difference: float = nan
    low: float = nan
    high: float = nan
    effect: float = nan
    t_p: float = nan
    wilcoxon_p: float = nan
    t_holm: float = nan
    wilcoxon_holm: float = nan
    seed_p: float = nan
    seed_holm: float = nan
    pairs: int = 0
    seeds: int = 0
    verdict: str = ""


def summarise(frame):
    """Mean, spread and interval of one variant.  frame: fractions, (S, G)."""
    cells = _cells(frame).dropna(axis=1)
    macro = cells.mean(axis=1)
    return Summary(*cells.shape, float(macro.mean()), float(macro.std(ddof=1)), *bootstrap(cells))


def bootstrap(frame, seed=0):
    """95 % percentile interval (low, high) of the grand mean; whole seeds and generators are resampled.

    Entries that share a seed or a generator are not independent, so each axis is drawn by itself.  With few
    seeds the interval is too short: the variance over S rows comes out (S - 1) / S of its size.  (NaN, NaN)
    for a single entry.
    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007.
    """
    cells = _cells(frame).dropna(axis=1).to_numpy()
    if cells.size < 2:
        return nan, nan
    rng, means = np.random.default_rng(seed), []
    for count in np.diff([*range(0, RESAMPLES, CHUNK), RESAMPLES]):
        # How often each row and each column is drawn, as shares: (count, S) and (count, G).
        rows, columns = (rng.multinomial(size, [1 / size] * size, count) / size for size in cells.shape)
        means.append(((rows @ cells) * columns).sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975]).round(DECIMALS)
    return float(low), float(high)


def compare(values, reference):
    """A Comparison with the reference for every other variant, in the order of the dict."""
    return compare_pairs(values, [(name, reference) for name in values if name != reference])


def compare_pairs(values, pairs):
    """A Comparison for each (variant, reference) in `pairs`; Holm's correction is over all of them."""
    rows = [_compare_pair(*pair, values) for pair in pairs]
    for test in ("t", "wilcoxon", "seed"):
        adjusted = holm([getattr(row, f"{test}_p") for row in rows])
        rows = [replace(row, **{f"{test}_holm": p}) for row, p in zip(rows, adjusted, strict=True)]
    return [replace(row, verdict=row.verdict or _verdict(row)) for row in rows]


def sentence(comparison, unit="points"):
    """One line for the reader; the numbers are fractions times 100, `unit` is what they are called."""
    c = comparison
    if not c.pairs:
        return f"{c.variant} against {c.reference}: {c.verdict}"
    difference, low, high = (f"{100 * number:+z.1f}" for number in (c.difference, c.low, c.high))
    interval = "" if np.isnan(c.low) else f" [{low}, {high}]"
    effect = "" if np.isnan(c.effect) else f"d_z {c.effect:z.2f}, "
    pairs, seeds = (f"{n} {word}{'s' * (n > 1)}" for n, word in ((c.pairs, "pair"), (c.seeds, "seed")))
    return (
        f"{c.variant} against {c.reference}: {difference} {unit}{interval}, {effect}"
        f"Holm p {p_value(c.t_holm)} (t) {p_value(c.wilcoxon_holm)} (Wilcoxon) over {pairs}, "
        f"{p_value(c.seed_holm)} (t) over {seeds}: {c.verdict}"
    )


def profile(first, second):
    """Two p-values, (p, careful), that first minus second, (S, G), does not depend on the generator.

    Analysis of variance of the differences with seeds as blocks.  p assumes independent errors, and is too
    small where the network that the generators of a seed share shifts some of them; careful, with 1 and S - 1
    degrees of freedom, holds whatever they share.  Both are NaN with fewer than two common seeds or
    generators; without any error they are 1 for parallel profiles and 0 for others.
    Source: Geisser and Greenhouse, "An Extension of Box's Results", Annals of Mathematical Statistics 1958.
    """
    differences = paired(first, second)
    seeds, generators = differences.shape
    if min(seeds, generators) < 2:
        return nan, nan
    cells = differences.to_numpy() - differences.to_numpy().mean(axis=1, keepdims=True)
    effect = cells.mean(axis=0)
    error = (cells - effect).round(DECIMALS)
    if not np.any(error):
        return (float(not np.any(effect.round(DECIMALS - 1))),) * 2
    free, rest = generators - 1, (generators - 1) * (seeds - 1)
    ratio = (seeds * np.sum(effect**2) / free) / (np.sum(error**2) / rest)
    return float(stats.f.sf(ratio, free, rest)), float(stats.f.sf(ratio, 1, seeds - 1))


def paired(first, second):
    """first minus second over the seeds and generators that both have, in a fixed order."""
    first, second = _cells(first).align(_cells(second), join="inner")
    return (first - second).dropna(axis=1).round(DECIMALS)


def over_seeds(first, second):
    """p-value of a t-test over seeds that two groups of generators, (S, N) and (S, M), have the same mean."""
    contrast = (first.mean(axis=1) - second.mean(axis=1)).dropna()
    return _paired_t(contrast) if contrast.size > 1 else nan


def between_groups(first, second):
    """p-value of Welch's t-test that two groups, (N,) and (M,), both at least 2, have the same mean.

    Without spread in both groups it is 1 for equal means and 0 for others.
    """
    first, second = (np.asarray(group, dtype=float).round(DECIMALS) for group in (first, second))
    if _spread(first) == _spread(second) == 0:
        return float(first[0] == second[0])
    moments = (number for group in (first, second) for number in (group.mean(), _spread(group), group.size))
    return float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)


def _cells(frame):
    """Floats with seeds and generators in one fixed order, without failed seeds (rows of NaN only)."""
    if not (frame.index.is_unique and frame.columns.is_unique):
        raise ValueError(f"seeds and generators must not repeat, got {[*frame.index]} x {[*frame.columns]}")
    cells = frame.astype(float).dropna(how="all")
    return cells.loc[sorted(cells.index, key=str), sorted(cells.columns, key=str)]


def _compare_pair(variant, reference, values):
    """Everything of one comparison but the Holm-adjusted p-values and the verdict that rests on them."""
    differences = paired(values[variant], values[reference])
    if differences.empty:
        missing = "generators" if len(differences) else "seeds"
        return Comparison(variant, reference, verdict=f"no common {missing}")
    pairs = differences.to_numpy().ravel()
    macro = differences.mean(axis=1)
    mean, spread = float(pairs.mean()), _spread(pairs)
    return Comparison(
        variant,
        reference,
        mean,
        *bootstrap(differences),
        effect=mean / spread if spread > 0 else nan,
        t_p=_paired_t(pairs),
        wilcoxon_p=_wilcoxon(pairs),
        seed_p=_paired_t(macro) if macro.size > 1 else nan,
        pairs=pairs.size,
        seeds=macro.size,
    )


def _verdict(c):
    if c.seeds < 2:
        return "one seed: no verdict"
    if not (c.t_holm < ALPHA and c.wilcoxon_holm < ALPHA and (c.low > 0 or c.high < 0)):
        return "within noise"
    if not c.seed_holm < ALPHA:
        return "within noise of the seeds"
    return "better" if c.difference > 0 else "worse"


def _paired_t(differences):
    """Two-sided p-value of the t-test that the mean is 0, with the limits of the module docstring."""
    differences = np.asarray(differences).round(DECIMALS)
    if not np.any(differences):
        return 1.0
    if differences.size < 2:
        return nan
    return float(stats.ttest_1samp(differences, 0).pvalue) if _spread(differences) > 0 else 0.0


def _wilcoxon(differences):
    """Two-sided p-value of the signed-rank test without zeros; up to EXACT_PAIRS exact, also with ties."""
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0
    if differences.size > EXACT_PAIRS:
        return float(stats.wilcoxon(differences).pvalue)
    # By hand, since what scipy does about ties in small samples changes between its versions.
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)  # doubled: a tie has half ranks
    chances = np.ones(1)  # of every sum of positive ranks when each sign is a fair coin
    for rank in ranks:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    positive = ranks[differences > 0].sum()
    return float(min(1.0, 2 * min(chances[: positive + 1].sum(), chances[positive:].sum())))


def _spread(numbers):
    """Sample standard deviation, exactly 0 where all numbers are equal; rounding alone would leave 1e-18."""
    return float(np.std(numbers, ddof=1)) if np.ptp(numbers) > 0 else 0.0
