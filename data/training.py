"""The training and validation images of a run: split folders, or a protocol's own layout."""

from pathlib import Path

import numpy as np

from common import UserError
from data import protocols
from data.folder import RealFakeFolder, Scan, classes_notice, discover, require_both_classes, scan
from data.patches import EVALUATION_SEED
from data.transforms import Augment, Geometry, Limits

NO_VALIDATION = "none"
HOLD_OUT = 2  # keeps the draw of validation images apart from the streams of data/loader.py


def training_sets(opt, data_config):
    """(training set, validation set or None, notices for the terminal) that the options ask for.

    Refuses empty and one-sided folders.  Validation images are never augmented.
    """
    train, val = training_scans(opt)
    notices = [_notice(opt, use, found) for use, found in (("training", train), ("validation", val)) if found]
    if opt.select_on_test:
        notices.append("notice: these validation images are the published test set (--select_on_test)")
    trainset = _dataset(opt, train, data_config, _augment(opt))
    valset = None if val is None else _dataset(opt, val, data_config, None)
    return trainset, valset, notices


def training_scans(opt):
    """(Scan of the training images, Scan of the validation images or None)."""
    train = _protocol_scan(opt, "train") if opt.protocol else _split_scan(opt, opt.train_split)
    require_both_classes(train)
    if opt.select_on_test:
        val = _protocol_scan(opt, "test")
    elif opt.val_split == NO_VALIDATION:
        return train, None
    elif opt.val_fraction is not None:
        train, val = hold_out(train, opt.val_fraction, opt.seed)
    elif opt.protocol:
        val = _protocol_scan(opt, "val")
    else:
        val = _split_scan(opt, opt.val_split)
    require_both_classes(val)
    return train, val


def hold_out(found, fraction, seed):
    """Splits a Scan in two: (kept, held out).

    Each class of each generator gives the same share, at least one image, drawn with the seed.
    """
    rng = np.random.default_rng((seed, HOLD_OUT))
    groups = {}
    for place, sample in enumerate(found.samples):
        groups.setdefault((sample.generator, sample.label), []).append(place)
    small = [
        f"{name} ({len(places)} {('real', 'fake')[label]})"
        for (name, label), places in groups.items()
        if len(places) < 2
    ]
    if small:
        raise UserError(f"--val_fraction needs 2 images per class to divide; too few: {', '.join(small)}")
    held = set()
    for places in groups.values():
        count = min(max(1, round(fraction * len(places))), len(places) - 1)
        held.update(rng.permutation(places)[:count].tolist())
    return _part(found, lambda place: place not in held), _part(found, lambda place: place in held)


def _part(found, wanted):
    samples = [sample for place, sample in enumerate(found.samples) if wanted(place)]
    return Scan(found.root, samples, found.folders, found.passed_over, found.labels)


def _split_scan(opt, split):
    root = Path(opt.dataroot) / split
    if split == "val" and not root.is_dir() and root.with_name("valid").is_dir():
        root = root.with_name("valid")  # its name in DFIG's set of faces, and in many others
    return scan(root, discover(root, opt.classes))


def _protocol_scan(opt, part):
    """The images of a protocol's training or test part, in its own folder names."""
    row = protocols.get(opt.protocol)
    wanted = row.generators if part == "test" else row.pick(opt.classes or row.train_on, part)
    root = row.locate(opt.dataroot, part, single=True)
    folders = {one: row.find(root, one, part) if root else None for one in wanted}
    present = [(one.name, folder) for one, folder in folders.items() if folder]
    absent = [one.aliases[0] for one, folder in folders.items() if not folder]
    if not present or (part != "test" and absent):
        raise UserError(
            f"--protocol {row.slug} found no {part} folder of {', '.join(absent)} below {opt.dataroot}; "
            f"looked for {' or '.join(row.places_of(part))} in "
            f"{', '.join((*row.roots_of(part), opt.dataroot))}"
        )
    return scan(root, present, row.label_map)


def _notice(opt, use, found):
    lines = [] if opt.protocol else [classes_notice(found.root, opt.classes)]
    return "\n".join(filter(None, [*lines, f"{use}: {found.describe()}"]))


def _dataset(opt, found, data_config, augment):
    load_size = None if opt.no_resize else opt.loadSize
    geometry = Geometry(load_size, opt.cropSize, opt.rz_interp[0], resize=opt.resize_rule)
    limits = Limits(min_side=data_config.min_side)
    return RealFakeFolder(
        found,
        geometry,
        augment,
        limits,
        opt.seed if augment else EVALUATION_SEED,
        opt.max_mpx,
        opt.exif,
        patches=data_config.patches,
        clean_pair=data_config.clean_pair,
        noise_bits=data_config.noise_bits,
    )


def _augment(opt):
    return Augment(
        blur_prob=opt.blur_prob,
        blur_sigma=opt.blur_sig,
        jpeg_prob=opt.jpg_prob,
        jpeg_methods=opt.jpg_method,
        jpeg_quality=opt.jpg_qual,
        interpolations=opt.rz_interp,
        flip=not opt.no_flip,
    )
