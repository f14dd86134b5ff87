"""Trains one detector on a folder of real and fake images.

    python train.py --name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val \
        --classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50

    python train.py --protocol GenImage-NPR --dataroot ./datasets/GenImage --classes sdv4 --niter 1

--dataroot holds train/ and val/, or with --protocol a benchmark's own folders.
Ctrl-C saves and stops; the same command with --continue_train resumes at the next batch.
Results: checkpoints/<name>/{opt.json, env.json, train.csv, tensorboard/, model_epoch_{last,best}.pth}.
"""

if __name__ == "__main__":
    import util.quiet  # noqa: F401

import copy
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import data
import networks
from common import UserError, owned, require_package, write_json, written_whole
from data.folder import source_of
from networks import checkpoint
from networks.init_weights import start
from options import TrainOptions
from util import calibrate, run
from util.identity import file_list_sha256, require_same
from util.metrics import measure
from util.progress import OPTIMIZERS, POLICIES, WORST, Losses, Progress, write_history
from util.results import sigmoid
from util.score import BadImageError, BadImages, predict

FLUSH_STEPS = 20  # steps between two looks at the losses
RESUME_HINT = "resume at the next batch with --continue_train (and without --overwrite)"
RUN_STATE = {"options", "optimizer", "progress", "metrics", "rng", "files"}  # what a run is resumed from
BATCH_OF_ONE = "Expected more than 1 value per channel"  # torch's batch norm of a single value


def main(argv=None):
    """Trains a detector, or resumes its run, from options to the last checkpoint."""
    # Options, and the run's folder, which no other process can use from here on.
    options = TrainOptions()
    opt = options.parse(argv)
    folder = Path(opt.checkpoints_dir) / opt.name
    with owned(folder):
        saved = open_run(options, opt, folder)
        print(options.describe(opt))
        progress = Progress(**saved["progress"] if saved else {})
        if not progress.finished(opt.niter):
            if saved and not Path(opt.dataroot).is_dir():
                raise UserError(f"no folder {opt.dataroot}; --dataroot names where the images are now")
            train(opt, folder, saved)
            return
        keep_best(folder, progress)
        write_history(folder / "train.csv", saved["metrics"])
        early = "it stopped early" if progress.stopped_early else "a larger --niter trains on"
        print(f"{folder} is finished: {progress.epoch} epochs; {early}")


def train(opt, folder, saved):
    """A run from its start, or from where the checkpoint `saved` left it, to its end."""
    # Seed, device and precision.
    tensorboard = require_package("tensorboardX", "training")
    device = run.start(opt)
    precision = run.choose_precision(opt.amp, device, opt.deterministic)

    # Detector and start weights.
    detector = networks.create(opt)
    print(f"detector {networks.describe(detector)}{detector.remark}")
    if saved is None and (notice := start(detector, opt)):
        print(notice)
    detector.to(device, memory_format=torch.channels_last)

    # Data.
    trainset, valset, notices = data.training_sets(opt, detector.data_config)
    print("\n".join(notices))
    sampler, train_loader, val_loader = make_loaders(opt, trainset, valset, device)

    # Optimiser and counters; a resumed run loads them.  Options first: opt.json marks a folder as a run.
    state = State(opt, folder, detector, trainset, valset)
    if saved is None:
        run.empty(folder)
    else:
        state.load(saved)
    write_json(folder / "opt.json", state.saved_options())
    if saved is None:
        state.save()

    # Records: environment, tensorboard.
    session = {**opt.environment, "seed": opt.seed, "precision": precision}
    if notice := run.record_session(folder / "env.json", session):
        print(notice)
    writer = tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=state.progress.step + 1)
    losses = Losses(state.progress, writer, opt.loss_freq)
    print(f"{device}, {precision}, run folder {folder}")

    with run.StopSignal(RESUME_HINT) as stop:
        while not state.progress.finished(opt.niter):
            rate = POLICIES[opt.lr_policy](opt, state.progress)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            try:
                # Train and validate.
                sampler.start(state.progress.epoch, state.progress.batch)
                state.calibration = None  # of other weights from here on
                train_epoch(state, losses, train_loader, device, run.is_bf16(precision), stop)
                scores, state.calibration = validate(state, val_loader, device, stop)
                # Save, then report: what fails from here on finds the epoch on the disk.
                row = state.end_epoch(rate, scores)
                with stop.save():
                    state.save()
                report(row, scores, writer)
            except (run.Interrupted, BadImageError, BrokenPipeError):
                losses.flush()
                state.save()
                raise
    writer.close()
    print(summary(state))


def open_run(options, opt, folder):
    """The last checkpoint of a run that is resumed, else None; UserError for a name that is taken."""
    last = folder / "model_epoch_last.pth"
    if not opt.continue_train:
        run.require_free(folder, opt.overwrite)
        return None
    if not last.is_file():
        raise UserError(f"--continue_train: there is no run at {last}; start it without this flag")
    saved = checkpoint.read(last)
    if not checkpoint.is_own(saved) or not saved.keys() >= RUN_STATE:
        raise UserError(f"{last} is not a checkpoint of train.py; start from it with --model_path")
    options.merge_saved(opt, saved["options"])
    return saved


def make_loaders(opt, trainset, valset, device):
    """(order of the training batches, loader of them, loader of the validation images or None)."""
    shuffle = not opt.serial_batches
    sources = list(map(source_of, trainset.samples)) if opt.source_bal else None
    sampler = data.EpochBatches(
        trainset.labels,
        opt.batch_size,
        opt.seed,
        shuffle,
        opt.class_bal,
        sources,
        opt.source_bal,
        pairs=[(real, fake) for fake, real in trainset.twins.items()],
        count=opt.epoch_images,
    )
    workers = run.worker_count(opt.num_threads)
    train_loader = data.create_dataloader(trainset, sampler, workers, device.type == "cuda")
    val_loader = data.loader_over(opt, valset, range(len(valset)), device) if valset else None
    return sampler, train_loader, val_loader


class State:
    """What a checkpoint holds: detector, optimiser, counters, history and the list of bad images."""

    def __init__(self, opt, folder, detector, trainset, valset):
        self.opt, self.folder, self.detector = opt, folder, detector
        self.trainset, self.valset = trainset, valset
        self.optimizer = OPTIMIZERS[opt.optim](detector.parameters(), opt)
        self.progress, self.history = Progress(), []
        self.bad = BadImages(opt.on_bad_image, trainset)
        val_files = file_list_sha256(valset.samples) if valset else None
        self.files = {"train": file_list_sha256(trainset.samples), "val": val_files}
        self.calibration = None  # of the last validation, as a dict
        self.left_out = False  # whether a batch of one image was, and the notice printed

    def save(self):
        """Writes model_epoch_last.pth, train.csv, and model_epoch_best.pth when this epoch is the best."""
        self.progress.bad_files = dict(self.bad.reasons)
        checkpoint.save(
            self.folder / "model_epoch_last.pth",
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
            calibration=self.calibration,
            companions=self.detector.companions,
        )
        write_history(self.folder / "train.csv", self.history)
        keep_best(self.folder, self.progress)

    def load(self, saved):
        """Everything that `save` wrote; UserError when the training files have changed since."""
        known = {"files": saved["files"], **saved.get("companions", {})}
        wanted = {"files": self.files, **self.detector.companions}
        require_same(known, wanted, self.folder, "put the old files back, or train under another --name")
        checkpoint.load_weights(self.detector, saved["model"], self.folder)
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.progress).update(saved["progress"])
        self.history, self.calibration = saved["metrics"], saved.get("calibration")
        self.bad.reasons.update(self.progress.bad_files)
        run.set_rng_state(saved["rng"])
        keep_best(self.folder, self.progress)  # a full disk may have prevented it
        print(f"resumes epoch {self.progress.epoch} at batch {self.progress.batch}")

    def saved_options(self):
        return {name: value for name, value in vars(self.opt).items() if name != "environment"}

    def end_epoch(self, rate, scores):
        """Adds the epoch to the history and begins the next one; returns its row."""
        row = self.progress.row(rate, scores)
        self.history.append(row)
        if scores is not None:
            self.progress.note_validation(scores, self.opt)
        self.progress.next_epoch()
        return row


def keep_best(folder, progress):
    """Copies the last checkpoint to model_epoch_best.pth if its epoch is the best."""
    last, best = folder / "model_epoch_last.pth", folder / "model_epoch_best.pth"
    copied = best.exists() and best.stat().st_mtime_ns >= last.stat().st_mtime_ns
    if progress.is_best() and not copied:
        with open(last, "rb") as source, written_whole(best, binary=True) as target:
            shutil.copyfileobj(source, target)


def train_epoch(state, losses, loader, device, bf16, stop):
    """From the next batch of this epoch to its end."""
    progress = state.progress
    saved_at = started = time.perf_counter()
    state.detector.train()
    count = loader.batch_sampler.count
    done = min(progress.batch * state.opt.batch_size, count)
    with progress_bar(count, f"epoch {progress.epoch}", done) as bar:
        for batch in stop.watch(loader):
            state.bad.add(batch["bad"])
            for part in batch["parts"]:
                if (terms := step(state, part, device, bf16)) is not None:
                    losses.add(terms, part["label"].to(device))
            progress.batch += 1
            now = time.perf_counter()
            progress.seconds, started = progress.seconds + now - started, now
            bar.update(len(batch["bad"]) + sum(len(part["index"]) for part in batch["parts"]))
            if len(losses.waiting) >= FLUSH_STEPS:
                losses.flush()
                bar.set_postfix(loss=f"{progress.loss_sum / progress.seen:.4f}")
            if now - saved_at > 60 * state.opt.save_minutes:
                losses.flush()
                with stop.save():
                    state.save()
                saved_at = time.perf_counter()
    losses.flush()
    if not progress.seen:
        tqdm.write(state.bad.describe())
        raise UserError(f"no image of epoch {progress.epoch} could be used")


def step(state, part, device, bf16):
    """Forward, backward and update on images of one size; returns the terms of the loss.

    None for a single image that the detector's batch norm refuses: it is left out and changes nothing.
    """
    batch = {name: value.to(device, non_blocking=True) for name, value in part.items()}
    single = len(batch["label"]) == 1
    before = copy.deepcopy(dict(state.detector.named_buffers())) if single else {}
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            terms = state.detector.loss(batch)
    except ValueError as error:
        if not (single and BATCH_OF_ONE in str(error)):
            raise
        if state.opt.batch_size == 1:
            raise UserError("this detector's batch norm needs more: --batch_size 2 or more") from None
        state.detector.load_state_dict(before, strict=False)
        if not state.left_out:
            state.left_out = True
            tqdm.write(
                "notice: a batch of one image is left out, as batch norm needs more at this image size"
            )
        return None
    state.optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    state.optimizer.step()
    return terms


def validate(state, loader, device, stop):
    """(metrics pooled over all validation images, as upstream's; calibration fitted on them as a dict).

    None for both without a validation set.  With several views the metrics are those of the view that
    --select_view names, or of the worst, and the calibration is fitted on all views together.
    """
    if (valset := state.valset) is None:
        return None, None
    bad = BadImages(state.opt.on_bad_image, valset)
    with progress_bar(len(valset) * len(valset.views), "validation") as bar:
        index, logit = predict(state.detector, loader, device, bad, stop=stop, progress=bar)
    prefix = "" if valset.root == state.trainset.root else f"{valset.root.name}/"
    state.bad.reasons.update({prefix + path: reason for path, reason in bad.reasons.items()})
    number, view = np.divmod(index, len(valset.views))
    labels = valset.labels[number]
    by_view = {
        str(name): measure(labels[view == place], sigmoid(logit[view == place]))
        for place, name in enumerate(valset.views)
    }
    if reasons := [scores["reason"] for scores in by_view.values() if scores["reason"]]:
        tqdm.write(bad.describe())
        raise UserError(f"validation is impossible: {reasons[0]} could be used")
    about = {"set": f"validation, {valset.root.name}", "files_sha256": state.files["val"]}
    calibration = calibrate.fit(labels, logit, fitted_on=about).as_dict()
    return chosen_view(by_view, state.opt), calibration


def chosen_view(by_view, opt):
    """The metrics of the view that counts; of several views with <select_by>_<view> of each."""
    worst = min(by_view, key=lambda name: (by_view[name][opt.select_by], by_view[name]["ap"]))
    scores = by_view[worst if opt.select_view == WORST else opt.select_view]
    if len(by_view) == 1:
        return scores
    return scores | {f"{opt.select_by}_{name}": found[opt.select_by] for name, found in by_view.items()}


def report(row, scores, writer):
    """Scalars for tensorboard, one line on the terminal."""
    for name in row.keys() - {"epoch", "step"}:
        writer.add_scalar(name.replace("val_", "val/"), row[name], row["step"])
    line = f"epoch {row['epoch']}: loss {row['loss']:.4f}, acc: {100 * row['acc']:.1f}"
    line += f", {row['images_per_second']:.0f} images/s"
    if scores:
        line += f"; val acc: {100 * scores['acc']:.1f}, AP: {100 * scores['ap']:.1f}"
    tqdm.write(line)


def progress_bar(count, title, done=0):
    """A bar over images."""
    return tqdm(total=count, initial=done, desc=title, unit="img", leave=False, dynamic_ncols=True)


def summary(state):
    """The last lines: the best epoch, the bad files, the folder."""
    best, lines = state.progress, []
    if state.valset:
        scores = f"val {state.opt.select_by}: {100 * best.best_acc:.1f}, AP: {100 * best.best_ap:.1f}"
        lines.append(f"best epoch {best.best_epoch}: {scores}")
    if best.stopped_early:
        lines.append(f"stopped early: {state.opt.earlystop_epoch} epochs without a better one")
    return "\n".join(filter(None, [*lines, state.bad.describe(), f"-> {state.folder}"]))


if __name__ == "__main__":
    run.guard(main)
