"""What can be varied about the detector `npr`: flags, what goes together, what a file's keys decide.

A Variant is one combination; networks/resnet.py builds it.  A new front or fusion needs no line here: their
names come from the dicts of networks/npr.py.  A new kind of choice needs a flag in `add_arguments`, a field
in Variant, its rule in `_check_combination`, and a line in networks/resnet.py.
"""

import argparse
from dataclasses import asdict, dataclass, fields

from common import UserError, fraction
from networks.attention import FORMS
from networks.base import differing
from networks.color import SPACES
from networks.npr import FRONTS, FUSIONS, MODES, WINDOWS, references

# name -> kinds of attention in the order in which they are applied
ATTENTIONS = {
    "none": (),
    "channel": ("channel",),
    "spatial": ("spatial",),
    "channel_spatial": ("channel", "spatial"),
}
# name -> kernel size and stride of conv1
STEMS = {"3x3s2": (3, 2), "7x7s2": (7, 2), "3x3s1": (3, 1)}
# name -> whether the NPR map is taken of the image normalised with its colour space's constants
NORMS = {"imagenet": True, "none": False}
STAGES = (2, 3, 4)
# A published file says how many scales it fuses, not which.
CVIMG_FACTORS = (0.25, 0.5, 0.75)
# Keys of published files that show that a kind of attention is registered.
ATTENTION_KEYS = {"channel": "ca", "spatial": "spatial_att"}


# Field of Variant -> the legal values.
CHOICES = {
    "front": FRONTS,
    "mode": MODES,
    "window": WINDOWS,
    "fusion": FUSIONS,
    "color": SPACES,
    "norm": NORMS,
    "attention": ATTENTIONS,
    "attention_form": FORMS,
    "unused": ATTENTIONS,
    "stem": STEMS,
    "stages": STAGES,
}


@dataclass(frozen=True)
class Variant:
    """One way to build the detector; the defaults are the published NPR.  Fields are flags without `npr_`.

    None and () mean that a flag was not given: what depends on others is filled in.  UserError where the
    flags do not go together.
    """

    front: str = "npr"
    factor: float | None = None
    factors: tuple[float, ...] = ()
    window: int | None = None
    mode: str | None = None
    ref: str | None = None
    fusion: str | None = None
    color: str = "rgb"
    norm: str = "imagenet"
    attention: str = "none"
    attention_form: str | None = None
    unused: str = "none"  # attention that older files hold and no output depends on; no flag
    stem: str = "3x3s2"
    stages: int = 2

    def __post_init__(self):
        self._check_names()
        self._check_combination()
        # What depends on other flags, unless it was given.
        if self.front == "npr" and self.window:
            self._fill(ref="w1")
        elif self.front == "npr" and self.factors:
            self._fill(mode="nearest", fusion="weights")
        elif self.front == "npr":
            self._fill(mode="nearest", factor=0.5)
        self._fill(attention_form="sum")

    def _check_names(self):
        for name, legal in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in legal:
                raise UserError(f"--npr_{name} is one of {', '.join(map(str, legal))}, got {value!r}")
        for factor in (*self.factors, *([] if self.factor is None else [self.factor])):
            if not 0 < factor < 1:
                raise UserError(f"--npr_factor is a number between 0 and 1, both excluded, got {factor}")

    def _check_combination(self):
        given = {field.name for field in fields(self) if getattr(self, field.name) not in (None, ())}
        scales = {"factor", "factors", "window"}
        if len(given & scales) > 1:
            raise UserError(f"give one of {_flags(scales)}, got {_flags(given & scales)}")
        no_map = f"--npr_front {self.front} has no NPR map"
        form = "--npr_attention_form needs --npr_attention channel or channel_spatial"
        # Whether a rule applies, the fields that it excludes, and its words.
        rules = (
            (self.front != "npr", {*scales, "mode", "ref", "fusion"}, no_map),
            (self.window, {"mode", "fusion"}, "--npr_window compares with a pixel, its mean or maximum"),
            (not self.window, {"ref"}, "--npr_ref needs --npr_window"),
            (not self.factors, {"fusion"}, "--npr_fusion needs --npr_factors"),
            ("channel" not in ATTENTIONS[self.attention], {"attention_form"}, form),
        )
        for applies, excluded, words in rules:
            if applies and given & excluded:
                raise UserError(f"{words}; leave out {_flags(given & excluded)}")
        if self.ref and self.ref not in (legal := references(self.window)):
            window = f"--npr_window {self.window}"
            raise UserError(f"--npr_ref of {window} is one of {', '.join(legal)}, got {self.ref!r}")

    def _fill(self, **defaults):
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else

    @classmethod
    def from_options(cls, opt):
        """The variant that flags describe; flags that are absent from opt keep their defaults."""
        given = {field.name: getattr(opt, f"npr_{field.name}", None) for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value not in (None, ())})

    @property
    def changed(self):
        """{field: value} where it differs from the published NPR."""
        return differing(asdict(self), asdict(Variant()))

    @property
    def published_map(self):
        """Whether the NPR map is the published one, which trims odd sizes instead of resizing back."""
        return (self.front, self.factor, self.mode) == ("npr", 0.5, "nearest")


def add_arguments(group):
    """The flags of the detector `npr`.  Those without a default have one that depends on the others."""
    add = group.add_argument
    factor = "shrink and resize back by this factor in (0, 1); 0.5 unless --npr_factors or --npr_window"
    add("--npr_factor", type=fraction, metavar="F", help=factor)
    add("--npr_factors", type=_factors, metavar="F,F", default=(), help="several factors, fused")
    add("--npr_mode", choices=MODES, help="interpolation in both directions; nearest unless given")
    add("--npr_window", type=int, choices=WINDOWS, help="windows of this side instead of a factor")
    ref = "what a window is compared with: w1 (its first pixel) ..., mean, max; w1 unless given"
    add("--npr_ref", metavar="REF", help=ref)
    add("--npr_fusion", choices=FUSIONS, help="how several factors are fused; weights unless given")
    add("--npr_front", choices=FRONTS, default="npr", help="none: the plain image, as a control")
    add("--npr_color", choices=SPACES, default="rgb", help="colour space of the image")
    norm = "normalise the image before the residual, or (none) keep it in [0, 1]"
    add("--npr_norm", choices=NORMS, default="imagenet", help=norm)
    attention = "channel: after the stem and after layer1; spatial: after layer1 and after layer2"
    add("--npr_attention", choices=ATTENTIONS, default="none", help=attention)
    form = "channel attention as sum of two sigmoids (CVIMGDetection's code), or as in CBAM; sum unless given"
    add("--npr_attention_form", choices=FORMS, help=form)
    add("--npr_stem", choices=STEMS, default="3x3s2", help="kernel and stride of conv1")
    add("--npr_stages", type=int, choices=STAGES, default=2, help="stages of the ResNet-50")


def flags_from_keys(shapes, given):
    """The flags that a published file's {key: shape} decides, completed by those given.

    Source: CVIMGDetection's five weight files were made by five versions of one source, which register
    attention with and without using it; only the last version, with all of it, is known.
    UserError where a flag is needed or contradicts the keys.
    """
    decided = {"npr_stages": 2 + ("layer3.0.conv1.weight" in shapes) + ("layer4.0.conv1.weight" in shapes)}
    if shapes["conv1.weight"][-1:] == (7,):
        decided["npr_stem"] = "7x7s2"
    if "npr_weights" in shapes:
        single = [f"--{name} {given[name]}" for name in ("npr_factor", "npr_window") if name in given]
        if single:
            raise UserError(f"does not fit {', '.join(single)} (its keys say several scales)")
        decided.update(npr_fusion="weights", npr_factors=_factors_of(shapes["npr_weights"], given))
    decided.update(_attention_from_keys(shapes, given))
    contradicted = [name for name in decided if name in given and given[name] != decided[name]]
    if contradicted:
        words = ", ".join(f"--{name} {given[name]} (its keys say {decided[name]})" for name in contradicted)
        raise UserError(f"does not fit {words}")
    return {**given, **decided}


def _attention_from_keys(shapes, given):
    registered = {
        kind for kind, key in ATTENTION_KEYS.items() if any(name.startswith(f"{key}1.") for name in shapes)
    }
    if not registered:
        return {}
    used = given.get("npr_attention")
    if used is None and len(registered) == 2 and "npr_weights" in shapes:
        used = "channel"  # CVIMGDetection's last source: spatial attention is registered, not used
    possible = [name for name, kinds in ATTENTIONS.items() if registered.issuperset(kinds)]
    if used not in possible:
        raise UserError(
            f"holds {' and '.join(sorted(registered))} attention, which its source may or may not have used; "
            f"say which: --arch npr --npr_attention {'|'.join(possible)}"
        )
    unused = "_".join(kind for kind in ATTENTION_KEYS if kind in registered - {*ATTENTIONS[used]})
    return {"npr_attention": used, "npr_unused": unused or "none"}


def without_unused(entries, options):
    """Entries of a file without attention that it holds and never uses."""
    keys = tuple(ATTENTION_KEYS[kind] for kind in ATTENTIONS[options.get("npr_unused", "none")])
    return {name: value for name, value in entries.items() if not name.startswith(keys)}


def _factors_of(shape, given):
    scales = shape[0] if shape else 0
    factors = given.get("npr_factors") or (CVIMG_FACTORS if scales == len(CVIMG_FACTORS) else ())
    if len(factors) != scales or scales < 2:
        named = f", not the {len(factors)} of --npr_factors" if factors else ""
        raise UserError(f"fuses {scales} scales{named}; say which: --arch npr --npr_factors F,F,...")
    return factors


def _flags(names):
    return ", ".join(f"--npr_{name}" for name in sorted(names))


def _factors(text):
    values = tuple(fraction(part) for part in text.split(",")) if text.strip() else ()
    if len(values) == 1:
        raise argparse.ArgumentTypeError(f"expected at least two factors, got {text!r}; one: --npr_factor")
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected different factors, got {text!r}")
    return values
