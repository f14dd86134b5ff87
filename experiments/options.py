"""Options of train_multiscale_experiment.py; tools/matrix.py shares those about running cells."""

import argparse
import shlex
from pathlib import Path

from common import Parser, UserError, file_path, names_list, positive_int, whole_number
from experiments.grid import LARGEST_SEED, PRESETS, read_grid


class ExperimentOptions:
    """Trains and tests every variant of a grid with several seeds, and says which differences are real."""

    def parse(self, argv=None):
        """The parsed options; `opt.grid` is the Grid.  A wrong flag or grid exits with status 2."""
        parser = Parser(prog="train_multiscale_experiment.py", description=self.__doc__)
        add = parser.add_argument
        presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        source = parser.add_mutually_exclusive_group(required=True).add_argument
        source("--preset", choices=presets, help="grid of this project: experiments/presets/NAME.yaml")
        source("--grid", type=file_path, help="YAML file of a grid; experiments/grid.py shows its format")
        add("--output", type=file_path, help="folder of the experiment; default: results/experiment-NAME")
        add("--seeds", type=_seeds, help="how many seeds, or which (100,101); default: the grid's")
        add("--figures", choices=("png", "pdf"), default="png", help="format of the figures")
        opt = parse_running(parser, argv)
        path = opt.grid or str(PRESETS / f"{opt.preset}.yaml")
        try:
            opt.grid = read_grid(path, opt.seeds, opt.train_flags, opt.test_flags)
        except (UserError, OSError) as error:
            parser.error(str(error))
        opt.output = opt.output or str(Path("results", f"experiment-{Path(path).stem}"))
        return opt


def parse_running(parser, argv):
    """Parses a command line that also takes the flags about running cells."""
    add = parser.add_argument
    for script in ("train", "test"):
        text = f"flags of {script}.py for all cells, as in --{script}_flags='--num_threads 2'"
        add(f"--{script}_flags", type=_words, default=(), metavar="'--X Y'", help=text)
    text = "cells at a time; default: one per GPU of --gpus, 1 on a single GPU, one per core on a CPU"
    add("--jobs", type=positive_int, help=text)
    add("--gpus", type=numbers, default=(), metavar="N,N", help="numbers of the CUDA devices, one cell each")
    add("--overwrite", action="store_true", help="start over; without it, finished cells are kept")
    opt = parser.parse_args(argv)
    if opt.gpus and opt.jobs and opt.jobs > len(opt.gpus):
        parser.error(f"--jobs {opt.jobs} is more than the {len(opt.gpus)} devices of --gpus")
    return opt


def numbers(text):
    """Type of a flag: '42,43' -> (42, 43)."""
    parts = tuple(map(whole_number(0, LARGEST_SEED), names_list(text)))
    if not parts or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"expected different whole numbers such as 0,1, got {text!r}")
    return parts


def _seeds(text):
    return numbers(text) if "," in text else positive_int(text)


def _words(text):
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected flags in quotes, got {text!r} ({error})") from None
