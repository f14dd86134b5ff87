"""Images of any size -> logits: equal sizes go through the network together, nothing is padded or resized.

Up to float32 rounding (relative 1e-6) an image has the same logit in every batch.
"""

import math

import torch

# Pixels per forward pass.  On a CPU larger passes leave the cache and are slower (tools/benchmark.py).
CPU_PIXELS = 2 * 256 * 256
GPU_PIXELS = 64 * 1024 * 1024  # on a GPU the bound only keeps activations within its memory
BYTES_PER_PIXEL = 600  # of a GPU's free memory; the NPR network needs about half of it in fp32
CROPS_NDIM = 5  # (image, crop, channel, row, column)
WAITING_PASSES = 4  # images that wait for others of their size may fill this many passes


def pixels_per_pass(device):
    """How many pixels one forward pass may hold on this device."""
    if device.type == "cpu":
        return CPU_PIXELS
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own cache
        free = torch.cuda.mem_get_info(device)[0] + unused
        return min(GPU_PIXELS, max(CPU_PIXELS, free // BYTES_PER_PIXEL))
    return GPU_PIXELS // 4


class SizeBuckets:
    """Joins images of equal size until a forward pass is full: `limit` pixels or `most` images.

    Parts are {"image": uint8 (B, 3, H, W) or (B, N, 3, H, W), "index": (B,)}; passes are (images, index).
    enlargement: pixels that the network sees for each of an image's.
    """

    def __init__(self, device, limit=None, most=None, enlargement=1):
        self.device, self.limit, self.most = device, limit or pixels_per_pass(device), most
        self.enlargement = enlargement
        self.waiting = {}  # shape of an image -> [(images, index)]

    def add(self, part):
        """Takes a part; returns the passes that are full now."""
        images = part["image"].to(self.device, non_blocking=True)
        size = tuple(images.shape[1:])
        self.waiting.setdefault(size, []).append((images, part["index"]))
        passes = self._take(size, full_only=True)
        while sum(map(self._pixels, self.waiting)) > WAITING_PASSES * self.limit:
            passes += self._take(max(self.waiting, key=self._pixels), full_only=False)
        return passes

    def passes(self, parts):
        """Takes all parts; yields passes as they fill up, at last those that do not."""
        for part in parts:
            yield from self.add(part)
        for size in list(self.waiting):
            yield from self._take(size, full_only=False)

    def _take(self, size, full_only):
        images, index = (torch.cat(parts) for parts in zip(*self.waiting.pop(size), strict=True))
        capacity = max(1, min(int(self.limit // self.pixels(size)), self.most or self.limit))
        whole = len(images) - len(images) % capacity if full_only else len(images)
        if whole < len(images):
            self.waiting[size] = [(images[whole:], index[whole:])]
        if not whole:
            return []
        return list(zip(images[:whole].split(capacity), index[:whole].split(capacity), strict=True))

    def pixels(self, size):
        """Pixels that the network sees of an image of this shape."""
        return math.prod(size) / size[-3] * self.enlargement

    def _pixels(self, size):
        return sum(len(index) for _, index in self.waiting[size]) * self.pixels(size)


@torch.inference_mode()
def logits_of(detector, images, device, bf16=False):
    """uint8 images (B, 3, H, W) on any device -> float32 logits (B,) on `device`, in one pass.

    Several crops of each image, (B, N, 3, H, W), give the mean of their logits; patches go in together.
    """
    if images.ndim == CROPS_NDIM and detector.data_config.patches is None:
        crops = images.flatten(0, 1)
        most = max(1, pixels_per_pass(device) // math.prod(images.shape[-2:]))
        logits = torch.cat([logits_of(detector, part, device, bf16) for part in crops.split(most)])
        return logits.view(images.shape[:2]).mean(dim=1)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return detector(images.to(device, non_blocking=True)).float()


def logits_by_size(detector, parts, device, bf16=False, limit=None, most=None):
    """Runs over parts of any sizes; yields (index, logits) of each pass, as passes fill up.

    Passes that do not fit a GPU's memory are halved, and later ones are smaller.
    """
    buckets = SizeBuckets(device, limit, most, detector.data_config.enlargement)
    for images, index in buckets.passes(parts):
        yield index, _logits_that_fit(detector, images, device, bf16, buckets)


def _logits_that_fit(detector, images, device, bf16, buckets):
    try:
        return logits_of(detector, images, device, bf16)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    buckets.limit = len(images) // 2 * buckets.pixels(images.shape[1:])
    if device.type == "cuda":
        torch.cuda.empty_cache()
    halves = images.split((len(images) + 1) // 2)
    return torch.cat([_logits_that_fit(detector, half, device, bf16, buckets) for half in halves])
