"""From logits to probabilities that can be believed, a threshold, and a band in which a detector is unsure.

    p(fake) = sigmoid((logit + shift) / temperature)

All of it is fitted on labelled images like those to come, and holds for such images only.  Fake = 1.
Source of the shift: arXiv 2602.01973; of the temperature: Guo et al., ICML 2017.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from common import UserError, write_json
from util.identity import read_side_file
from util.metrics import measure, tabulate

TEMPERATURES = 0.1, 10.0  # a perfect validation set would ask for 0
SHIFTS = -50.0, 50.0
BOUND = 0.95  # confidence of the bound on the accuracy of reals


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities and verdicts; the default changes nothing."""

    shift: float = 0.0  # of the logit
    temperature: float = 1.0
    threshold: float = 0.5  # a probability above it says fake
    # Of a chosen share of errors: from `low` to `high` the verdict is "unsure".  None: no band.
    low: float | None = None
    high: float | None = None
    fitted_on: dict = field(default_factory=dict)  # images, their hash, the accuracy asked for

    def probability(self, logits):
        """float32 probability of fake of logits (N,)."""
        scaled = (np.asarray(logits, np.float64) + self.shift) / self.temperature
        return (1 / (1 + np.exp(-np.clip(scaled, -700, 700)))).astype(np.float32)

    def verdict(self, probability):
        """ "real" or "fake"; with a band "unsure" from `low` to `high`."""
        if self.low is None:
            return "fake" if probability > self.threshold else "real"
        if self.low <= probability <= self.high:
            return "unsure"
        return "fake" if probability > self.high else "real"

    def as_dict(self):
        """Plain values for a checkpoint or a JSON file."""
        return asdict(self)

    def describe(self):
        """In words, for the caption of a table."""
        known = f"{self.fitted_on.get('images', 0):,} images of {self.fitted_on.get('set', 'unknown origin')}"
        if views := self.fitted_on.get("views"):
            known += f", views {', '.join(views)}"
        return (
            f"cal.: (logit {self.shift:+.2f}) / {self.temperature:.2f}, threshold {self.threshold:.3f}, "
            f"fitted on {known}"
        )

    def misfit(self, geometry):
        """A notice where images are cut in another way than those of the fit; "" where not, or not known.

        geometry: data.transforms.Geometry.
        """
        pairs = {"crop": geometry.crop_size, "crops": geometry.crops}
        if all(self.fitted_on.get(name, value) == value for name, value in pairs.items()):
            return ""
        fitted, asked = (
            f"{crops} crops of {f'{crop} px' if crop else 'the whole image'}"
            for crop, crops in [(self.fitted_on.get("crop"), self.fitted_on.get("crops", 1)), pairs.values()]
        )
        return f"notice: the calibration is of {fitted}, here are {asked}: it need not hold"


# ----- calibrations of weight files -----

COUNTED = ("images", "error")  # entries of fitted_on that are printed
CHANGES = {"bal_acc": "balanced accuracy", "r_acc": "real", "f_acc": "fake"}
TWINS = ("acc", "bal_acc", "brier", "nll", "ece", "ece_bal")  # metrics that calibration changes


def side_file(path):
    """Where the calibration of a weight file is written by val.py --calibrate."""
    return Path(f"{path}.calibration.json")


def of(loaded):
    """The Calibration of a loaded weight file, or None: that of its side file, else the training's own."""
    path, content = side_file(loaded.path), loaded.content.get("calibration")
    remedy = "val.py --calibrate writes it again"
    if path.is_file():
        content = read_side_file(path, remedy, ("shift", "temperature", "threshold", "weights_sha256"))
        if content["weights_sha256"] != loaded.sha256:
            raise UserError(f"{path} belongs to other weights; {remedy}")
    if content is not None and (wrong := damage(content)):
        source = path if path.is_file() else f"the calibration in {loaded.path}"
        raise UserError(f"{source} is damaged ({wrong}); {remedy}")
    fields = Calibration.__dataclass_fields__
    return Calibration(**{name: content[name] for name in fields if name in content}) if content else None


def damage(content):
    """What is wrong with the values of a side file, "" for nothing.  content: its dict."""
    if not isinstance(content, dict):
        return f"expected an object, got {content!r}"
    known = asdict(Calibration()) | content
    for name, (expected, accept) in LEGAL.items():
        if not accept(known[name]):
            return f"{name}: expected {expected}, got {known[name]!r}"
    low, high = known["low"], known["high"]
    if (low is None) != (high is None) or (low is not None and low > high):
        return f"low and high: expected both, the lower first, or none, got {low} and {high}"
    return ""


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _share(value):
    return _number(value) and 0 <= value <= 1


LEGAL = {  # field of Calibration -> (what is expected, whether a value is that)
    "shift": ("a number", _number),
    "temperature": ("a number above 0", lambda value: _number(value) and value > 0),
    "threshold": ("a number from 0 to 1", _share),
    "low": ("a number from 0 to 1 or null", lambda value: value is None or _share(value)),
    "high": ("a number from 0 to 1 or null", lambda value: value is None or _share(value)),
    "fitted_on": (
        "an object whose images and error are numbers",
        lambda value: isinstance(value, dict) and all(_number(value.get(name) or 0) for name in COUNTED),
    ),
}


def save(calibration, loaded):
    """Writes the side file of a weight file; returns its path."""
    write_json(side_file(loaded.path), calibration.as_dict() | {"weights_sha256": loaded.sha256})
    return side_file(loaded.path)


def require_free(loaded, opt):
    """UserError where a calibration would be lost, or the images as they are stored are not scored."""
    if all(view.steps for view in opt.views):
        raise UserError("--calibrate needs the view native, images as they are stored")
    if side_file(loaded.path).exists() and not (opt.overwrite or opt.resume):
        ways = "--overwrite replaces it and the scores, --resume keeps the scores and replaces it"
        raise UserError(f"{side_file(loaded.path)} exists; {ways}")


def fit_and_save(loaded, result, opt, about):
    """Fits on the scores of all views, writes the side file; returns what to print."""
    scores = [row for rows in result.scores.values() for row in rows]
    views = np.repeat(np.arange(len(result.scores)), list(map(len, result.scores.values())))
    labels, logits = (np.array([row[i] for row in scores]) for i in (2, 4))
    about = {**about, "views": [view.name for view in result.scores]}
    calibration = fit(labels, logits, opt.real_accuracy, opt.unsure, about, views)
    before, after = (
        measure(labels, kind.probability(logits), tuple(CHANGES), kind.threshold)
        for kind in (Calibration(), calibration)
    )
    changes = [f"{words} {before[name]:.1%} -> {after[name]:.1%}" for name, words in CHANGES.items()]
    lines = [
        calibration.describe(),
        f"on these images: {', '.join(changes)}",
        describe_band(calibration, scores),
        "It holds for images like these only: test it on others.",
        f"-> {save(calibration, loaded)}",
    ]
    return "\n".join(filter(None, lines))


def add_calibrated(rows, scores, calibration, order, average, least=1):
    """Adds cal_<metric> to the rows of a table, for those of TWINS that they have.

    scores: rows (path, generator, label, score, logit).
    """
    chosen = tuple(name for name in TWINS if name in rows[0])
    generators, labels, logits = [[row[i] for row in scores] for i in (1, 2, 4)]
    scaled = calibration.probability(logits)
    twins = tabulate(generators, labels, scaled, order, average, chosen, calibration.threshold, least)
    for row, twin in zip(rows, twins, strict=True):
        row |= {f"cal_{name}": twin[name] for name in chosen}


def describe_band(calibration, scores):
    """How many images are in the unsure band, and how many others are wrong; "" where none was wanted."""
    asked = calibration.fitted_on.get("error") or 0
    if calibration.low is None and asked:
        return f"no unsure band: with the threshold at most {asked:.1%} of each class are wrong without one"
    if calibration.low is None or not scores:
        return ""
    verdicts = list(map(calibration.verdict, calibration.probability([row[4] for row in scores])))
    unsure = verdicts.count("unsure") / len(verdicts)
    mistaken = [verdict == ("fake", "real")[row[2]] for verdict, row in zip(verdicts, scores, strict=True)]
    wrong = sum(mistaken) / len(mistaken)
    return (
        f"unsure {calibration.low:.3f} to {calibration.high:.3f}: {unsure:.1%} unsure, {wrong:.1%} wrong"
        f" (at most {asked:.1%} for images like those of the calibration)"
    )


# ----- fitting -----


def fit(labels, logits, real_accuracy=None, error=None, fitted_on=None, views=None):
    """A Calibration fitted on logits (N,) of images with labels (N,); each class weighs a half.

    Args:
        real_accuracy: choose the smallest threshold that calls at least this share of reals real, by a bound
            that holds with 95 % confidence; else the threshold is that of the best balanced accuracy.
        error: share of errors outside the unsure band, the same for both classes; None: no band.  The band
            holds the threshold, so that nothing on the wrong side of it has a verdict.
        views: (N,), which view of its image each logit is of; threshold and band then hold under every one.
    UserError unless both classes are there, or where too few images are for what is asked.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, np.float64)
    if len(np.unique(labels)) < 2:
        raise UserError("calibration needs real and fake images")
    shift, temperature = fit_shift(labels, logits)
    scaled = Calibration(shift, temperature)
    scores = scaled.probability(logits)
    threshold = best_threshold(labels, scores)
    parts = [np.ones(len(labels), bool)] if views is None else [views == view for view in np.unique(views)]
    if real_accuracy is not None:
        reals = [scores[part & (labels == 0)] for part in parts]
        threshold = max(guarded_threshold(of_view, real_accuracy) for of_view in reals)
    low, high = None, None
    if error is not None:
        bands = [unsure_band(labels[part], scores[part], error, threshold) for part in parts]
        if bands := [band for band in bands if band[0] is not None]:
            low, high = min(band[0] for band in bands), max(band[1] for band in bands)
    counts = {"reals": np.sum(labels == 0), "fakes": np.sum(labels == 1), "images": len(labels)}
    about = {name: int(count) // len(parts) for name, count in counts.items()}
    about |= {"real_accuracy": real_accuracy, "error": error, **(fitted_on or {})}
    return Calibration(shift, temperature, threshold, low, high, about)


def fit_shift(labels, logits):
    """(shift, temperature) of the smallest class-balanced negative log likelihood.

    Targets are (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0, so that classes that are apart on a few
    images do not ask for certainty.  Source: Platt, Probabilistic Outputs for SVMs, 1999.
    """
    from scipy.optimize import minimize  # here: SciPy takes long to import

    counts = np.bincount(labels, minlength=2)
    weights = 1 / counts[labels] / 2
    targets = np.array([1 / (counts[0] + 2), (counts[1] + 1) / (counts[1] + 2)])[labels]

    def loss(parameters):
        shift, slope = parameters
        scaled = (logits + shift) * slope
        gradient = weights * (1 / (1 + np.exp(-np.clip(scaled, -700, 700))) - targets)
        slopes = [np.sum(gradient * slope), np.sum(gradient * (logits + shift))]
        return np.sum(weights * (np.logaddexp(0, scaled) - targets * scaled)), np.array(slopes)

    lowest, highest = TEMPERATURES
    middle = -np.mean([np.median(logits[labels == label]) for label in (0, 1)])
    bounds = [SHIFTS, (1 / highest, 1 / lowest)]
    start = [np.clip(middle, *SHIFTS), 1.0]
    shift, slope = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(shift), float(1 / slope)


def best_threshold(labels, scores):
    """The middle of the widest gap between scores of the best balanced accuracy; above it is fake."""
    values = np.unique(np.concatenate([[0.0], scores.astype(np.float64), [1.0]]))
    reals, fakes = (np.sort(scores[labels == label]) for label in (0, 1))
    right = np.searchsorted(reals, values, "right") / len(reals)
    found = 1 - np.searchsorted(fakes, values, "right") / len(fakes)
    balanced = (right + found)[:-1]
    gaps = np.where(balanced >= balanced.max() - 1e-12, np.diff(values), -1.0)
    widest = int(np.argmax(gaps))
    middle = (values[widest] + values[widest + 1]) / 2
    # Scores are float32: a middle that is rounded up would call the upper score real.
    return float(middle if np.float32(middle) < values[widest + 1] else values[widest])


def guarded_threshold(reals, accuracy):
    """The smallest threshold at which a 95 % bound says that `accuracy` of the reals are called real.

    Source: Clopper and Pearson's lower bound.  It holds for images like `reals` only.
    """
    from scipy.stats import beta  # here: SciPy takes long to import

    reals, count = np.sort(reals), len(reals)
    # A threshold is the score of a real: those up to it are called real, ties together.
    right = np.searchsorted(reals, reals, "right")
    enough = np.flatnonzero(beta.ppf(1 - BOUND, right, count - right + 1) >= accuracy)
    if not len(enough):
        raise UserError(
            f"{count} real images cannot show with {BOUND:.0%} confidence that {accuracy:.1%} of reals are "
            f"called real; it takes at least {least_reals(accuracy)}"
        )
    return float(reals[enough[0]])


def least_reals(accuracy):
    """How many reals, all called real, show an accuracy."""
    return int(np.ceil(np.log(1 - BOUND) / np.log(accuracy)))


def unsure_band(labels, scores, error, threshold):
    """(low, high): at most a share `error` of the fakes is below `low`, and of the reals above `high`.

    Split conformal prediction by class: the guarantee holds on average over draws of calibration images.
    The band is widened to hold the threshold.  (None, None) where no more than that are wrong at the
    threshold without a band.  UserError where a class has too few images.
    Source: Vovk, Gammerman and Shafer, 2005.
    """
    reals, fakes = (np.sort(scores[labels == label]) for label in (0, 1))
    least = np.ceil(1 / error) - 1
    if min(len(reals), len(fakes)) < least:
        raise UserError(f"an unsure band with {error:.1%} errors needs {least:.0f} images of each class")
    high = reals[int(np.ceil((len(reals) + 1) * (1 - error))) - 1]  # above it: surely not real
    low = fakes[int(np.floor((len(fakes) + 1) * error)) - 1]  # below it: surely not fake
    if high <= threshold < low:
        return None, None
    return min(float(low), threshold), max(float(high), threshold)
