"""Benchmarks, one row each: folders, generators in the paper's order, geometry, source.

A row is all that a script knows of a benchmark.  To add one, add a row and a test that builds its tree.
"""

from dataclasses import dataclass, field
from pathlib import Path

from data.transforms import Geometry


@dataclass(frozen=True)
class Generator:
    """One row of a table: its printed name and the folder names under which it is published."""

    name: str
    folders: tuple[str, ...]
    family: str  # "gan", "diffusion", "face-swap" or "upsampler"


@dataclass(frozen=True)
class Protocol:
    """How one benchmark is laid out and fed to a detector."""

    slug: str
    generators: tuple[Generator, ...]
    geometry: Geometry
    source: str
    folders: tuple[str, ...] = field(
        default=()
    )  # names of its root below --dataroot; --dataroot itself counts too

    def locate(self, dataroot):
        """The root that holds generators, or None: a folder by one of its names, or --dataroot itself.

        --dataroot itself has to hold most of them: other benchmarks share single names, such as biggan.
        """
        for folder, needed in (*((name, 1) for name in self.folders), (".", len(self.generators) / 2)):
            root = Path(dataroot) / folder
            if sum(self.find(root, generator) is not None for generator in self.generators) >= needed:
                return root
        return None

    def pick(self, classes):
        """The generators of these names, in table order; all without names; ValueError for an unknown one."""
        known = {name.lower(): generator for generator in self.generators
                 for name in (generator.name, *generator.folders)}  # fmt: skip
        unknown = [name for name in classes if name.lower() not in known]
        if unknown:
            raise ValueError(f"{self.slug} has no generator {', '.join(unknown)}; it has: "
                             f"{', '.join(generator.name for generator in self.generators)}")  # fmt: skip
        chosen = {known[name.lower()] for name in classes}
        return [generator for generator in self.generators if not classes or generator in chosen]

    @staticmethod
    def find(root, generator):
        """The folder of a generator below root, or None; names compare without regard to case."""
        if not root.is_dir():
            return None
        present = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir()}
        return next((present[name.lower()] for name in generator.folders if name.lower() in present), None)


def _generators(family, *names):
    return tuple(Generator(name, (name.lower(),), family) for name in names)


FORENSYNTHS = Protocol(
    slug="ForenSynths",
    folders=("ForenSynths_test", "ForenSynths"),
    generators=(
        *_generators("gan", "ProGAN", "StyleGAN", "StyleGAN2", "BigGAN", "CycleGAN", "StarGAN", "GauGAN"),
        *_generators("face-swap", "Deepfake"),
    ),
    geometry=Geometry(load_size=256, crop_size=None),
    source="Tan et al., CVPR 2024, Table 1; images of Wang et al., CVPR 2020",
)

SAMPLE = Protocol(
    slug="Sample",
    folders=("sample/test", "test"),
    generators=_generators("upsampler", "nearest", "bilinear", "bicubic", "transposed", "pixelshuffle"),
    geometry=Geometry(load_size=None, crop_size=None),
    source="data/sample.py; trained on `nearest`, the others are unseen",
)

PROTOCOLS = {row.slug: row for row in (FORENSYNTHS, SAMPLE)}


def get(slug):
    """The row called `slug`; ValueError lists the known ones."""
    if slug not in PROTOCOLS:
        raise ValueError(f"unknown protocol {slug!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[slug]
