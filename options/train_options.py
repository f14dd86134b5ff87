"""Options of train.py."""

import networks
from common import (
    as_typed,
    choice_list,
    file_path,
    fraction,
    non_negative_int,
    number_range,
    positive_float,
    positive_int,
    probability,
)
from data import protocols
from data.perturb import JPEG_METHODS
from data.training import NO_VALIDATION
from options import recipes
from options.base_options import BaseOptions

NO_PROTOCOL = "none"
LR_POLICIES = ("step", "poly", "plateau")  # util/progress.py: learning_rate
VAL_FRACTION = 0.1  # share of the training images to validate on where the published val folder is a test set
# What --continue_train may change about a run without making it another run.
RESUMABLE = {
    "continue_train",
    "niter",
    "num_threads",
    "device",
    "gpu_ids",
    "loss_freq",
    "on_bad_image",
    "name",
    "checkpoints_dir",
    "dataroot",
    "save_minutes",
}


class TrainOptions(BaseOptions):
    """Trains one detector on a folder of real and fake images."""

    script = "train.py"
    needs_arch = True

    def build_parser(self, arch, recipe=None, protocol=None):
        parser = super().build_parser(arch)
        config = networks.get(arch).data_config
        recipe = recipe or recipes.for_arch(arch)
        defaults = {"loadSize": config.load_size, "cropSize": config.crop_size, "recipe": recipe}
        defaults |= {"no_resize": config.load_size is None, "resize_rule": config.resize}
        defaults.update(recipes.RECIPES[recipe])
        protocol = protocol or defaults.get("protocol")
        if protocol not in (None, NO_PROTOCOL):
            defaults.update(self.of_protocol(parser, protocol, config))
        parser.set_defaults(**defaults)
        return parser

    def of_protocol(self, parser, name, config):
        """Defaults that a protocol's row sets: geometry, seed, and where validation images come from."""
        able = {slug: row for slug, row in protocols.PROTOCOLS.items() if row.train_places}
        row = {slug.lower(): row for slug, row in able.items()}.get(name.lower())
        if row is None:
            parser.error(f"--protocol {name} has no training part; those with one: {', '.join(able)}")
        geometry = row.geometry
        found = {"protocol": row.slug, "rz_interp": (geometry.interpolation,)}
        found["val_fraction"] = None if row.val_places else VAL_FRACTION
        if not config.patches:  # they are taken at the stored size
            found.update({"loadSize": geometry.load_size} if geometry.load_size else {"no_resize": True})
            found |= {"cropSize": geometry.crop_size or config.crop_size, "resize_rule": geometry.resize}
        return found | ({} if row.seed is None else {"seed": row.seed})

    def add_deciding(self, add):
        super().add_deciding(add)
        add("--recipe", choices=sorted(recipes.RECIPES))
        add("--protocol")

    def initialize(self, parser):
        super().initialize(parser)
        self.add_run(parser.add_argument_group("run").add_argument)
        self.add_fitting(parser.add_argument_group("fitting").add_argument)
        self.add_augmentation(parser.add_argument_group("augmentation").add_argument)

    def add_run(self, add):
        add("--name", default="experiment_name", help="name of the run, a folder below --checkpoints_dir")
        add("--recipe", choices=sorted(recipes.RECIPES), help="published settings to start from")
        add("--dataroot", type=file_path, default="./dataset/", help="folder that holds the splits")
        self.add_classes(add)
        add("--train_split", default="train", help="folder of the training images below --dataroot")
        add("--val_split", default="val", help="folder of the validation images; none: do not validate")
        add(
            "--protocol",
            metavar="NAME",
            help="take folders, geometry and seed from a benchmark's row, e.g. GenImage-NPR; none: do not",
        )
        add(
            "--val_fraction",
            type=fraction,
            help="validate on this share of the training images, in place of a validation folder; "
            f"with --protocol {VAL_FRACTION} where the published val folder is the test set",
        )
        add(
            "--select_on_test",
            action="store_true",
            help="with --protocol: choose the best epoch on its test images, as published; marks results",
        )
        add("--checkpoints_dir", type=file_path, default="./checkpoints", help="where runs are kept")
        add("--model_path", type=file_path, help="start from the weights in this file (strict)")
        add("--init_weights", type=file_path, help="start from those layers of this file that match")
        add(
            "--pretrained",
            action="store_true",
            help="start from ImageNet's weights where layers match (--npr_stem 7x7s2 matches their stem)",
        )
        add("--no_pretrained", dest="pretrained", action="store_false", help="start from random weights")
        add("--continue_train", action="store_true", help="go on with the run of this name")
        add("--overwrite", action="store_true", help="replace a run of this name")

    def add_fitting(self, add):
        add("--niter", type=positive_int, default=1000, help="number of epochs")
        add("--lr", type=positive_float, default=1e-4, help="learning rate")
        add("--optim", choices=("adam", "sgd"), default="adam", help="optimiser; sgd has no momentum")
        add("--beta1", type=probability, default=0.9, help="first moment decay of Adam")
        add(
            "--lr_policy",
            choices=LR_POLICIES,
            default="step",
            help="learning rate: x0.9 every --delr_freq epochs; (1 - epoch / niter)^0.9; or a tenth where "
            "--earlystop_epoch would stop, which it does once below --min_lr",
        )
        add("--delr_freq", type=positive_int, default=20, help="epochs between two steps of the rate")
        add("--min_lr", type=positive_float, default=1e-6, help="least learning rate of plateau")
        add(
            "--earlystop_epoch",
            type=non_negative_int,
            default=0,
            help="stop after this many epochs without a better validation accuracy; 0: never",
        )
        add(
            "--amp",
            choices=("auto", "bf16", "off"),
            default="auto",
            help="bf16 mixed precision; auto: on CUDA and on CPUs that have bf16 instructions",
        )
        add("--class_bal", action="store_true", help="draw real and fake equally often")
        add("--serial_batches", action="store_true", help="keep the order of the files, no shuffling")
        add("--loss_freq", type=positive_int, default=400, help="steps between two logged losses")
        add(
            "--save_minutes",
            type=positive_float,
            default=10.0,
            help="minutes between two saves inside an epoch; each epoch's end saves in any case",
        )

    def add_augmentation(self, add):
        add("--no_flip", action="store_true", help="no horizontal flips")
        add("--flip", dest="no_flip", action="store_false", help="flip half of the images")
        add("--blur_prob", type=probability, default=0.0, help="share of images that are blurred")
        add(
            "--blur_sig",
            type=number_range(float, 0, 100),
            default=(0.5,),
            help="sigma of the Gaussian blur in pixels: a value, or LOW,HIGH drawn uniformly",
        )
        add("--jpg_prob", type=probability, default=0.0, help="share of images that are JPEG-coded")
        add(
            "--jpg_method",
            type=choice_list(JPEG_METHODS),
            default=("cv2",),
            help="JPEG encoder, or a comma list to draw from: cv2, pil",
        )
        add(
            "--jpg_qual",
            type=number_range(int, 1, 100),
            default=(75,),
            help="JPEG quality 1 to 100: a value, or LOW,HIGH drawn uniformly",
        )

    def check(self, opt):
        if "loadSize" in self.given and "no_resize" not in self.given:
            opt.no_resize = False  # a flag wins over the protocol
        super().check(opt)
        self.check_rates(opt)
        self.check_validation(opt)
        if opt.model_path or opt.init_weights:
            opt.pretrained = opt.pretrained and "pretrained" in self.given  # a recipe's word gives way
        starts = [name for name in ("model_path", "init_weights", "pretrained") if getattr(opt, name)]
        if len(starts) > 1:
            self.parser.error(f"one kind of start weights at a time, got --{', --'.join(starts)}")
        if opt.continue_train and opt.overwrite:
            self.parser.error("--continue_train and --overwrite exclude each other")
        if not opt.no_resize and opt.loadSize < (opt.cropSize or 0):
            self.parser.error(f"--loadSize {opt.loadSize} is smaller than --cropSize {opt.cropSize}")

    def check_rates(self, opt):
        """Learning rates that would train nothing, or never change."""
        if opt.lr_policy == "poly" and opt.niter == 1:
            self.parser.error(
                "--lr_policy poly ends at the rate 0, so --niter 1 trains nothing; give 2 or more, or "
                "--lr_policy step"
            )
        if opt.lr_policy == "plateau" and not opt.earlystop_epoch:
            self.parser.error("--lr_policy plateau needs --earlystop_epoch, the epochs to wait")
        if opt.lr_policy == "plateau" and opt.lr < opt.min_lr:
            self.parser.error(f"--lr {opt.lr:g} is below --min_lr {opt.min_lr:g}")

    def check_validation(self, opt):
        """Where validation images come from has to be said once."""
        opt.protocol = None if opt.protocol == NO_PROTOCOL else opt.protocol
        if opt.select_on_test and not opt.protocol:
            self.parser.error("--select_on_test needs --protocol, which knows the test images")
        if opt.select_on_test and "val_fraction" in self.given:
            self.parser.error("--select_on_test and --val_fraction exclude each other")
        if "val_split" in self.given and (opt.select_on_test or "val_fraction" in self.given):
            self.parser.error("--val_split excludes --select_on_test and --val_fraction")
        split = "val_split" in self.given and opt.val_split != NO_VALIDATION
        if opt.protocol and ("train_split" in self.given or split):
            self.parser.error("--protocol knows the folders; --train_split and --val_split do not go with it")
        if opt.earlystop_epoch and opt.val_split == NO_VALIDATION:
            self.parser.error("--earlystop_epoch needs a validation set, and --val_split is none")

    def merge_saved(self, opt, saved):
        """Options of a run that goes on: the saved ones, but for the few that may change."""
        saved = {"resize_rule": "square"} | saved  # a run from before that option resized to a square
        changed = {
            name
            for name in self.given
            if name not in RESUMABLE and saved.get(name, self.defaults.get(name)) != getattr(opt, name)
        }
        if saved.get("lr_policy") == "poly" and "niter" in self.given and opt.niter != saved["niter"]:
            changed.add("niter")  # its rates depend on the number of epochs
        if changed:
            pairs = ", ".join(
                f"--{name} {as_typed(getattr(opt, name))} (was {as_typed(saved.get(name))})"
                for name in sorted(changed)
            )
            self.parser.error(f"--continue_train cannot change {pairs}; train under another --name")
        typed = self.given | {"continue_train", "overwrite"}
        if typed & {"device", "gpu_ids"}:  # two spellings of one choice
            typed |= {"device", "gpu_ids"}
        for name, value in saved.items():
            if name not in typed:
                setattr(opt, name, value)
        return opt
