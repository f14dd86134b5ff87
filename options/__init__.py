"""Command-line options, one class per script."""

from options.experiment_options import ExperimentOptions
from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.val_options import ValOptions

__all__ = ["ExperimentOptions", "PredictOptions", "TestOptions", "TrainOptions", "ValOptions"]
