"""Datasets and their preparation: the import surface of everything below data/.

A benchmark is a row of protocols.py; a layout a line of folder.LAYOUTS; a degradation a function of
perturb.py.
"""

from data.folder import RealFakeFolder, discover, files_scan, scan
from data.loader import (
    EpochBatches,
    create_dataloader,
    evaluation_images,
    loader_over,
)
from data.training import training_sets
from data.transforms import Geometry, eval_geometry

__all__ = [
    "EpochBatches",
    "Geometry",
    "RealFakeFolder",
    "create_dataloader",
    "discover",
    "eval_geometry",
    "evaluation_images",
    "files_scan",
    "loader_over",
    "scan",
    "training_sets",
]
