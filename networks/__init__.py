"""Detectors by name.

To add one: write networks/<name>.py with a subclass of `networks.base.Detector` under `@register("<name>")`,
import the module at the end of this file, add tests/test_<name>.py.
"""

_REGISTRY = {}


def register(name):
    """Class decorator that makes a Detector known as `name`; a name taken twice raises ValueError."""

    def add(detector_class):
        if name in _REGISTRY:
            raise ValueError(f"detector name {name!r} is already taken by {_REGISTRY[name].__name__}")
        _REGISTRY[name] = detector_class
        detector_class.arch = name
        return detector_class

    return add


def names():
    """All detector names, sorted."""
    return sorted(_REGISTRY)


def get(name):
    """The Detector class called `name`; ValueError lists the known names."""
    if name not in _REGISTRY:
        raise ValueError(f"unknown detector {name!r}; known: {', '.join(names())}")
    return _REGISTRY[name]


def create(opt):
    """The detector of parsed options; UserError where flags do not go together or a file of it is missing."""
    detector = get(opt.arch).from_options(opt)
    detector.load_companions()
    return detector


from networks import cnndet, essp, lnp_trunks, resnet, ssp  # noqa: E402,F401  (they register themselves)
from networks.base import describe  # noqa: E402,F401
