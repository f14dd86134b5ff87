"""Protocols of a user's own, written in YAML: one mapping, or a list of them.

    - slug: My-Set
      generators: [flux, {name: SD3, folders: [sd3, stable_diffusion_3]}]
      roots: [my_set]

KEYS lists what a row may say; `slug` and `generators` are needed.  Without `resize` and `crop` images keep
their stored size.
"""

import string
from pathlib import Path, PurePath

import yaml

from common import UserError
from data.folder import LABELS
from data.protocol import AVERAGES, Generator, Protocol
from data.transforms import INTERPOLATIONS, RESIZES, Geometry, resize_rule

LONGEST_SIDE = 16_384
RESERVED = ("all", "none")  # words that --protocols and --protocol understand


def load_file(path):
    """The rows of a YAML file.  ValueError says what is wrong, in one line."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from None
    rows = content if isinstance(content, list) else [content]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected a mapping per protocol with the keys {', '.join(KEYS)}")
    try:
        return [_row(row) for row in rows]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _text(value):
    return isinstance(value, str) and bool(value.strip())


def _folder(value):
    return _text(value) and not PurePath(value).is_absolute() and ".." not in PurePath(value).parts


def _plain(value):
    return _folder(value) and len(PurePath(value).parts) == 1 and "\\" not in value and value != "."


def _place(value):
    try:
        fields = {field[1:] for field in string.Formatter().parse(value) if field[1] is not None}
    except (ValueError, TypeError):
        return False
    return _folder(value) and fields <= {("generator", "", None)}


def _list_of(accept):
    return lambda value: isinstance(value, list) and bool(value) and all(map(accept, value))


def _whole(lowest, highest):
    return lambda value: type(value) is int and lowest <= value <= highest


def _one_of(choices):
    return lambda value: isinstance(value, str) and value in choices


def _or_null(accept):
    return lambda value: value is None or accept(value)


def _pair_of_counts(value):
    return _list_of(_whole(0, 10**9))(value) and len(value) == 2


SIDE = f"a whole number from 1 to {LONGEST_SIDE}, or null"
NAMES = "a list of folder names"
KEYS = {  # key -> (what is accepted, in words, what it means)
    "slug": (
        lambda value: _plain(value) and value.lower() not in RESERVED,
        f"a plain folder name other than {', '.join(RESERVED)}",
        "its name and its results folder",
    ),
    "generators": (
        lambda value: isinstance(value, list) and bool(value),
        "a list",
        "folder names, or mappings with name and the keys of GENERATOR_KEYS",
    ),
    "roots": (_list_of(_folder), NAMES, "its root below --dataroot; --dataroot itself counts too"),
    "places": (
        _list_of(_place),
        "a list of paths with no other field than {generator}",
        "where a generator stands below the root",
    ),
    "real": (_plain, "a folder name", "folders of real images"),
    "fake": (_plain, "a folder name", "folders of fake images"),
    "resize": (_or_null(_whole(1, LONGEST_SIDE)), SIDE, "length of the resize; null: stored size"),
    "resize_rule": (
        lambda value: isinstance(value, str) and resize_rule(value) in RESIZES,
        f"one of {', '.join(RESIZES)}",
        "what has this length: both sides (the default), or the shorter side",
    ),
    "crop": (_or_null(_whole(1, LONGEST_SIDE)), SIDE, "side of the central crop; null: none"),
    "even": (lambda value: isinstance(value, bool), "true or false", "drop odd rows and columns"),
    "interpolation": (_one_of(INTERPOLATIONS), f"one of {', '.join(INTERPOLATIONS)}", "resize filter"),
    "average": (_one_of(AVERAGES), f"one of {', '.join(AVERAGES)}", "mean over generators, or over images"),
    "split": (_text, "text", "which published split this is"),
    "seed": (_or_null(_whole(0, 2**32 - 1)), "a whole number, or null", "seed of the published training"),
    "source": (_text, "text", "where it was published"),
    "url": (_text, "text", "its page"),
}
GENERATOR_KEYS = {
    "name": (_text, "text", "its row in the table"),
    "folders": (_list_of(_folder), NAMES, "the folder names under which it is known"),
    "family": (_text, "text", "gan, diffusion, ..."),
    "nested": (lambda value: isinstance(value, bool), "true or false", "classes stand above the labels"),
    "images": (_pair_of_counts, "a list of two whole numbers", "published number of real and fake images"),
    "images_within": (_whole(0, 10**9), "a whole number", "rounding of these numbers"),
}


def _row(row):
    _check(row, KEYS, ("slug", "generators"), "a protocol")
    if ("real" in row) != ("fake" in row) or ("real" in row and row["real"].lower() == row["fake"].lower()):
        raise UserError(f"real and fake must name two folders, got {row.get('real')} and {row.get('fake')}")
    if LABELS.get(row.get("real", "").lower()) == 1 or LABELS.get(row.get("fake", "").lower()) == 0:
        raise UserError(
            f"real: {row['real']} and fake: {row['fake']} reverse what these names mean everywhere"
        )
    generators = tuple(_generator(entry) for entry in row["generators"])
    _require_distinct(generators)
    places = row.get("places", ["{generator}"])
    if len(generators) > 1 and not all("{generator}" in place for place in places):
        raise UserError(f"places need {{generator}} to tell {len(generators)} generators apart, got {places}")
    geometry = Geometry(
        row.get("resize"),
        row.get("crop"),
        row.get("interpolation", "bilinear"),
        row.get("even", False),
        resize_rule(row.get("resize_rule", "square")),
    )
    rest = {key: row[key] for key in ("slug", "url", "average", "split", "seed") if key in row}
    if "real" in row:
        rest["labels"] = (row["real"], row["fake"])
    return Protocol(
        generators=generators,
        geometry=geometry,
        places=tuple(places),
        roots=tuple(row.get("roots", ())),
        source=row.get("source", "user's protocol file"),
        **rest,
    )


def _generator(entry):
    if _folder(entry):
        return Generator(entry)
    if not isinstance(entry, dict):
        raise UserError(f"a generator is a folder name or a mapping with name, got {entry!r}")
    _check(entry, GENERATOR_KEYS, ("name",), f"generator {entry.get('name')}")
    lists = {key: tuple(entry[key]) for key in ("folders", "images") if key in entry}
    if not lists.get("folders") and not _folder(entry["name"]):
        raise UserError(f"generator {entry['name']} needs folders, since its name is no folder name")
    return Generator(**{**entry, **lists})


def _require_distinct(generators):
    for words in ([one.name for one in generators], [name for one in generators for name in one.aliases]):
        lower = [word.lower() for word in words]
        twice = sorted({word for word in lower if lower.count(word) > 1})
        if twice:
            raise UserError(f"generators must differ in name and folders; twice: {', '.join(twice)}")


def _check(row, keys, needed, what):
    unknown = [str(key) for key in row if key not in keys]
    if unknown:
        raise UserError(f"{what} has no key {', '.join(unknown)}; legal: {', '.join(keys)}")
    missing = [key for key in needed if key not in row]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}; legal keys: {', '.join(keys)}")
    for key, value in row.items():
        accept, expected, _ = keys[key]
        if not accept(value):
            raise UserError(f"{key} of {what} must be {expected}, got {value!r}")
