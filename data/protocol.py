"""What a row of the protocol table is, where it finds its folders, and how a user writes one in YAML.

    - slug: My-Set
      generators: [flux, {name: SD3, folders: [sd3, stable_diffusion_3]}]
      roots: [my_set]

A YAML file is such a list, or one mapping.  KEYS and GENERATOR_KEYS list what else a row may say.
"""

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

import yaml

from common import UserError
from data.folder import LABELS, label_folders, require_folder, scan, subfolders
from data.perturb import PERTURBATIONS, VIEWS, parse_view
from data.transforms import INTERPOLATIONS, RESIZES, Geometry

AVERAGES = ("macro", "micro")  # mean over generators; mean over images
LONGEST_SIDE = 16_384
STORED = Geometry(load_size=None, crop_size=None)
RESERVED = ("all", "none")  # words that --protocols and --protocol understand
CLASSES = ("real", "fake")  # by label


@dataclass(frozen=True)
class Generator:
    """One row of a table: its printed name and the folder names under which it is published."""

    name: str
    folders: tuple[str, ...] = ()  # empty: the name itself
    family: str = ""  # "gan", "diffusion", "autoregressive", "face-swap", "rendering" or "upsampler"
    images: tuple[int, int] | None = None  # published number of (real, fake) images
    images_within: int = 0  # the published number is rounded by at most this

    @property
    def aliases(self):
        return self.folders or (self.name,)


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is laid out and fed to a detector.

    `places` are paths below the root with `{generator}` for the generator's folder; the first that exists
    counts.  Upper and lower case do not matter in folder names.
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
    bare: bool = False  # a generator's folder without label folders holds fakes
    reals: tuple[str, ...] = ()  # paths below the root, the first counts: reals that all bare folders share
    reencode: tuple[tuple[str, str], ...] = ()  # ("real" or "fake", view): what these images go through first
    average: str = "macro"
    seed: int | None = None  # of the published training
    training: tuple[Generator, ...] = ()  # the generators of its training part
    train_roots: tuple[str, ...] = ()  # where they differ from `roots`
    train_places: tuple[str, ...] = ()
    val_places: tuple[str, ...] = ()  # published validation images that are not a test set
    train_on: tuple[str, ...] = ()  # those of `training` that the published training used; empty: all

    def part(self, name):
        """(generators, names of the root, paths of generators) of a part: "test", "train" or "val"."""
        if name == "test":
            return self.generators, self.roots, self.places
        places = {"train": self.train_places, "val": self.val_places}[name]
        return self.training, self.train_roots or self.roots, places

    def locate(self, dataroot, part="test", single=False):
        """The root that holds generators, or None: a folder by one of its names, or --dataroot itself.

        --dataroot itself has to hold half of them, since other benchmarks share single names, such as biggan;
        with `single` one is enough.
        """
        members, roots, _ = self.part(part)
        least = 1 if single or part != "test" else len(members) / 2
        if not self.names_generators and not single:
            least = math.inf  # a folder test/ says nothing
        borrowed = [(folder, len(members)) for folder in self.borrowed]
        for folder, needed in (*((folder, 1) for folder in roots), *borrowed, (".", least)):
            root = _resolve(dataroot, folder)
            present = [generator for generator in members if root and self.find(root, generator, part)]
            if len(present) >= needed:
                return root
        return None

    def looked_for(self, dataroot, generators=(), part="test"):
        """The paths below --dataroot where generators can be, in words."""
        members, roots, places = self.part(part)
        names = ", ".join(generator.aliases[0] for generator in generators or members)
        return f"{self.slug}: {dataroot}/{{{','.join((*roots, '.'))}}}/({' or '.join(places)}) with {names}"

    @property
    def names_generators(self):
        """Whether the paths of test images hold the generators' own names."""
        return all("{generator}" in place for place in self.places)

    def pick(self, classes=(), part="test"):
        """The generators of these names, in table order; all without names; UserError for an unknown one."""
        members, _, _ = self.part(part)
        known = {name.lower(): member for member in members for name in (member.name, *member.aliases)}
        unknown = [name for name in classes if name.lower() not in known]
        if unknown:
            names = ", ".join(member.name for member in members)
            raise UserError(f"{self.slug} has no generator {', '.join(unknown)}; it has: {names}")
        chosen = {known[name.lower()] for name in classes}
        return [member for member in members if not classes or member in chosen]

    def find(self, root, generator, part="test"):
        """The folder of a generator below root, or None.

        A path after the first, or without the generator's name, counts only with label folders right inside:
        <generator>/ without val/ may hold the training images, and test/ may be anything.  `bare` folders
        count at every path with the name.
        """
        _, _, places = self.part(part)
        for place in places:
            named = "{generator}" in place
            for name in generator.aliases if named else ("",):
                folder = _resolve(root, place.format(generator=name))
                sure = named and (place == places[0] or self.bare)
                if folder and (sure or label_folders(folder, self.label_map)):
                    return folder
        return None

    def scan(self, root, folders, base=None):
        """The Scan of [(generator's name, folder below root)]; `reals` are looked for below base, or root."""
        found = [_resolve(base or root, path) for path in self.reals]
        bare = list(filter(None, found))[:1] if self.bare else None
        return scan(root, folders, self.label_map, bare)

    @property
    def encoders(self):
        """{label: View} of `reencode`."""
        return {CLASSES.index(name): parse_view(view) for name, view in self.reencode}

    @property
    def label_map(self):
        """{folder name in lower case: label}: the published pair, and the pairs known everywhere."""
        return {**LABELS, **{name.lower(): label for label, name in enumerate(self.labels)}}

    def as_dict(self):
        """The row as plain values, for a record of results."""
        changed = {"geometry": self.geometry.as_dict(), "reencode": dict(self.reencode)}
        return json.loads(json.dumps(asdict(self) | changed))

    @property
    def sha256(self):
        """Of what scores depend on: generators, their folders, labels, geometry, averaging.

        `bare`, `reals` and `reencode` are part of it only where they are set.
        """
        row = self.as_dict()
        row["generators"] = [(generator.name, generator.aliases) for generator in self.generators]
        parts = {
            name: row[name] for name in ("slug", "generators", "geometry", "places", "labels", "average")
        }
        parts |= {name: row[name] for name in ("bare", "reals") if row[name]}
        if self.reencode:
            parts["reencode"] = {CLASSES[label]: view.chain for label, view in self.encoders.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def locate_all(rows, dataroot, asked):
    """([(protocol, its root)] of those there, [what was looked for] of the others).

    With `asked` (the user named them) a missing one is a UserError; without, only if none is there.  A
    protocol whose `places` do not name its generators has to be asked for to be --dataroot itself.
    """
    require_folder(dataroot)
    roots = [(row, row.locate(dataroot, single=asked and not row.names_generators)) for row in rows]
    absent = [row.looked_for(dataroot) for row, root in roots if root is None]
    if absent and (asked or len(absent) == len(roots)):
        own = any(map(label_folders, (dataroot, *subfolders(dataroot))))
        hint = f"{dataroot} is no benchmark, but val.py takes it; " if own else ""
        raise UserError(f"{hint}not found below --dataroot: {'; '.join(absent)}")
    return [(row, root) for row, root in roots if root is not None], absent


def _resolve(root, relative):
    """The folder root/relative, where upper and lower case do not matter in `relative`; None without one."""
    folder = Path(root)
    for step in Path(relative).parts:
        if (folder / step).is_dir():
            folder /= step
        else:
            same = [child for child in folder.glob("*") if child.name.lower() == step.lower()]
            folder = min(same, default=folder / step)
    return folder if folder.is_dir() else None


# ----- rows in YAML -----


def load_file(path):
    """The rows of a YAML file.  UserError says what is wrong, in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        rows = content if isinstance(content, list) else [content]
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"expected a mapping per protocol with the keys {', '.join(KEYS)}")
        return [_row(row) for row in rows]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {error.problem})" if mark else ""
        raise UserError(f"{path} is not a YAML file{where}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _text(value):
    return isinstance(value, str) and bool(value.strip())


def _path(value):
    return _text(value) and not PurePath(value).is_absolute() and ".." not in PurePath(value).parts


def _name(value):
    return _path(value) and PurePath(value).name == value and "\\" not in value


def _template(value):
    return _path(value) and not set("{}") & set(value.replace("{generator}", ""))


def _list_of(accept):
    return lambda value: isinstance(value, list) and bool(value) and all(map(accept, value))


def _reencode(value):
    """Whether it is {real or fake: text}; whether the text is a view, `_row` finds out."""
    return (
        isinstance(value, dict)
        and bool(value)
        and set(value) <= {*CLASSES}
        and all(map(_text, value.values()))
    )


def _whole(lowest=0, highest=2**32 - 1):
    return lambda value: type(value) is int and lowest <= value <= highest


def _one_of(choices):
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


TEXT, NAME, FOLDERS = (_text, "text"), (_name, "a folder name"), (_list_of(_path), "a list of folder names")
SIDE = (lambda value: value is None or _whole(1, LONGEST_SIDE)(value), f"null or 1 to {LONGEST_SIDE}")
FLAG = (lambda value: isinstance(value, bool), "true or false")
VIEW_HELP = f"a view is {', '.join(VIEWS)}, or steps joined by + ({', '.join(PERTURBATIONS)})"
# Key of a row -> (what is accepted, the same in words).  What the keys mean: `Protocol` and `Geometry`, where
# some have other names (RENAMED); real and fake are `labels`.
KEYS = {
    "slug": (lambda value: _name(value) and value.lower() not in RESERVED, "a folder name, not all or none"),
    "generators": (_list_of(bool), "a list"),
    "roots": FOLDERS,
    "places": (_list_of(_template), "a list of paths with no other field than {generator}"),
    "real": NAME,
    "fake": NAME,
    "bare": FLAG,
    "reals": FOLDERS,
    "reencode": (_reencode, f"{{real or fake: a view}}, such as {{fake: jpeg:96}}; {VIEW_HELP}"),
    "resize": SIDE,
    "resize_rule": _one_of(RESIZES),
    "crop": SIDE,
    "even": FLAG,
    "interpolation": _one_of(INTERPOLATIONS),
    "average": _one_of(AVERAGES),
    "split": TEXT,
    "seed": (lambda value: value is None or _whole()(value), "a whole number, or null"),
    "source": TEXT,
    "url": TEXT,
}
RENAMED = {"resize": "load_size", "resize_rule": "resize", "crop": "crop_size"}
GEOMETRY_KEYS = (*RENAMED, "even", "interpolation")
GENERATOR_KEYS = {
    "name": TEXT,
    "folders": FOLDERS,
    "family": TEXT,
    "images": (lambda value: _list_of(_whole())(value) and len(value) == 2, "a list of two whole numbers"),
    "images_within": (_whole(), "a whole number"),
}


def _row(row):
    fields = _checked(row, KEYS, ("slug", "generators"), "a protocol")
    fields["generators"] = tuple(_generator(entry) for entry in row["generators"])
    _require_distinct(fields["generators"])
    real, fake = (fields.pop(name, None) for name in ("real", "fake"))
    if real or fake:
        fields["labels"] = _labels(real, fake)
    if "reencode" in fields:
        fields["reencode"] = tuple((name, _view(text)) for name, text in sorted(row["reencode"].items()))
    geometry = {RENAMED.get(key, key): fields.pop(key) for key in GEOMETRY_KEYS if key in fields}
    fields["geometry"] = replace(STORED, **geometry)
    protocol = Protocol(**{"source": "user's protocol file"} | fields)
    if protocol.reals and not protocol.bare:
        raise UserError("reals need bare: true, since other folders have reals of their own")
    if len(protocol.generators) > 1 and not protocol.names_generators:
        raise UserError(f"places need {{generator}} where there are several, got {row['places']}")
    return protocol


def _labels(real, fake):
    known = [LABELS.get(str(name).lower(), label) for label, name in enumerate((real, fake))]
    if not (real and fake) or real.lower() == fake.lower() or known != [0, 1]:
        raise UserError(f"real and fake must be two names, not exchanged ones, got {real} and {fake}")
    return real, fake


def _view(text):
    """The text of a view that does something; UserError with the legal forms."""
    try:
        if parse_view(text).steps:
            return text
        problem = f"{text} changes nothing"
    except UserError as error:
        problem = str(error)
    raise UserError(f"reencode of a protocol: {problem}; {VIEW_HELP}")


def _generator(entry):
    if _path(entry):
        return Generator(entry)
    if not isinstance(entry, dict):
        raise UserError(f"a generator is a folder name or a mapping with name, got {entry!r}")
    generator = Generator(**_checked(entry, GENERATOR_KEYS, ("name",), f"generator {entry.get('name')}"))
    if not all(map(_path, generator.aliases)):
        raise UserError(f"generator {generator.name} needs folders, since its name is not a folder name")
    return generator


def _require_distinct(generators):
    folders = [alias for generator in generators for alias in generator.aliases]
    for words in ([generator.name for generator in generators], folders):
        twice = [word for word, count in Counter(map(str.lower, words)).items() if count > 1]
        if twice:
            raise UserError(f"generators must differ in name and folders; twice: {', '.join(twice)}")


def _checked(row, keys, needed, what):
    """A mapping with its lists as tuples; UserError for keys that are unknown, missing or of a wrong type."""
    unknown = [str(key) for key in row if key not in keys]
    missing = [key for key in needed if key not in row]
    if unknown or missing:
        problem = f"has no key {', '.join(unknown)}" if unknown else f"needs {' and '.join(missing)}"
        raise UserError(f"{what} {problem}; legal keys: {', '.join(keys)}")
    for key, value in row.items():
        accept, expected = keys[key]
        if not accept(value):
            raise UserError(f"{key} of {what} must be {expected}, got {value!r}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
