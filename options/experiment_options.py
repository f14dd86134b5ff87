"""Options of train_multiscale_experiment.py."""

import argparse
import os
import shlex

from common import UserError, file_path, non_negative_int, positive_int
from options.base_options import BaseOptions
from options.grid import PRESETS, read_grid


class ExperimentOptions(BaseOptions):
    """Trains and tests every variant of a grid with several seeds, and says which differences are real."""

    script = "train_multiscale_experiment.py"
    retired = {}

    def choose_defaults(self, argv):
        return {"arch": None}

    def initialize(self, parser):
        add = parser.add_argument
        presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        add("--preset", choices=presets, help="grid that comes with the project: experiments/NAME.yaml")
        add("--grid", type=file_path, help="YAML file of a grid; options/grid.py says what stands in it")
        add("--output", type=file_path, help="folder of the experiment; default: results/experiment-NAME")
        add("--seeds", type=_seeds, help="how many seeds, or which (100,101); default: the grid's")
        add(
            "--train_flags",
            type=_words,
            default=(),
            metavar="'--X Y'",
            help="flags of train.py for all cells, as in --train_flags='--niter 5'; they win over the grid's "
            "`train`, a variant's own flags over them",
        )
        add("--test_flags", type=_words, default=(), metavar="'--X Y'", help="the same for test.py")
        add(
            "--jobs",
            type=positive_int,
            help="cells at a time; default: one per GPU of --gpus, 1 on a single GPU, one per core on a CPU",
        )
        add(
            "--gpus", type=_gpus, default=(), metavar="N,N", help="numbers of the CUDA devices, one cell each"
        )
        add("--figures", choices=("png", "pdf"), default="png", help="format of the figures")
        add("--overwrite", action="store_true", help="start over; without it, finished cells are kept")

    def check(self, opt):
        if (opt.preset is None) == (opt.grid is None):
            self.parser.error("give one of --preset and --grid")
        if opt.gpus and opt.jobs and opt.jobs > len(opt.gpus):
            self.parser.error(f"--jobs {opt.jobs} is more than the {len(opt.gpus)} devices of --gpus")
        path = opt.grid or str(PRESETS / f"{opt.preset}.yaml")
        try:
            self.grid = read_grid(path, opt.seeds, opt.train_flags, opt.test_flags)
        except (UserError, OSError) as error:
            reason = f"{error.strerror}: {path}" if isinstance(error, OSError) else error
            self.parser.error(str(reason))
        name = os.path.splitext(os.path.basename(path))[0]
        opt.output = opt.output or os.path.join("results", f"experiment-{name}")

    def check_detector(self, opt):
        """The grid's variants have been checked one by one."""


def _seeds(text):
    if "," not in text:
        return positive_int(text)
    seeds = tuple(non_negative_int(part) for part in text.split(",") if part.strip())
    if not seeds:
        raise argparse.ArgumentTypeError(
            f"expected a number of seeds, or seeds such as 100,101; got {text!r}"
        )
    return seeds


def _words(text):
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected flags in quotes, got {text!r} ({error})") from None


def _gpus(text):
    numbers = tuple(part.strip() for part in text.split(",") if part.strip())
    if not numbers or not all(part.isdecimal() for part in numbers) or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"expected numbers of CUDA devices such as 0,1, got {text!r}")
    return numbers
