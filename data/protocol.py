"""What a row of a protocol table is, and where it finds its folders."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from common import UserError
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
    borrowed: tuple[str, ...] = ()  # roots of other protocols, which count where all its generators are there
    places: tuple[str, ...] = ("{generator}",)
    split: str = "test"  # the published split that `places` are
    labels: tuple[str, str] = ("0_real", "1_fake")  # published (real, fake) names; LAYOUTS hold as well
    average: str = "macro"
    seed: int | None = None  # of the published training
    training: tuple[Generator, ...] = ()  # the generators of its training part
    train_roots: tuple[str, ...] = ()  # where they differ from `roots`
    train_places: tuple[str, ...] = ()
    val_places: tuple[str, ...] = ()  # published validation images that are no test set
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
            least = len(members) + 1  # a folder test/ alone says nothing
        candidates = [
            *((name, 1) for name in self.roots_of(part)),
            *((name, len(members)) for name in self.borrowed),
        ]
        for folder, needed in (*candidates, (".", least)):
            root = _resolve(dataroot, folder)
            found = [self.find(root, generator, part) for generator in members] if root else []
            if sum(place is not None for place in found) >= needed > 0:
                return root
        return None

    def members(self, part="test"):
        """The generators of a part: "test", "train" or "val" (those of the training)."""
        return self.generators if part == "test" else self.training

    def roots_of(self, part="test"):
        """Names of the root of a part."""
        return self.roots if part == "test" else self.train_roots or self.roots

    def places_of(self, part="test"):
        """Where the generators of a part stand."""
        return {"test": self.places, "train": self.train_places, "val": self.val_places}[part]

    @property
    def tells_apart(self):
        """Whether a generator's own folder name is part of its place."""
        return all("{generator}" in place for place in self.places)

    def pick(self, classes, part="test"):
        """The generators of these names, in table order; all without names; ValueError for an unknown one."""
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
        parts = {
            name: row[name] for name in ("slug", "generators", "geometry", "places", "labels", "average")
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def locate_all(rows, dataroot, asked):
    """([(protocol, its root)] of those there, [what was looked for] of the others).

    With `asked` (the user named them) a missing one is a ValueError; so is it when none is there.  A protocol
    whose places do not name its generators has to be asked for to be --dataroot itself.
    """
    roots = [(row, row.locate(dataroot, single=asked and not row.tells_apart)) for row in rows]
    absent = [
        f"{row.slug}: {dataroot}/{{{','.join((*row.roots, '.'))}}}/({' or '.join(row.places)}) with "
        f"{', '.join(generator.aliases[0] for generator in row.generators)}"
        for row, root in roots
        if root is None
    ]
    if absent and (asked or len(absent) == len(roots)):
        raise UserError(f"not found below --dataroot: {'; '.join(absent)}")
    return [(row, root) for row, root in roots if root is not None], absent


def _resolve(root, relative):
    """root/relative with each step's case ignored; None unless it is a folder."""
    folder = Path(root)
    for step in Path(relative).parts if folder.is_dir() else ():
        exact = folder / step
        alike = (
            () if exact.is_dir() else (name for name in os.listdir(folder) if name.lower() == step.lower())
        )
        folder = folder / min(alike, default=step)
        if not folder.is_dir():
            return None
    return folder if folder.is_dir() else None
