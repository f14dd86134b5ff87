"""Trains one detector on a folder of real and fake images.

    python train.py --name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val \
        --classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50

    python train.py --protocol GenImage-NPR --dataroot ./datasets/GenImage --classes sdv4 --niter 1

Below --dataroot stand train/ and val/, in each the classes with 0_real/1_fake, nature/ai or real/fake; or,
with --protocol, a benchmark's own folders.
Ctrl-C saves and stops; the same command with --continue_train goes on at the next batch.
Results: checkpoints/<name>/{opt.json, env.json, train.csv, tensorboard/, model_epoch_{last,best}.pth}.
"""

import shutil
import time
from pathlib import Path

import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

import data
import networks
from common import UserError, write_json
from networks import checkpoint
from networks.start import start
from options import TrainOptions
from util import run
from util.evaluate import BadImageError, BadImages, file_list_sha256, predict
from util.metrics import measure
from util.progress import Losses, Progress, learning_rate, write_history
from util.record import sigmoid

BETA2 = 0.999
FLUSH_STEPS = 20  # steps between two looks at the losses
RESUME_HINT = "the same command with --continue_train (and without --overwrite)"
RUN_STATE = {
    "options",
    "optimizer",
    "progress",
    "metrics",
    "rng",
    "files",
}  # what a run goes on from


def main(argv=None):
    options = TrainOptions()
    opt = options.parse(argv)
    folder = Path(opt.checkpoints_dir) / opt.name
    saved = open_run(options, opt, folder)
    print(options.describe(opt))
    if saved is not None and Progress(**saved["progress"]).finished(opt.niter):
        write_history(folder / "train.csv", saved["metrics"])
        early = "it stopped early" if saved["progress"]["stopped_early"] else "a larger --niter trains on"
        print(f"{folder} is finished: {saved['epoch']} epochs; {early}")
        return
    device = run.start(opt)
    detector = networks.create(opt)
    print(f"detector {detector.arch}: {detector.describe()}")
    if saved is None and (notice := start(detector, opt)):
        print(notice)
    trainset, valset, notices = data.training_sets(opt, detector.data_config)
    print("\n".join(notices))
    trainer = Trainer(opt, folder, device, detector, trainset, valset)
    trainer.begin(saved)
    with run.StopSignal(f"{RESUME_HINT} goes on at the next batch") as stop:
        trainer.fit(stop)
    print(trainer.summary())


def open_run(options, opt, folder):
    """The last checkpoint of a run that goes on, else None; refuses a name that is taken."""
    last = folder / "model_epoch_last.pth"
    if opt.continue_train:
        if not last.is_file():
            raise UserError(f"--continue_train found no run at {last}; start it without this flag")
        saved = checkpoint.read(last)
        if not checkpoint.is_own(saved) or not saved.keys() >= RUN_STATE:
            raise UserError(f"{last} is not a checkpoint of train.py; start from it with --model_path")
        options.merge_saved(opt, saved["options"])
        return saved
    run.require_free(folder, opt.overwrite)
    return None


class Trainer:
    """One detector, its optimiser and its data; the only training loop of the project."""

    def __init__(self, opt, folder, device, detector, trainset, valset):
        self.opt, self.folder, self.device = opt, folder, device
        self.trainset, self.valset = trainset, valset
        self.detector = detector.to(device, memory_format=torch.channels_last)
        self.optimizer = self.make_optimizer()
        self.bf16 = run.use_bf16(opt.amp, device, opt.deterministic)
        self.progress, self.history = Progress(), []
        self.losses = Losses(self.progress)
        self.bad = BadImages(opt.on_bad_image, trainset)
        self.files = {
            "train": file_list_sha256(trainset.samples),
            "val": file_list_sha256(valset.samples) if valset else None,
        }
        self.make_loaders(run.worker_count(opt.num_threads))

    def make_optimizer(self):
        parameters = self.detector.parameters()
        if self.opt.optim == "sgd":
            return torch.optim.SGD(parameters, lr=self.opt.lr)
        return torch.optim.Adam(parameters, lr=self.opt.lr, betas=(self.opt.beta1, BETA2))

    def make_loaders(self, workers):
        opt, pin = self.opt, self.device.type == "cuda"
        self.sampler = data.EpochBatches(
            self.trainset.labels, opt.batch_size, opt.seed, not opt.serial_batches, opt.class_bal
        )
        self.train_loader = data.create_dataloader(self.trainset, self.sampler, workers, pin)
        if self.valset is not None:
            self.val_loader = data.loader_over(
                opt, self.valset, range(len(self.valset)), workers, self.device
            )

    def begin(self, saved):
        """Takes up a saved run, or makes the folder of a new one."""
        if saved is not None:
            self.restore(saved)
        else:
            run.require_free(self.folder, self.opt.overwrite)  # again: the scan took time
            if self.opt.overwrite and self.folder.exists():
                shutil.rmtree(self.folder)
            self.save("last")
        write_json(self.folder / "opt.json", self.saved_options())
        session = {**self.opt.environment, "seed": self.opt.seed, "precision": self.precision}
        notice = run.record_session(self.folder / "env.json", session)
        self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.progress.step + 1)
        print("\n".join(filter(None, [notice, f"{self.device}, {self.precision}, run folder {self.folder}"])))

    @property
    def precision(self):
        return "bf16" if self.bf16 else "fp32"

    def fit(self, stop):
        """Epoch after epoch: train, validate, record, save."""
        while not self.progress.finished(self.opt.niter):
            try:
                self.train_one_epoch(stop)
                scores = self.validate(stop)
            except (run.Interrupted, BadImageError):
                self.flush()
                self.save("last")
                raise
            self.record(scores)
            improved = scores is not None and self.progress.note_validation(scores, self.opt)
            self.progress.next_epoch()
            if improved:
                self.save("best")
            self.save("last")
        self.writer.close()

    def train_one_epoch(self, stop):
        """From the next batch of this epoch to its end."""
        progress, saved_at, started = self.progress, time.monotonic(), time.perf_counter()
        self.detector.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.opt, progress)
        self.sampler.start(progress.epoch, progress.batch)
        with self.progress_bar(self.trainset, f"epoch {progress.epoch}", self.sampler.skipped()) as bar:
            for batch in self.train_loader:
                stop.check()
                self.bad.add(batch["bad"])
                for part in batch["parts"]:
                    self.step(part)
                progress.batch += 1
                now = time.perf_counter()
                progress.seconds, started = progress.seconds + now - started, now
                bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
                if len(self.losses.waiting) >= FLUSH_STEPS:
                    self.flush()
                    bar.set_postfix(loss=f"{progress.loss_sum / progress.seen:.4f}")
                if time.monotonic() - saved_at > 60 * self.opt.save_minutes:
                    self.flush()
                    self.save("last")
                    saved_at = time.monotonic()
        self.flush()
        if not progress.seen:
            tqdm.write(self.bad.describe())
            raise UserError(f"no image of epoch {progress.epoch} could be used")

    def step(self, part):
        """Forward, backward and update on one batch of equal size."""
        batch = {name: value.to(self.device, non_blocking=True) for name, value in part.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.detector.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        self.optimizer.step()
        self.losses.add(terms, batch["label"])

    def flush(self):
        """Looks at the losses since the last time; the first that is no number stops the run."""
        try:
            losses = self.losses.flush()
        except UserError as error:
            raise UserError(
                f"{error}; the weights saved last in {self.folder} are from before; "
                "try a lower --lr or --amp off"
            ) from None
        for step, loss in losses:
            if step % self.opt.loss_freq == 0:
                self.writer.add_scalar("train/loss", loss, step)

    def validate(self, stop):
        """Metrics pooled over all validation images, as upstream's; None without a validation set."""
        if self.valset is None:
            return None
        bad = BadImages(self.opt.on_bad_image, self.valset)
        with self.progress_bar(self.valset, "validation") as bar:
            index, logit = predict(self.detector, self.val_loader, self.device, bad, stop=stop, progress=bar)
        place = "" if self.valset.root == self.trainset.root else f"{self.valset.root.name}/"
        self.bad.found.update({place + path: why for path, why in bad.found.items()})
        scores = measure(self.valset.labels[index], sigmoid(logit))
        if scores["reason"]:
            tqdm.write(bad.describe())
            raise UserError(f"validation is impossible: {scores['reason']} could be used")
        return scores

    def record(self, scores):
        """One row for train.csv, scalars for tensorboard, one line on the terminal."""
        row = self.progress.row(self.optimizer.param_groups[0]["lr"], scores)
        self.history.append(row)
        for name in row.keys() - {"epoch", "step"}:
            self.writer.add_scalar(name.replace("val_", "val/"), row[name], self.progress.step)
        tail = f"; val acc: {100 * scores['acc']:.1f}, AP: {100 * scores['ap']:.1f}" if scores else ""
        speed = f"{row['images_per_second']:.0f} images/s"
        tqdm.write(
            f"epoch {row['epoch']}: loss {row['loss']:.4f}, acc: {100 * row['acc']:.1f}, {speed}{tail}"
        )

    def save(self, which):
        """Writes model_epoch_<which>.pth and train.csv."""
        self.progress.bad_files = dict(self.bad.found)
        checkpoint.save(
            self.folder / f"model_epoch_{which}.pth",
            self.detector,
            options=self.saved_options(),
            optimizer=self.optimizer.state_dict(),
            epoch=self.progress.epoch,
            step=self.progress.step,
            progress=self.progress.as_dict(),
            metrics=self.history,
            rng=run.rng_state(),
            env=self.opt.environment,
            files=self.files,
            companions=self.detector.companions,
        )
        write_history(self.folder / "train.csv", self.history)

    def restore(self, saved):
        """Everything that `save` wrote; refuses when the training files are no longer the same."""
        if saved["files"] != self.files:
            changed = " and ".join(name for name in self.files if saved["files"][name] != self.files[name])
            raise UserError(
                f"the {changed} files below {self.opt.dataroot} differ from those at the run's start"
            )
        if saved.get("companions", {}) != self.detector.companions:
            names = ", ".join(self.detector.companions)
            raise UserError(f"{names} differs from the run's start; put that file back, or train anew")
        checkpoint.load_weights(self.detector, saved["model"], self.folder)
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.progress).update(saved["progress"])
        self.history = saved["metrics"]
        self.bad.found.update(self.progress.bad_files)
        run.set_rng_state(saved["rng"])
        print(f"goes on with epoch {self.progress.epoch} at batch {self.progress.batch}")

    def saved_options(self):
        return {name: value for name, value in vars(self.opt).items() if name != "environment"}

    def progress_bar(self, dataset, title, done=0):
        return tqdm(total=len(dataset), initial=done, desc=title, unit="img", leave=False, dynamic_ncols=True)

    def summary(self):
        """The last lines: the best epoch, the bad files, where everything lies."""
        best, early = self.progress, ""
        if self.progress.stopped_early:
            early = f"stopped early: {self.opt.earlystop_epoch} epochs without a better one"
        validated = (
            f"best epoch {best.best_epoch}: val acc: {100 * best.best_acc:.1f}, AP: {100 * best.best_ap:.1f}"
        )
        lines = [validated if self.valset else "", early, self.bad.describe(), f"-> {self.folder}"]
        return "\n".join(line for line in lines if line)


if __name__ == "__main__":
    run.guard(main)
