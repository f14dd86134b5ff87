"""Command-line options that every script shares, and the way all of them are parsed.

Parsing has two stages: `--arch`, `--recipe` and `--protocol` are read first, because the detector brings its
own flags, and recipe and protocol their defaults; then everything is parsed strictly, so a misspelt flag
stops the program.
"""

import argparse

import networks
from common import (
    Parser,
    UserError,
    as_typed,
    choice_list,
    names_list,
    non_negative_int,
    positive_float,
    positive_int,
)
from data.decode import DEFAULT_MAX_MPX
from data.transforms import INTERPOLATIONS, RESIZES, resize_rule

_NOT_GIVEN = object()

# Flags that upstream parsed without effect, or that have another name here: flag -> what to do instead.
RETIRED = {
    "--mode": "upstream knew only 'binary'; leave it out",
    "--data_aug": "it never had an effect; set --blur_prob and --jpg_prob",
    "--resize_or_crop": "it never had an effect; use --loadSize, --cropSize and --no_resize",
    "--init_type": "it never had an effect; the detector's file under networks/ decides",
    "--init_gain": "it never had an effect; the detector's file under networks/ decides",
    "--epoch_count": "it never had an effect; --continue_train knows its epoch",
    "--last_epoch": "it never had an effect; --continue_train knows its epoch",
    "--save_latest_freq": "it never had an effect; the last and the best epoch are always saved",
    "--save_epoch_freq": "it never had an effect; the last and the best epoch are always saved",
    "--new_optim": "it never had an effect; a run without --continue_train has a new optimiser",
    "--epoch": "it never had an effect; name the file with --model_path",
    "--eval": "it never had an effect",
    "--suffix": "write the whole name in --name",
}


class Retired(argparse.Action):
    """A flag kept only to tell people what became of it."""

    def __init__(self, option_strings, dest, hint="", **kwargs):
        hidden = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        super().__init__(option_strings, argparse.SUPPRESS, nargs="?", **hidden)
        self.hint = hint

    def __call__(self, parser, namespace, values, option_string=None):
        parser.error(f"{option_string} is not an option here: {self.hint}")


class BaseOptions:
    """Options of every script; subclasses add theirs in `initialize` and check values in `check`."""

    script = ""  # file name shown in the usage line
    retired = RETIRED
    needs_arch = False  # training always builds a detector; evaluation takes it from the weight file

    def parse(self, argv=None):
        """Parses strictly; a wrong flag or value exits with status 2.

        Afterwards `self.given` names the options that stood on the command line.
        """
        self.parser = self.build_parser(**self.choose_defaults(argv))
        opt = self.parser.parse_args([])
        self.defaults = dict(vars(opt))
        typed = argparse.Namespace(**dict.fromkeys(vars(opt), _NOT_GIVEN))
        self.parser.parse_args(argv, typed)
        self.given = {name for name, value in vars(typed).items() if value is not _NOT_GIVEN}
        for name in self.given:
            setattr(opt, name, getattr(typed, name))
        if not self.needs_arch:  # a weight file of ours knows its flags: only those given say something new
            for name in detector_flags(getattr(opt, "arch", None)) - self.given:
                delattr(opt, name)
        self.check(opt)
        self.check_detector(opt)
        return opt

    def build_parser(self, arch):
        """The complete parser for one detector; None: no detector flags."""
        parser = Parser(prog=self.script, description=self.__doc__.splitlines()[0])
        self.initialize(parser)
        if arch is not None:
            networks.get(arch).add_arguments(parser.add_argument_group(f"detector {arch}"))
        for flag, owners in flags_of_others(arch).items():  # known, but only where the detector is
            parser.add_argument(flag, action=Retired, hint=f"it needs --arch {' or '.join(owners)}")
        for flag, hint in self.retired.items():
            parser.add_argument(flag, action=Retired, hint=hint)
        return parser

    def initialize(self, parser):
        self.add_detector(parser.add_argument_group("detector").add_argument)
        self.add_images(parser.add_argument_group("images").add_argument)
        self.add_machine(parser.add_argument_group("machine").add_argument)

    def add_detector(self, add):
        add(
            "--arch",
            choices=networks.names(),
            default="npr" if self.needs_arch else None,
            help="detector (res50 and mobilev2 are DFIG's); its own flags are listed by --help --arch NAME",
        )

    def add_images(self, add):
        add("--batch_size", type=positive_int, default=64, help="images per batch")
        add("--loadSize", type=positive_int, help="length of the resize in pixels, see --resize_rule")
        add(
            "--resize_rule",
            type=resize_rule,
            choices=RESIZES,
            metavar="{square,shorter_side}",
            help="what gets that length: both sides, or the shorter side with the aspect ratio kept",
        )
        add("--cropSize", type=positive_int, help="side of the square crop, in pixels")
        add("--no_resize", action="store_true", help="take images at their stored size")
        add(
            "--rz_interp",
            type=choice_list(INTERPOLATIONS),
            default=("bilinear",),
            help=f"resize filter, or a comma list to draw from in training: {', '.join(INTERPOLATIONS)}",
        )
        add(
            "--exif",
            choices=("ignore", "apply"),
            default="ignore",
            help="apply turns photographs upright; upstream ignores the EXIF orientation",
        )
        add(
            "--max_mpx",
            type=positive_float,
            default=DEFAULT_MAX_MPX,
            help="refuse files of more million pixels than this before decoding them",
        )
        add(
            "--on_bad_image",
            choices=("stop", "skip"),
            default="stop",
            help="a broken image stops the run, or is left out, counted and listed",
        )
        add("--num_threads", type=non_negative_int, help="loader processes; default: one per core, at most 8")

    def add_classes(self, add):
        add("--classes", type=names_list, default=(), help="comma list of folders to use; empty: all")

    def add_machine(self, add):
        add(
            "--device",
            choices=("auto", "cpu", "cuda", "mps"),
            default="auto",
            help="auto takes CUDA, then MPS, then the CPU",
        )
        add("--gpu_ids", help="number of the CUDA device, -1 for the CPU (older spelling of --device)")
        add("--seed", type=non_negative_int, default=100, help="seed of everything random")
        add(
            "--deterministic",
            action="store_true",
            help="deterministic GPU kernels, slower; the CPU is deterministic anyway",
        )

    def check(self, opt):
        """Rules that concern more than one option; `parser.error` on a violation."""
        if opt.gpu_ids is not None and opt.device != "auto":
            self.parser.error(f"give --device or --gpu_ids, not both (got {opt.device} and {opt.gpu_ids})")
        if opt.no_resize and opt.loadSize is not None and "loadSize" in self.given:
            self.parser.error("--no_resize and --loadSize exclude each other")
        name = getattr(opt, "name", None)
        if name is not None and (name in ("", ".", "..") or "/" in name):
            self.parser.error(f"--name must be a plain folder name, got {opt.name!r}")

    def check_detector(self, opt):
        """Rules among the detector's own flags; an evaluation knows the rest of them from its weight file."""
        if self.needs_arch:
            try:
                networks.get(opt.arch).check_options(opt)
            except UserError as error:
                self.parser.error(str(error))

    def describe(self, opt):
        """A table of all options; changed ones carry their default."""
        lines = ["----- options -----"]
        for name, value in sorted(vars(opt).items()):
            default = self.defaults.get(name)
            note = f"   [default: {as_typed(default)}]" if value != default else ""
            lines.append(f"{name:>20}: {as_typed(value)}{note}")
        return "\n".join(lines)

    def choose_defaults(self, argv):
        """First stage: {name: value} of the flags that decide what the other flags are."""
        first = argparse.ArgumentParser(prog=self.script, add_help=False, allow_abbrev=False)
        self.add_deciding(first.add_argument)
        known, _ = first.parse_known_args(argv)
        return vars(known)

    def add_deciding(self, add):
        """The flags of the first stage."""
        add("--arch", choices=networks.names(), default="npr" if self.needs_arch else None)


def detector_flags(arch):
    """Names of a detector's own options; none without a detector."""
    return set() if arch is None else set(vars(networks.get(arch).flags(argparse.Namespace())))


def flags_of_others(arch):
    """{flag as typed: [detectors that have it]} of those that `arch` does not have."""
    found = {}
    for name in networks.names():
        parser = argparse.ArgumentParser(add_help=False)
        networks.get(name).add_arguments(parser)
        for flag in sorted(flag for action in parser._actions for flag in action.option_strings):
            found.setdefault(flag, []).append(name)
    return {flag: owners for flag, owners in found.items() if arch not in owners}
