"""Where a training run stands: counters saved with the weights, sums over an epoch, the best epoch."""

import csv
import math
import os
from dataclasses import asdict, dataclass, field

import torch

VAL_METRICS = ("acc", "ap", "r_acc", "f_acc", "auc")


@dataclass
class Progress:
    """Saved in every checkpoint, so that a run goes on as if it had never stopped.  Epochs count from 0."""

    epoch: int = 0  # the one in training
    batch: int = 0  # its next batch
    step: int = 0  # optimiser steps so far
    seen: int = 0  # images of this epoch so far, and sums over them
    correct: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_acc: float = -1.0
    best_ap: float = -1.0
    best_epoch: int = -1
    stopped_early: bool = False
    bad_files: dict = field(default_factory=dict)

    as_dict = asdict

    def finished(self, niter):
        """Whether nothing is left to train for a run of niter epochs."""
        return self.stopped_early or self.epoch >= niter

    def next_epoch(self):
        """Leaves an epoch behind: the counters of the epoch start again."""
        self.epoch += 1
        self.batch = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0

    def row(self, rate, scores):
        """The epoch in numbers, a row of train.csv.  rate: learning rate; scores: of `measure`, or None."""
        seen = max(1, self.seen)
        row = {"epoch": self.epoch, "step": self.step, "lr": rate}
        row.update(loss=self.loss_sum / seen, acc=self.correct / seen)
        row.update({f"val_{name}": scores[name] for name in VAL_METRICS} if scores else {})
        row.update(seconds=self.seconds, images_per_second=self.seen / max(self.seconds, 1e-9))
        return row

    def note_validation(self, scores, patience):
        """Keeps the best epoch: higher accuracy, then AP, then the earlier one.  Returns whether this is it.

        patience: epochs without a better one after which the run ends; 0 means never.
        """
        better = (scores["acc"], scores["ap"]) > (self.best_acc, self.best_ap)
        if better:
            self.best_acc, self.best_ap, self.best_epoch = scores["acc"], scores["ap"], self.epoch
        self.stopped_early = bool(patience) and self.epoch - self.best_epoch >= patience
        return better


class Losses:
    """Losses and hits of the last steps, left on the device so that a GPU is not waited for each time."""

    def __init__(self, progress):
        self.progress = progress
        self.waiting = []

    def add(self, loss, logits, labels):
        """Notes one optimiser step: scalar loss, logits (B,), labels (B,)."""
        self.progress.step += 1
        right = ((logits > 0) == (labels == 1)).sum()
        self.waiting.append((self.progress.step, len(labels), loss.detach(), right))

    def flush(self):
        """Adds what waits to the epoch's sums and returns [(step, loss)]; ValueError if one is not finite."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        losses = torch.stack([loss for _, _, loss, _ in waiting]).tolist()
        rights = torch.stack([right for *_, right in waiting]).tolist()
        for (step, count, _, _), loss, right in zip(waiting, losses, rights, strict=True):
            if not math.isfinite(loss):
                raise ValueError(f"the loss became {loss} in epoch {self.progress.epoch} at step {step}")
            self.progress.seen += count
            self.progress.correct += right
            self.progress.loss_sum += loss * count
        return [(step, loss) for (step, *_), loss in zip(waiting, losses, strict=True)]


def write_history(path, history):
    """train.csv from the rows so far; written whole, so that a resumed run never repeats a row."""
    if not history:
        return
    part = path.with_name(path.name + ".part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        columns = dict.fromkeys(name for row in history for name in row)  # an older run may have had fewer
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(history)
    os.replace(part, path)
