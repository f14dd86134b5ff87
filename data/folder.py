"""Folders of real and fake images -> a dataset of (image, label, index), fake = 1, real = 0.

Labels come from the folder names of LAYOUTS, never from alphabetical order.  Below a root stand generators
(or training classes), each with its pair of label folders directly inside or one or more classes deeper:

    root/<generator>/{0_real,1_fake}     root/<generator>/<class>/{0_real,1_fake}     root/{0_real,1_fake}
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from common import BadImage, UserError
from data.decode import DEFAULT_MAX_MPX, decode
from data.noise import decode_noise, noise_sample
from data.patches import describe as describe_patches
from data.patches import patch_sample
from data.transforms import Degradation, Limits, prepare

LAYOUTS = (("0_real", "1_fake"), ("nature", "ai"), ("real", "fake"))  # (label 0, label 1)
LABELS = {name: label for layout in LAYOUTS for label, name in enumerate(layout)}
EXTENSIONS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .bmp .tif .tiff .gif .mpo .ppm .pgm .avif .jp2".split()
)
LAYOUT_HELP = "a pair of folders " + ", ".join("/".join(layout) for layout in LAYOUTS)
SHOWN = 8


class Sample(NamedTuple):
    """One image file: path relative to the dataset's root with forward slashes, its generator, fake = 1."""

    path: str
    generator: str
    label: int


@dataclass
class Scan:
    """What a walk over the folders found, and what it passed over."""

    root: Path
    samples: list[Sample] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # generators that were scanned, with or without images
    passed_over: Counter = field(default_factory=Counter)  # "hidden" or an extension -> number of files
    labels: dict = field(default_factory=lambda: LABELS)

    def generators(self):
        """Generator names in the order in which they were scanned."""
        return list(dict.fromkeys(sample.generator for sample in self.samples))

    def counts(self):
        """{generator: [number of real, number of fake]}"""
        counts = {name: [0, 0] for name in self.folders}
        for sample in self.samples:
            counts.setdefault(sample.generator, [0, 0])[sample.label] += 1
        return counts

    def describe(self):
        """One line: images, generators, files passed over."""
        real, fake = (sum(pair[label] for pair in self.counts().values()) for label in (0, 1))
        line = f"{self.root}: {len(self.samples):,} images ({real:,} real, {fake:,} fake)"
        line += f" in {len(self.counts())} folders"
        if self.passed_over:
            line += f"; passed over: {self.others()}"
        return line

    def others(self):
        """The files that were passed over, in words; "" for none."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed_over.items()))


def discover(root, classes=()):
    """The folders of a root that hold label folders: [(name, folder)], sorted by name.

    Args:
        classes: keep only these names; one that is not there raises ValueError with those found.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no folder {root}{' (it is a file)' if root.exists() else ''}")
    if label_folders(root):  # --classes has nothing to choose from here; see classes_notice
        return [(root.resolve().name, root)]
    found = {child.name: child for child in _subfolders(root) if _holds_labels(child, (root,))}
    if not found:
        inside = ", ".join(sorted(os.listdir(root))[:SHOWN]) or "nothing"
        raise UserError(
            f"{root} holds no images in a known layout: expected {LAYOUT_HELP}, inside the "
            f"folder, its generators or their classes; found: {inside}"
        )
    absent = [name for name in classes if name not in found]
    if absent:
        raise UserError(f"{root} has no class {', '.join(absent)}; it has: {', '.join(sorted(found))}")
    return [(name, found[name]) for name in sorted(set(classes or found))]


def classes_notice(root, classes):
    """Says, where the root is itself a pair of label folders, that class names choose nothing; else ""."""
    flat = classes and label_folders(root)
    return f"--classes has no effect: {root} is itself a pair of label folders" if flat else ""


def scan(root, folders, labels=LABELS):
    """Lists the images of generators.

    Args:
        folders: [(generator name, folder below root)], kept in order.
        labels: {label folder's name in lower case: label}.
    """
    result = Scan(Path(root), labels=labels)
    result.folders = [name for name, _ in folders]
    if all(Path(folder) != result.root for _, folder in folders):
        result.passed_over.update(_passed_over(root))
        known = {Path(folder).relative_to(root).parts[0] for _, folder in folders}
        others = [child for child in _subfolders(root) if child.name not in known]
        strangers = [child.name for child in others if not _holds_labels(child, (result.root,), labels)]
        result.passed_over.update(f"folder without label folders ({name})" for name in strangers)
    for name, folder in folders:
        _scan_generator(result, name, Path(folder), (result.root,))
    return result


def label_folders(folder, labels=LABELS):
    """{label: folder} of the label folders directly inside; ValueError when two spell the same label."""
    found = {}
    for child in _subfolders(folder):
        label = labels.get(child.name.lower())
        if label in found:
            raise UserError(
                f"{folder} holds both {found[label].name} and {child.name}, which mean the same label"
            )
        if label is not None:
            found[label] = child
    return found


def require_both_classes(scan_result):
    """Training needs reals and fakes in every folder; ValueError lists the counts of those without."""
    lacking = {name: pair for name, pair in scan_result.counts().items() if 0 in pair}
    if not scan_result.samples or lacking:
        found = "; ".join(f"{name}: {real} real, {fake} fake" for name, (real, fake) in lacking.items())
        raise UserError(
            f"train.py needs real and fake images in every folder of {scan_result.root}; "
            f"found {found or 'no images'}"
        )


def _subfolders(folder):
    with os.scandir(folder) as entries:  # tells folders from images without asking the disk for each
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [Path(folder) / name for name in names]


def _holds_labels(folder, above=(), labels=LABELS):
    above = (*above, folder)
    return bool(label_folders(folder, labels)) or any(
        _holds_labels(child, above, labels) for child in _inner(folder, above)
    )


def _inner(folder, above):
    """Folders inside, without links that lead back to one of those above."""
    passed = {os.path.realpath(place) for place in above}
    return [child for child in _subfolders(folder) if os.path.realpath(child) not in passed]


def _scan_generator(result, name, folder, above):
    above = (*above, folder)
    labels = label_folders(folder, result.labels)
    result.passed_over.update(_passed_over(folder))
    for label in sorted(labels):
        inside = label_folders(labels[label], result.labels)
        if 1 - label in inside:
            raise UserError(
                f"{labels[label]} and {inside[1 - label].name} in it contradict each other; rename one"
            )
        for place, names in image_files(labels[label], result.passed_over, above):
            relative = Path(os.path.relpath(place, result.root)).as_posix()
            result.samples += [Sample(f"{relative}/{file}", name, label) for file in names]
    children = [child for child in _inner(folder, above) if child not in labels.values()]
    splits = {child.name.lower() for child in children} & {"train", "val", "test"}
    if len(splits) > 1:
        raise UserError(f"{folder} holds the splits {', '.join(sorted(splits))}; name one folder below it")
    for child in children:
        _scan_generator(result, name, child, above)


def image_files(folder, passed_over, above=()):
    """Yields (folder, names of its image files) in sorted order; other files are counted."""
    seen = {os.path.realpath(place) for place in above}
    for place, subfolders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real_place = os.path.realpath(place)
        if real_place in seen:  # a link that leads back to where we were
            subfolders[:] = []
            continue
        seen.add(real_place)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        images = [name for name in sorted(names) if _kind(name) is None]
        passed_over.update(kind for name in names if (kind := _kind(name)) is not None)
        yield place, images


def _raise(error):  # os.walk leaves unreadable folders out unless told what to do
    raise error


def _passed_over(folder):
    with os.scandir(folder) as entries:
        return [_kind(entry.name) or "image outside a label folder" for entry in entries if entry.is_file()]


def _kind(name):
    """None for an image, else the word under which the file is counted."""
    if name.startswith("."):
        return "hidden"
    extension = os.path.splitext(name)[1].lower()
    return None if extension in EXTENSIONS else extension or "without extension"


class RealFakeFolder(Dataset):
    """Images of a scan, prepared for a detector.

    An item is asked for by index (evaluation) or by (epoch, index) (training); what is random in it depends
    on (seed, epoch, index) alone, so the number of workers, a restart or a second process cannot change it.
    Returns {"image": uint8 (3, H, W), "label": int, "index": int} or {"index": int, "bad": reason}; of a
    detector of patches, `image` and what stands beside it are those of data/patches.py.
    """

    def __init__(
        self,
        scan_result,
        geometry,
        augment=None,
        limits=None,
        seed=0,
        max_mpx=DEFAULT_MAX_MPX,
        exif="ignore",
        patches=None,
        clean_pair=False,
        degradation=None,
        noise_bits=None,
    ):
        """patches: the rule of a detector of patches; degradation: what an evaluation does to every image;
        noise_bits: the files hold noise patterns of so many bits a channel; 16 makes `image` int16."""
        sides = (geometry.load_size, geometry.crop_size)
        if patches is not None and min(filter(None, sides), default=patches.size) < patches.size:
            raise UserError(f"{geometry.describe()} holds no patch of {patches.size}x{patches.size}")
        self.scan, self.root, self.samples = scan_result, scan_result.root, scan_result.samples
        self.labels = np.array([sample.label for sample in self.samples], dtype=np.int64)
        self.geometry, self.augment, self.limits = geometry, augment, limits or Limits()
        self.seed, self.max_mpx, self.exif = seed, max_mpx, exif
        self.patches, self.clean_pair, self.degradation = patches, clean_pair, degradation or Degradation()
        self.noise_bits = noise_bits
        if noise_bits is not None and self.degradation.describe():
            raise UserError("--blur and --jpeg degrade photographs; these files hold noise patterns")
        changed = geometry.load_size or (augment and (augment.blur_prob or augment.jpeg_prob))
        if noise_bits is not None and changed:
            raise UserError("noise patterns are cropped and flipped alone: no resize, blur or JPEG")

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng((self.seed, epoch, index)) if self.augment else None
        try:
            item = self.prepare(self.read(self.root / self.samples[index].path), rng)
        except (BadImage, OSError, MemoryError) as error:
            return {"index": index, "bad": str(error) or type(error).__name__}
        return {**item, "label": int(self.labels[index]), "index": index}

    def read(self, path):
        """The RGB PIL image of a file, degraded if asked for; of 16-bit noise an int16 tensor (3, H, W)."""
        if self.noise_bits is not None:
            return decode_noise(path, self.noise_bits, self.max_mpx)
        return self.degradation.apply(decode(path, self.max_mpx, self.exif))

    def prepare(self, image, rng=None):
        """What `read` gives -> its entries of a batch."""
        if self.noise_bits == 16:
            return {"image": self.limits.check(noise_sample(image, self.geometry, self.augment, rng))}
        if self.patches is None:
            return {"image": prepare(image, self.geometry, self.limits, self.augment, rng)}
        return patch_sample(image, self.geometry, self.patches, self.seed, self.augment, rng, self.clean_pair)

    @property
    def fixed_size(self):
        """Whether all inputs of the network have one size."""
        return self.patches is not None or self.geometry.fixed_size

    def describe_input(self):
        """What reaches the network, in words."""
        patches = "" if self.patches is None else describe_patches(self.patches, self.seed)
        noise = f"{self.noise_bits}-bit noise patterns" if self.noise_bits else ""
        return ", ".join(
            filter(None, [noise, self.degradation.describe(), self.geometry.describe(), patches])
        )
