"""What a row of a protocol table is, where it finds its folders, and how a user writes one in YAML."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml

from data.folder import LABELS, label_folders
from data.transforms import Geometry

AVERAGES = ("macro", "micro")  # mean over generators; mean over images


@dataclass(frozen=True)
class Generator:
    """One row of a table: its printed name and the folder names under which it is published."""

    name: str
    folders: tuple[str, ...] = ()  # empty: the name itself
    family: str = ""  # "gan", "diffusion", "autoregressive", "face-swap", "rendering" or "upsampler"
    nested: bool = False  # object classes stand between its folder and the label folders
    images: tuple[int, int] | None = None  # published number of (real, fake) images
    images_within: int = 0  # the published number is rounded by at most this

    @property
    def aliases(self):
        return self.folders or (self.name,)


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is laid out and fed to a detector.

    A place is a path below the root with `{generator}` for the generator's folder; the first that exists
    counts.  Folder names compare without regard to case.
    """

    slug: str
    generators: tuple[Generator, ...]  # in the order of the published table
    geometry: Geometry
    source: str
    url: str = ""
    roots: tuple[str, ...] = ()  # names of its root below --dataroot; --dataroot itself counts too
    places: tuple[str, ...] = ("{generator}",)
    split: str = "test"  # the published split that `places` are
    labels: tuple[str, str] = ("0_real", "1_fake")  # published (real, fake) names; LAYOUTS hold as well
    average: str = "macro"
    seed: int | None = None  # of the published training
    training: tuple[Generator, ...] = ()  # the generators of its training part
    train_places: tuple[str, ...] = ()
    train_on: tuple[str, ...] = ()  # those of `training` that the published training used; empty: all
    default: bool = field(default=False, compare=False)  # test.py runs it without being asked

    def locate(self, dataroot, part="test"):
        """The root that holds generators, or None: a folder by one of its names, or --dataroot itself.

        --dataroot itself has to hold most of them: other benchmarks share single names, such as biggan.
        """
        least = 1 if part == "train" else len(self.generators) / 2
        for folder, needed in (*((name, 1) for name in self.roots), (".", least)):
            root = Path(dataroot) / folder
            found = [self.find(root, generator, part) for generator in self.members(part)]
            if sum(place is not None for place in found) >= needed:
                return root
        return None

    def members(self, part="test"):
        """The generators of the test or of the training part."""
        return self.training if part == "train" else self.generators

    def pick(self, classes, part="test"):
        """The generators of these names, in table order; all without names; ValueError for an unknown one."""
        members = self.members(part)
        known = {name.lower(): generator for generator in members
                 for name in (generator.name, *generator.aliases)}  # fmt: skip
        unknown = [name for name in classes if name.lower() not in known]
        if unknown:
            raise ValueError(f"{self.slug} has no generator {', '.join(unknown)}; it has: "
                             f"{', '.join(generator.name for generator in members)}")  # fmt: skip
        chosen = {known[name.lower()] for name in classes}
        return [generator for generator in members if not classes or generator in chosen]

    def find(self, root, generator, part="test"):
        """The folder of a generator below root, or None.

        A place after the first, or without the generator's name, counts only with label folders right inside:
        <generator>/ without val/ may hold the training images, and test/ may be anything.
        """
        places = self.train_places if part == "train" else self.places
        for place in places:
            names = generator.aliases if "{generator}" in place else ("",)
            for folder in filter(None, (_resolve(root, place.format(generator=name)) for name in names)):
                if (place == places[0] and names != ("",)) or label_folders(folder, self.label_map):
                    return folder
        return None

    @property
    def label_map(self):
        """{folder name in lower case: label}: the published pair, and the pairs known everywhere."""
        return {**LABELS, **{name.lower(): label for label, name in enumerate(self.labels)}}

    def as_dict(self):
        """The row as plain values, for a record of results."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def sha256(self):
        """Pins down what scores depend on: generators, their places, labels, geometry, averaging."""
        row = self.as_dict()
        row["generators"] = [(generator.name, generator.aliases) for generator in self.generators]
        parts = {
            name: row[name] for name in ("slug", "generators", "geometry", "places", "labels", "average")
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _resolve(root, relative):
    """root/relative with each step's case ignored; None unless it is a folder."""
    folder = Path(root)
    for step in Path(relative).parts:
        if not folder.is_dir():
            return None
        present = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir()}
        folder = folder / step if (folder / step).is_dir() else present.get(step.lower())
        if folder is None:
            return None
    return folder if folder.is_dir() else None


# Keys of a user's row -> (type, what it means); `slug` and `generators` are needed, the rest is optional.
FILE_KEYS = {
    "slug": (str, "name of the protocol and of its results folder"),
    "generators": (list, "folder names, or {name, folders, family, nested, images: [real, fake]}"),
    "roots": (list, "names of its root below --dataroot"),
    "places": (list, "paths below the root, {generator} standing for a generator's folder"),
    "real": (str, "name of the folders of real images"),
    "fake": (str, "name of the folders of fake images"),
    "resize": (int, "side of the square resize in pixels, or null for the stored size"),
    "crop": (int, "side of the central crop in pixels, or null for none"),
    "even": (bool, "drop the last row and column of odd sizes"),
    "interpolation": (str, "resize filter"),
    "average": (str, "macro (over generators) or micro (over images)"),
    "split": (str, "which published split this is"),
    "seed": (int, "seed of the published training"),
    "source": (str, "where it was published"),
    "url": (str, "its page"),
}


def load_file(path):
    """The rows of a user's YAML file: one mapping, or a list of them.  ValueError says what is wrong."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from None
    rows = content if isinstance(content, list) else [content]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a mapping per protocol with the keys {', '.join(FILE_KEYS)}")
    try:
        return [_row(row) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _row(row):
    _check(row, FILE_KEYS, "a protocol")
    missing = [key for key in ("slug", "generators") if not row.get(key)]
    if missing:
        raise ValueError(f"a protocol needs {' and '.join(missing)}; its keys: {', '.join(FILE_KEYS)}")
    geometry = {name: row[key] for key, name in (("resize", "load_size"), ("crop", "crop_size"),
                ("even", "even"), ("interpolation", "interpolation")) if key in row}  # fmt: skip
    rest = {key: row[key] for key in ("slug", "url", "average", "split", "seed") if key in row}
    rest.update({key: tuple(row[key]) for key in ("roots", "places") if row.get(key)})
    if rest.get("average", "macro") not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {rest['average']!r}")
    if ("real" in row) != ("fake" in row) or row.get("real", "") == row.get("fake", "-"):
        raise ValueError(
            f"real and fake name two different folders, got {row.get('real')} and {row.get('fake')}"
        )
    if "real" in row:
        rest["labels"] = (row["real"], row["fake"])
    if {"/", "\\"} & set(row["slug"]) or row["slug"] in (".", ".."):
        raise ValueError(f"slug must be a plain folder name, got {row['slug']!r}")
    return Protocol(generators=tuple(_generator(entry) for entry in row["generators"]),
                    geometry=Geometry(**{"load_size": None, "crop_size": None, **geometry}),
                    source=row.get("source", "user's protocol file"), **rest)  # fmt: skip


def _generator(entry):
    if isinstance(entry, str):
        return Generator(entry)
    keys = {one.name: (object, "") for one in fields(Generator)}
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"a generator is a folder name or a mapping with name, got {entry!r}")
    _check(entry, keys, f"generator {entry['name']}")
    lists = {key: tuple(entry[key]) for key in ("folders", "images") if isinstance(entry.get(key), list)}
    return Generator(**{**entry, **lists})


def _check(row, keys, what):
    unknown = [str(key) for key in row if key not in keys]
    if unknown:
        raise ValueError(f"{what} has no key {', '.join(unknown)}; legal: {', '.join(keys)}")
    for key, value in row.items():
        kind = keys[key][0]
        nullable = key in ("resize", "crop", "seed")
        if not (isinstance(value, kind) and (kind is not int or (type(value) is int and value >= 0))) \
                and not (nullable and value is None):  # fmt: skip
            raise ValueError(f"{key} of {what} must be {kind.__name__}, got {value!r}")
