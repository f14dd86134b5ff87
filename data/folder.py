"""Folders of real and fake images -> a dataset of (image, label, index), fake = 1, real = 0.

The outermost folder with a name of LAYOUTS decides (`label_of`), never alphabetical order.  Below a root are
generators (or training classes), each with its pair of label folders right inside or deeper:

    root/<generator>/{0_real,1_fake}     root/<generator>/<class>/{0_real,1_fake}     root/{0_real,1_fake}

predict.py takes files and folders of any structure (`files_scan`).
"""

import functools
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from common import BadImage, UserError
from data.decode import DEFAULT_MAX_MPX, decode, is_lossless
from data.noise import decode_noise, noise_sample
from data.patches import describe_patches, patch_sample
from data.perturb import AS_STORED
from data.transforms import Augment, Geometry, Limits, prepare

LAYOUTS = (("0_real", "1_fake"), ("nature", "ai"), ("real", "fake"))  # (label 0, label 1)
LABELS = {name: label for layout in LAYOUTS for label, name in enumerate(layout)}
UNLABELLED = -1
EXTENSIONS = {*".png .jpg .jpeg .jpe .jfif .webp .bmp .tif .tiff .gif .mpo .ppm .pgm .avif .jp2".split()}
# Folders that a NAS, macOS, Windows, Linux or Python adds, besides those that start with a dot.
SYSTEM_FOLDERS = frozenset(
    "@eadir @tmp @recycle @recently-snapshot #recycle #snapshot __macosx $recycle.bin recycler lost+found "
    "__pycache__".split()
) | {"system volume information", "network trash folder", "temporary items"}
SPLITS = {"train", "val", "valid", "test"}
LAYOUT_HELP = "a pair of folders " + ", ".join("/".join(layout) for layout in LAYOUTS)
SHOWN = 8


class Sample(NamedTuple):
    """One image file: path relative to the dataset's root with forward slashes, its generator, fake = 1."""

    path: str
    generator: str
    label: int


@dataclass
class Scan:
    """The images below a folder, and what was passed over."""

    root: Path
    samples: list[Sample] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # names of generators, with or without images
    passed_over: Counter = field(default_factory=Counter)  # reason -> number of files or folders
    labels: dict = field(default_factory=lambda: LABELS)
    # Folder below a label folder of the other class -> number of its images.
    contradictions: Counter = field(default_factory=Counter)

    def add(self, paths, generator, steps):
        """Adds the images of one folder; `steps`: names of folders, outermost first, that may be labels."""
        label = label_of(steps, self.labels)
        self.samples += [Sample(path, generator, label) for path in paths]
        if paths and 1 - label in {self.labels.get(step.lower()) for step in steps}:
            self.contradictions[os.path.dirname(paths[0])] += len(paths)

    def lossless(self):
        """The same without images of lossy containers, by the files' first bytes."""
        kept = [sample for sample in self.samples if is_lossless(self.root / sample.path)]
        left_out = Counter({"of lossy containers": len(self.samples) - len(kept)})
        return replace(self, samples=kept, passed_over=self.passed_over + left_out)

    def counts(self):
        """{generator: [number of real, number of fake]}"""
        counts = {name: [0, 0] for name in self.folders}
        for sample in self.samples:
            counts.setdefault(sample.generator, [0, 0])[sample.label] += 1
        return counts

    def describe(self, classes=()):
        """Images, generators, what was passed over; notices on lines of their own."""
        real, fake = np.sum(list(self.counts().values()) or [[0, 0]], axis=0)
        line = f"{self.root}: {len(self.samples):,} images ({real:,} real, {fake:,} fake)"
        others = f"; passed over: {self.others()}" if self.passed_over else ""
        return "\n".join([f"{line} in {len(self.counts())} folders{others}", *self.notices(classes)])

    def others(self):
        """What was passed over, in words; "" for nothing."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.passed_over.items()))

    def notices(self, classes=()):
        """Sentences on folders that may not mean what they were taken for; `classes`: names of --classes."""
        if classes and label_folders(self.root, self.labels):
            yield f"notice: --classes has no effect: {self.root} is itself a pair of label folders"
        if self.contradictions:
            count, folder = self.contradictions.total(), min(self.contradictions)
            where = f"below folders of both labels, as in {folder}"
            yield f"notice: {count:,} images are {where}; the outermost label folder counts"
        splits = [name for name in self.folders if name.lower() in SPLITS]
        if len(splits) > 1:
            yield f"notice: {', '.join(splits)} are splits of one set, taken here as generators"


def label_of(folders, labels=LABELS):
    """The label of a file, in every script: that of the outermost label folder above it, or UNLABELLED."""
    return next((labels[name.lower()] for name in folders if name.lower() in labels), UNLABELLED)


def source_of(sample):
    """The source of a sample: the folders above it, without those that name a label."""
    return "/".join(step for step in sample.path.split("/")[:-1] if step.lower() not in LABELS)


def require_folder(dataroot):
    """UserError unless --dataroot is a folder."""
    if not Path(dataroot).is_dir():
        problem = "a file, not a folder" if Path(dataroot).is_file() else "no folder"
        raise UserError(f"--dataroot: {problem}: {dataroot}")


def discover(root, classes=()):
    """[(name, folder)] of a root's folders with label folders, of `classes` only where given, by name."""
    root = Path(root)
    require_folder(root)
    own = label_of([root.resolve().name])
    if own != UNLABELLED and labels_below(root) <= {1 - own}:  # nothing in it gives its label
        raise UserError(f"{root} is itself a label folder; name the folder above it")
    if label_folders(root):  # names of classes choose nothing here; see Scan.notices
        return [(root.resolve().name, root)]
    folders = {child.name: child for child in subfolders(root) if labels_below(child, (root,))}
    if not folders:
        expected = f"expected {LAYOUT_HELP}, inside the folder, its generators or their classes"
        inside = ", ".join(sorted(os.listdir(root))[:SHOWN]) or "nothing"
        raise UserError(f"{root} holds no images in a known layout: {expected}; found: {inside}")
    absent = [name for name in classes if name not in folders]
    if absent:
        raise UserError(f"{root} has no class {', '.join(absent)}; it has: {', '.join(sorted(folders))}")
    return [(name, folders[name]) for name in sorted(set(classes or folders))]


def scan(root, folders, labels=LABELS, bare=None):
    """Lists the images of generators.

    Args:
        folders: [(generator name, folder below root)], kept in order.
        labels: {label folder's name in lower case: label}.
        bare: a folder without label folders holds fakes, to each of which the folders of reals in this list
            belong; None: it is passed over.
    """
    result = Scan(Path(root), folders=[name for name, _ in folders], labels=labels)
    if all(Path(folder) != result.root for _, folder in folders):
        _pass_over_others(result, [*(folder for _, folder in folders), *(bare or ())])
    for name, folder in folders:
        if bare is None or labels_below(folder, (result.root,), labels):
            _add_labelled(result, name, Path(folder))
        else:
            _add_bare(result, name, folder, bare)
    return result


def _pass_over_others(result, places):
    """Counts what is in the root besides the folders of generators and of reals."""
    _pass_over(result.root, result.passed_over)
    known = {Path(os.path.relpath(place, result.root)).parts[0] for place in places}
    for child in subfolders(result.root):
        if child.name not in known and not labels_below(child, (result.root,), result.labels):
            result.passed_over[f"folder without label folders ({child.name})"] += 1


def _add_bare(result, name, folder, reals):
    """Adds a generator whose folder holds fakes, with the folders of reals."""
    for label, place in (*((0, real) for real in reals), (1, folder)):
        for current, names in image_files(place, result.passed_over):
            paths = _relative(result.root, current, names)
            result.samples += [Sample(path, name, label) for path in paths]


def _add_labelled(result, name, folder):
    """Adds the images in the label folders below a generator's folder."""
    for parent, inside, above in _unlabelled(folder, result.labels, (result.root,)):
        _pass_over(parent, result.passed_over)
        for _, labelled in sorted(inside.items()):
            for current, names in image_files(labelled, result.passed_over, above):
                paths = _relative(result.root, current, names)
                result.add(paths, name, Path(current).relative_to(parent).parts)
        splits = {child.name.lower() for child in subfolders(parent)} & SPLITS - set(result.labels)
        if len(splits) > 1:
            names = ", ".join(sorted(splits))
            raise UserError(f"{parent} holds the splits {names}; name one folder below it")


def _relative(root, folder, names):
    """Paths of a folder's files relative to root, with forward slashes."""
    relative = Path(os.path.relpath(folder, root)).as_posix()
    return [f"{relative}/{name}" for name in names]


def files_scan(inputs):
    """Lists the images of files and folders, folders with everything below them, each file once.

    Labels are by `label_of`.  A named folder's own name counts too, unless it holds both labels, as the root
    of a set does; so does the name of a named file's folder; folders above these say nothing.  Named files
    may have any extension.  UserError for a missing path, or where there are no images.
    """
    result, seen = Scan(Path()), set()
    for entry in inputs:
        path = Path(entry)
        if not path.exists():
            raise UserError(f"no file or folder {entry}")
        if path.is_dir():
            folder, walk = path, image_files(path, result.passed_over)
            groups = [(inner, [os.path.join(inner, name) for name in names]) for inner, names in walk]
        else:
            folder, groups = path.parent, [(path.parent, [str(path)])]
        groups = [(Path(os.path.relpath(inner, folder)).parts, paths) for inner, paths in groups]
        both = {0, 1} <= {label_of(steps) for steps, _ in groups}
        own = () if both else (os.path.basename(os.path.abspath(folder)),)
        for steps, paths in groups:
            fresh = [path for path in paths if os.path.abspath(path) not in seen]
            seen.update(map(os.path.abspath, fresh))
            result.add(fresh, "", (*own, *steps))
    if not result.samples:
        where, seen = ", ".join(map(str, inputs)), result.others() or "nothing"
        raise UserError(
            f"no images in {where}; found {seen}; known extensions: {' '.join(sorted(EXTENSIONS))}"
        )
    return result


def label_folders(folder, labels=LABELS):
    """{label: folder} of the label folders directly inside; UserError when two names mean the same label."""
    inside = {}
    for child in subfolders(folder):
        label = labels.get(child.name.lower())
        if label in inside:
            names = f"{inside[label].name} and {child.name}"
            raise UserError(f"{folder} holds both {names}, which mean the same label")
        if label is not None:
            inside[label] = child
    return inside


def subfolders(folder):
    """Folders inside that may hold images, sorted by name; hidden ones and SYSTEM_FOLDERS are left out."""
    _, inside, _ = next(os.walk(folder, onerror=_raise))
    return [Path(folder) / name for name in sorted(inside) if not _folder_reason(name)]


def labels_below(folder, above=(), labels=LABELS):
    """The set of labels of the outermost label folders inside; `above`: the folders that lead here."""
    return set().union(*(inside for _, inside, _ in _unlabelled(folder, labels, above)))


def _unlabelled(folder, labels, above):
    """Walks what is outside of label folders: (folder, {label: folder inside}, the folders above and itself).

    Links that lead back to a folder above are left out.
    """
    above = (*above, folder)
    inside = label_folders(folder, labels)
    yield folder, inside, above
    passed = {os.path.realpath(parent) for parent in above}
    for child in subfolders(folder):
        if child not in inside.values() and os.path.realpath(child) not in passed:
            yield from _unlabelled(child, labels, above)


def image_files(folder, passed_over, above=()):
    """Yields (folder, names of its image files) in sorted order; what is passed over is counted."""
    seen = {os.path.realpath(parent) for parent in above}
    for current, inside, names in os.walk(folder, followlinks=True, onerror=_raise):
        real_path = os.path.realpath(current)
        if real_path in seen:  # a link that leads back to where we were
            inside[:] = []
            continue
        seen.add(real_path)
        passed_over.update(filter(None, [*map(_folder_reason, inside), *map(_file_reason, names)]))
        inside[:] = sorted(name for name in inside if not _folder_reason(name))
        yield current, sorted(name for name in names if not _file_reason(name))


def _raise(error):  # os.walk leaves unreadable folders out by default
    raise error


def _pass_over(folder, passed_over):
    """Counts what is directly inside a folder without a label."""
    _, images = next(image_files(folder, passed_over))
    passed_over.update(["image outside a label folder"] * len(images))


def _folder_reason(name):
    """None for a folder that may hold images, else the words under which it is counted."""
    if name.startswith("."):
        return "hidden folder"
    return f"folder {name}" if name.lower() in SYSTEM_FOLDERS else None


def _file_reason(name):
    """None for an image, else the words under which the file is counted."""
    if name.startswith("."):
        return "hidden"
    extension = os.path.splitext(name)[1].lower()
    return None if extension in EXTENSIONS else extension or "without extension"


@dataclass(eq=False)
class RealFakeFolder(Dataset):
    """Images of a scan, prepared for a detector.

    An item is asked for by index (evaluation) or by (epoch, index) (training); its random part depends on
    (seed, epoch, index) only, so the number of workers, a restart or a second process cannot change it.
    Returns {"image": uint8 (3, H, W), "label": int, "index": int}, for a detector of patches also the entries
    of data/patches.py, or {"index": int, "bad": reason}.  With several views it is a list of these, one per
    view, and `index` is the index of the image times their number plus the view's.
    """

    scan: Scan
    geometry: Geometry
    augment: Augment | None = None  # or CropAugment of data/augment.py
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    max_mpx: float = DEFAULT_MAX_MPX
    exif: str = "ignore"
    patches: object = None  # the rule of a detector of patches (networks.base.Patches)
    clean_pair: bool = False
    views: tuple = (AS_STORED,)  # of an evaluation: Views of data/perturb.py
    reencode: dict = field(default_factory=dict)  # label -> View that its images go through before
    noise_bits: int | None = None  # the files hold noise patterns; 16 makes `image` int16
    twins: dict = field(default_factory=dict)  # index -> index of the image whose random draw it has

    def __post_init__(self):
        geometry, augment, patches = self.geometry, self.augment, self.patches
        sides = (geometry.load_size, geometry.crop_size)
        if patches is not None and min(filter(None, sides), default=patches.size) < patches.size:
            raise UserError(f"{geometry.describe()} holds no patch of {patches.size}x{patches.size}")
        degraded = self.views != (AS_STORED,) or self.reencode
        degraded = degraded or (augment and augment.degrades)
        if self.noise_bits is not None and (geometry.load_size or degraded):
            raise UserError(
                "noise patterns are only cropped and flipped: no resize, blur or JPEG, no --views"
            )
        self.root, self.samples = self.scan.root, self.scan.samples
        self.labels = np.array([sample.label for sample in self.samples], dtype=np.int64)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        drawn = self.twins.get(index, index)
        rng = np.random.default_rng((self.seed, epoch, drawn)) if self.augment else None
        stored = functools.cache(partial(self.read, index))  # decoded once for all views
        first = index * len(self.views)
        items = [self._item(stored, view, first + number, rng) for number, view in enumerate(self.views)]
        return items if len(items) > 1 else items[0]

    def _item(self, stored, view, number, rng):
        index = number // len(self.views)
        try:
            image = view(stored(), (self.seed, index)) if view.steps else stored()
            item = self.prepare(image, rng)
        except (BadImage, OSError, MemoryError) as error:
            return {"index": number, "bad": str(error) or type(error).__name__}
        return {**item, "label": int(self.labels[index]), "index": number}

    def read(self, index):
        """The RGB PIL image of a sample, before any view; of 16-bit noise an int16 tensor (3, H, W)."""
        path = self.root / self.samples[index].path
        if self.noise_bits is not None:
            return decode_noise(path, self.noise_bits, self.max_mpx)
        image = decode(path, self.max_mpx, self.exif)
        reencode = self.reencode.get(int(self.labels[index]))
        return reencode(image, (self.seed, index)) if reencode else image

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
        noise = self.noise_bits and f"{self.noise_bits}-bit noise patterns"
        encoded = [f"{('real', 'fake')[label]}s as {view.name}" for label, view in self.reencode.items()]
        patches = self.patches and describe_patches(self.patches, self.seed)
        return ", ".join(filter(None, [noise, *encoded, self.geometry.describe(), patches]))
