"""Images -> scores, for every script: a loader goes through a detector."""

import numpy as np
import torch

from common import UserError
from util.batching import logits_by_size
from util.results import sigmoid

SHOWN = 50  # bad images that are listed on the terminal; records hold all


class BadImageError(UserError):
    """A file that cannot be used, under the policy "stop"."""


class BadImages:
    """What to do about files that cannot be used: stop with the path, or count and list them."""

    def __init__(self, policy, dataset):
        self.policy, self.dataset = policy, dataset
        self.reasons = {}  # path -> reason
        self.by_view = {view.name: {} for view in dataset.views}

    def add(self, pairs):
        """Takes [(index of an item, reason)]; raises BadImageError under the policy "stop"."""
        for number, reason in pairs:
            index, position = divmod(number, len(self.by_view))
            path = self.dataset.samples[index].path
            if self.policy == "stop":
                remedy = "--on_bad_image skip leaves such files out and lists them"
                raise BadImageError(f"bad image {self.dataset.root / path}: {reason} ({remedy})")
            self.reasons[path] = reason
            self.by_view[self.dataset.views[position].name][path] = reason

    def describe(self):
        """ "" or a list of the files left out."""
        return describe_bad(self.reasons)


def describe_bad(reasons):
    """ "" or a list of the files left out.  reasons: {path: reason}."""
    if not reasons:
        return ""
    lines = [f"  {path}: {reason}" for path, reason in sorted(reasons.items())]
    more = [f"  and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return "\n".join([f"{len(lines):,} bad images were left out:", *lines[:SHOWN], *more])


def score(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """Scores a whole loader; yields lists of rows {"path", "score", "logit", "error"}, pass by pass.

    detector: on the device and in evaluation mode.  bad: BadImages of the loader's dataset; those left out
    are the last list.  stop: a StopSignal; progress: a tqdm bar over images.
    """
    samples = bad.dataset.samples
    for index, on_device in stream(detector, loader, device, bad, bf16, stop, progress):
        logits = on_device.cpu().numpy()
        require_finite(index.numpy(), logits, bad.dataset)
        paths = [samples[position].path for position in index.tolist()]
        yield [
            {"path": path, "score": value, "logit": logit, "error": None}
            for path, value, logit in zip(paths, sigmoid(logits), logits, strict=True)
        ]
    yield [{"path": path, "score": None, "logit": None, "error": why} for path, why in bad.reasons.items()]


def predict(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """(indices int64, logits float32) of a loader, sorted, without bad images; arguments as for `score`.

    The detector is put into evaluation mode.
    """
    detector.eval()
    passes = list(stream(detector, loader, device, bad, bf16, stop, progress))  # logits stay on the device
    if not passes:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    index, logit = (torch.cat(parts).cpu().numpy() for parts in zip(*passes, strict=True))
    require_finite(index, logit, bad.dataset)
    order = np.argsort(index)
    return index[order], logit[order]


def tune_kernels(dataset, deterministic):
    """Lets cuDNN choose kernels by trial, which for images of many sizes costs too much."""
    torch.backends.cudnn.benchmark = dataset.fixed_size and not deterministic


def stream(detector, loader, device, bad, bf16=False, stop=None, progress=None):
    """Yields (index, logits on the device) pass by pass; raises unless the loader gave every image."""
    asked = 0

    def parts():
        nonlocal asked
        for batch in stop.watch(loader) if stop is not None else loader:
            bad.add(batch["bad"])
            yield from batch["parts"]
            count = len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"])
            asked += count
            if progress is not None:
                progress.update(count)

    most = max((len(batch) for batch in loader.batch_sampler), default=1)  # --batch_size bounds a pass
    yield from logits_by_size(detector, parts(), device, bf16, most=most)
    expected = sum(map(len, loader.batch_sampler)) * len(bad.by_view)
    if asked != expected:
        raise RuntimeError(f"the loader delivered {asked} of {expected} images")


def require_finite(index, logit, dataset):
    """UserError for a logit of NaN or inf."""
    broken = index[~np.isfinite(logit)] // len(dataset.views)
    if len(broken):
        first = dataset.root / dataset.samples[broken[0]].path
        images = f"{len(broken)} images, first {first}"
        raise UserError(f"the detector gave NaN or inf for {images}; are the weights damaged?")


def describe_input(dataset, amp):
    """What scores depend on besides the weights and the files: geometry, limits, decoding, precision."""
    limits = dataset.limits
    cropped = limits.crop_large and dataset.patches is None
    bounds = {"max_input_mpx": limits.max_input_mpx, "crop_large": limits.crop_large}
    return {
        "input": dataset.describe_input() + (", centre of inputs beyond --max_input_mpx" if cropped else ""),
        "geometry": dataset.geometry.as_dict(),
        "limits": {"max_mpx": dataset.max_mpx, **bounds, "exif": dataset.exif},
        "precision": "bf16" if amp == "bf16" else "fp32",
        "batch_rule": "equal sizes together, no padding",
    }
