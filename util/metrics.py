"""Numbers of one generator from labels and scores.  Fake = 1, score up = more fake, above 0.5 says fake.

A metric that needs both classes is NaN where one is missing; `reason` then says which.  To add a metric,
write a function (labels, scores, threshold) -> float and give it a line in METRICS.  labels: 0 or 1, (N,);
scores: float32 probability of fake, (N,); threshold: above it an image is called fake.
"""

import math
from functools import partial

import numpy as np

FAKES_ONLY = "no real images"
THRESHOLD = 0.5  # a score of exactly 0.5 counts as real, as upstream's evaluation does
ECE_BINS = 15


def accuracy(labels, scores, threshold=THRESHOLD):
    """Share of images on their own side of the threshold; NaN unless both classes are there."""
    return _both(labels, lambda: np.mean((scores > threshold) == (labels == 1)))


def average_precision(labels, scores, threshold=None):
    """Area under precision over recall as a step sum; ties share one threshold."""
    from sklearn.metrics import average_precision_score  # here: it takes two seconds

    return _both(labels, lambda: average_precision_score(labels, scores))


def auc(labels, scores, threshold=None):
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return _both(labels, lambda: roc_auc_score(labels, scores))


def real_accuracy(labels, scores, threshold=THRESHOLD):
    """Share of reals that are called real; NaN without reals."""
    return _mean(scores[labels == 0] <= threshold)


def fake_accuracy(labels, scores, threshold=THRESHOLD):
    """Share of fakes that are called fake; NaN without fakes."""
    return _mean(scores[labels == 1] > threshold)


def balanced_accuracy(labels, scores, threshold=THRESHOLD):
    """Mean of the accuracies of reals and of fakes."""
    return _both(
        labels, lambda: np.mean([f(labels, scores, threshold) for f in (real_accuracy, fake_accuracy)])
    )


def oracle_accuracy(labels, scores, threshold=None):
    """The best balanced accuracy that any threshold reaches on these images: no detector has it in use."""
    return _both(labels, lambda: np.max(1 + np.subtract(*_roc(labels, scores)[::-1])) / 2)


def tpr_at_fpr(labels, scores, threshold=None, limit=0.05):
    """Largest share of fakes found by a threshold that calls at most `limit` of the reals fake."""

    def best():
        fpr, tpr = _roc(labels, scores)
        return tpr[fpr <= limit].max()

    return _both(labels, best)


def fpr_at_tpr(labels, scores, threshold=None, least=0.95):
    """Smallest share of reals called fake by a threshold that finds at least `least` of the fakes."""

    def best():
        fpr, tpr = _roc(labels, scores)
        return fpr[tpr >= least].min()

    return _both(labels, best)


def equal_error_rate(labels, scores, threshold=None):
    """Share of wrong reals where it equals that of wrong fakes, on straight lines between thresholds."""

    def crossing():
        fpr, tpr = _roc(labels, scores)
        return np.interp(0, fpr + tpr - 1, fpr)  # fpr + tpr never falls along the curve

    return _both(labels, crossing)


def brier(labels, scores, threshold=None):
    """Mean squared distance of the score from the label."""
    return _mean((scores.astype(float) - labels) ** 2)


def nll(labels, scores, threshold=None):
    """Mean negative log likelihood in nats; scores stay 2^-24 away from 0 and 1, where float32 ends."""
    likelihood = np.where(labels == 1, scores.astype(float), 1 - scores.astype(float))
    return _mean(-np.log(np.clip(likelihood, 2.0**-24, 1 - 2.0**-24)))


def calibration_error(labels, scores, threshold=None, balanced=False):
    """Expected calibration error: |mean score - share of fakes| over ECE_BINS equal bins of the score.

    Bins are weighed by their images; with `balanced` each class weighs a half in all, so that a set of few
    reals says as much as one of many.  Source: Naeini et al., AAAI 2015.
    """
    if not len(labels) or (balanced and len(np.unique(labels)) < 2):
        return math.nan
    weights = np.ones(len(labels))
    if balanced:
        weights = 1 / np.bincount(labels, minlength=2)[labels]
    gap = np.bincount(bins_of(scores), weights * (scores.astype(float) - labels), ECE_BINS)
    return float(np.abs(gap).sum() / weights.sum())


def bins_of(scores):
    """The number of each score's bin, of ECE_BINS equal ones."""
    return np.minimum((scores.astype(float) * ECE_BINS).astype(int), ECE_BINS - 1)


METRICS = {
    "acc": accuracy,
    "ap": average_precision,
    "r_acc": real_accuracy,
    "f_acc": fake_accuracy,
    "auc": auc,
    "bal_acc": balanced_accuracy,
    "tpr1": partial(tpr_at_fpr, limit=0.01),
    "tpr5": partial(tpr_at_fpr, limit=0.05),
    "tpr10": partial(tpr_at_fpr, limit=0.10),
    "fpr95": partial(fpr_at_tpr, least=0.95),
    "eer": equal_error_rate,
    "brier": brier,
    "nll": nll,
    "ece": calibration_error,
    "ece_bal": partial(calibration_error, balanced=True),
    "oracle": oracle_accuracy,
}
PUBLISHED = ("acc", "ap", "r_acc", "f_acc", "auc")  # what a table shows unless asked for more


def measure(labels, scores, metrics=PUBLISHED, threshold=THRESHOLD, least=1):
    """{name: METRICS of one generator}, its number of images, and why some are NaN (else "").

    labels: 0 or 1, (N,); scores: float32 sigmoid, (N,).  least: with fewer images of a class, all are NaN.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    few = min(np.sum(labels == 0), np.sum(labels == 1)) < least
    row = {
        name: math.nan if few and least > 1 else METRICS[name](labels, scores, threshold) for name in metrics
    }
    return {**row, "images": len(labels), "reason": reason(labels, least)}


def reason(labels, least=1):
    """Why two-class metrics cannot be given: "no images", "no real images", "under 20 fake images" or ""."""
    counts = [int(np.sum(labels == label)) for label in (0, 1)]
    if least > 1 and min(counts) < least:
        return f"{counts[0]} real, {counts[1]} fake: under {least}"
    missing = [name for label, name in enumerate(("real", "fake")) if not np.any(labels == label)]
    if len(missing) == 2:
        return "no images"
    return f"no {missing[0]} images" if missing else ""


def tabulate(
    generators, labels, scores, order=None, average="macro", metrics=PUBLISHED, threshold=THRESHOLD, least=1
):
    """Rows per generator in the given order, then their mean over those that have both classes.

    Of a benchmark of fakes only, the mean is over all generators.

    generators: name per image.  average: "macro", the mean over generators, or "micro", every metric over all
    their images pooled.  least: as for `measure`.  The mean's `reason` says over how many generators it runs.
    """
    generators, labels, scores = np.asarray(generators, dtype=object), np.asarray(labels), np.asarray(scores)
    order = list(order) if order is not None else list(dict.fromkeys(generators.tolist()))
    own = {name: generators == name for name in order}
    rows = [
        {"generator": name, **measure(labels[mask], scores[mask], metrics, threshold, least)}
        for name, mask in own.items()
    ]
    complete = averaged(rows)
    if average == "micro":
        pooled = np.isin(generators.astype(str), [row["generator"] for row in complete])
        mean = {name: METRICS[name](labels[pooled], scores[pooled], threshold) for name in metrics}
    else:
        mean = {name: _mean([row[name] for row in complete]) for name in metrics}
    notes = ["over all images"] if average == "micro" else []
    notes += [f"mean over {len(complete)} of {len(rows)}"] if len(complete) < len(rows) else []
    return [*rows, {"generator": "Mean", **mean, "images": len(labels), "reason": "; ".join(notes)}]


def averaged(rows):
    """The rows that the mean is over: those with both classes, or all that have images if these are fakes."""
    scored = [row for row in rows if row["images"]]
    if all(row["reason"] == FAKES_ONLY for row in scored):
        return scored
    return [row for row in rows if not row["reason"]]


def add_recall(rows, threshold=THRESHOLD, reals=None):
    """Says in the rows of fakes only that `f_acc` is the recall, and how many of other reals are called fake.

    rows: of `tabulate`, with f_acc.  reals: (name, their scores), of the same weights; `fpr` is added.
    """
    *singles, mean = rows
    alone = [row for row in singles if row["reason"] == FAKES_ONLY]
    if alone and averaged(singles) == alone:
        alone.append(mean)
    for row in alone:
        parts = [row["reason"], f"recall {row['f_acc']:.1%} at threshold {threshold:g}"]
        if reals:
            name, scores = reals
            row["fpr"] = float(np.mean(scores > threshold))
            parts.append(f"FPR {row['fpr']:.1%} of {len(scores):,} reals of {name}")
        row["reason"] = "; ".join(filter(None, parts))


def add_published(rows, published, average="macro"):
    """Adds published_acc, published_ap, diff_acc and diff_ap (ours minus published) to rows of `tabulate`.

    The mean is compared only over the same generators and taken the same way: the published mean where ours
    covers all of them, else (macro) the mean of the published cells of those that ours covers.  Published
    accuracies that are something else are compared with the same of ours (`published.accuracy`).
    """
    *singles, mean = rows
    covered = [published.cells.get(row["generator"]) for row in averaged(singles)]
    whole = len(covered) == len(singles)
    for metric in ("acc", "ap"):
        for row in singles:
            cell = published.cells.get(row["generator"])
            _compare(row, metric, getattr(cell, metric, math.nan), published.accuracy)
        same = whole and published.average == average
        printed = getattr(published.mean, metric, math.nan) if same else math.nan
        if math.isnan(printed) and average == "macro":
            printed = _mean([getattr(cell, metric, math.nan) for cell in covered])
        _compare(mean, metric, printed, published.accuracy)


def _compare(row, metric, value, accuracy):
    ours = row[accuracy if metric == "acc" else metric]
    for name, number in ((f"published_{metric}", value), (f"diff_{metric}", ours - value)):
        row[name] = None if math.isnan(number) else number


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def _both(labels, compute):
    return float(compute()) if np.any(labels == 0) and np.any(labels == 1) else math.nan


def _roc(labels, scores):
    """(share of reals, share of fakes) called fake by each threshold, from none to all."""
    from sklearn.metrics import roc_curve

    return roc_curve(labels, scores, drop_intermediate=False)[:2]
