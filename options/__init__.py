"""Command-line options, one class per script; experiments/options.py holds one more."""

from options.predict_options import PredictOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.val_options import ValOptions

__all__ = ["PredictOptions", "TestOptions", "TrainOptions", "ValOptions"]
