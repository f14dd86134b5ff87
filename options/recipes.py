"""Published training settings per system.  `--recipe` picks one; any flag that is given wins over it.

What a recipe leaves out keeps the flag's own default, as Adam and beta1 0.9 in all of them.
"""

# How CNNDetection ends a training, and DFIG after it.
PLATEAU = {"lr": 1e-4, "niter": 10_000, "lr_policy": "plateau", "earlystop_epoch": 5, "min_lr": 1e-6}
# CNNDetection: options/train_options.py and train.py; Blur+JPEG (0.1), the better of its two models.
CNNDET = {
    **PLATEAU,
    "batch_size": 64,
    "pretrained": True,
    "blur_prob": 0.1,
    "blur_sig": (0.0, 3.0),
    "jpg_prob": 0.1,
    "jpg_method": ("cv2", "pil"),
    "jpg_qual": (30, 100),
}
# NPR: the command that made NPR.pth (its README); seed and optimiser from its train.py and trainer.py.
NPR = {"lr": 2e-4, "batch_size": 32, "niter": 50, "delr_freq": 10, "seed": 100}
# SSP: options.py and utils/util.py of its code.  It draws no flips.
SSP = {
    "lr": 1e-4,
    "batch_size": 64,
    "niter": 30,
    "lr_policy": "poly",
    "seed": 42,
    "pretrained": True,
    "no_flip": True,
    "blur_sig": (0.0, 1.0),
    "jpg_method": ("pil", "cv2"),
    "jpg_qual": (90, 100),
}
# Common to AlignedForensics, DDA and B-Free: native crops, and the same random re-encoding of both classes.
# The numbers are ours: first guesses, which no trial has compared with others.
ALIGNED = {
    "lr": 5e-4,
    "batch_size": 64,
    "niter": 30,
    "lr_policy": "cosine",
    "warmup": 1,
    "no_resize": True,
    "cropSize": 96,
    "val_crop": 160,
    "class_bal": True,
    "source_bal": 0.5,
    "degrade": "resize:0.4..1.3@0.6+blur:0..1.5@0.1+noise:0..3@0.1+jpeg/webp:30..96@0.8+jpeg/webp:30..96@0.2",
    "rot90": True,
    "val_views": ("native", "aligned", "web"),
    "select_by": "auc",
}
RECIPES = {
    "npr": NPR,
    # CVIMGDetection: NPR's on Tiny-GenImage (defaults of its options, opt.txt of its final run).
    "cvimg": {**NPR, "protocol": "Tiny-GenImage", "batch_size": 64, "niter": 20, "dataroot": "./genimage"},
    "cnndet": CNNDET,
    "cnndet-0.5": {**CNNDET, "blur_prob": 0.5, "jpg_prob": 0.5},
    # DFIG: options/ and train.py of its code; it publishes no seed.
    "dfig": {**PLATEAU, "batch_size": 32, "pretrained": True},
    "ssp": SSP,
    # ESSP: SSP's, with the ranges of its options; how often images are blurred or compressed is our choice.
    "essp": {**SSP, "blur_prob": 0.5, "jpg_prob": 0.5},
    "aligned": ALIGNED,
    # The flags' own defaults, for a detector without published settings.
    "plain": {},
}
# Detectors whose own recipe has another name.
RECIPE_OF = {"res50": "dfig", "mobilev2": "dfig"}


def for_arch(arch):
    """Name of the detector's own recipe, else `plain`."""
    name = RECIPE_OF.get(arch, arch)
    return name if name in RECIPES else "plain"
