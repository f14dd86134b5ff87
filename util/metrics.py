"""Numbers of one generator from labels and scores.  Fake = 1, score up = more fake, above 0.5 says fake.

A metric that needs both classes is NaN where one is missing; `reason` then says which.  To add a metric,
write a function (labels, scores) -> float and give it a line in METRICS.
"""

import math

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

THRESHOLD = 0.5  # a score of exactly 0.5 counts as real, as upstream's evaluation does


def accuracy(labels, scores):
    """Share of images on their own side of the threshold; NaN unless both classes are there."""
    return _both(labels, lambda: np.mean((scores > THRESHOLD) == (labels == 1)))


def average_precision(labels, scores):
    """Area under precision over recall as a step sum; ties share one threshold."""
    return _both(labels, lambda: average_precision_score(labels, scores))


def auc(labels, scores):
    """Area under the ROC curve."""
    return _both(labels, lambda: roc_auc_score(labels, scores))


def real_accuracy(labels, scores):
    """Share of reals that are called real; NaN without reals."""
    reals = scores[labels == 0]
    return float(np.mean(reals <= THRESHOLD)) if reals.size else math.nan


def fake_accuracy(labels, scores):
    """Share of fakes that are called fake; NaN without fakes."""
    fakes = scores[labels == 1]
    return float(np.mean(fakes > THRESHOLD)) if fakes.size else math.nan


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
    return {0: "", 1: f"no {missing[0]} images" if missing else "", 2: "no images"}[len(missing)]


def tabulate(generators, labels, scores, order=None):
    """Rows per generator in the given order, then the macro mean over those where accuracy is defined.

    generators: name per image.  The mean's `images` is the total; its `reason` says over how many it runs.
    """
    generators, labels, scores = np.asarray(generators, dtype=object), np.asarray(labels), np.asarray(scores)
    order = list(order) if order is not None else list(dict.fromkeys(generators.tolist()))
    rows = [
        {"generator": name, **measure(labels[generators == name], scores[generators == name])}
        for name in order
    ]
    complete = [row for row in rows if not row["reason"]]
    mean = {
        name: float(np.mean([row[name] for row in complete])) if complete else math.nan for name in METRICS
    }
    note = "" if len(complete) == len(rows) else f"mean over {len(complete)} of {len(rows)}"
    return [*rows, {"generator": "Mean", **mean, "images": len(labels), "reason": note}]


def _both(labels, compute):
    return float(compute()) if np.any(labels == 0) and np.any(labels == 1) else math.nan
