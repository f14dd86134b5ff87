"""Is what a folder or a file holds the same thing as what is asked for?  Only the same is resumed."""

import hashlib
import json
import os
import re

from common import UserError


def require_same(stored, wanted, where, ways):
    """Raises UserError unless `stored` agrees with every entry of `wanted`; what else it holds is free.

    where: the folder or file, the subject of the message.  ways: what the user can do about it.
    """
    if changes := differences(stored, wanted):
        raise UserError(f"{where} was made with other settings ({'; '.join(changes)}); {ways}")


def differences(stored, wanted):
    """["key: there X, now Y"] of every entry of `wanted` that `stored` does not have in this way."""
    stored, wanted = json.loads(json.dumps([stored, wanted]))  # tuples become lists
    changes = []
    for key, value in wanted.items():
        known = stored.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            inner = {name: None for name in known if name not in value}
            changes += [f"{key}.{change}" for change in differences(known, {**value, **inner})]
        elif known != value:
            changes.append(f"{key}: there {shown(known)}, now {shown(value)}")
    return changes


def shown(value):
    """A value in a message: words of a list next to each other, "nothing" for None, the start of a hash."""
    if isinstance(value, list):
        return " ".join(map(shown, value)) or "nothing"
    text = "nothing" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def read_side_file(path, remedy, keys=(), many=False):
    """A small JSON file: an object with these keys, or with `many` a list of such; else UserError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except ValueError as error:
        reason = error if path.stat().st_size else "it is empty"
        raise UserError(f"{path} is damaged ({reason}); {remedy}") from None
    records = content if many else [content]
    if not isinstance(records, list) or not all(isinstance(entry, dict) for entry in records):
        expected = "a list of objects" if many else "an object"
        raise UserError(f"{path} is damaged (expected {expected}); {remedy}")
    missing = [key for key in keys if not all(key in entry for entry in records)]
    if missing:
        raise UserError(f"{path} is damaged (it has no {', '.join(missing)}); {remedy}")
    return content


def file_list_sha256(samples):
    """Pins down which files there are, in which order, under which generator and label."""
    files = "\n".join(f"{sample.path}\t{sample.generator}\t{sample.label}" for sample in samples)
    return hashlib.sha256(os.fsencode(files)).hexdigest()
