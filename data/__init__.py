"""Datasets and their preparation: what scripts use of data/.

A benchmark is a row of protocols.py, a layout an entry of folder.LAYOUTS, a degradation a function of perturb
"""

from data.folder import RealFakeFolder, discover, files_scan, scan  # noqa: F401
from data.loader import EpochBatches, create_dataloader, evaluation_images, loader_over, loaders_over  # noqa: F401
from data.training import training_sets  # noqa: F401
from data.transforms import Geometry, eval_geometry  # noqa: F401
