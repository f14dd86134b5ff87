"""Batches from a RealFakeFolder: which samples, in which order, joined how, by how many processes."""

import itertools
import math
import os
import signal
import sys
from collections import defaultdict

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler, default_collate, get_worker_info

from data.folder import RealFakeFolder
from data.transforms import Limits
from util.run import STOP_SIGNALS, worker_count

ORDER = 1  # keeps the stream of an epoch's order apart from those of its images, (seed, epoch, index)


class EpochBatches(Sampler):
    """Training batches of (epoch, index) pairs, in an order that depends only on (seed, epoch).

    `start(epoch, batch)` sets where the next iteration begins, so an interrupted epoch is resumed there.

    Args:
        labels: 0 or 1 of each image, (N,).
        class_balance: draw with replacement, both classes equally likely.
        sources: the source of each image, (N,): draw with replacement, those of a class equally likely.
        source_balance: 1 as just said, 0 in proportion to their sizes; between, to a power of these.
        pairs: [(index, index)] of images that come together; batch_size is even then, so that none is cut.
        count: images per epoch; default: N.
    """

    def __init__(
        self,
        labels,
        batch_size,
        seed,
        shuffle=True,
        class_balance=False,
        sources=None,
        source_balance=1.0,
        pairs=(),
        count=None,
    ):
        self.labels, self.batch_size, self.seed = np.asarray(labels), batch_size, seed
        self.shuffle, self.count = shuffle, count or len(self.labels)
        self.pairs = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self.singles = np.setdiff1d(np.arange(len(self.labels)), self.pairs)
        self.weights = None  # of the pairs, then of the single images
        if class_balance or sources is not None:
            weights = image_weights(self.labels, class_balance, sources, source_balance)
            singles = weights[self.singles]
            if class_balance:  # a pair is balanced in itself, so the single images must be
                singles = balanced(singles, self.labels[self.singles])
            self.weights = np.concatenate([weights[self.pairs].mean(axis=1), singles])
        self.epoch, self.first = 0, 0

    def start(self, epoch, batch=0):
        self.epoch, self.first = epoch, batch

    def order(self, epoch):
        """Sample indices of one epoch, (count,)."""
        rng = np.random.default_rng((self.seed, epoch, 0, ORDER))
        units = len(self.pairs) + len(self.singles)
        if self.weights is not None:
            drawn = rng.choice(units, size=self.count, p=self.weights / self.weights.sum())
        else:
            rounds = range(math.ceil(self.count / len(self.labels)))
            drawn = np.concatenate(
                [rng.permutation(units) if self.shuffle else np.arange(units) for _ in rounds]
            )
        return (self._in_twos(drawn) if len(self.pairs) else drawn)[: self.count]

    def _in_twos(self, drawn):
        """Indices of pairs and single images; a single one waits for another, so that pairs begin evenly."""
        order, waiting = [], []
        for unit in drawn:
            if unit < len(self.pairs):
                order += self.pairs[unit].tolist()
            else:
                waiting.append(self.singles[unit - len(self.pairs)])
            if len(waiting) == 2:
                order += waiting
                waiting = []
        return np.array(order + waiting)

    def __len__(self):
        return math.ceil(self.count / self.batch_size)

    def __iter__(self):
        order, epoch = self.order(self.epoch).tolist(), self.epoch
        for first in range(self.first * self.batch_size, len(order), self.batch_size):
            yield [(epoch, index) for index in order[first : first + self.batch_size]]


def image_weights(labels, class_balance=False, sources=None, source_balance=1.0):
    """How likely each image is drawn, (N,), not normalised."""
    weights = np.ones(len(labels))
    if sources is not None:
        _, place, counts = np.unique(
            [f"{label} {source}" for label, source in zip(labels, sources, strict=True)],
            return_inverse=True,
            return_counts=True,
        )
        weights = counts[place] ** -float(source_balance)
    return balanced(weights, labels) if class_balance else weights


def balanced(weights, labels):
    """Weights of which each class has half of the sum; unchanged where a class is missing."""
    sums = np.bincount(labels, weights, minlength=2)
    return weights * (sums.sum() / 2 / sums)[labels] if sums.all() else weights


def collate(items):
    """Items -> {"parts": one batch per image size, "bad": [(index, reason)]}; nothing is padded."""
    items = [item for entry in items for item in (entry if isinstance(entry, list) else [entry])]
    by_shape = defaultdict(list)
    for item in items:
        if "bad" not in item:
            by_shape[item["image"].shape].append(item)
    parts = list(map(default_collate, by_shape.values()))
    if get_worker_info() is not None:
        for tensor in itertools.chain(*(part.values() for part in parts)):
            # Here a full /dev/shm is an error that the main process sees; later it would wait for ever.
            tensor.share_memory_()
    return {"parts": parts, "bad": [(item["index"], item["bad"]) for item in items if "bad" in item]}


def create_dataloader(dataset, batch_sampler, num_threads=0, pin_memory=False):
    """A DataLoader over any of the batch lists above; the workers live as long as the loader."""
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_threads,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_threads > 0,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator().manual_seed(0),  # else each epoch draws from the global one
    )


def evaluation_images(opt, scan, data_config, geometry, reencode=None):
    """The dataset of a Scan, prepared for an evaluation.  reencode: {label: View} of a protocol."""
    limits = Limits(data_config.min_side, opt.max_input_mpx, opt.large_images == "crop")
    return RealFakeFolder(
        scan,
        geometry,
        limits=limits,
        seed=opt.seed,
        max_mpx=opt.max_mpx,
        exif=opt.exif,
        patches=data_config.patches,
        noise_bits=data_config.noise_bits,
        views=opt.views,
        reencode=reencode or {},
    )


def loader_over(opt, dataset, indices, device):
    """A loader over these samples, in this order."""
    batches = BatchSampler(indices, opt.batch_size, drop_last=False)
    return create_dataloader(dataset, batches, worker_count(opt.num_threads), device.type == "cuda")


class Share:
    """The part of a loader's batches that belongs to one group of samples; can be read once."""

    def __init__(self, batches, iterator):
        self.batch_sampler, self.iterator = batches, iterator

    def __iter__(self):
        return itertools.islice(self.iterator, len(self.batch_sampler))


def loaders_over(opt, dataset, groups, device):
    """A loader for each group of samples, to be read in this order, each once and to its end.

    They share their workers, which start once and read ahead beyond the end of a group.
    """
    batches = [list(BatchSampler(group, opt.batch_size, drop_last=False)) for group in groups]
    together = list(itertools.chain(*batches))
    loader = create_dataloader(dataset, together, worker_count(opt.num_threads), device.type == "cuda")
    iterator = iter(loader)
    return [Share(own, iterator) for own in batches]


def _leave_signals_to_parent(worker):
    # Ctrl-C and a scheduler's signals reach the whole process group; only the parent decides, after a save.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The parent ends its workers so.  A status other than 0 is an error there, even in the middle of a save.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    # A thread that hands over tensors would print a traceback when the parent, stopped by a signal, hangs up.
    sys.excepthook = _print_unless_cut_off


def _print_unless_cut_off(kind, error, trace):
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)
