"""Datasets and their preparation: the import surface of everything below data/.

A benchmark is a row of protocols.py; a layout a line of folder.LAYOUTS; a degradation a function of
perturb.py.
"""

from data.folder import RealFakeFolder, classes_notice, discover, require_both_classes, scan
from data.loader import (
    EpochBatches,
    create_dataloader,
    evaluation_set,
    generator_batches,
    generator_loader,
    training_set,
)
from data.transforms import Augment, Geometry, Limits, eval_geometry

__all__ = [
    "Augment",
    "EpochBatches",
    "Geometry",
    "Limits",
    "RealFakeFolder",
    "classes_notice",
    "create_dataloader",
    "discover",
    "eval_geometry",
    "evaluation_set",
    "generator_batches",
    "generator_loader",
    "require_both_classes",
    "scan",
    "training_set",
]
