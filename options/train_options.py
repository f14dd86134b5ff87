"""Options of train.py."""

import argparse

import networks
from common import (
    UserError,
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
from data.augment import parse_chain
from data.pairs import BY_NAME
from data.perturb import JPEG_METHODS, NATIVE
from data.training import NO_VALIDATION
from networks import checkpoint
from options import recipes
from options.base_options import BaseOptions, gpu_device
from options.val_options import views_list
from util.progress import OPTIMIZERS, POLICIES, SELECT_BY, WORST

NO_PROTOCOL = "none"
VAL_FRACTION = 0.1  # share of the training images to validate on where the published val folder is a test set
# What --continue_train may change without making it another run.
RESUMABLE = set(
    "continue_train name checkpoints_dir dataroot niter num_threads device on_bad_image loss_freq "
    "save_minutes".split()
)


def view_names(text):
    """The names of views, as typed."""
    return tuple(view.name for view in views_list(text))


view_names.metavar = views_list.metavar


def random_chain(text):
    """The text of a chain of data/augment.py."""
    try:
        parse_chain(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


class TrainOptions(BaseOptions):
    """Trains one detector on a folder of real and fake images."""

    script = "train.py"
    needs_arch = True
    exclusive = (
        *BaseOptions.exclusive,
        ("continue_train", "overwrite"),
        ("select_on_test", "val_fraction"),
        ("val_split", "select_on_test"),
        ("val_split", "val_fraction"),
        ("pairs", "val_fraction"),  # a share held out by image divides pairs
        ("pairs", "serial_batches"),  # pairs have no place in the order of the files
    )

    def deciding_parser(self):
        parser = super().deciding_parser()
        add = parser.add_argument
        add("--recipe", choices=sorted(recipes.RECIPES), help="published settings to start from")
        protocol = "take folders, resize, crop and seed from this benchmark, e.g. GenImage-NPR; or none"
        add("--protocol", metavar="NAME", help=protocol)
        return parser

    def build_parser(self, arch, recipe=None, protocol=None):
        """The parser with the defaults of the detector, then of the recipe, then of the protocol's row."""
        parser = super().build_parser(arch)
        config = networks.get(arch).data_config
        recipe = recipe or recipes.for_arch(arch)
        defaults = {"recipe": recipe, "loadSize": config.load_size, "cropSize": config.crop_size}
        defaults |= {"no_resize": config.load_size is None, "resize_rule": config.resize}
        defaults |= {"pretrained": False, "no_flip": False}
        defaults |= recipes.RECIPES[recipe]
        protocol = protocol or defaults.get("protocol", NO_PROTOCOL)
        if protocol != NO_PROTOCOL:
            rows = {slug.lower(): row for slug, row in protocols.PROTOCOLS.items() if row.train_places}
            if protocol.lower() not in rows:
                slugs = ", ".join(row.slug for row in rows.values())
                parser.error(f"--protocol {protocol} has no training part; those with one: {slugs}")
            defaults |= protocol_defaults(rows[protocol.lower()], config)
        parser.set_defaults(**defaults)
        return parser

    def initialize(self, parser):
        super().initialize(parser)
        add = parser.add_argument_group("run").add_argument
        add("--name", default="experiment_name", help="name of the run, a folder below --checkpoints_dir")
        add("--checkpoints_dir", type=file_path, default="./checkpoints", help="folder of all runs")
        add("--continue_train", action="store_true", help="resume the run of this name")
        add("--overwrite", action="store_true", help="replace a run of this name")
        add("--loss_freq", type=positive_int, default=400, help="steps between two logged losses")
        add("--save_minutes", type=positive_float, default=10.0, help="minutes between saves within an epoch")
        add = parser.add_argument_group("data").add_argument
        add("--dataroot", type=file_path, default="./dataset/", help="folder that holds the splits")
        self.add_classes(add)
        add("--train_split", default="train", help="folder of the training images below --dataroot")
        add("--val_split", default="val", help="folder of the validation images; none: no validation")
        rule = (
            f"{VAL_FRACTION} with a --protocol whose published validation folder is its test set, else none"
        )
        share = f"validate on this share of the training images instead of on a folder; default: {rule}"
        add("--val_fraction", type=fraction, help=share)
        seen = "views of the validation images; several: each epoch counts as its worst view"
        add("--val_views", type=view_names, default=(NATIVE,), help=seen)
        add("--select_view", default=WORST, help="view that chooses the best epoch; default: the worst")
        add("--select_by", choices=SELECT_BY, default="acc", help="number that chooses the best epoch")
        size = "crop of validation, and of later evaluations; default: --cropSize"
        add("--val_crop", type=positive_int, help=size)
        select = "with --protocol: choose the best epoch on its test images, as published; results say so"
        add("--select_on_test", action="store_true", help=select)
        add("--class_bal", action="store_true", help="draw real and fake images equally often")
        sources = (
            "draw the folders of a class in proportion to their numbers of images to the power 1 - BALANCE, "
            "equally often if left out; a folder may hold one class then"
        )
        add("--source_bal", nargs="?", const=1.0, type=probability, metavar="BALANCE", help=sources)
        add("--epoch_images", type=positive_int, help="images of an epoch; default: all, once")
        twins = (
            "a real and its fake of the same name, or a row real,fake of a CSV, share batch and random draw"
        )
        add("--pairs", nargs="?", const=BY_NAME, metavar="CSV", help=twins)
        add("--serial_batches", action="store_true", help="keep the order of the files, no shuffling")
        add = parser.add_argument_group("start weights").add_argument
        whole = "start from the weights in this file; all must fit"
        add("--model_path", type=checkpoint.named_or_path, help=whole)
        add("--init_weights", type=file_path, help="start from those layers of this file that fit")
        add("--pretrained", action="store_true", help="start from ImageNet weights where layers fit")
        add("--no_pretrained", dest="pretrained", action="store_false", help="start from random weights")
        self.add_fitting(parser.add_argument_group("fitting").add_argument)
        self.add_augmentation(parser.add_argument_group("augmentation").add_argument)

    def add_fitting(self, add):
        add("--niter", type=positive_int, default=1000, help="number of epochs")
        add("--lr", type=positive_float, default=1e-4, help="learning rate of the first epoch")
        add("--optim", choices=OPTIMIZERS, default="adam", help="optimiser; sgd has no momentum")
        add("--beta1", type=probability, default=0.9, help="decay rate of Adam's first moment")
        policy = (
            "learning rate over epochs. step: times 0.9 every --delr_freq epochs; poly: times "
            "(1 - epoch / niter)^0.9; plateau: a tenth after --earlystop_epoch epochs without a better "
            "accuracy, training ends below --min_lr; cosine: half a cosine down to --min_lr"
        )
        add("--lr_policy", choices=POLICIES, default="step", help=policy)
        add("--delr_freq", type=positive_int, default=20, help="epochs between two reductions by step")
        add("--min_lr", type=positive_float, default=1e-6, help="smallest rate of plateau and cosine")
        add("--warmup", type=non_negative_int, default=0, help="epochs in which the rate of cosine rises")
        stop = "stop after N epochs without a better validation accuracy; 0: never"
        add("--earlystop_epoch", type=non_negative_int, default=0, help=stop)
        amp = "bf16 mixed precision; auto: on CUDA and on CPUs that have bf16 instructions"
        add("--amp", choices=("auto", "bf16", "off"), default="auto", help=amp)

    def add_augmentation(self, add):
        chain = (
            "random chain of degradations on a piece of the image, instead of blur and JPEG below: steps "
            "joined by +, such as resize:0.4..1.3@0.7+jpeg/webp:30..95@0.85; @: share of images"
        )
        add("--degrade", type=random_chain, metavar="CHAIN", help=chain)
        add("--rot90", action="store_true", help="with --degrade: turn crops by 0, 90, 180 or 270 degrees")
        add("--no_flip", action="store_true", help="no horizontal flips")
        add("--flip", dest="no_flip", action="store_false", help="flip half of the images")
        add("--blur_prob", type=probability, default=0.0, help="share of images to blur; 0: none")
        sigma = "sigma of the Gaussian blur in pixels: a value, or LOW,HIGH drawn uniformly"
        add("--blur_sig", type=number_range(float, 0, 100), default=(0.5,), help=sigma)
        add("--jpg_prob", type=probability, default=0.0, help="share of images to compress as JPEG; 0: none")
        method = f"JPEG encoder, or a comma list to draw from: {', '.join(JPEG_METHODS)}"
        add("--jpg_method", type=choice_list(JPEG_METHODS), default=("cv2",), help=method)
        quality = "JPEG quality from 1 to 100: a value, or LOW,HIGH drawn uniformly"
        add("--jpg_qual", type=number_range(int, 1, 100), default=(75,), help=quality)

    def check(self, opt):
        if "loadSize" in self.given and "no_resize" not in self.given:
            opt.no_resize = False  # a flag wins over the protocol
        super().check(opt)
        if not opt.no_resize and opt.loadSize < (opt.cropSize or 0):
            self.parser.error(f"--loadSize {opt.loadSize} is smaller than --cropSize {opt.cropSize}")
        self.check_rates(opt)
        self.check_validation(opt)
        self.check_drawing(opt)
        if opt.model_path or opt.init_weights:
            opt.pretrained = opt.pretrained and "pretrained" in self.given  # a flag wins over the recipe
        starts = [name for name in ("model_path", "init_weights", "pretrained") if getattr(opt, name)]
        if len(starts) > 1:
            self.parser.error(f"one kind of start weights at a time, got --{', --'.join(starts)}")

    def check_rates(self, opt):
        """Refuses learning rates that would be 0 or never change."""
        if opt.lr_policy == "poly" and opt.niter == 1:
            self.parser.error("--lr_policy poly ends at the rate 0: --niter 1 trains nothing, give 2 or more")
        if opt.lr_policy == "plateau" and not opt.earlystop_epoch:
            self.parser.error("--lr_policy plateau needs --earlystop_epoch, the epochs to wait")
        if opt.lr_policy == "cosine" and not opt.warmup < opt.niter:
            self.parser.error(f"--warmup {opt.warmup} leaves nothing of --niter {opt.niter}")
        if opt.lr_policy == "plateau" and opt.lr < opt.min_lr:
            self.parser.error(f"--lr {opt.lr:g} is below --min_lr {opt.min_lr:g}")

    def check_drawing(self, opt):
        """Refuses flags that contradict each other about which images are drawn, and what is done to them."""
        if opt.degrade and (opt.blur_prob or opt.jpg_prob):
            self.parser.error(
                "--degrade takes the place of --blur_prob and --jpg_prob; write blur:, jpeg: in it"
            )
        if opt.rot90 and not opt.degrade:
            self.parser.error("--rot90 needs --degrade")
        if opt.pairs and opt.batch_size % 2:
            self.parser.error(f"--pairs needs an even --batch_size, got {opt.batch_size}")
        if opt.pairs and opt.epoch_images and opt.epoch_images % 2:
            self.parser.error(f"--pairs needs an even --epoch_images, got {opt.epoch_images}")
        if opt.serial_batches and (opt.class_bal or opt.source_bal):
            self.parser.error(
                "--serial_batches keeps the order of the files, --class_bal and --source_bal draw"
            )

    def check_validation(self, opt):
        """Refuses flags that contradict each other about where validation images come from."""
        opt.protocol = None if opt.protocol == NO_PROTOCOL else opt.protocol
        views = (WORST, *opt.val_views)
        if opt.select_view not in views:
            self.parser.error(f"--select_view {opt.select_view}: expected one of {', '.join(views)}")
        if opt.select_on_test and not opt.protocol:
            self.parser.error("--select_on_test needs --protocol, which knows the test images")
        named_folder = "val_split" in self.given and opt.val_split != NO_VALIDATION
        if opt.protocol and ("train_split" in self.given or named_folder):
            self.parser.error("--protocol knows the folders; leave out --train_split and --val_split")
        if opt.earlystop_epoch and opt.val_split == NO_VALIDATION:
            self.parser.error("--earlystop_epoch needs a validation set, and --val_split is none")

    def merge_saved(self, opt, saved):
        """Gives opt the options of the run that it resumes; only flags in RESUMABLE may be changed.

        saved: {name: value} of a checkpoint; a run of an earlier version may lack some or hold others.
        """
        saved = {"resize_rule": "square", **saved}  # the only rule before there was a choice
        if (gpu_ids := saved.pop("gpu_ids", None)) is not None:  # an option of its own in earlier versions
            saved["device"] = gpu_device(gpu_ids)
        fixed = self.given - RESUMABLE
        if saved.get("lr_policy") in ("poly", "cosine"):  # their rates depend on the number of epochs
            fixed |= self.given & {"niter"}
        before = {name: as_typed(saved.get(name, self.defaults.get(name))) for name in sorted(fixed)}
        now = {name: as_typed(getattr(opt, name)) for name in before}
        words = [f"{name} {now[name]} (was {before[name]})" for name in now if now[name] != before[name]]
        if words:
            self.parser.error(f"--continue_train cannot change --{', --'.join(words)}; use another --name")
        typed = self.given | {"continue_train", "overwrite"}
        vars(opt).update({name: value for name, value in saved.items() if name not in typed})
        return opt


def protocol_defaults(row, config):
    """{option: default} of a protocol's row: resize and crop, seed, and where validation images come from."""
    geometry = row.geometry
    defaults = {"protocol": row.slug, "rz_interp": (geometry.interpolation,)}
    defaults["val_fraction"] = None if row.val_places else VAL_FRACTION
    if not config.patches:  # they are cut from the image at its stored size
        defaults |= {"loadSize": geometry.load_size} if geometry.load_size else {"no_resize": True}
        defaults |= {"cropSize": geometry.crop_size or config.crop_size, "resize_rule": geometry.resize}
    if row.seed is not None:
        defaults["seed"] = row.seed
    return defaults
