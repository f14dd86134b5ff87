"""Options of val.py, and of every script that scores images with a trained detector."""

import argparse

from common import UserError, choice_list, file_path, fraction, number, positive_float, probability
from data.patches import EVALUATION_SEED
from data.perturb import AS_STORED, PERTURBATIONS, VIEWS, parse_views
from data.transforms import GRID
from networks import checkpoint
from networks.fuse import ENGINES
from options.base_options import RETIRED, BaseOptions
from util.metrics import METRICS, PUBLISHED, THRESHOLD

level = number(float, lambda value: 50 <= value <= 99.9, "a number from 50 to 99.9")

TRAINING_FLAGS = (
    "--lr --lr_policy --min_lr --niter --beta1 --optim --delr_freq --earlystop_epoch --class_bal "
    "--serial_batches --no_flip --flip --loss_freq --continue_train --train_split --val_split "
    "--recipe --checkpoints_dir"
).split()
AUGMENTATION_FLAGS = ("--blur_prob", "--blur_sig", "--jpg_prob", "--jpg_method", "--jpg_qual")
DEGRADING_FLAGS = ("--blur", "--jpeg", "--jpeg_method")  # before there were views
VIEWS_HELP = (
    f"a comma list of {', '.join(VIEWS)}, sweep, or steps joined by + such as jpeg:75+resize:0.5; "
    f"steps: {', '.join(PERTURBATIONS)}"
)
MOST_CROPS = 256
# What ends up in a results folder: columns and order of its tables.
ORDERS = ("published", "worst")


def views_list(text):
    """Views of data/perturb.py, as typed."""
    try:
        return parse_views(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def crop_count(text):
    """Type of --crops: a number, or "grid"."""
    return GRID if text.lower() == GRID else number_of_crops(text)


number_of_crops = number(int, lambda value: 0 < value <= MOST_CROPS, f"1 to {MOST_CROPS}, or {GRID}")
crop_count.metavar = "N"


def one_view(text):
    """A View of data/perturb.py, as typed."""
    views = views_list(text)
    if len(views) != 1:
        raise argparse.ArgumentTypeError(f"expected one view, got {len(views)}: {text}")
    return views[0]


views_list.metavar, one_view.metavar = "A,B", "VIEW"


class ValOptions(BaseOptions):
    """Scores one folder with one checkpoint and prints a row per generator."""

    script = "val.py"
    calibrates = True
    retired = {
        **RETIRED,
        **dict.fromkeys(TRAINING_FLAGS, "only train.py takes it"),
        **dict.fromkeys(AUGMENTATION_FLAGS, "only train.py takes it; --views degrade test images"),
        **dict.fromkeys(DEGRADING_FLAGS, "it is a view now, such as --views blur:1+jpeg:90"),
    }
    exclusive = (*BaseOptions.exclusive, ("resume", "overwrite"), ("no_crop", "cropSize"))

    def initialize(self, parser):
        super().initialize(parser)
        # rz_interp: the protocol's, else the training run's.
        parser.set_defaults(rz_interp=None, seed=EVALUATION_SEED)
        self.add_evaluation(parser)
        if self.calibrates:
            add = parser.add_argument_group("calibration").add_argument
            fitted = "fit a calibration on these images and write it to <model_path>.calibration.json"
            add("--calibrate", action="store_true", help=fitted)
            bound = (
                "choose the threshold so that at least this share of reals is called real (95 %% confidence)"
            )
            add("--real_accuracy", type=fraction, help=bound)
            band = "share of errors outside a band in which the verdict is `unsure`"
            add("--unsure", type=fraction, help=band)
        add = parser.add_argument_group("weights").add_argument
        add("--model_path", type=checkpoint.named_or_path, help="weight file: ours or a published one")
        add("--resume", action="store_true", help="keep the scores of an earlier, equal evaluation")
        add("--overwrite", action="store_true", help="replace earlier results of this name")
        amp = "bf16 is faster on a GPU, but rounds logits to ties and so changes tables"
        add("--amp", choices=("bf16", "off"), default="off", help=amp)
        add("--no_fuse", action="store_true", help="keep the published order of operations; slower")
        add("--engine", choices=ENGINES, default="torch", help="onnxruntime: faster on CPUs without bf16")
        add = parser.add_argument_group("large images").add_argument
        add("--no_crop", action="store_true", help="feed the whole image after the resize")
        crops = (
            f"mean logit of N fixed crops of --cropSize, the first in the centre; {GRID}: of all side by side"
        )
        add("--crops", type=crop_count, help=crops)
        add("--max_input_mpx", type=positive_float, default=16.0, help="largest input, in million pixels")
        add("--large_images", choices=("refuse", "crop"), default="refuse", help="crop: take the centre")
        add = parser.add_argument_group("views").add_argument
        add(
            "--views",
            type=views_list,
            default=(AS_STORED,),
            help=f"what images go through first: {VIEWS_HELP}",
        )

    def add_evaluation(self, parser):
        """What is scored, where results go, and which numbers a table has."""
        add = parser.add_argument_group("evaluation").add_argument
        root = "folder of generators, each with 0_real/1_fake, nature/ai or real/fake"
        add("--dataroot", type=file_path, default="./dataset/", help=root)
        self.add_classes(add)
        add("--name", help="folder below --results_dir; default: the run's name")
        add("--results_dir", type=file_path, default="./results", help="folder of all results")
        only = "leave out images of other containers; a row needs 20 of each class"
        add("--only", choices=("lossless",), help=only)
        add = parser.add_argument_group("numbers").add_argument
        chosen = f"columns, of {', '.join(METRICS)}; default: {','.join(PUBLISHED)}"
        add("--metrics", type=choice_list(METRICS), help=chosen)
        add("--threshold", type=probability, default=THRESHOLD, help="a score above it says fake")
        reals = (
            "results folder of these weights: where a generator has fakes only, the table has its reals' FPR"
        )
        add("--reals_from", type=file_path, metavar="results/NAME/PROTOCOL", help=reals)
        add("--ci", type=level, metavar="PERCENT", help="intervals of this level, e.g. 95, in the tables")
        add(
            "--order", choices=ORDERS, default=ORDERS[0], help="of generators; worst: the lowest number first"
        )

    def check(self, opt):
        super().check(opt)
        if not opt.model_path:
            self.parser.error("--model_path is needed: the weight file to evaluate")
        if self.calibrates and not opt.calibrate and self.given & {"real_accuracy", "unsure"}:
            self.parser.error("--real_accuracy and --unsure need --calibrate")
        if opt.engine != "torch" and opt.amp == "bf16":
            self.parser.error(f"--engine {opt.engine} computes in fp32; leave out --amp bf16")
        if opt.rz_interp and len(opt.rz_interp) > 1:
            self.parser.error(f"--rz_interp takes one filter in an evaluation, got {','.join(opt.rz_interp)}")
