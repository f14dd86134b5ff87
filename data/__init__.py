"""Datasets and their preparation: the import surface of everything below data/.

A benchmark is a row of protocols.py; a layout a line of folder.LAYOUTS; a degradation a function of
perturb.py.  Names are imported on first use, so that what needs no torch (downloads) starts at once.
"""

import importlib

_HOME = {
    "EpochBatches": "loader",
    "Geometry": "transforms",
    "RealFakeFolder": "folder",
    "classes_notice": "folder",
    "create_dataloader": "loader",
    "discover": "folder",
    "eval_geometry": "transforms",
    "evaluation_images": "loader",
    "evaluation_set": "loader",
    "files_scan": "inputs",
    "generator_loader": "loader",
    "loader_over": "loader",
    "scan": "folder",
    "training_sets": "training",
}  # name -> the module that defines it
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
