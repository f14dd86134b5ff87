"""Options of val.py, and of every script that scores images with a trained detector."""

from common import file_path, number, positive_float, whole_number
from data.patches import EVALUATION_SEED
from data.perturb import JPEG_METHODS
from options.base_options import RETIRED, BaseOptions

TRAINING_FLAGS = (
    "--lr --lr_policy --min_lr --niter --beta1 --optim --delr_freq --earlystop_epoch --class_bal "
    "--serial_batches --no_flip --flip --loss_freq --continue_train --train_split --val_split "
    "--recipe --checkpoints_dir"
).split()
AUGMENTATION_FLAGS = ("--blur_prob", "--blur_sig", "--jpg_prob", "--jpg_method", "--jpg_qual")


class ValOptions(BaseOptions):
    """Scores one folder with one checkpoint and prints a row per generator."""

    script = "val.py"
    retired = {
        **RETIRED,
        **dict.fromkeys(TRAINING_FLAGS, "only train.py takes it"),
        **dict.fromkeys(AUGMENTATION_FLAGS, "only train.py takes it; --blur and --jpeg degrade test images"),
    }
    exclusive = (*BaseOptions.exclusive, ("resume", "overwrite"), ("no_crop", "cropSize"))

    def initialize(self, parser):
        super().initialize(parser)
        # rz_interp: the protocol's, else the training run's.
        parser.set_defaults(rz_interp=None, seed=EVALUATION_SEED)
        self.add_evaluation(parser)
        add = parser.add_argument_group("weights").add_argument
        add("--model_path", type=file_path, help="weight file: ours or a published one")
        add("--resume", action="store_true", help="keep the scores of an earlier, equal evaluation")
        add("--overwrite", action="store_true", help="replace earlier results of this name")
        amp = "bf16 is faster on a GPU, but rounds logits to ties and so changes tables"
        add("--amp", choices=("bf16", "off"), default="off", help=amp)
        add = parser.add_argument_group("large images").add_argument
        add("--no_crop", action="store_true", help="feed the whole image after the resize")
        add("--max_input_mpx", type=positive_float, default=16.0, help="largest input, in million pixels")
        add("--large_images", choices=("refuse", "crop"), default="refuse", help="crop: take the centre")
        add = parser.add_argument_group("degraded images").add_argument
        sigma = number(float, lambda value: 0 <= value <= 100, "a number from 0 to 100")
        add("--blur", type=sigma, help="blur every image first: sigma in pixels, 0 to 100")
        add("--jpeg", type=whole_number(1, 100), help="then compress as JPEG of this quality, 1 to 100")
        add("--jpeg_method", choices=sorted(JPEG_METHODS), default="pil", help="JPEG encoder")

    def add_evaluation(self, parser):
        """What is scored, and where results go."""
        add = parser.add_argument_group("evaluation").add_argument
        root = "folder of generators, each with 0_real/1_fake, nature/ai or real/fake"
        add("--dataroot", type=file_path, default="./dataset/", help=root)
        self.add_classes(add)
        add("--name", help="folder below --results_dir; default: the run's name")
        add("--results_dir", type=file_path, default="./results", help="folder of all results")

    def check(self, opt):
        super().check(opt)
        if not opt.model_path:
            self.parser.error("--model_path is needed: the weight file to evaluate")
        if "jpeg_method" in self.given and opt.jpeg is None:
            self.parser.error("--jpeg_method needs --jpeg, the quality")
        if opt.rz_interp and len(opt.rz_interp) > 1:
            self.parser.error(f"--rz_interp takes one filter in an evaluation, got {','.join(opt.rz_interp)}")
