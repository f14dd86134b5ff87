"""Types of command-line values: text in, checked value out, one clear sentence when it does not fit."""

import argparse
from pathlib import Path

from data.perturb import JPEG_METHODS


def positive_int(text):
    """A whole number above 0."""
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def whole_int(text):
    """A whole number, 0 or above."""
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or above")


def positive_float(text):
    """A finite number above 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def probability(text):
    """A number from 0 to 1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def sigma(text):
    """A blur's sigma in pixels, 0 to 100."""
    return _number(text, float, lambda value: 0 <= value <= 100, "a number from 0 to 100")


def jpeg_quality(text):
    """A JPEG quality, 1 to 100."""
    return _number(text, int, lambda value: 1 <= value <= 100, "a whole number from 1 to 100")


def fraction(text):
    """A number between 0 and 1, both excluded."""
    return _number(text, float, lambda value: 0 < value < 1, "a number between 0 and 1")


def names_list(text):
    """'car,cat' -> ('car', 'cat'); '' -> ()."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def choice_list(choices):
    """Type of a comma list whose parts are all in choices."""

    def parse(text):
        parts = names_list(text)
        if not parts or any(part not in choices for part in parts):
            raise argparse.ArgumentTypeError(f"expected a comma list of {', '.join(choices)}, got {text!r}")
        return parts

    return parse


def number_range(kind, lowest, highest):
    """Type of 'VALUE' or 'LOW,HIGH' within [lowest, highest]: a tuple of one or two numbers."""

    def parse(text):
        parts = tuple(
            _number(
                part,
                kind,
                lambda value: lowest <= value <= highest,
                f"a value, or LOW,HIGH, from {lowest} to {highest}",
            )
            for part in text.split(",")
        )
        if len(parts) > 2 or parts[0] > parts[-1]:
            raise argparse.ArgumentTypeError(f"expected one value, or LOW,HIGH, got {text!r}")
        return parts

    return parse


jpeg_methods = choice_list(JPEG_METHODS)


def file_path(text):
    """A path as typed, with ~ expanded."""
    return str(Path(text).expanduser())


def spell(value):
    """An option's value as it would be typed: tuples become comma lists."""
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else value


def _number(text, kind, accept, expected):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


METAVARS = {
    positive_int: "N",
    whole_int: "N",
    positive_float: "X",
    sigma: "X",
    jpeg_quality: "N",
    probability: "P",
    fraction: "P",
    names_list: "A,B",
    file_path: "PATH",
}
