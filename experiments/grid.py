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
from dataclasses import dataclass
from pathlib import Path

import yaml

from common import UserError
from data.training import NO_VALIDATION
from options import TestOptions, TrainOptions

PRESETS = Path(__file__).resolve().parent / "presets"
LARGEST_SEED = 2**32 - 1
DEFAULT_SEEDS = (100, 101, 102)
CHECKPOINTS = ("last", "best")
KEYS = ("question", "sample", "train", "test", "checkpoint", "seeds", "reference", "variants", "grid")
MANAGED = {  # the experiment sets these itself
    "train": ("name", "checkpoints_dir", "seed", "continue_train", "overwrite", "help", "h"),
    "test": ("name", "results_dir", "model_path", "resume", "overwrite", "help", "h"),
}


class Loader(yaml.SafeLoader):
    """YAML in which `off` is text, as in --amp off, and a repeated key is an error."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if first in "tTfF" or not pair[0].endswith(":bool")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [str(self.construct_object(key, deep=True)) for key in keys]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise yaml.YAMLError(f"{', '.join(repeated)} appears twice in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


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
    """A checked grid.  `train`, `test` and the values of `variants` are command lines: lists of words."""

    variants: dict
    train: list
    test: list
    seeds: tuple
    reference: str
    checkpoint: str = "last"
    question: str = ""
    sample: str = ""

    @property
    def cells(self):
        """Seed after seed, so that every variant has one result early."""
        return [Cell(variant, seed) for seed in self.seeds for variant in self.variants]

    def train_argv(self, cell, checkpoints_dir):
        """Flags of train.py for a cell."""
        own = ["--name", cell.name, "--checkpoints_dir", str(checkpoints_dir), "--seed", str(cell.seed)]
        return [*self.train, *self.variants[cell.variant], *own]

    def test_argv(self, cell, checkpoints_dir, results_dir):
        """Flags of test.py for a cell."""
        weights = str(self.weights(cell.name, checkpoints_dir))
        return [*self.test, "--model_path", weights, "--name", cell.name, "--results_dir", str(results_dir)]

    def weights(self, name, checkpoints_dir):
        """The weight file of a cell that is tested."""
        return Path(checkpoints_dir, name, f"model_epoch_{self.checkpoint}.pth")

    def identity(self):
        """What results depend on, as plain values: a folder holds one experiment."""
        return {name: getattr(self, name) for name in ("train", "checkpoint", "test", "variants")}


def read_grid(path, seeds=None, train_flags=(), test_flags=()):
    """The Grid of a YAML file; UserError says what is wrong and where.

    seeds, train_flags and test_flags of the command line win over the file's.
    """
    try:
        grid = _build(_load(path), seeds, train_flags, test_flags)
        for cell in grid.cells[: len(grid.variants)]:
            where = f"variant {cell.variant!r}, train.py"
            training_options(grid.train_argv(cell, "runs"), grid.checkpoint, where)
        parsed(TestOptions(), grid.test_argv(grid.cells[0], "runs", "tests"), "test.py")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return grid


def _load(path):
    """The keys of a file that have a value."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"not readable YAML: {' '.join(str(error).split())}") from None
    unknown = [key for key in content if key not in KEYS] if isinstance(content, dict) else [content]
    if unknown:
        raise UserError(f"expected the keys {', '.join(KEYS)}; got {', '.join(map(str, unknown))}")
    if ("variants" in content) == ("grid" in content):
        raise UserError("give either variants or grid")
    return {key: value for key, value in content.items() if value is not None}


def _build(content, seeds, train_flags, test_flags):
    variants = _product(content["grid"]) if "grid" in content else content.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise UserError(f"variants takes names and their flags, got {variants!r}")
    variants = {str(name): argv(flags, f"variant {name!r}") for name, flags in variants.items()}
    folders = [slug(name).lower() for name in variants]
    same = [name for name, folder in zip(variants, folders, strict=True) if folders.count(folder) > 1]
    if same:
        raise UserError(f"variants need names that differ as folders, got {' and '.join(map(repr, same))}")
    train = [*argv(content.get("train"), "train"), *train_flags]
    test = [*argv(content.get("test"), "test"), *test_flags]
    refuse_managed(sum(variants.values(), train), "train")
    refuse_managed(test, "test")
    reference = _one_of(variants, "reference", str(content.get("reference", next(iter(variants)))))
    checkpoint = _one_of(CHECKPOINTS, "checkpoint", content.get("checkpoint", "last"))
    seeds = _seeds(seeds or content.get("seeds", DEFAULT_SEEDS))
    texts = [str(content.get(name, "")) for name in ("question", "sample")]
    return Grid(variants, train, test, seeds, reference, checkpoint, *texts)


def _one_of(choices, key, value):
    if value not in list(choices):
        raise UserError(f"{key} is one of {', '.join(choices)}; got {value!r}")
    return value


def argv(flags, where="argv"):
    """{'npr_factors': [0.25, 0.5], 'no_resize': True} -> ['--npr_factors', '0.25,0.5', '--no_resize']."""
    if not isinstance(flags, dict | None):
        raise UserError(f"{where} takes flags and values, e.g. {{npr_factor: 0.25}}, got {flags!r}")
    words = []
    for name, value in (flags or {}).items():
        if value is False or value is None:
            continue
        words.append(f"--{name}")
        if name == "protocols" and isinstance(value, list):
            words += map(str, value)
        elif value is not True:
            words.append(_text(value))
    return words


def slug(name):
    """A variant's name as part of a folder name."""
    return re.sub(r"[^\w.+=-]+", "_", name).strip("_.") or "variant"


def refuse_managed(words, script, others=()):
    """UserError where a command line sets flags, MANAGED or `others`, that are not for the user to set."""
    names = [word.lstrip("-").split("=")[0] for word in words if word.startswith("-")]
    taken = [f"--{name}" for name in dict.fromkeys(names) if name in (*others, *MANAGED[script])]
    if taken:
        raise UserError(f"the experiment itself sets {', '.join(taken)} of {script}.py")


def parsed(options, words, where):
    """Parsed options of a script; what it refuses becomes a UserError that starts with `where`."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return options.parse(words)
    except SystemExit:
        raise UserError(f"{where}: {stderr.getvalue().strip().rpartition('error: ')[2]}") from None


def training_options(words, checkpoint, where="train.py"):
    """Parsed options of train.py; UserError where they leave no best checkpoint to test."""
    opt = parsed(TrainOptions(), words, where)
    if checkpoint == "best" and opt.val_split == NO_VALIDATION:
        raise UserError(f"{where}: checkpoint best needs a validation set, and --val_split is none")
    return opt


def _product(axes):
    """{"0.25 nearest": {"npr_factor": 0.25, "npr_mode": "nearest"}, ...} of lists of values."""
    axes = axes if isinstance(axes, dict) else {}
    lists = [values if isinstance(values, list) else [values] for values in axes.values()]
    combinations = list(itertools.product(*lists))
    variants = {" ".join(map(_text, values)): dict(zip(axes, values, strict=True)) for values in combinations}
    if not axes or not variants or len(variants) < len(combinations):
        raise UserError("grid needs lists of different values, e.g. {npr_factor: [0.25, 0.5]}")
    return variants


def _text(value):
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _seeds(value):
    if type(value) is int and value > 0:
        value = range(DEFAULT_SEEDS[0], DEFAULT_SEEDS[0] + value)
    seeds = tuple(value) if isinstance(value, (list, tuple, range)) else ()
    valid = all(type(seed) is int and 0 <= seed <= LARGEST_SEED for seed in seeds)
    if not seeds or not valid or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds is a number of seeds, or a list of different whole numbers, got {value!r}")
    return seeds
