"""What every room needs, importing none: errors for the user, command lines, whole files, locks."""

import argparse
import csv
import difflib
import errno
import hashlib
import importlib
import json
import os
import platform
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where folders are not locked
    fcntl = None


class UserError(ValueError):
    """An error whose text is for the user: scripts print it as one line; others keep their traceback."""


class BadImage(UserError):
    """A file that cannot become a picture; the message is the reason, without the path."""


class CheckpointError(UserError):
    """A weight file that cannot be used."""


def require_package(name, purpose, module=None):
    """An optional package, imported (as `module`); UserError, with how to install it, where it is missing."""
    try:
        return importlib.import_module(module or name)
    except ImportError:
        raise UserError(f"{purpose} needs the package {name}: pip install {name}") from None


UNKNOWN = "unrecognized arguments: "  # how argparse's message for words that are not flags begins
MISSING = "the following arguments are required: "  # it comes first, and names no misspelt flag


class Parser(argparse.ArgumentParser):
    """The parser of every script and tool: no abbreviations, close matches for a misspelt flag."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": HelpFormatter, **kwargs})

    def parse_known_args(self, args=None, namespace=None):
        self.words = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message):
        flags = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                flags += [
                    flag for parser in action.choices.values() for flag in parser._option_string_actions
                ]
        words = self.words if message.startswith((UNKNOWN, MISSING)) else ()
        unknown = sorted({word.partition("=")[0] for word in words if word.startswith("-")} - {*flags})
        matches = [match for flag in unknown for match in difflib.get_close_matches(flag, flags, n=2)]
        super().error(
            message + (f" (did you mean {' or '.join(dict.fromkeys(matches))}?)" if matches else "")
        )


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the default after a flag's help, unless there is none or the help says it."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=30, width=110)

    def _get_help_string(self, action):
        if action.nargs == 0:  # a switch
            return action.help + (" [on by default]" if action.default == action.const else "")
        if action.default in (None, (), argparse.SUPPRESS) or "default: " in action.help:
            return action.help
        return f"{action.help} [default: {as_typed(action.default)}]"

    def _get_default_metavar_for_optional(self, action):
        return getattr(action.type, "metavar", METAVARS.get(action.type, "TEXT"))


def as_typed(value):
    """An option's value as it would be typed: tuples become comma lists."""
    return ",".join(str(part) for part in value) if isinstance(value, tuple) else value


def number(convert, accept, expected):
    """Type of a flag that takes one int or float (convert); `expected` completes "expected ..."."""

    def parse(text):
        with suppress(ValueError):
            value = convert(text)
            if accept(value):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    parse.metavar = "N" if convert is int else "X"
    return parse


def whole_number(least, most):
    """Type of a whole number from `least` to `most`."""
    return number(int, lambda value: least <= value <= most, f"a whole number from {least} to {most}")


positive_int = number(int, lambda value: value > 0, "a whole number above 0")
non_negative_int = number(int, lambda value: value >= 0, "a whole number, 0 or above")
positive_float = number(float, lambda value: 0 < value < float("inf"), "a number above 0")
non_negative_float = number(float, lambda value: 0 <= value < float("inf"), "a number, 0 or above")
probability = number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
fraction = number(float, lambda value: 0 < value < 1, "a number between 0 and 1, both excluded")


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

    parse.metavar = "A,B"
    return parse


def number_range(convert, lowest, highest):
    """Type of 'VALUE' or 'LOW,HIGH' within [lowest, highest]: a tuple of one or two numbers."""
    words = f"a value, or LOW,HIGH, from {lowest} to {highest}"
    part = number(convert, lambda value: lowest <= value <= highest, words)

    def parse(text):
        parts = tuple(part(word) for word in text.split(","))
        if len(parts) > 2 or parts[0] > parts[-1]:
            raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}")
        return parts

    parse.metavar = "LOW,HIGH"
    return parse


def torch_device(text):
    """'auto', or a device of torch such as cpu or cuda:1, whether this machine has it or not."""
    import torch  # takes seconds, and not every tool needs it

    try:
        return text if text == "auto" else str(torch.device(text))
    except RuntimeError:
        expected = "expected auto, or a device of torch such as cpu, mps, cuda or cuda:1"
        raise argparse.ArgumentTypeError(f"{expected}; got {text!r}") from None


def file_path(text):
    """A path as typed, with ~ expanded."""
    return str(Path(text).expanduser())


def folder_to_write(text):
    """Type of the Path of a folder that need not exist, with ~ expanded; refuses a file."""
    path = Path(text).expanduser()
    for folder in (path, *path.parents):
        if folder.is_file():
            raise argparse.ArgumentTypeError(f"{folder} is a file, not a folder")
    return path


# What help shows for a value of these types; other types here carry their own.
METAVARS = {names_list: "A,B", torch_device: "NAME"}
METAVARS |= dict.fromkeys((file_path, folder_to_write, Path), "PATH")


def sha256(path):
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path, binary=False):
    """A file to write to, which gets its name when complete and on the disk.  OSError names the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    text = {} if binary else {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with open(part, "wb" if binary else "w", **text) as file:
            yield file  # the names of image files need not be UTF-8
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # it names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path, content):
    """Writes JSON, complete or not at all."""
    with written_whole(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_table(path, columns):
    """Rows of a CSV as dicts, also as a spreadsheet saves it: with semicolons, tabs, a byte order mark.

    A cell that a short row lacks is None.  UserError for a missing column.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        heading = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=heading.count))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: expected the columns {', '.join(columns)}; no {', '.join(missing)}")
        try:
            return list(reader)
        except csv.Error as error:  # a cell without an end
            raise UserError(f"{path} is damaged (line {reader.line_num}: {error})") from None


LOCK = ".lock"  # name of the hidden file in an owned folder
_locks = set()  # file descriptors of the locks that this process holds


@contextmanager
def owned(path, file=False):
    """Keeps other processes out of a folder, or with file=True of one file; UserError names an owner.

    The lock is a hidden file, and ends with its process.  Without file locks (Windows, some network file
    systems) nothing is locked.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}{LOCK}") if file else path / LOCK
    made = not lock.parent.exists()
    descriptor = _lock(path, lock) if fcntl else None
    try:
        yield
    finally:
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            _locks.discard(descriptor)
            os.close(descriptor)
        if made:
            with suppress(OSError):  # a folder that stayed empty goes as well
                lock.parent.rmdir()


def _lock(path, lock):
    """A descriptor that holds the lock; None on a file system without locks."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise UserError(f"{path} is in use by {owner}; wait for its end, or stop it") from None
        except OSError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):  # its last owner has removed it: once more
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                _locks.add(descriptor)
                with suppress(OSError):  # a full disk leaves the lock without a name
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
                return descriptor
        os.close(descriptor)


def held_locks():
    """File descriptors of this process's locks, for pass_fds of a subprocess that is to hold them as well."""
    return tuple(_locks)


def _close_locks():  # a forked loader process would keep its parent's locks after the parent's end
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


if fcntl:
    os.register_at_fork(after_in_child=_close_locks)
