"""What can be varied about the detector `npr`: flags, what goes together, what a file's keys decide.

A Variant is one combination; networks/resnet.py builds it.  A new front or fusion needs no line here: their
names come from the dicts of networks/npr.py.  A new kind of choice needs a field and a flag in Variant, its
rule in `_check_combination`, and a line in networks/resnet.py.
"""

import argparse
from dataclasses import asdict, dataclass

from common import UserError, fraction
from networks.attention import FORMS
from networks.base import differing, own_flags
from networks.color import SPACES
from networks.npr import FRONTS, FUSIONS, MODES, WINDOWS, references

# name -> kinds of attention in the order in which they are applied
ATTENTIONS = {
    "none": (),
    "channel": ("channel",),
    "spatial": ("spatial",),
    "channel_spatial": ("channel", "spatial"),
}
STEMS = {"3x3s2": (3, 2), "7x7s2": (7, 2), "3x3s1": (3, 1)}  # name -> kernel size and stride of conv1
# name -> whether the NPR map is taken of the image normalised with its colour space's constants
NORMS = {"imagenet": True, "none": False}
STAGES = (2, 3, 4)
SCALES = {"factor", "factors", "window"}  # a map has one of these
CVIMG_FACTORS = (0.25, 0.5, 0.75)  # a published file says how many scales it fuses, not which
# Keys of published files that show that a kind of attention is registered.
ATTENTION_KEYS = {"channel": "ca", "spatial": "spatial_att"}


@dataclass(frozen=True)
class Variant:
    """One way to build the detector; the defaults are the published NPR.  Fields are flags without `npr_`."""

    front: str = "npr"
    factor: float | None = 0.5
    factors: tuple[float, ...] = ()
    window: int | None = None
    mode: str | None = "nearest"
    ref: str | None = None
    fusion: str | None = None
    color: str = "rgb"
    norm: str = "imagenet"
    attention: str = "none"
    attention_form: str = "sum"
    unused: str = "none"  # attention that older files hold and no output depends on; no flag
    stem: str = "3x3s2"
    stages: int = 2

    def __post_init__(self):
        """UserError for an unknown name, a factor outside (0, 1), or parts that do not go together."""
        own_flags(Variant, argparse.Namespace(**{f"npr_{name}": value for name, value in vars(self).items()}))
        factors = [*self.factors, *([] if self.factor is None else [self.factor])]
        if not all(0 < factor < 1 for factor in factors):
            raise UserError(f"--npr_factor is a number between 0 and 1, both excluded, got {factors}")
        scales = [name for name in SCALES if getattr(self, name)]
        if len(scales) != (self.front == "npr"):
            raise UserError(f"--npr_front {self.front} has {_flags(scales) or 'no scale'}")
        if bool(self.fusion) != bool(self.factors) or bool(self.ref) != bool(self.window):
            raise UserError("--npr_fusion goes with --npr_factors, --npr_ref with --npr_window")

    @staticmethod
    def add_arguments(group):
        """The flags of the detector; those without a default have one that depends on the others."""
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
        form = "channel attention: sum of sigmoids (CVIMGDetection's code), or as in CBAM; sum unless given"
        add("--npr_attention_form", choices=FORMS, help=form)
        add("--npr_stem", choices=STEMS, default="3x3s2", help="kernel and stride of conv1")
        add("--npr_stages", type=int, choices=STAGES, default=2, help="stages of the ResNet-50")

    @classmethod
    def from_options(cls, opt):
        """The variant that flags describe; UserError where they do not go together."""
        flags = {**vars(own_flags(cls, opt)), "npr_unused": getattr(opt, "npr_unused", "none")}
        given = {name.removeprefix("npr_"): value for name, value in flags.items() if value not in (None, ())}
        _check_combination(given)
        if given["front"] != "npr":
            depending = {"factor": None, "mode": None}
        elif "window" in given:
            depending = {"factor": None, "mode": None, "ref": "w1"}
        else:
            depending = {"factor": None, "fusion": "weights"} if "factors" in given else {}
        return cls(**{**depending, **given})

    @property
    def changed(self):
        """{field: value} where it differs from the published NPR."""
        return differing(asdict(self), asdict(Variant()))

    @property
    def published_map(self):
        """Whether the NPR map is the published one, which trims odd sizes instead of resizing back."""
        return (self.front, self.factor, self.mode) == ("npr", 0.5, "nearest")


def _check_combination(given):
    if len(given.keys() & SCALES) > 1:
        raise UserError(f"give one of {_flags(SCALES)}, got {_flags(given.keys() & SCALES)}")
    front, window = given["front"], given.get("window")
    no_map = f"--npr_front {front} has no NPR map"
    form = "--npr_attention_form needs --npr_attention channel or channel_spatial"
    # Whether a rule applies, the fields that it excludes, and its words.
    rules = (
        (front != "npr", {*SCALES, "mode", "ref", "fusion"}, no_map),
        (window, {"mode", "fusion"}, "--npr_window compares with a pixel, its mean or maximum"),
        (not window, {"ref"}, "--npr_ref needs --npr_window"),
        ("factors" not in given, {"fusion"}, "--npr_fusion needs --npr_factors"),
        ("channel" not in ATTENTIONS[given["attention"]], {"attention_form"}, form),
    )
    for applies, excluded, words in rules:
        if applies and given.keys() & excluded:
            raise UserError(f"{words}; leave out {_flags(given.keys() & excluded)}")
    ref = given.get("ref")
    if ref and ref not in (legal := references(window)):
        raise UserError(f"--npr_ref of --npr_window {window} is one of {', '.join(legal)}, got {ref!r}")


def _flags(names):
    return ", ".join(f"--npr_{name}" for name in sorted(names))


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
        decided.update(npr_fusion="weights", npr_factors=_factors_of(shapes["npr_weights"], given))
    decided.update(_attention_from_keys(shapes, given))
    for name, value in decided.items():
        if given.get(name, value) != value:
            raise UserError(f"does not fit --{name} {given[name]}: its keys say {value}")
    return {**given, **decided}


def _factors_of(shape, given):
    scales = shape[0] if shape else 0
    known = CVIMG_FACTORS if scales == len(CVIMG_FACTORS) else ()
    factors = given.get("npr_factors") or known
    if len(factors) != scales or scales < 2:
        raise UserError(f"fuses {scales} scales; say which with --arch npr --npr_factors F,F,...")
    return factors


def _attention_from_keys(shapes, given):
    registered = {
        kind for kind, key in ATTENTION_KEYS.items() if any(name.startswith(key) for name in shapes)
    }
    if not registered:
        return {}
    used = given.get("npr_attention")
    if used is None and len(registered) == 2 and "npr_weights" in shapes:
        used = "channel"  # CVIMGDetection's last source: spatial attention is registered, not used
    possible = [name for name, kinds in ATTENTIONS.items() if registered.issuperset(kinds)]
    if used not in possible:
        kinds, flag = " and ".join(sorted(registered)), f"--arch npr --npr_attention {'|'.join(possible)}"
        raise UserError(f"holds {kinds} attention, which may be in use or not; say which with {flag}")
    unused = "_".join(kind for kind in ATTENTION_KEYS if kind in registered - {*ATTENTIONS[used]})
    return {"npr_attention": used, "npr_unused": unused or "none"}


def without_unused(entries, options):
    """Entries of a file without attention that it holds and never uses."""
    keys = tuple(ATTENTION_KEYS[kind] for kind in ATTENTIONS[options.get("npr_unused", "none")])
    return {name: value for name, value in entries.items() if not name.startswith(keys)}


def _factors(text):
    values = tuple(fraction(part) for part in text.split(",")) if text.strip() else ()
    if len(values) == 1:
        raise argparse.ArgumentTypeError(f"expected at least two factors, got {text!r}; one: --npr_factor")
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected different factors, got {text!r}")
    return values
