"""How a training run proceeds: counters, sums over an epoch, the best epoch, optimisers, learning rates."""

import math
from dataclasses import asdict, dataclass, field

import torch

from common import UserError
from util import tables

BETA2 = 0.999  # of Adam
DECAY, POWER, CUT = 0.9, 0.9, 0.1  # of the policies of the learning rate
GAINS = (0.001, 0.002)  # of accuracy that `plateau` calls a gain, before and after its first cut
SELECT_BY = ("acc", "ap", "auc")  # what can choose the best epoch
WORST = "worst"


@dataclass
class Progress:
    """Saved in every checkpoint, so that a resumed run is as if never stopped; epochs count from 0."""

    epoch: int = 0  # in training now
    batch: int = 0  # its next batch
    step: int = 0  # optimiser steps so far
    seen: int = 0  # images of this epoch so far, and sums over them
    correct: int = 0
    loss_sum: float = 0.0
    term_sums: dict = field(default_factory=dict)  # of a loss of several terms
    seconds: float = 0.0
    best_acc: float = -1.0  # or what --select_by says
    best_ap: float = -1.0
    best_epoch: int = -1
    cuts: int = 0  # how often `plateau` has cut the learning rate
    reference: float = -1.0  # the accuracy that it waits to be beaten; -1: any
    waited: int = 0  # epochs that did not
    stopped_early: bool = False
    bad_files: dict = field(default_factory=dict)

    as_dict = asdict

    def is_best(self):
        """Whether the epoch that has just ended is the best so far."""
        return self.batch == 0 and self.best_epoch == self.epoch - 1 >= 0

    def finished(self, niter):
        """Whether nothing is left to train for a run of niter epochs."""
        return self.stopped_early or self.epoch >= niter

    def next_epoch(self):
        """Leaves an epoch behind: the counters of the epoch start again."""
        self.epoch += 1
        self.batch = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        self.term_sums = {}

    def row(self, rate, scores):
        """The epoch in numbers, a row of train.csv.  rate: learning rate; scores: of `measure`, or None."""
        seen = max(1, self.seen)
        row = {"epoch": self.epoch, "step": self.step, "lr": rate}
        row |= {"loss": self.loss_sum / seen, "acc": self.correct / seen}
        row |= {f"loss_{name}": value / seen for name, value in self.term_sums.items()}
        row |= {
            f"val_{name}": value for name, value in (scores or {}).items() if name not in ("images", "reason")
        }
        return row | {"seconds": self.seconds, "images_per_second": self.seen / max(self.seconds, 1e-9)}

    def note_validation(self, scores, opt):
        """Keeps the best epoch (--select_by, then AP, then the earlier), and decides whether the run ends."""
        if (scores[opt.select_by], scores["ap"]) > (self.best_acc, self.best_ap):
            self.best_acc, self.best_ap, self.best_epoch = scores[opt.select_by], scores["ap"], self.epoch
        if opt.lr_policy == "plateau":
            self.wait(scores["acc"], opt)
        elif opt.earlystop_epoch:
            self.stopped_early = self.epoch - self.best_epoch >= opt.earlystop_epoch

    def wait(self, accuracy, opt):
        """Cuts the rate after opt.earlystop_epoch epochs of too small a gain; stops at the least rate.

        A cut forgets the accuracy to beat (CNNDetection's earlystop.py and train.py), but not the best epoch.
        """
        self.waited += 1
        if self.reference < 0 or accuracy >= self.reference + GAINS[min(self.cuts, 1)]:
            self.reference, self.waited = accuracy, 0
        if self.waited < opt.earlystop_epoch:
            return
        if opt.lr * CUT ** (self.cuts + 1) >= opt.min_lr * (1 - 1e-9):
            self.cuts, self.reference, self.waited = self.cuts + 1, -1.0, 0
        else:
            self.stopped_early = True


def step_rate(opt, progress):
    """x0.9 after the steps of epochs delr_freq, 2 * delr_freq, ... counted from 0 (upstream's trainer.py)."""
    return opt.lr * DECAY ** max(0, (progress.epoch - 1) // opt.delr_freq)


def poly_rate(opt, progress):
    """(1 - e / niter)^0.9 with e from 1, so that the last epoch's rate is 0 (SSP's utils/util.py)."""
    return opt.lr * (1 - (progress.epoch + 1) / opt.niter) ** POWER


def cosine_rate(opt, progress):
    """Rises over opt.warmup epochs, then falls in half a cosine, of which min_lr would be the next step."""
    if progress.epoch < opt.warmup:
        return opt.lr * (progress.epoch + 1) / (opt.warmup + 1)
    part = (progress.epoch - opt.warmup) / (opt.niter - opt.warmup)
    return opt.min_lr + (opt.lr - opt.min_lr) * (1 + math.cos(math.pi * part)) / 2


def plateau_rate(opt, progress):
    """A tenth after each wait (CNNDetection's trainer.py)."""
    return opt.lr * CUT**progress.cuts


OPTIMIZERS = {
    "adam": lambda parameters, opt: torch.optim.Adam(parameters, lr=opt.lr, betas=(opt.beta1, BETA2)),
    "sgd": lambda parameters, opt: torch.optim.SGD(parameters, lr=opt.lr),  # no momentum, as published
}
# A rate depends on options and Progress only, so that a resumed run has it too.
POLICIES = {"step": step_rate, "poly": poly_rate, "plateau": plateau_rate, "cosine": cosine_rate}


class Losses:
    """Losses and hits of the last steps, left on the device so that a GPU is not waited for each time.

    writer: of tensorboard, for the loss of every step that `frequency` divides.
    """

    def __init__(self, progress, writer, frequency):
        self.progress, self.writer, self.frequency = progress, writer, frequency
        self.waiting, self.names = [], ()

    def add(self, terms, labels):
        """Counts one optimiser step.  terms: as a detector's `loss` returns them; labels: (B,)."""
        self.progress.step += 1
        right = ((terms["logits"] > 0) == (labels == 1)).sum()
        parts = {name: value for name, value in terms.items() if name not in ("total", "logits")}
        self.names = tuple(parts) if len(parts) > 1 else ()
        values = torch.stack([terms["total"].detach(), right, *(parts[name] for name in self.names)])
        self.waiting.append((self.progress.step, len(labels), values))

    def flush(self):
        """Adds what waits to the epoch's sums; UserError for a loss of NaN or inf."""
        waiting, self.waiting = self.waiting, []
        sums = self.progress.term_sums
        # One look at the device.
        numbers = torch.stack([values for *_, values in waiting]).tolist() if waiting else []
        for (step, count, _), (loss, right, *parts) in zip(waiting, numbers, strict=True):
            if not math.isfinite(loss):
                where = f"in epoch {self.progress.epoch} at step {step}"
                remedy = "the last saved weights are from before; try a lower --lr or --amp off"
                raise UserError(f"the loss became {loss} {where}; {remedy}")
            self.progress.seen += count
            self.progress.correct += int(right)
            self.progress.loss_sum += loss * count
            for name, value in zip(self.names, parts, strict=True):
                sums[name] = sums.get(name, 0.0) + value * count
            if step % self.frequency == 0:
                self.writer.add_scalar("train/loss", loss, step)


def write_history(path, history):
    """train.csv from the rows so far; written whole, so that a resumed run never repeats a row."""
    columns = list(dict.fromkeys(name for row in history for name in row))  # an older run may have had fewer
    if columns:
        tables.write_csv(path, history, columns)
