"""The training and validation images of a run: split folders, or the folders of a protocol."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import UserError
from data import protocols
from data.augment import CropAugment, parse_chain
from data.folder import SHOWN, RealFakeFolder, discover, require_folder, scan, subfolders
from data.pairs import pair_up
from data.patches import EVALUATION_SEED
from data.perturb import AS_STORED, parse_views
from data.transforms import Augment, Geometry, Limits

NO_VALIDATION = "none"
HOLD_OUT = 2  # keeps the draw of validation images apart from the streams of data/loader.py


def training_sets(opt, data_config):
    """(training set, validation set or None, notices for the terminal) that the options ask for.

    UserError for missing, empty and one-sided folders.  Validation images are never augmented.
    """
    train, val = training_scans(opt)
    parts = {"training": train, "validation": val}
    notices = [f"{use}: {part.describe(opt.classes)}" for use, part in parts.items() if part]
    if opt.select_on_test:
        notices.append("notice: these validation images are the published test set (--select_on_test)")
    valset = None if val is None else _dataset(opt, val, data_config)
    trainset = _dataset(opt, train, data_config, augmentation(opt, data_config))
    if opt.pairs:
        trainset.twins = {fake: real for real, fake in pair_up(train, opt.pairs)}
        others = len(train.samples) - 2 * len(trainset.twins)
        words = f"pairs: {len(trainset.twins):,}, each in one batch with one random draw"
        notices.append(words + (f"; {others:,} images without a twin" if others else ""))
    return trainset, valset, notices


def augmentation(opt, data_config):
    """The random part of training: Augment, or CropAugment with --degrade."""
    if opt.degrade is None:
        blur, jpeg = (opt.blur_prob, opt.blur_sig), (opt.jpg_prob, opt.jpg_method, opt.jpg_qual)
        return Augment(*blur, *jpeg, opt.rz_interp, flip=not opt.no_flip)
    if data_config.patches or data_config.noise_bits is not None:
        raise UserError("--degrade is for detectors of whole photographs, not of patches or noise files")
    return CropAugment(parse_chain(opt.degrade), not opt.no_flip, opt.rot90)


def training_scans(opt):
    """(Scan of the training images, Scan of the validation images or None)."""
    train = _protocol_scan(opt, "train") if opt.protocol else _split_scan(opt, opt.train_split)
    require_both_classes(train, opt.source_bal)
    if opt.select_on_test:
        val = _protocol_scan(opt, "test")
    elif opt.val_split == NO_VALIDATION:
        return train, None
    elif opt.val_fraction is not None:
        train, val = hold_out(train, opt.val_fraction, opt.seed)
    elif opt.protocol:
        val = _protocol_scan(opt, "val")
    else:
        val = _split_scan(opt, opt.val_split, validation=True)
    require_both_classes(val, opt.source_bal)
    return train, val


def require_both_classes(images, sources=False):
    """Training needs reals and fakes in every folder; UserError lists the counts of those without.

    sources: folders are sources of images, which may hold one class; both are needed in all together.
    """
    counts = images.counts().items()
    if sources:
        counts = [("all folders", [sum(pair) for pair in zip(*images.counts().values(), strict=True)])]
    lacking = [f"{name}: {real} real, {fake} fake" for name, (real, fake) in counts if not (real and fake)]
    if lacking:
        needed = f"train.py needs real and fake images in every folder of {images.root}"
        raise UserError(f"{needed}; found {'; '.join(lacking)}")


def hold_out(whole, fraction, seed):
    """Splits a Scan in two: (kept, held out).

    Each class of each generator gives the same share, at least one image, drawn with the seed.
    """
    rng = np.random.default_rng((seed, HOLD_OUT))
    groups = defaultdict(list)
    for index, sample in enumerate(whole.samples):
        groups[sample.generator, sample.label].append(index)
    small = [
        f"{name} (1 {('real', 'fake')[label]})" for (name, label), group in groups.items() if len(group) < 2
    ]
    if small:
        raise UserError(f"--val_fraction needs 2 images per class to divide; too few: {', '.join(small)}")
    held = set()
    for group in groups.values():
        count = min(max(1, round(fraction * len(group))), len(group) - 1)
        held.update(rng.permutation(group)[:count].tolist())
    parts = [[], []]
    for index, sample in enumerate(whole.samples):
        parts[index in held].append(sample)
    return tuple(replace(whole, samples=samples) for samples in parts)


def _split_scan(opt, split, validation=False):
    root = Path(opt.dataroot) / split
    if split == "val" and not root.is_dir() and root.with_name("valid").is_dir():
        root = root.with_name("valid")  # its name in DFIG's set of faces, and in many others
    if not root.is_dir():
        raise UserError(_missing_split(Path(opt.dataroot), split, validation))
    return scan(root, discover(root, opt.classes))


def _missing_split(dataroot, split, validation):
    """What is wrong where a split has no folder, and the flag or the layout that helps."""
    require_folder(dataroot)
    inside = [child.name for child in subfolders(dataroot)]
    problem = f"no folder {dataroot / split}; {dataroot} holds {', '.join(inside[:SHOWN]) or 'no folders'}. "
    inverted = next((name for name in inside if (dataroot / name / split).is_dir()), None)
    if inverted is not None:
        expected = f"Expected {split}/{inverted}, not {inverted}/{split}"
        return f"{problem}{expected}; --dataroot {dataroot / inverted} takes one class"
    if not validation:
        return f"{problem}--train_split NAME names another, --train_split . --val_fraction 0.1 divides all"
    other = f"--val_split {'test' if 'test' in inside else 'NAME'} validates on another folder"
    share = "--val_fraction 0.1 holds out a share of the training images"
    return f"{problem}{other}; {share}; --val_split none does not validate"


def _protocol_scan(opt, part):
    """The images of a protocol's training or test part, in its own folder names."""
    row = protocols.get(opt.protocol)
    wanted = row.pick(() if part == "test" else opt.classes or row.train_on, part)
    root = row.locate(opt.dataroot, part, single=True)
    folders = {generator: row.find(root, generator, part) if root else None for generator in wanted}
    present = [(generator.name, folder) for generator, folder in folders.items() if folder]
    absent = [generator for generator, folder in folders.items() if not folder]
    if not present or (part != "test" and absent):
        raise UserError(f"found no {part} folder: {row.looked_for(opt.dataroot, absent, part)}")
    return row.scan(root, present)


def _dataset(opt, part, config, augment=None):
    load_size = None if opt.no_resize else opt.loadSize
    crop_size = opt.cropSize if augment else opt.val_crop or opt.cropSize
    geometry = Geometry(load_size, crop_size, opt.rz_interp[0], resize=opt.resize_rule)
    return RealFakeFolder(
        part,
        geometry,
        augment,
        Limits(min_side=config.min_side),
        opt.seed if augment else EVALUATION_SEED,
        opt.max_mpx,
        opt.exif,
        config.patches,
        config.clean_pair,
        noise_bits=config.noise_bits,
        views=(AS_STORED,) if augment else parse_views(",".join(opt.val_views)),
    )
