"""Trains and tests every variant of a grid with several seeds, and says which differences are real.

    python train_multiscale_experiment.py --preset sample
    python train_multiscale_experiment.py --preset factors --jobs 2 --gpus 0,1
    python train_multiscale_experiment.py --grid my.yaml --seeds 5 --train_flags '--niter 10'

Each cell (a variant with a seed) is trained under its own setting by train.py and tested by test.py, in
processes of their own; a cell that fails is recorded and the others are run.  The same command resumes what
is unfinished.  Grids are YAML files (experiments/grid.py); presets are those in experiments/presets/.
Results: <output>/{results.csv, report.md, table.csv, figures/}; runs/, tests/, logs/ have a part per cell.
"""

if __name__ == "__main__":
    import util.quiet  # noqa: F401

from experiments.cells import Experiment
from experiments.options import ExperimentOptions
from experiments.report import conclude
from experiments.results import pandas
from util import run


def main(argv=None):
    """Runs the cells of an experiment that are not finished, then writes its report."""
    opt = ExperimentOptions().parse(argv)
    pandas()  # its absence shows before hours of training
    Experiment(opt.grid, opt, conclude).run()


if __name__ == "__main__":
    run.guard(main)
