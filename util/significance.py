"""How sure a number over images is: intervals for one detector, tests between two on the same images.

labels: 0 or 1, (N,); scores: probability of fake or any number that grows with it, (N,).  Fake = 1.
What varies here is the choice of images, of one trained detector; over trainings, see util/stats.py.
"""

import math

import numpy as np

from util.metrics import averaged

RESAMPLES = 10_000
CHUNK = 4_000_000  # images drawn at once, about 100 MB
PERMUTATIONS = 2_000
PERMUTED = 100_000  # images permuted at once; they stay in the processor's cache


def wilson(successes, total, level=0.95):
    """Wilson's interval (low, high) of a proportion; NaN without trials.  Source: Wilson, JASA 1927."""
    return _proportion(successes, total, level, "wilson")


def clopper_pearson(successes, total, level=0.95):
    """The exact interval (low, high) of a proportion: it covers at least `level` whatever the truth is.

    Source: Clopper and Pearson, Biometrika 1934.
    """
    return _proportion(successes, total, level, "exact")


def _proportion(successes, total, level, method):
    from scipy.stats import binomtest  # here: SciPy takes long to import

    if not total:
        return math.nan, math.nan
    interval = binomtest(int(successes), int(total)).proportion_ci(level, method)
    return float(interval.low), float(interval.high)


def mean_of_two(first, second, level=0.95):
    """The interval (low, high) of the mean of two proportions, each (successes, total).

    Source: Newcombe, Statistics in Medicine 1998: square and add the distances of Wilson's limits.
    """
    shares = np.array([part[0] / part[1] for part in (first, second)])
    low, high = np.transpose([wilson(*part, level) for part in (first, second)])
    return tuple(
        float(shares.mean() + sign * np.sqrt(np.sum((limits - shares) ** 2)) / 2)
        for sign, limits in ((-1, low), (1, high))
    )


def bootstrap(labels, scores, threshold=0.5, resamples=RESAMPLES, seed=0):
    """{metric: its value in each resample, (resamples,)}; each class is drawn with repeats by itself.

    Metrics: acc, bal_acc, r_acc, f_acc, auc and ap, as in util/metrics.py; none without both classes.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    reals, fakes = np.sum(labels == 0), np.sum(labels == 1)
    if not reals or not fakes:
        return {}
    # Distinct scores from high to low: an image is drawn by the position of its score.
    distinct, position = np.unique(-scores, return_inverse=True)
    rng, parts = np.random.default_rng(seed), []
    size = max(1, CHUNK // len(labels))
    for first in range(0, resamples, size):
        count = min(size, resamples - first)
        drawn = [_drawn(position[labels == label], len(distinct), count, rng) for label in (0, 1)]
        parts.append(_of_counts(*drawn, -distinct > threshold, reals, fakes))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _drawn(positions, length, count, rng):
    """How many images are called fake by each threshold in each resample, (count, length)."""
    return _called(
        positions[rng.integers(len(positions), size=(count, len(positions)), dtype=np.int32)], length
    )


def _called(positions, length):
    """How many of each row's images are called fake by each threshold, (R, length).

    positions: of each image's score among `length` scores from high to low, (R, N).
    """
    flat = (positions + np.arange(len(positions))[:, None] * length).ravel()
    return np.bincount(flat, minlength=len(positions) * length).reshape(-1, length).cumsum(axis=1)


def _of_counts(false, true, called, reals, fakes):
    """The metrics of each resample; false, true: reals and fakes called fake by each threshold."""
    last = np.sum(called) - 1  # the threshold in use
    fpr, tpr = (part[:, last] if last >= 0 else np.zeros(len(part)) for part in (false / reals, true / fakes))
    gain = np.diff(true, axis=1, prepend=0)
    before = true - gain
    wrong = np.diff(false, axis=1, prepend=0)
    return {
        "acc": ((1 - fpr) * reals + tpr * fakes) / (reals + fakes),
        "bal_acc": (1 - fpr + tpr) / 2,
        "r_acc": 1 - fpr,
        "f_acc": tpr,
        "auc": (wrong * (before + gain / 2)).sum(axis=1) / (reals * fakes),
        "ap": _ap(true, false),
    }


def _ap(true, false):
    """AP of each row; true, false: fakes and reals called fake by each threshold, (R, length)."""
    gain = np.diff(true, axis=1, prepend=0)
    return (gain * true / np.maximum(true + false, 1)).sum(axis=1) / true[:, -1]


def resampled_accuracy(right, total, resamples=RESAMPLES, seed=0):
    """bal_acc of `bootstrap` in no time: of images drawn with repeats, a binomial number is right.

    right, total: of reals and of fakes.
    """
    rng = np.random.default_rng(seed)
    return np.mean([rng.binomial(n, k / n, resamples) / n for k, n in zip(right, total, strict=True)], axis=0)


def interval(values, level=0.95):
    """(low, high): the percentile interval of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def over_generators(resampled, seed=0):
    """Means over generators that are drawn with repeats themselves, (resamples,).

    resampled: the values of each generator, a list of arrays (resamples,).
    """
    values = np.stack(resampled, axis=1)
    chosen = np.random.default_rng(seed).integers(values.shape[1], size=values.shape)
    # Another resample of the images for each draw, so that a generator drawn twice has two.
    count, draws = values.shape
    rows = (np.arange(count)[:, None] + np.arange(draws)) % count
    return values[rows, chosen].mean(axis=1)


def add_intervals(rows, scores, threshold=0.5, level=0.95, average="macro", resamples=RESAMPLES):
    """Adds <metric>_low and <metric>_high to the rows of a table, for the metrics that it has.

    Wilson's interval for accuracies, Newcombe's for balanced accuracy, else the bootstrap over images.  The
    mean is resampled over images and generators; with the average "micro", its row is one of pooled images.

    scores: rows (path, generator, label, score, logit).
    """
    *generators, mean = rows
    names, labels, values = (np.array([row[i] for row in scores]) for i in (1, 2, 3))
    drawn = {}  # metric -> resamples of each generator
    for number, row in enumerate(generators):
        own = names == row["generator"]
        resampled = {} if row["reason"] else bootstrap(labels[own], values[own], threshold, resamples, number)
        for name, sample in resampled.items():
            drawn.setdefault(name, []).append(sample)
        _add_of_images(row, labels[own], values[own], threshold, level, resampled)
    if average == "micro":
        own = np.isin(names, [row["generator"] for row in averaged(generators)])
        resampled = bootstrap(labels[own], values[own], threshold, resamples)
        _add_of_images(mean, labels[own], values[own], threshold, level, resampled)
    else:
        for name in {*drawn} & {*mean}:
            mean[f"{name}_low"], mean[f"{name}_high"] = interval(over_generators(drawn[name]), level)


def _add_of_images(row, labels, values, threshold, level, resampled):
    """Adds the intervals of a row over these images."""
    right = (values > threshold) == (labels == 1)
    for name, own in (("acc", slice(None)), ("r_acc", labels == 0), ("f_acc", labels == 1)):
        if not math.isnan(row.get(name, math.nan)):
            row[f"{name}_low"], row[f"{name}_high"] = wilson(right[own].sum(), len(right[own]), level)
    if "bal_acc" in row and resampled:
        classes = [(right[labels == label].sum(), np.sum(labels == label)) for label in (0, 1)]
        row["bal_acc_low"], row["bal_acc_high"] = mean_of_two(*classes, level)
    for name in {"auc", "ap"} & {*row} & {*resampled}:
        row[f"{name}_low"], row[f"{name}_high"] = interval(resampled[name], level)


# ----- two detectors on the same images -----
# groups: a name per image, (N,); then the test is of the mean over groups, whose images differ.


def mcnemar(gained, lost):
    """Two-sided exact p-value that both detectors are wrong equally often.

    gained, lost: images that only the second, only the first gets right.
    Source: McNemar, Psychometrika 1947.
    """
    from scipy.stats import binomtest

    return float(binomtest(int(gained), int(gained + lost)).pvalue) if gained + lost else 1.0


def delong(labels, first, second, groups=None):
    """Two-sided p-value that two detectors have the same AUC; NaN unless each class has two images.

    Without any difference it is 1.  Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    from scipy.stats import norm

    parts = [_auc_difference(*part) for part in _grouped(labels, first, second, groups)]
    difference, variance = np.mean(parts, axis=0) / [1, len(parts)]
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def _grouped(labels, first, second, groups):
    """(labels, first, second) of each group."""
    columns = [np.asarray(column) for column in (labels, first, second)]
    if groups is None:
        return [columns]
    groups = np.asarray(groups).astype(str)
    return [[column[groups == name] for column in columns] for name in np.unique(groups)]


def _auc_difference(labels, first, second):
    """(second AUC minus the first, its variance); NaN unless each class has two images."""
    if min(np.sum(labels == 0), np.sum(labels == 1)) < 2:
        return math.nan, math.nan
    parts = [_placements(labels, scores) for scores in (first, second)]
    # Differences of each fake's and each real's share in the AUC.
    fakes, reals = (two - one for one, two in zip(*parts, strict=True))
    return fakes.mean(), fakes.var(ddof=1) / len(fakes) + reals.var(ddof=1) / len(reals)


def _placements(labels, scores):
    """(share of reals below each fake, share of fakes above each real); a tie is half."""
    fakes, reals = scores[labels == 1], scores[labels == 0]
    return _below(fakes, reals), 1 - _below(reals, fakes)


def _below(values, others):
    others = np.sort(others)
    sides = [np.searchsorted(others, values, side) for side in ("left", "right")]
    return np.mean(sides, axis=0) / len(others)


def permute_ap(labels, first, second, groups=None, permutations=PERMUTATIONS, seed=0):
    """Two-sided p-value that two detectors have the same AP: the images' ranks are swapped at random.

    Ranks, since the scores of two detectors have no common scale; NaN unless both classes are there.
    """
    rng = np.random.default_rng(seed)
    parts = _grouped(labels, first, second, groups)
    if any(len(np.unique(part[0])) < 2 for part in parts):
        return math.nan
    observed, *permuted = np.abs(
        np.mean([_ap_differences(*part, permutations, rng) for part in parts], axis=0)
    )
    return float((1 + np.sum(np.array(permuted) >= observed - 1e-12)) / (1 + permutations))


def _ap_differences(labels, first, second, permutations, rng):
    """Second AP minus the first: as observed, then after each permutation, (1 + permutations,)."""
    from scipy.stats import rankdata

    # Doubled, so that ties have whole numbers; 0 is the highest score.
    positions = np.rint(2 * rankdata([-first, -second], axis=1)).astype(int) - 2
    length, differences = 2 * len(labels), []
    size = max(1, PERMUTED // len(labels))
    for start in range(0, 1 + permutations, size):
        swap = rng.integers(2, size=(min(size, 1 + permutations - start), len(labels)), dtype=bool)
        swap[0] &= start > 0
        aps = []
        for one, other in (positions, positions[::-1]):
            ranks = np.where(swap, other, one)
            aps.append(_ap(*(_called(ranks[:, labels == label], length) for label in (1, 0))))
        differences.append(aps[1] - aps[0])
    return np.concatenate(differences)


def holm(p_values):
    """Holm-adjusted p-values; a NaN stays and does not count as a test.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. of Statistics 1979.
    """
    adjusted = np.array(p_values, dtype=float)
    order = np.argsort(adjusted)[: np.sum(~np.isnan(adjusted))]  # NaN is sorted to the end
    tests_left = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, tests_left * adjusted[order]))
    return adjusted.tolist()
