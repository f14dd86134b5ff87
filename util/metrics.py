"""Numbers of one generator from labels and scores.  Fake = 1, score up = more fake, above 0.5 says fake.

A metric that needs both classes is NaN where one is missing; `reason` then says which.  To add a metric,
write a function (labels, scores) -> float and give it a line in METRICS.
"""

import math

import numpy as np

THRESHOLD = 0.5  # a score of exactly 0.5 counts as real, as upstream's evaluation does


def accuracy(labels, scores):
    """Share of images on their own side of the threshold; NaN unless both classes are there."""
    return _both(labels, lambda: np.mean((scores > THRESHOLD) == (labels == 1)))


def average_precision(labels, scores):
    """Area under precision over recall as a step sum; ties share one threshold."""
    from sklearn.metrics import average_precision_score  # here: it takes two seconds

    return _both(labels, lambda: average_precision_score(labels, scores))


def auc(labels, scores):
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return _both(labels, lambda: roc_auc_score(labels, scores))


def real_accuracy(labels, scores):
    """Share of reals that are called real; NaN without reals."""
    return _mean(scores[labels == 0] <= THRESHOLD)


def fake_accuracy(labels, scores):
    """Share of fakes that are called fake; NaN without fakes."""
    return _mean(scores[labels == 1] > THRESHOLD)


METRICS = {
    "acc": accuracy,
    "ap": average_precision,
    "r_acc": real_accuracy,
    "f_acc": fake_accuracy,
    "auc": auc,
}


def measure(labels, scores):
    """All METRICS of one generator, its number of images, and why some are NaN (else "").

    labels: 0 or 1, (N,); scores: float32 sigmoid, (N,).
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    row = {name: metric(labels, scores) for name, metric in METRICS.items()}
    return {**row, "images": len(labels), "reason": reason(labels)}


def reason(labels):
    """Why two-class metrics cannot be given: "no images", "no real images", "no fake images" or ""."""
    missing = [name for label, name in enumerate(("real", "fake")) if not np.any(labels == label)]
    if len(missing) == 2:
        return "no images"
    return f"no {missing[0]} images" if missing else ""


def tabulate(generators, labels, scores, order=None, average="macro"):
    """Rows per generator in the given order, then their mean over those where accuracy is defined.

    generators: name per image.  average: "macro", the mean over generators, or "micro", every metric over all
    their images pooled.  The mean's `reason` says over how many generators it runs.
    """
    generators, labels, scores = np.asarray(generators, dtype=object), np.asarray(labels), np.asarray(scores)
    order = list(order) if order is not None else list(dict.fromkeys(generators.tolist()))
    own = {name: generators == name for name in order}
    rows = [{"generator": name, **measure(labels[mask], scores[mask])} for name, mask in own.items()]
    complete = [row["generator"] for row in rows if not row["reason"]]
    if average == "micro":
        pooled = np.isin(generators.astype(str), complete)
        mean = {name: metric(labels[pooled], scores[pooled]) for name, metric in METRICS.items()}
    else:
        mean = {name: _mean([row[name] for row in rows if not row["reason"]]) for name in METRICS}
    notes = ["over all images"] if average == "micro" else []
    notes += [f"mean over {len(complete)} of {len(rows)}"] if len(complete) < len(rows) else []
    return [*rows, {"generator": "Mean", **mean, "images": len(labels), "reason": "; ".join(notes)}]


def add_published(rows, published, average="macro"):
    """Adds published_acc, published_ap, diff_acc and diff_ap (ours minus published) to rows of `tabulate`.

    The mean is compared only over the same generators and taken the same way: the published mean where ours
    covers all of them, else (macro) the mean of the published cells of those that ours covers.
    """
    *singles, mean = rows
    covered = [published.cells.get(row["generator"]) for row in singles if not row["reason"]]
    whole = len(covered) == len(singles)
    for metric in ("acc", "ap"):
        for row in singles:
            _compare(row, metric, getattr(published.cells.get(row["generator"]), metric, math.nan))
        same = whole and published.average == average
        printed = getattr(published.mean, metric, math.nan) if same else math.nan
        if math.isnan(printed) and average == "macro":
            printed = _mean([getattr(cell, metric, math.nan) for cell in covered])
        _compare(mean, metric, printed)


def _compare(row, metric, value):
    for name, number in ((f"published_{metric}", value), (f"diff_{metric}", row[metric] - value)):
        row[name] = None if math.isnan(number) else number


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def _both(labels, compute):
    return float(compute()) if np.any(labels == 0) and np.any(labels == 1) else math.nan
