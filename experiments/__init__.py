"""Experiments: grids of variants and seeds, trained, tested and compared (train_multiscale_experiment.py)."""
