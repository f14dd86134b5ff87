"""Published training settings per system.  `--recipe` picks one; any flag that is given wins over it.

Values are option names and values; what a recipe leaves out keeps the flag's own default.
"""

RECIPES = {
    # The command that made NPR.pth (README of NPR); seed and optimiser from its train.py and trainer.py.
    "npr": {
        "lr": 2e-4,
        "batch_size": 32,
        "niter": 50,
        "delr_freq": 10,
        "beta1": 0.9,
        "optim": "adam",
        "seed": 100,
    },
    # CVIMGDetection: the same family on Tiny-GenImage (defaults of its options, opt.txt of its final run).
    "cvimg": {
        "protocol": "Tiny-GenImage",
        "lr": 2e-4,
        "batch_size": 64,
        "niter": 20,
        "delr_freq": 10,
        "beta1": 0.9,
        "optim": "adam",
        "seed": 100,
        "dataroot": "./genimage",
    },
}

DEFAULT_RECIPE = {"npr": "npr"}  # detector -> the recipe of the paper that published it


def for_arch(arch):
    """Name of the detector's own recipe."""
    return DEFAULT_RECIPE[arch]
