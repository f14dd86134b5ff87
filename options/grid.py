"""The grid of an experiment: a YAML file of variants, seeds, and what each of them is trained and tested on.

    question: Does the factor decide what NPR sees?
    sample: datasets/sample             # make the sample dataset there if it is absent (optional)
    train: {dataroot: datasets/ForenSynths_train_val, classes: [car, cat], niter: 20}      # flags of train.py
    test: {protocols: [ForenSynths]}                                                       # flags of test.py
    checkpoint: last                    # which weights are tested: last (default) or best
    seeds: [100, 101, 102]              # the default
    reference: "0.5"                    # the variant that others are compared with; default: the first
    variants:                           # name -> further flags of train.py
      "0.25": {npr_factor: 0.25}
      "0.5": {npr_factor: 0.5}

Instead of `variants`, `grid` names lists of values, and every combination becomes a variant:

    grid: {npr_factor: [0.25, 0.5], npr_mode: [nearest, bilinear]}
"""

import contextlib
import io
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from common import UserError
from data.training import NO_VALIDATION
from options.test_options import TestOptions
from options.train_options import TrainOptions

PRESETS = Path(__file__).resolve().parent.parent / "experiments"
LONGEST_NAME, LARGEST_SEED = 100, 2**32 - 1
DEFAULT_SEEDS = (100, 101, 102)
CHECKPOINTS = ("last", "best")
KEYS = ("question", "sample", "train", "test", "checkpoint", "seeds", "reference", "variants", "grid")
MANAGED = {  # the experiment sets these itself
    "train": ("name", "checkpoints_dir", "seed", "continue_train", "overwrite", "help", "h"),
    "test": ("name", "results_dir", "model_path", "resume", "overwrite", "help", "h"),
}


class Loader(yaml.SafeLoader):
    """YAML in which `off` is a word, as flags have it, and a repeated key is an error."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [key.value for key in keys if isinstance(key, yaml.ScalarNode)]
        alike = len({self.construct_object(key) for key in keys if isinstance(key, yaml.ScalarNode)})
        twice = sorted({name for name in names if names.count(name) > 1}) or names[alike:]
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} stands twice in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$", re.IGNORECASE), "tTfF")


@dataclass(frozen=True)
class Cell:
    """One variant with one seed."""

    variant: str
    seed: int

    @property
    def name(self):
        """The cell's folder name."""
        return f"{slug(self.variant)}-seed{self.seed}"


@dataclass(frozen=True)
class Grid:
    """A grid file, checked.  `train`, `test` and the values of `variants` are {flag: value}."""

    source: str
    variants: dict
    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    seeds: tuple = DEFAULT_SEEDS
    reference: str = ""
    question: str = ""
    sample: str = ""
    checkpoint: str = "last"
    train_flags: tuple = ()  # of the command line; they win over the file's
    test_flags: tuple = ()

    @property
    def cells(self):
        """Seed after seed, so that every variant has one result early."""
        return [Cell(variant, seed) for seed in self.seeds for variant in self.variants]

    def train_argv(self, cell, checkpoints_dir):
        """Flags of train.py for a cell."""
        own = ["--name", cell.name, "--checkpoints_dir", str(checkpoints_dir), "--seed", str(cell.seed)]
        return [*argv(self.train), *self.train_flags, *argv(self.variants[cell.variant]), *own]

    def test_argv(self, cell, checkpoints_dir, results_dir):
        """Flags of test.py for a cell."""
        weights = Path(checkpoints_dir) / cell.name / f"model_epoch_{self.checkpoint}.pth"
        own = ["--model_path", str(weights), "--name", cell.name, "--results_dir", str(results_dir)]
        return [*argv(self.test), *self.test_flags, *own]

    def as_dict(self):
        """What results depend on, as plain values: a folder holds one experiment."""
        common = {
            "train": argv(self.train) + list(self.train_flags),
            "checkpoint": self.checkpoint,
            "test": argv(self.test) + list(self.test_flags),
        }
        return common | {"variants": {name: argv(flags) for name, flags in self.variants.items()}}


def read_grid(path, seeds=None, train_flags=(), test_flags=()):
    """The Grid of a YAML file; ValueError with the place where it is wrong.

    seeds, train_flags and test_flags of the command line win over the file's.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    try:
        grid = _build(content, str(path), seeds, tuple(train_flags), tuple(test_flags))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for cell in grid.cells[: len(grid.variants)]:
        place = f"{path}, variant {cell.variant!r}, train.py"
        opt = parsed(TrainOptions(), grid.train_argv(cell, "runs"), place)
        if grid.checkpoint == "best" and opt.val_split == NO_VALIDATION:
            raise UserError(f"{place}: checkpoint best needs a validation set, and --val_split is none")
    parsed(TestOptions(), grid.test_argv(grid.cells[0], "runs", "tests"), f"{path}, test.py")
    return grid


def _build(content, source, seeds, train_flags, test_flags):
    if not isinstance(content, dict):
        raise UserError(f"expected keys {', '.join(KEYS)}, got {type(content).__name__}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise UserError(f"unknown key {', '.join(unknown)}; known: {', '.join(KEYS)}")
    if ("variants" in content) == ("grid" in content):
        raise UserError("give either variants or grid")
    key = "variants" if "variants" in content else "grid"
    variants = _mapping(content, key) if key == "variants" else _product(_mapping(content, key))
    content = {key: value for key, value in content.items() if value is not None}
    variants = {
        str(name): _flags(flags, "train", f"variant {name!r}")
        for name, flags in _mapping({"variants": variants}, "variants").items()
    }
    _require_names(variants)
    reference = str(content.get("reference", next(iter(variants))))
    if reference not in variants:
        raise UserError(f"reference {reference!r} is none of the variants {', '.join(variants)}")
    checkpoint = content.get("checkpoint", "last")
    if checkpoint not in CHECKPOINTS:
        raise UserError(f"checkpoint is one of {', '.join(CHECKPOINTS)}, got {checkpoint!r}")
    for name in MANAGED:
        flags = {"train": train_flags, "test": test_flags}[name]
        _refuse_managed(flag_names(flags), name, f"--{name}_flags")
    parts = {name: _flags(content.get(name, {}), name, name) for name in MANAGED}
    words = {name: str(content.get(name, "")) for name in ("question", "sample")}
    seeds = _seeds(seeds or content.get("seeds", DEFAULT_SEEDS))
    words.update(reference=reference, checkpoint=checkpoint)
    words.update(train_flags=train_flags, test_flags=test_flags)
    return Grid(source, variants, **parts, **words, seeds=seeds)


def argv(flags):
    """{'npr_factors': [0.25, 0.5], 'no_resize': True} -> ['--npr_factors', '0.25,0.5', '--no_resize']."""
    words = []
    for name, value in flags.items():
        if value is False or value is None:
            continue
        words.append(f"--{name}")
        if name == "protocols":
            words += [str(part) for part in (value if isinstance(value, list) else [value])]
        elif value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return words


def flag_names(words):
    """['--lr', '0.1', '--npr_stages=3'] -> ['lr', 'npr_stages']."""
    return [word.lstrip("-").split("=")[0] for word in words if word.startswith("-")]


def slug(name):
    """A variant's name as part of a folder name."""
    return re.sub(r"[^\w.+=-]+", "_", name).strip("_.") or "variant"


def _product(axes):
    lists = {name: values if isinstance(values, list) else [values] for name, values in axes.items()}
    if not lists or not all(lists.values()):
        raise UserError("grid needs lists of values, e.g. {npr_factor: [0.25, 0.5]}")
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    named = {" ".join(_spell(value) for value in one.values()): one for one in combinations}
    if len(named) < len(combinations):
        raise UserError("grid has a value twice, so that variants have one name")
    return named


def _spell(value):
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _flags(flags, script, place):
    flags = {} if flags is None else flags
    if not isinstance(flags, dict):
        raise UserError(f"{place} takes flags and values, e.g. {{npr_factor: 0.25}}, got {flags!r}")
    _refuse_managed(flags, script, place)
    wrong = [str(name) for name in flags if not re.fullmatch(r"\w+", str(name))]
    if wrong:
        raise UserError(f"{place}: {', '.join(wrong)} is no name of a flag; they stand without dashes")
    strange = [str(name) for name, value in flags.items() if isinstance(value, dict)]
    if strange:
        raise UserError(f"{place}: {', '.join(strange)} takes one value or a list")
    return {str(name): value for name, value in flags.items()}


def _refuse_managed(names, script, place):
    managed = [str(name) for name in names if name in MANAGED[script]]
    if managed:
        raise UserError(f"{place}: the experiment itself sets {', '.join(managed)} of {script}.py")


def _mapping(content, key):
    if not isinstance(content[key], dict) or not content[key]:
        raise UserError(f"{key} takes names and values, got {content[key]!r}")
    return content[key]


def _require_names(variants):
    folders = {}
    long = [name for name in variants if len(name) > LONGEST_NAME]
    if long:
        raise UserError(f"names of variants have at most {LONGEST_NAME} characters, got {long[0][:20]!r}...")
    for name in variants:
        folders.setdefault(slug(name).lower(), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in folders.values() if len(names) > 1]
    if alike:
        raise UserError(f"variants need names that differ as folders: {'; '.join(alike)}")


def _seeds(value):
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        value = range(DEFAULT_SEEDS[0], DEFAULT_SEEDS[0] + value)
    seeds = tuple(value) if isinstance(value, (list, tuple, range)) else ()
    whole = all(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED for seed in seeds
    )
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds is a number of seeds, or a list of different whole numbers, got {value!r}")
    return seeds


def parsed(options, words, place):
    """Parsed options of a script; what it refuses as a ValueError that names the place."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return options.parse(words)
    except SystemExit:
        raise UserError(f"{place}: {said.getvalue().strip().rpartition('error: ')[2]}") from None
