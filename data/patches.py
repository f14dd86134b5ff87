"""The simplest patches of an image: those whose neighbouring pixels differ least.

Source: Chen, Yao and Niu, "A Single Simple Patch is All You Need for AI-generated Image Detection", arXiv
2402.01123; utils/patch.py of its code, which looks at 64 random positions of the image at its stored size.
"""

import zlib

import cv2
import numpy as np
import torch
from PIL import Image

from data.transforms import augmented, to_tensor

EVALUATION_SEED = 100  # of the random positions, by default and in a run's validation
RANDOM_POSITIONS = 64  # (256 // 32) ** 2
SMALL = 256  # an image with a side below the patch is resized to this square, as published
BLOCK_VALUES = 2**22  # bytes summed at once: little memory, and their sum fits int32


def patch_sample(image, geometry, rule, seed, augment=None, rng=None, clean=False):
    """RGB PIL image -> {"image": patches}; with `augment` and `clean` what ESSP's loss also needs.

    Args:
        rule: has size, select, stride and vote, as networks.base.Patches.
        seed: of an evaluation's random positions, which depend on it and on the pixels only.
        rng: decides everything random in training.

    `image` and `clean`, the patch before blur and JPEG, are uint8 (3, P, P), with vote > 1 (N, 3, P, P), N at
    most vote.  `blurred` and `compressed` (0 or 1) say what was done to the image.
    """
    if augment is None:
        return {"image": cut([geometry.evaluation_view(image)], rule, seed)[0]}
    views, degradation = augmented(image, geometry, augment, rng, clean)
    patches = cut(views, rule, seed, rng)
    if not clean:
        return {"image": patches[0]}
    done = {"blurred": int(degradation.sigma is not None), "compressed": int(degradation.quality is not None)}
    return {"image": patches[0], "clean": patches[1], **done}


def cut(views, rule, seed, rng=None):
    """Cuts the patches that are simplest in the first of several equally large RGB PIL images out of each.

    Returns a uint8 tensor per view: (3, P, P), or (N, 3, P, P) where the rule takes several.
    """
    views = [np.ascontiguousarray(enlarged(view, rule.size)) for view in views]
    rng = np.random.default_rng((seed, zlib.crc32(views[0]))) if rng is None else rng
    positions = simplest(views[0], rule, rng)
    results = []
    for view in views:
        patches = [to_tensor(view[top : top + rule.size, left : left + rule.size]) for top, left in positions]
        results.append(patches[0] if rule.vote == 1 else torch.stack(patches))
    return results


def enlarged(image, size):
    """The image; where no patch fits into it, resized to a square of SMALL pixels or of the patch's side."""
    square = (max(SMALL, size),) * 2
    return image if min(image.size) >= size else image.resize(square, Image.Resampling.BILINEAR)


def simplest(pixels, rule, rng):
    """[(top, left)] of the simplest patch of pixels (H, W, 3); of equal ones the first seen.

    With rule.vote N the N simplest that do not overlap (the next best would mostly be the best moved by a
    pixel), simplest first; fewer where there is no room.
    """
    tops, lefts, diversities = candidates(pixels, rule, rng)
    chosen, free = [], diversities.astype(np.float64)
    while len(chosen) < rule.vote and np.isfinite(free).any():
        best = free.argmin()
        top, left = int(tops[best]), int(lefts[best])
        chosen.append((top, left))
        free[(abs(tops - top) < rule.size) & (abs(lefts - left) < rule.size)] = np.inf
    return chosen


def candidates(pixels, rule, rng):
    """(tops, lefts, texture diversity) of every patch that the rule compares, in its order."""
    height, width = (side - rule.size for side in pixels.shape[:2])
    if rule.select == "random64":
        tops = rng.integers(0, height + 1, RANDOM_POSITIONS)
        lefts = rng.integers(0, width + 1, RANDOM_POSITIONS)
        return tops, lefts, diversity(pixels, rule.size, tops, lefts)
    step = {"grid": rule.size, "dense": rule.stride}[rule.select]
    tops, lefts = np.arange(0, height + 1, step), np.arange(0, width + 1, step)
    diversities = dense_diversity(pixels, rule.size, tops, lefts)
    return tops.repeat(len(lefts)), np.tile(lefts, len(tops)), diversities.ravel()


def diversity(pixels, size, tops, lefts):
    """Texture diversity, int64, of the patches at these positions of pixels (H, W, 3), uint8.

    Sum of absolute differences of neighbours, over horizontal, vertical and both diagonal pairs and the three
    channels (paper, equation 1; utils/patch.py).
    """
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size, 3))[:, :, 0]
    stacked = windows[tops, lefts].reshape(-1, 3 * size)  # one below the other
    total = np.zeros(len(tops), np.int64)
    for first, second, down, _ in _neighbours(stacked):
        rows = np.zeros(len(stacked), np.int32)
        rows[: len(first)] = cv2.reduce(cv2.absdiff(first, second), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        total += rows.reshape(-1, size)[:, : size - down].sum(axis=1)
    return total


def dense_diversity(pixels, size, tops, lefts):
    """Texture diversity, int64, (len(tops), len(lefts)), of patches at every combination; tops rise."""
    rows = max(size, BLOCK_VALUES // (3 * pixels.shape[1]))
    blocks, first = [], 0
    while first < len(tops):
        last = np.searchsorted(tops, tops[first] + rows - size, side="right")
        block = pixels[tops[first] : tops[last - 1] + size]
        blocks.append(_block(block, size, tops[first:last] - tops[first], lefts))
        first = last
    return np.concatenate(blocks)


def _block(pixels, size, tops, lefts):
    """dense_diversity through four integral images, one for each direction of neighbours."""
    flat = pixels.reshape(len(pixels), -1)  # a row's pixels with their three channels, one after another
    total = np.zeros((len(tops), len(lefts)), np.int64)
    for first, second, down, right in _neighbours(flat):
        sums = cv2.integral(cv2.absdiff(first, second), sdepth=cv2.CV_32S)
        upper, lower = tops[:, None], (tops + size - down)[:, None]
        left, end = 3 * lefts, 3 * (lefts + size - right)
        total += sums[lower, end] - sums[upper, end] - sums[lower, left] + sums[upper, left]
    return total


def _neighbours(flat):
    """(pixels, neighbours, rows lost, columns lost) per direction, of rows of pixels with 3 channels."""
    yield flat[:, 3:], flat[:, :-3], 0, 1
    yield flat[1:], flat[:-1], 1, 0
    yield flat[1:, 3:], flat[:-1, :-3], 1, 1
    yield flat[1:, :-3], flat[:-1, 3:], 1, 1


def describe_patches(rule, seed):
    """The choice in words, e.g. for a table's caption."""
    size, taken = f"{rule.size}x{rule.size}", "simplest" if rule.vote == 1 else f"{rule.vote} simplest"
    return {
        "random64": f"{taken} of {RANDOM_POSITIONS} random {size} patches, seed {seed}",
        "grid": f"{taken} of all non-overlapping {size} patches",
        "dense": f"{taken} of all (every {rule.stride} px) {size} patches",
    }[rule.select]
