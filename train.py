"""Trains one detector on a folder of real and fake images.

    python train.py --name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val \
        --classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50

Below --dataroot stand train/ and val/, in each the classes with 0_real/1_fake, nature/ai or real/fake.
Ctrl-C saves and stops; the same command with --continue_train goes on at the next batch.
Results: checkpoints/<name>/{opt.json, env.json, train.csv, tensorboard/, model_epoch_last.pth, model_epoch_best.pth}.
"""

import csv
import hashlib
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

import data
import networks
from networks import checkpoint
from options import TrainOptions
from util import run
from util.evaluate import BadImageError, BadImages, predict, sigmoid
from util.metrics import measure

DECAY = 0.9  # factor of the learning rate every --delr_freq epochs (upstream's trainer.py)
BETA2 = 0.999
FLUSH_STEPS = 20  # losses stay on the device for this many steps, so that a GPU is not waited for at each


def main():
    options = TrainOptions()
    opt = options.parse()
    folder = Path(opt.checkpoints_dir) / opt.name
    saved = open_run(options, opt, folder)
    print(options.describe(opt))
    if saved is not None and is_finished(saved["progress"], opt):
        print(f"{folder} is finished: {saved['epoch']} epochs; a larger --niter trains on")
        return
    device = run.start(opt)
    trainset, valset = datasets(opt)
    trainer = Trainer(opt, folder, device, trainset, valset)
    trainer.begin(saved)
    with run.StopSignal("the same command with --continue_train goes on at the next batch") as stop:
        trainer.fit(stop)
    print(trainer.summary())


def open_run(options, opt, folder):
    """The last checkpoint of a run that goes on, else None; refuses a name that is taken."""
    last = folder / "model_epoch_last.pth"
    if opt.continue_train:
        if not last.is_file():
            raise ValueError(f"--continue_train found no run at {last}; start it without this flag")
        saved = checkpoint.read(last)
        if not checkpoint.is_own(saved):
            raise ValueError(f"{last} is not a checkpoint of train.py; start from it with --model_path")
        options.merge_saved(opt, saved["options"])
        return saved
    if folder.exists() and any(folder.iterdir()):
        if not opt.overwrite:
            raise ValueError(f"{folder} exists; --continue_train goes on with it, --overwrite replaces it, "
                             "--name starts another")
        if not (folder / "opt.json").is_file():
            raise ValueError(f"{folder} holds no run (no opt.json), so --overwrite leaves it alone; choose a --name")
    return None


def is_finished(progress, opt):
    return progress["stopped_early"] or progress["epoch"] >= opt.niter


def datasets(opt):
    """The training set, and the validation set or None."""
    geometry = data.Geometry(None if opt.no_resize else opt.loadSize, opt.cropSize, opt.rz_interp[0])
    augment = data.Augment(opt.blur_prob, opt.blur_sig, opt.jpg_prob, opt.jpg_method, opt.jpg_qual, opt.rz_interp,
                           flip=not opt.no_flip)  # fmt: skip
    limits = data.Limits(min_side=networks.get(opt.arch).data_config.min_side)

    def load(split, augment):
        root = Path(opt.dataroot) / split
        found = data.scan(root, data.discover(root, opt.classes))
        data.require_both_classes(found)
        print(found.describe())
        return data.RealFakeFolder(found, geometry, augment, limits, opt.seed, opt.max_mpx, opt.exif)

    return load(opt.train_split, augment), None if opt.val_split == "none" else load(opt.val_split, None)


@dataclass
class Progress:
    """Where a run stands; saved with the weights, so that it goes on as if it had never stopped."""

    epoch: int = 0  # the epoch in training, from 0
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


class Trainer:
    """One detector, its optimiser and its data; the only training loop of the project."""

    def __init__(self, opt, folder, device, trainset, valset):
        self.opt, self.folder, self.device = opt, folder, device
        self.trainset, self.valset = trainset, valset
        self.detector = networks.create(opt).to(device, memory_format=torch.channels_last)
        parameters = self.detector.parameters()
        self.optimizer = (torch.optim.Adam(parameters, lr=opt.lr, betas=(opt.beta1, BETA2)) if opt.optim == "adam"
                          else torch.optim.SGD(parameters, lr=opt.lr))  # fmt: skip
        # Upstream lowers the rate after the steps of epochs delr_freq, 2 * delr_freq, ..., counted from 0.
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda epoch: DECAY ** max(0, (epoch - 1) // opt.delr_freq))  # fmt: skip
        self.bf16 = run.use_bf16(opt.amp, device, opt.deterministic)
        self.progress, self.history, self.pending = Progress(), [], []
        self.bad = BadImages(opt.on_bad_image, trainset)
        self.sampler = data.EpochBatches(trainset.labels, opt.batch_size, opt.seed, not opt.serial_batches, opt.class_bal)
        workers, pin = run.worker_count(opt.num_threads), device.type == "cuda"
        self.train_loader = data.create_dataloader(trainset, self.sampler, workers, pin)
        if valset is not None:
            indices = range(len(valset))
            batches = [indices[first : first + opt.batch_size] for first in range(0, len(valset), opt.batch_size)]
            self.val_loader = data.create_dataloader(valset, batches, workers, pin)

    def begin(self, saved):
        """Takes up a saved run, or makes the folder of a new one."""
        self.files = hashlib.sha256("\n".join(sample.path for sample in self.trainset.samples).encode()).hexdigest()
        if saved is not None:
            self.restore(saved)
        else:
            if self.opt.model_path:
                content = checkpoint.read(self.opt.model_path)
                state = checkpoint.weights(content, self.opt.model_path)
                checkpoint.load_weights(self.detector, state, self.opt.model_path)
                print(f"starts from the weights of {self.opt.model_path}")
            if self.opt.overwrite and self.folder.exists():
                shutil.rmtree(self.folder)
            self.save("last")
        options = {name: value for name, value in vars(self.opt).items() if name != "environment"}
        run.write_json(self.folder / "opt.json", options)
        run.write_json(self.folder / "env.json", {**self.opt.environment, "precision": self.precision})
        self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.progress.step)
        print(f"{self.device}, {self.precision}, run folder {self.folder}")

    @property
    def precision(self):
        return "bf16" if self.bf16 else "fp32"

    def fit(self, stop):
        """Epoch after epoch: train, validate, record, save."""
        progress = self.progress
        while not is_finished(vars(progress), self.opt):
            try:
                self.train_one_epoch(stop)
                scores = self.validate(stop)
            except (run.Interrupted, BadImageError):
                self.flush()
                self.save("last")
                raise
            improved = self.record(scores)
            self.scheduler.step()
            progress.epoch += 1
            progress.batch = progress.seen = progress.correct = 0
            progress.loss_sum = progress.seconds = 0.0
            if improved:
                self.save("best")
            self.save("last")
        self.writer.close()

    def train_one_epoch(self, stop):
        """From the next batch of this epoch to its end."""
        progress, started = self.progress, time.perf_counter()
        self.detector.train()
        self.sampler.start(progress.epoch, progress.batch)
        saved_at = time.monotonic()
        with tqdm(total=len(self.trainset), initial=min(progress.batch * self.opt.batch_size, len(self.trainset)),
                  desc=f"epoch {progress.epoch}", unit="img", dynamic_ncols=True) as bar:
            for batch in self.train_loader:
                stop.check()
                self.bad.add(batch["bad"])
                for part in batch["parts"]:
                    self.step(part)
                progress.batch += 1
                now = time.perf_counter()
                progress.seconds, started = progress.seconds + now - started, now
                bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
                if len(self.pending) >= FLUSH_STEPS:
                    self.flush()
                    bar.set_postfix(loss=f"{progress.loss_sum / progress.seen:.4f}")
                if time.monotonic() - saved_at > 60 * self.opt.save_minutes:
                    self.flush()
                    self.save("last")
                    saved_at = time.monotonic()
        self.flush()

    def step(self, part):
        """Forward, backward and update on one batch of equal size."""
        batch = {name: value.to(self.device, non_blocking=True) for name, value in part.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.detector.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        self.optimizer.step()
        self.progress.step += 1
        right = ((terms["logits"] > 0) == (batch["label"] == 1)).sum()
        self.pending.append((self.progress.step, len(batch["label"]), terms["total"].detach(), right))

    def flush(self):
        """Adds the losses that wait on the device to the epoch's sums; stops the run at the first that is no number."""
        progress, pending, self.pending = self.progress, self.pending, []
        if not pending:
            return
        losses = torch.stack([loss for _, _, loss, _ in pending]).tolist()
        rights = torch.stack([right for *_, right in pending]).tolist()
        for (step, count, _, _), loss, right in zip(pending, losses, rights, strict=True):
            if not np.isfinite(loss):
                raise ValueError(f"the loss became {loss} in epoch {progress.epoch} at step {step}; the weights saved "
                                 f"last in {self.folder} are from before; try a lower --lr or --amp off")
            progress.seen, progress.correct = progress.seen + count, progress.correct + right
            progress.loss_sum += loss * count
            if step % self.opt.loss_freq == 0:
                self.writer.add_scalar("train/loss", loss, step)

    def validate(self, stop):
        """Accuracy, AP and so on, pooled over all validation images as upstream does; None without a validation set."""
        if self.valset is None:
            return None
        with tqdm(total=len(self.valset), desc="validation", unit="img", leave=False, dynamic_ncols=True) as bar:
            bad = BadImages(self.opt.on_bad_image, self.valset)
            index, logit = predict(self.detector, self.val_loader, self.device, bad, stop=stop, progress=bar)
        self.bad.found.update(bad.found)
        return measure(self.valset.labels[index], sigmoid(logit))

    def record(self, scores):
        """One row in train.csv, scalars in tensorboard, one line on the terminal; True if this epoch is the best."""
        progress = self.progress
        row = {"epoch": progress.epoch, "step": progress.step, "lr": self.optimizer.param_groups[0]["lr"],
               "loss": progress.loss_sum / max(1, progress.seen), "acc": progress.correct / max(1, progress.seen)}
        row.update({f"val_{name}": scores[name] for name in ("acc", "ap", "r_acc", "f_acc", "auc")} if scores else {})
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.writer.add_scalar(name.replace("val_", "val/", 1), value, progress.step)
        row["images_per_second"] = progress.seen / max(progress.seconds, 1e-9)
        self.history.append(row)
        tail = f"; val acc: {100 * scores['acc']:.1f}, AP: {100 * scores['ap']:.1f}" if scores else ""
        tqdm.write(f"epoch {progress.epoch}: loss {row['loss']:.4f}, acc: {100 * row['acc']:.1f}, "
                   f"{row['images_per_second']:.0f} images/s{tail}")
        return scores is not None and self.is_best(scores)

    def is_best(self, scores):
        """Keeps the best epoch: higher accuracy, then higher AP, then the earlier one; decides on early stopping."""
        progress = self.progress
        better = (scores["acc"], scores["ap"]) > (progress.best_acc, progress.best_ap)
        if better:
            progress.best_acc, progress.best_ap, progress.best_epoch = scores["acc"], scores["ap"], progress.epoch
        patience = self.opt.earlystop_epoch
        progress.stopped_early = bool(patience) and progress.epoch - progress.best_epoch >= patience
        return better

    def save(self, which):
        """Writes model_epoch_<which>.pth and train.csv."""
        self.progress.bad_files = dict(self.bad.found)
        checkpoint.save(
            self.folder / f"model_epoch_{which}.pth", self.detector,
            options={name: value for name, value in vars(self.opt).items() if name != "environment"},
            optimizer=self.optimizer.state_dict(), scheduler=self.scheduler.state_dict(),
            epoch=self.progress.epoch, step=self.progress.step, progress=asdict(self.progress),
            metrics=self.history, rng=rng_state(), env=self.opt.environment, files=self.files,
        )  # fmt: skip
        if self.history:
            with open(self.folder / "train.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(self.history[0]))
                writer.writeheader()
                writer.writerows(self.history)

    def restore(self, saved):
        """Everything that `save` wrote; refuses when the training files are no longer the same."""
        if saved["files"] != self.files:
            raise ValueError(f"the files below {self.trainset.root} differ from those this run was started with")
        checkpoint.load_weights(self.detector, saved["model"], self.folder)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.progress, self.history = Progress(**saved["progress"]), saved["metrics"]
        self.bad.found.update(self.progress.bad_files)
        set_rng_state(saved["rng"])
        print(f"goes on with epoch {self.progress.epoch} at batch {self.progress.batch}")

    def summary(self):
        """The last lines: the best epoch, the bad files, where everything lies."""
        progress = self.progress
        lines = [f"best epoch {progress.best_epoch}: val acc: {100 * progress.best_acc:.1f}, "
                 f"AP: {100 * progress.best_ap:.1f}"] if self.valset is not None else []
        early = f"stopped early: no better epoch for {self.opt.earlystop_epoch}" if progress.stopped_early else ""
        return "\n".join(line for line in [*lines, early, self.bad.describe(), f"-> {self.folder}"] if line)


def rng_state():
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state):
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


if __name__ == "__main__":
    run.guard(main)
