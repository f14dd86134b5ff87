"""What a row of the protocol table is, where it finds its folders, and how a user writes one in YAML.

    - slug: My-Set
      generators: [flux, {name: SD3, folders: [sd3, stable_diffusion_3]}]
      roots: [my_set]

A YAML file is such a list, or one mapping.  `slug` and `generators` are needed; KEYS and GENERATOR_KEYS list
the rest.  Without `resize` and `crop` images keep their stored size.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

import yaml

from common import UserError
from data.folder import LABELS, label_folders
from data.transforms import INTERPOLATIONS, RESIZES, Geometry

AVERAGES = ("macro", "micro")  # mean over generators; mean over images
LONGEST_SIDE = 16_384
STORED = Geometry(load_size=None, crop_size=None)
RESERVED = ("all", "none")  # words that --protocols and --protocol understand


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
    borrowed: tuple[str, ...] = ()  # roots of other protocols, which count where all its generators are there
    places: tuple[str, ...] = ("{generator}",)
    split: str = "test"  # the published split that `places` are
    labels: tuple[str, str] = ("0_real", "1_fake")  # published (real, fake) names; LAYOUTS hold as well
    average: str = "macro"
    seed: int | None = None  # of the published training
    training: tuple[Generator, ...] = ()  # the generators of its training part
    train_roots: tuple[str, ...] = ()  # where they differ from `roots`
    train_places: tuple[str, ...] = ()
    val_places: tuple[str, ...] = ()  # published validation images that are not a test set
    train_on: tuple[str, ...] = ()  # those of `training` that the published training used; empty: all
    default: bool = False  # test.py runs it without being asked

    def locate(self, dataroot, part="test", single=False):
        """The root that holds generators, or None: a folder by one of its names, or --dataroot itself.

        --dataroot itself has to hold half of them, since other benchmarks share single names, such as biggan;
        with `single` one is enough.
        """
        members = self.members(part)
        least = 1 if single or part != "test" else len(members) / 2
        if not self.tells_apart and not single:
            # A folder test/ says nothing.
            least = len(members) + 1
        own = [(folder, 1) for folder in self.roots_of(part)]
        borrowed = [(folder, len(members)) for folder in self.borrowed]
        for folder, needed in (*own, *borrowed, (".", least)):
            root = _resolve(dataroot, folder)
            present = [generator for generator in members if root and self.find(root, generator, part)]
            if present and len(present) >= needed:
                return root
        return None

    def members(self, part="test"):
        """The generators of a part: "test", "train" or "val" (those of the training)."""
        return self.generators if part == "test" else self.training

    def roots_of(self, part="test"):
        """Names of the root of a part."""
        return self.roots if part == "test" else self.train_roots or self.roots

    def places_of(self, part="test"):
        """The paths of generators of a part."""
        return {"test": self.places, "train": self.train_places, "val": self.val_places}[part]

    def looked_for(self, dataroot):
        """The paths below --dataroot where its generators can be, in words."""
        roots, names = ",".join((*self.roots, ".")), [generator.aliases[0] for generator in self.generators]
        return f"{self.slug}: {dataroot}/{{{roots}}}/({' or '.join(self.places)}) with {', '.join(names)}"

    @property
    def tells_apart(self):
        """Whether a generator's own folder name is part of its place."""
        return all("{generator}" in place for place in self.places)

    def pick(self, classes, part="test"):
        """The generators of these names, in table order; all without names; UserError for an unknown one."""
        members = self.members(part)
        known = {
            name.lower(): generator for generator in members for name in (generator.name, *generator.aliases)
        }
        unknown = [name for name in classes if name.lower() not in known]
        if unknown:
            raise UserError(
                f"{self.slug} has no generator {', '.join(unknown)}; it has: "
                f"{', '.join(generator.name for generator in members)}"
            )
        chosen = {known[name.lower()] for name in classes}
        return [generator for generator in members if not classes or generator in chosen]

    def find(self, root, generator, part="test"):
        """The folder of a generator below root, or None.

        A place after the first, or without the generator's name, counts only with label folders right inside:
        <generator>/ without val/ may hold the training images, and test/ may be anything.
        """
        places = self.places_of(part)
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
        return json.loads(json.dumps(asdict(self) | {"geometry": self.geometry.as_dict()}))

    @property
    def sha256(self):
        """Pins down what scores depend on: generators, their places, labels, geometry, averaging."""
        row = self.as_dict()
        row["generators"] = [(generator.name, generator.aliases) for generator in self.generators]
        names = ("slug", "generators", "geometry", "places", "labels", "average")
        parts = {name: row[name] for name in names}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def locate_all(rows, dataroot, asked):
    """([(protocol, its root)] of those there, [what was looked for] of the others).

    With `asked` (the user named them) a missing one is a UserError; without, only if none is there.  A
    protocol whose `places` do not name its generators has to be asked for to be --dataroot itself.
    """
    roots = [(row, row.locate(dataroot, single=asked and not row.tells_apart)) for row in rows]
    absent = [row.looked_for(dataroot) for row, root in roots if root is None]
    if absent and (asked or len(absent) == len(roots)):
        raise UserError(f"not found below --dataroot: {'; '.join(absent)}")
    return [(row, root) for row, root in roots if root is not None], absent


def _resolve(root, relative):
    """root/relative with each step's case ignored; None unless it is a folder."""
    folder = Path(root)
    for step in Path(relative).parts if folder.is_dir() else ():
        exact, names = folder / step, ()
        if not exact.is_dir():
            names = (name for name in os.listdir(folder) if name.lower() == step.lower())
        folder = folder / min(names, default=step)
        if not folder.is_dir():
            return None
    return folder if folder.is_dir() else None


# ----- rows in YAML -----


def load_file(path):
    """The rows of a YAML file.  UserError says what is wrong, in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from None
    rows = content if isinstance(content, list) else [content]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a mapping per protocol with the keys {', '.join(KEYS)}")
    try:
        return [_row(row) for row in rows]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _text(value):
    return isinstance(value, str) and bool(value.strip())


def _folder(value):
    return _text(value) and not PurePath(value).is_absolute() and ".." not in PurePath(value).parts


def _plain(value):
    return _folder(value) and len(PurePath(value).parts) == 1 and "\\" not in value and value != "."


def _place(value):
    return _folder(value) and not set("{}") & set(value.replace("{generator}", ""))


def _list_of(accept):
    return lambda value: isinstance(value, list) and bool(value) and all(map(accept, value))


def _whole(lowest, highest, *others):
    return lambda value: (type(value) is int and lowest <= value <= highest) or value in others


def _one_of(choices):
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


TEXT, YES_OR_NO = (_text, "text"), (lambda value: isinstance(value, bool), "true or false")
FOLDER, FOLDERS = (_plain, "a folder name"), (_list_of(_folder), "a list of folder names")
SIDE = (_whole(1, LONGEST_SIDE, None), f"a whole number from 1 to {LONGEST_SIDE}, or null")
PLACES = (_list_of(_place), "a list of paths with no other field than {generator}")
COUNTS = (lambda value: _list_of(_whole(0, 10**9))(value) and len(value) == 2, "a list of two whole numbers")
SLUG = (
    lambda value: _plain(value) and value.lower() not in RESERVED,
    f"a plain folder name other than {', '.join(RESERVED)}",
)
# Key of a row -> (what is accepted, the same in words).  What the keys mean: `Protocol` and `Geometry`, under
# GEOMETRY_FIELDS; (real, fake) are `labels`.
KEYS = {
    "slug": SLUG,
    "generators": (lambda value: isinstance(value, list) and bool(value), "a list"),
    "roots": FOLDERS,
    "places": PLACES,
    "real": FOLDER,
    "fake": FOLDER,
    "resize": SIDE,
    "resize_rule": _one_of(RESIZES),
    "crop": SIDE,
    "even": YES_OR_NO,
    "interpolation": _one_of(INTERPOLATIONS),
    "average": _one_of(AVERAGES),
    "split": TEXT,
    "seed": (_whole(0, 2**32 - 1, None), "a whole number, or null"),
    "source": TEXT,
    "url": TEXT,
}
GEOMETRY_FIELDS = {
    "resize": "load_size",
    "resize_rule": "resize",
    "crop": "crop_size",
    "even": "even",
    "interpolation": "interpolation",
}
GENERATOR_KEYS = {
    "name": TEXT,
    "folders": FOLDERS,
    "family": TEXT,
    "nested": YES_OR_NO,
    "images": COUNTS,
    "images_within": (_whole(0, 10**9), "a whole number"),
}


def _row(row):
    _check(row, KEYS, ("slug", "generators"), "a protocol")
    _check_labels(row)
    generators = tuple(_generator(entry) for entry in row["generators"])
    _require_distinct(generators)
    places = row.get("places", ["{generator}"])
    if len(generators) > 1 and not all("{generator}" in place for place in places):
        raise UserError(f"places need {{generator}} to tell {len(generators)} generators apart, got {places}")
    geometry = {GEOMETRY_FIELDS[key]: value for key, value in row.items() if key in GEOMETRY_FIELDS}
    others = (*GEOMETRY_FIELDS, "real", "fake")
    fields = {key: value for key, value in _tuples(row).items() if key not in others}
    if "real" in row:
        fields["labels"] = (row["real"], row["fake"])
    fields |= {"generators": generators, "geometry": replace(STORED, **geometry)}
    return Protocol(**{"source": "user's protocol file"} | fields)


def _tuples(mapping):
    """The values of a mapping, its lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in mapping.items()}


def _check_labels(row):
    real, fake = row.get("real"), row.get("fake")
    if (real is None) != (fake is None) or (real is not None and real.lower() == fake.lower()):
        raise UserError(f"real and fake must name two folders, got {real} and {fake}")
    if real is not None and (LABELS.get(real.lower()) == 1 or LABELS.get(fake.lower()) == 0):
        raise UserError(f"real: {real} and fake: {fake} reverse what these names mean everywhere")


def _generator(entry):
    if _folder(entry):
        return Generator(entry)
    if not isinstance(entry, dict):
        raise UserError(f"a generator is a folder name or a mapping with name, got {entry!r}")
    _check(entry, GENERATOR_KEYS, ("name",), f"generator {entry.get('name')}")
    if "folders" not in entry and not _folder(entry["name"]):
        raise UserError(f"generator {entry['name']} needs folders, since its name is not a folder name")
    return Generator(**_tuples(entry))


def _require_distinct(generators):
    names = [generator.name for generator in generators]
    folders = [alias for generator in generators for alias in generator.aliases]
    for words in (names, folders):
        lower = [word.lower() for word in words]
        twice = sorted({word for word in lower if lower.count(word) > 1})
        if twice:
            raise UserError(f"generators must differ in name and folders; twice: {', '.join(twice)}")


def _check(row, keys, needed, what):
    unknown = [str(key) for key in row if key not in keys]
    if unknown:
        raise UserError(f"{what} has no key {', '.join(unknown)}; legal: {', '.join(keys)}")
    missing = [key for key in needed if key not in row]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}; legal keys: {', '.join(keys)}")
    for key, value in row.items():
        accept, expected = keys[key]
        if not accept(value):
            raise UserError(f"{key} of {what} must be {expected}, got {value!r}")
