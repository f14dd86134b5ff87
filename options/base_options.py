"""Command-line options that every script shares, and how all of them are parsed.

A first look finds --arch, --recipe and --protocol: the detector adds its own flags, recipe and protocol
change defaults.  Then one parser reads everything, and a flag that it does not have stops the program.
"""

import argparse

import torch

import networks
from common import (
    UNKNOWN,
    Parser,
    UserError,
    as_typed,
    choice_list,
    names_list,
    non_negative_int,
    number,
    positive_float,
    positive_int,
    torch_device,
)
from data.decode import DEFAULT_MAX_MPX
from data.transforms import INTERPOLATIONS, RESIZES, resize_rule

NOT_GIVEN = object()
GEOMETRY = "Resize and crop not given here are the protocol's, else the training run's, else the detector's."
NO_EFFECT = "it never had an effect"
# Flags that upstream parsed without effect, or that have another name here: flag -> what to do instead.
RETIRED = {
    "--mode": "upstream knew only 'binary'; leave it out",
    "--data_aug": f"{NO_EFFECT}; set --blur_prob and --jpg_prob",
    "--resize_or_crop": f"{NO_EFFECT}; use --loadSize, --cropSize and --no_resize",
    **dict.fromkeys(("--init_type", "--init_gain"), f"{NO_EFFECT}; the detector's file decides"),
    **dict.fromkeys(("--epoch_count", "--last_epoch"), f"{NO_EFFECT}; --continue_train knows its epoch"),
    **dict.fromkeys(
        ("--save_latest_freq", "--save_epoch_freq"),
        f"{NO_EFFECT}; the last and the best epoch are always saved",
    ),
    "--new_optim": f"{NO_EFFECT}; a run without --continue_train has a new optimiser",
    "--epoch": f"{NO_EFFECT}; name the file with --model_path",
    "--eval": NO_EFFECT,
    "--suffix": "write the whole name in --name",
    "--npr_unused": "what published files register without using it is found by its keys",
}


class BaseOptions:
    """Options of every script; subclasses add theirs in `initialize` and check values in `check`.

    After `parse`: `parser`; `defaults`, {name: value}; `given`, the names of the options that were typed.
    """

    script = ""  # file name in the usage line
    retired = RETIRED
    exclusive = (("no_resize", "loadSize"),)  # pairs of options of which only one may be typed
    needs_arch = False  # training builds a detector, an evaluation takes it from the weight file

    def parse(self, argv=None):
        """The options of a command line (default: the program's); a wrong one ends the program."""
        deciding, _ = self.deciding_parser().parse_known_args(argv)
        self.parser = self.build_parser(**vars(deciding))
        opt = self.parser.parse_args([])
        self.defaults = dict(vars(opt))
        typed = argparse.Namespace(**dict.fromkeys(self.defaults, NOT_GIVEN))
        _, unknown = self.parser.parse_known_intermixed_args(argv, typed)  # paths before and after flags
        if unknown:
            self.parser.error(self.explain(unknown) or UNKNOWN + " ".join(unknown))
        values = {name: value for name, value in vars(typed).items() if value is not NOT_GIVEN}
        self.given = set(values)
        vars(opt).update(values)
        if not self.needs_arch:
            # A weight file of ours knows the detector's flags: only those typed say something new.
            for name in self.detector_flags - self.given:
                delattr(opt, name)
        self.check(opt)
        self.check_detector(opt)
        return opt

    def deciding_parser(self):
        """The parser of the first look; its flags are keywords of `build_parser`."""
        parser = Parser(prog=self.script, add_help=False)
        default = "npr" if self.needs_arch else None
        text = "detector (res50 and mobilev2 are DFIG's); its own flags are listed by --help --arch NAME"
        parser.add_argument("--arch", choices=networks.names(), default=default, help=text)
        return parser

    def build_parser(self, arch):
        """The complete parser for one detector; None: without a detector's flags."""
        first = [self.deciding_parser()]
        parser = Parser(prog=self.script, description=self.__doc__.splitlines()[0], parents=first)
        self.initialize(parser)
        shared = {action.dest for action in parser._actions}
        if arch is not None:
            networks.get(arch).add_arguments(parser.add_argument_group(f"detector {arch}"))
        self.detector_flags = {action.dest for action in parser._actions} - shared
        return parser

    def explain(self, unknown):
        """What became of an unknown flag, or which --arch has it; None for a flag that never was."""
        for flag in (word.partition("=")[0] for word in unknown):
            if flag in self.retired:
                return f"{flag} is not an option here: {self.retired[flag]}"
            if owners := detectors_with(flag):
                return f"{flag} is not an option here: it needs --arch {' or '.join(owners)}"
        return None

    def initialize(self, parser):
        """Adds the script's flags to its parser."""
        add = parser.add_argument_group("images", GEOMETRY).add_argument
        add("--batch_size", type=positive_int, default=64, help="images per batch")
        add("--loadSize", type=positive_int, help="length of the resize in pixels, see --resize_rule")
        rule = "what gets that length: both sides, or the shorter side with the aspect ratio kept"
        rules = "{square,shorter_side}"
        add("--resize_rule", type=resize_rule, choices=RESIZES, metavar=rules, help=rule)
        add("--cropSize", type=positive_int, help="side of the square crop, in pixels")
        add("--no_resize", action="store_true", help="take images at their stored size")
        filters = f"resize filter, or a comma list to draw from in training: {', '.join(INTERPOLATIONS)}"
        add("--rz_interp", type=choice_list(INTERPOLATIONS), default=("bilinear",), help=filters)
        add("--exif", choices=("ignore", "apply"), default="ignore", help="apply: turn photographs upright")
        add("--max_mpx", type=positive_float, default=DEFAULT_MAX_MPX, help="largest file, in million pixels")
        bad = "skip: leave out, count and list"
        add("--on_bad_image", choices=("stop", "skip"), default="stop", help=bad)
        add("--num_threads", type=non_negative_int, help="loader processes; default: one per core, at most 8")
        group = parser.add_argument_group("machine")
        device = group.add_mutually_exclusive_group().add_argument
        devices = "auto (CUDA, then MPS, then the CPU), or a device of torch: cpu, mps, cuda, cuda:1, ..."
        device("--device", type=torch_device, default="auto", help=devices)
        published = "published spelling of --device cuda:N; -1: the CPU"
        same = {"dest": "device", "default": argparse.SUPPRESS, "metavar": "N"}
        device("--gpu_ids", type=gpu_device, help=published, **same)
        group.add_argument("--seed", type=non_negative_int, default=100, help="seed of all random numbers")
        group.add_argument("--deterministic", action="store_true", help="deterministic GPU kernels; slower")

    def add_classes(self, add):
        add("--classes", type=names_list, default=(), help="comma list of folders to use; empty: all")

    def check(self, opt):
        """Rules that concern more than one option; `parser.error` on a violation."""
        for pair in self.exclusive:
            if self.given.issuperset(pair):
                self.parser.error(f"--{pair[0]} and --{pair[1]} exclude each other")
        name = getattr(opt, "name", None)
        if name is not None and (name in ("", ".", "..") or "/" in name):
            self.parser.error(f"--name must be a plain folder name, got {name!r}")

    def check_detector(self, opt):
        """Rules among a new detector's own flags, so that a grid is refused before its first run."""
        if not self.needs_arch or not self.given & self.detector_flags:
            return
        stride = f"{opt.arch}_stride"  # a rule about what was typed: an evaluation may choose other patches
        if stride in self.given and getattr(opt, f"{opt.arch}_select") != "dense":
            self.parser.error(f"--{stride} needs --{opt.arch}_select dense")
        try:
            with torch.device("meta"):  # no memory, no random numbers
                networks.get(opt.arch).from_options(opt)
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


def detectors_with(flag):
    """Names of the detectors that have this flag."""
    parsers = {name: Parser(add_help=False) for name in networks.names()}
    for name, parser in parsers.items():
        networks.get(name).add_arguments(parser)
    return [name for name, parser in parsers.items() if flag in parser._option_string_actions]


cuda_index = number(int, lambda value: value >= -1, "the number of one CUDA device, or -1 for the CPU")


def gpu_device(text):
    """Type of --gpu_ids: '1' or '1,' -> 'cuda:1', '-1' -> 'cpu'."""
    index = cuda_index(text.rstrip(","))
    return "cpu" if index < 0 else f"cuda:{index}"
