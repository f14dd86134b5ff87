"""What can be varied about the detector `npr`: the flags, which of them go together, and what keys tell.

A Variant is one combination; networks/resnet.py builds it.  To add a choice: a flag in `add_arguments`, a
field in Variant, its rule in `from_flags`, and a line where the forward pass of networks/resnet.py uses it.
"""

import argparse
from argparse import Namespace
from dataclasses import dataclass, fields

from common import UserError
from networks.attention import FORMS
from networks.color import SPACES
from networks.npr import MODES, WINDOWS, references

FRONTS = ("npr", "local_grad", "none")
FUSIONS = ("weights", "concat", "average", "scale_attention")
ATTENTIONS = ("none", "channel", "spatial", "channel_spatial")
STEMS = {"3x3s2": (3, 2), "7x7s2": (7, 2), "3x3s1": (3, 1)}  # name -> side and stride of conv1
CVIMG_FACTORS = (0.25, 0.5, 0.75)  # a published file says how many scales it fuses, not which


class Undecided(UserError):
    """The keys of a weight file do not say, or contradict, how its detector was built."""


@dataclass(frozen=True)
class Variant:
    """One way to build the detector; the defaults are the published NPR.  Fields are flags less `npr_`."""

    front: str = "npr"
    factor: float | None = 0.5
    factors: tuple[float, ...] = ()  # several scales instead of one factor
    window: int | None = None  # windows instead of a factor
    mode: str | None = "nearest"
    ref: str | None = None
    fusion: str | None = None
    color: str = "rgb"
    norm: str = "before"
    attention: str = "none"
    attention_form: str = "sum"
    unused: str = "none"
    stem: str = "3x3s2"
    stages: int = 2

    @classmethod
    def from_options(cls, opt):
        """The variant that flags describe; flags that are absent from opt keep their defaults."""
        opt = Namespace(**{**vars(_parser().parse_args([])), **vars(opt)})
        return cls.from_flags(
            front=opt.npr_front,
            factor=opt.npr_factor,
            factors=opt.npr_factors,
            window=opt.npr_window,
            mode=opt.npr_mode,
            ref=opt.npr_ref,
            fusion=opt.npr_fusion,
            color=opt.npr_color,
            norm=opt.npr_norm,
            attention=opt.npr_attention,
            attention_form=opt.npr_attention_form,
            unused=opt.npr_unused,
            stem=opt.npr_stem,
            stages=opt.npr_stages,
        )

    @classmethod
    def from_flags(cls, **flags):
        """Checks which flags go together (ValueError) and fills in those that were not given (None)."""
        given = {name for name, value in flags.items() if value not in (None, ())}
        scale = given & {"factor", "factors", "window"}
        if len(scale) > 1:
            raise UserError(f"give one of {_flags({'factor', 'factors', 'window'})}, got {_flags(scale)}")
        flags = {name: flags[name] for name in given}
        if flags["front"] != "npr":
            _refuse(given, {*scale, "mode", "ref", "fusion"}, f"--npr_front {flags['front']} has no NPR map")
            return _checked_attention(cls(**flags, factor=None, mode=None), given)
        if "window" in given:
            _refuse(given, {"mode", "fusion"}, "--npr_window compares with a pixel, its mean or maximum")
            flags.update(factor=None, mode=None, ref=flags.get("ref", "w1"))
            legal = references(flags["window"])
            if flags["ref"] not in legal:
                raise UserError(
                    f"--npr_ref of --npr_window {flags['window']} is one of {', '.join(legal)}, "
                    f"got {flags['ref']!r}"
                )
        else:
            _refuse(given, {"ref"}, "there is no --npr_window")
        if "factors" in given:
            flags.update(factor=None, fusion=flags.get("fusion", "weights"))
        else:
            _refuse(given, {"fusion"}, "there are no --npr_factors")
        return _checked_attention(cls(**flags), given)

    @property
    def changed(self):
        """{field: value} where it differs from the published NPR."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != one.default
        }

    @property
    def published(self):
        """Whether the NPR map is the published one, which trims odd sizes instead of resizing back."""
        return (self.front, self.factor, self.mode) == ("npr", 0.5, "nearest")

    def describe(self):
        """The variant in words, e.g. for a table."""
        return ", ".join([self.input_in_words(), *self.network_in_words()])

    def input_in_words(self):
        """What the first convolution sees."""
        if self.front == "none":
            words = "plain image"
        elif self.front == "local_grad":
            words = "local gradient"
        elif self.window:
            words = f"NPR window {self.window}, reference {self.ref}"
        elif self.factors:
            words = f"NPR factors {', '.join(map(str, self.factors))}, {self.mode}, fused by {self.fusion}"
        else:
            words = f"NPR factor {self.factor}, {self.mode}"
        color = "" if self.color == "rgb" else f" of {self.color}"
        return words + color + ("" if self.norm == "before" else ", image not normalised")

    def network_in_words(self):
        """What differs from the published trunk."""
        if self.attention != "none":
            form = f" ({self.attention_form})" if "channel" in self.attention else ""
            yield f"{self.attention} attention{form}"
        if self.unused != "none":
            yield f"{self.unused} attention registered without use"
        if self.stem != "3x3s2":
            yield f"stem {self.stem}"
        if self.stages != 2:
            yield f"{self.stages} stages"


def add_arguments(group):
    """The flags of the detector `npr`.  Those without a default have one that depends on the others."""
    add = group.add_argument
    factor = "shrink and resize back by this factor in (0, 1); 0.5 unless --npr_factors or --npr_window"
    add("--npr_factor", type=_factor, metavar="F", help=factor)
    add("--npr_factors", type=_factors, metavar="F,F", default=(), help="several factors, fused")
    add("--npr_mode", choices=MODES, help="interpolation in both directions; nearest unless given")
    add("--npr_window", type=int, choices=WINDOWS, help="windows of this side instead of a factor")
    add(
        "--npr_ref", metavar="REF", help="what a window is compared with: w1 (its first pixel) ..., mean, max"
    )
    add("--npr_fusion", choices=FUSIONS, help="how several factors are fused; learned weights unless given")
    add("--npr_front", choices=FRONTS, default="npr", help="none: the plain image, as a control")
    add("--npr_color", choices=tuple(SPACES), default="rgb", help="colour space of the image")
    add(
        "--npr_norm",
        choices=("before", "after"),
        default="before",
        help="residual of the normalised image, or (after) of the raw one in [0, 1]",
    )
    add("--npr_attention", choices=ATTENTIONS, default="none", help="after the stem and after layer1")
    add(
        "--npr_attention_form",
        choices=FORMS,
        help="channel attention as sum of two sigmoids (CVIMGDetection's code), or as in CBAM; "
        "sum unless given",
    )
    add(
        "--npr_unused",
        choices=ATTENTIONS,
        default="none",
        help="attention that is registered without being used, as some published files have it",
    )
    add("--npr_stem", choices=tuple(STEMS), default="3x3s2", help="kernel and stride of conv1")
    add("--npr_stages", type=int, choices=(2, 3, 4), default=2, help="stages of the ResNet-50")


def flags_from_keys(shapes, given):
    """The flags that a published file's {key: shape} decides, completed by those given.

    Source: CVIMGDetection's five weight files were made by five versions of one source, which register
    attention with and without using it; only the last version, with all of it, is known.
    Raises Undecided where a flag is needed or contradicts the keys.
    """
    decided = {"npr_stages": 2 + ("layer3.0.conv1.weight" in shapes) + ("layer4.0.conv1.weight" in shapes)}
    if shapes["conv1.weight"][-1:] == (7,):
        decided["npr_stem"] = "7x7s2"
    if "npr_weights" in shapes:
        single = [f"--{name} {given[name]}" for name in ("npr_factor", "npr_window") if name in given]
        if single:
            raise Undecided(f"does not fit {', '.join(single)} (its keys say several scales)")
        decided.update(npr_fusion="weights", npr_factors=_named_factors(shapes["npr_weights"], given))
    decided.update(_attention_from_keys(shapes, given))
    contradicted = [name for name in decided if name in given and given[name] != decided[name]]
    if contradicted:
        words = ", ".join(f"--{name} {given[name]} (its keys say {decided[name]})" for name in contradicted)
        raise Undecided(f"does not fit {words}")
    return {**given, **decided}


def _attention_from_keys(shapes, given):
    there = {
        kind
        for kind, key in (("channel", "ca1."), ("spatial", "spatial_att1."))
        if any(name.startswith(key) for name in shapes)
    }
    if not there:
        return {}
    used = given.get("npr_attention")
    if used is None and len(there) == 2 and "npr_weights" in shapes:
        used = "channel"  # CVIMGDetection's last source: spatial attention is registered, not used
    possible = [kind for kind in ATTENTIONS if kind == "none" or set(kind.split("_")) <= there]
    if used not in possible:
        raise Undecided(
            f"holds {' and '.join(sorted(there))} attention, which its source may or may not have used; "
            f"say which: --arch npr --npr_attention {'|'.join(possible)}"
        )
    unused = [kind for kind in ("channel", "spatial") if kind in there - set(used.split("_"))]
    return {"npr_attention": used, "npr_unused": "_".join(unused) or "none"}


def _named_factors(shape, given):
    scales = shape[0] if shape else 0
    factors = given.get("npr_factors") or (CVIMG_FACTORS if scales == len(CVIMG_FACTORS) else ())
    if len(factors) != scales or scales < 2:
        named = f", not the {len(factors)} of --npr_factors" if factors else ""
        raise Undecided(f"fuses {scales} scales{named}; say which: --arch npr --npr_factors F,F,...")
    return factors


def _checked_attention(variant, given):
    if "attention_form" in given and "channel" not in variant.attention:
        raise UserError("--npr_attention_form needs --npr_attention channel or channel_spatial")
    both = set(variant.attention.split("_")) & set(variant.unused.split("_")) - {"none"}
    if both:
        raise UserError(f"--npr_attention and --npr_unused both name {', '.join(sorted(both))}")
    return variant


def _refuse(given, unfit, reason):
    if given & unfit:
        raise UserError(f"{reason}; leave out {_flags(given & unfit)}")


def _flags(names):
    return ", ".join(f"--npr_{name}" for name in sorted(names))


def _parser():
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return parser


def _factor(text):
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, both excluded, got {text!r}")
    return value


def _factors(text):
    values = tuple(_factor(part) for part in text.split(",")) if text.strip() else ()
    if len(values) == 1:
        raise argparse.ArgumentTypeError(f"expected at least two factors, got {text!r}; one: --npr_factor")
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected different factors, got {text!r}")
    return values
