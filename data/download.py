"""Download the public test sets, training sets and weights: fetch, join, unpack, verify.

    python -m data.download                                 # upstream's five test sets, into datasets
    python -m data.download AIGCDetectBenchmark --output D  # one of them, elsewhere
    python -m data.download weights NPR SAM                 # weight files, into this folder
    python -m data.download --list                          # all names

What is complete already stays; what was cut off goes on where it stopped.  Archives lie in
<output>/archives/<target> and stay there without --delete_archives.  What a browser fetched goes there as
well: the next run unpacks it, with --no_fetch without asking any server.  Exit status: 0 all is there,
1 something failed or is left to do by hand, 2 an unknown name or option, 130 Ctrl-C.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

from common import UserError
from data.archives import ArchiveError, extract, find_archives, find_parts
from data.fetch import FetchError, check_file, digest, fetch_drive, fetch_http, free_bytes, human
from data.folder import LABELS
from data.protocols import PROTOCOLS
from data.sources import ARCHIVES, DEFAULT, SOURCES, TEST_ROOT, WEIGHTS

RECORD = "download.json"  # in a target folder: the archives unpacked into it, their files packed by zlib
ROOT = Path(__file__).resolve().parent.parent
# Names of generators and classes: a folder called so is no wrapper around an archive's content.
KNOWN = {
    name
    for row in PROTOCOLS.values()
    for part in (row.generators, row.training)
    for generator in part
    for name in generator.aliases
}
UNCHECKED = ", so free disk is not checked beforehand"
THERE, FETCHED, MANUAL, FAILED = "already there", "done", "by hand", "failed"


def read_record(target, source):
    """What earlier runs unpacked from this source into `target`; "archives" by their names."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        archives = {archive["name"]: archive for archive in record["archives"]}
        if record["source"] == source.where:
            return {"complete": record["complete"], "archives": archives}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"complete": False, "archives": {}}


def write_record(target, source, new=(), complete=False):
    """Adds archives to the record, so that no reader sees half of it."""
    archives = read_record(target, source)["archives"] | {archive["name"]: archive for archive in new}
    record = {"source": source.where, "complete": complete, "archives": list(archives.values())}
    part = target / f"{RECORD}.{os.getpid()}.part"
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(part, target / RECORD)


def is_whole(target, archive):
    """Whether all files of a recorded archive are in `target`, with the sizes they had."""
    try:
        sizes = json.loads(zlib.decompress(base64.b64decode(archive["sizes"])))
        return all(os.stat(os.path.join(target, path)).st_size == size for path, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return False


def provide(source, output, *, fetch=True, delete=False):
    """Fetches one source and unpacks it; returns THERE, FETCHED or MANUAL.

    FetchError, ArchiveError (both ValueError) or OSError say in one line what went wrong.
    """
    target, folder = output / source.target, output / source.archive_folder
    if not source.unpack:
        return _provide_plain(source, target, fetch)
    record, by_hand = read_record(target, source), source.kind == "manual" or not fetch
    whole = {name: archive for name, archive in record["archives"].items() if is_whole(target, archive)}
    lost = record["archives"].keys() - whole.keys()
    pending = _pending(folder, whole)
    if whole and not lost and not pending and (by_hand or record["complete"]):
        return THERE
    if not by_hand and (not record["complete"] or lost - pending.keys()):
        _fetch(source, folder / source.name)
        pending = _pending(folder, whole)
    _unpack(pending, source, target)
    if gone := ", ".join(sorted(lost - pending.keys())):
        raise FetchError(f"files of {gone} are missing or changed in {target}; put {gone} into {folder}")
    if pending or whole:
        write_record(target, source, complete=True)
        _delete([folder / name for name in (whole | pending)] if delete else [])
        return FETCHED
    if by_hand:
        return THERE if target.is_dir() and any(path.is_dir() for path in target.iterdir()) else MANUAL
    raise FetchError(f"{source.page} holds no archive; what came lies in {folder}")


def _pending(folder, whole):
    """{name: path} of the archives that lie there, without those that `whole` records with the same parts."""
    found = {path.relative_to(folder).as_posix(): path for path in find_archives(folder)}
    return {name: path for name, path in found.items() if not _is_recorded(path, whole.get(name))}


def _is_recorded(archive, record):
    try:
        parts = [(path.name, path.stat().st_size) for path in find_parts(archive)] if record else None
        return bool(record) and parts == [(part["name"], part["bytes"]) for part in record["parts"]]
    except (ArchiveError, KeyError, TypeError):  # extract() says what is wrong with an archive
        return False


def _provide_plain(source, target, fetch):
    """A file, or the copy of a Drive folder."""
    file = target / source.name if source.name else target
    if file.exists():
        reason = "" if file.is_dir() else check_file(file, source.bytes, source.sha256)
        if reason:
            raise FetchError(f"{file} is there but {reason}; move it away to download it")
        if file.is_file() or any(file.iterdir()):
            return THERE
    if source.kind == "manual" or not fetch:
        return MANUAL
    _fetch(source, target)
    reason = check_file(file, source.bytes, source.sha256) if file.is_file() else "is missing"
    if reason:
        raise FetchError(f"{file} {reason}; it came from {source.page}")
    return FETCHED


def _fetch(source, target):
    facts = {"size": source.bytes, "sha256": source.sha256}
    if source.kind == "http":
        fetch_http(source.where, target, **facts)
    elif source.kind == "gdrive":
        fetch_drive(source.where, target, source.page, **facts)
    else:
        fetch_drive(source.where, target, source.page, folder=True)


def _unpack(archives, source, target):
    """Unpacks {name: path}, keeping the folders that the archives lie in; records each as it is done."""
    for name, archive in archives.items():
        place = target / Path(name).parent
        print(f"unpack {archive} -> {place}")
        held = extract(archive, place, strip=source.strip, known=KNOWN, labels=LABELS)
        parts = find_parts(archive)
        sizes = {(Path(name).parent / path).as_posix(): size for path, size in held.sizes.items()}
        done = {
            "name": name,
            "members": held.files,
            "unpacked_bytes": held.bytes,
            "sizes": base64.b64encode(zlib.compress(json.dumps(sizes).encode())).decode(),
            "parts": [{"name": p.name, "bytes": p.stat().st_size, "sha256": digest(p)} for p in parts],
        }
        write_record(target, source, [done])


def _delete(archives):
    for part in [part for first in archives if first.exists() for part in find_parts(first)]:
        part.unlink()


def describe(name, source, output):
    """A line of the plan, and what is to be done by hand."""
    size = human(source.bytes) + (UNCHECKED if source.bytes is None else "")
    line = f"{name}: {source.page} ({size}) -> {output / source.target}"
    if source.kind == "manual":
        drop = f" (archives: into {output / source.archive_folder}, then run this again)"
        line += f"\n    by hand: put it into {output / source.target}{drop if source.unpack else ''}"
    return line + (f"\n    note: {source.note}" if source.note else "")


def print_list():
    """All names with their targets."""
    print("protocols:")
    for name, sources in SOURCES.items():
        targets = ", ".join(dict.fromkeys(source.target for source in sources))
        print(f"  {name}: {sources[0].kind}, {targets}{' [default]' if name in DEFAULT else ''}")
    print("weights:")
    for name, weights in WEIGHTS.items():
        source = weights.source
        print(f"  {name}: {source.kind}, {human(source.bytes)}, {source.target}; licence: {weights.licence}")


def pick(names, table, what):
    """The table's own spelling of names in any case; ValueError lists the known ones."""
    known = {name.lower(): name for name in table}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise UserError(f"unknown {what} {', '.join(unknown)}; known: {', '.join(table)}")
    return list(dict.fromkeys(known[name.lower()] for name in names))


def provide_all(wanted, args):
    """Provides [(name, source)], each once; a failure leaves the others their turn.  {source: state}."""
    states = {}
    for name, source in wanted:
        if source in states:
            continue
        print(f"{name}: {source.target}")
        try:
            states[source] = provide(
                source, args.output, fetch=not args.no_fetch, delete=args.delete_archives
            )
        except (UserError, OSError) as error:
            states[source] = FAILED
            print(f"error: {name}: {_words(error)}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\nstopped; what has come is kept: the same command goes on", file=sys.stderr)
            sys.exit(130)
    return states


def _words(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


def verify(protocols, output):
    """Runs tools.verify over the sets, once per root; returns whether all is well.

    As a separate program: data/ may not import tools/ (tests/test_layout.py).
    """
    roots = {}
    for name in protocols:
        inside = SOURCES[name][0].target.startswith(f"{TEST_ROOT}/")
        roots.setdefault(output / TEST_ROOT if inside else output, []).append(name)
    statuses = []
    for root, names in roots.items():
        print(f"verify {', '.join(names)} in {root}", flush=True)
        command = [sys.executable, "-m", "tools.verify", "--dataroot", str(root.resolve()), "--protocols"]
        statuses.append(subprocess.run([*command, *names], cwd=ROOT, check=False).returncode)
    return not any(statuses)


def run(args):
    """Prints the plan, carries it out and prints a summary; returns the exit status."""
    weights = args.names[0].lower() == "weights"
    if weights:
        names = pick(args.names[1:], WEIGHTS, "weights")
        wanted = [(name, WEIGHTS[name].source) for name in names]
    else:
        names = pick(args.names, SOURCES, "protocol")
        wanted = [(name, source) for name in names for source in SOURCES[name]]
    if not wanted:
        raise UserError(f"weights needs a name; known: {', '.join(WEIGHTS)}")
    for name, source in wanted:
        print(describe(name, source, args.output))
        if weights:
            print(f"    licence: {WEIGHTS[name].licence} (this project's MIT licence is for its code only)")
    print(f"free disk at {args.output}: {human(free_bytes(args.output))}", flush=True)
    if args.dry_run:
        return 0
    states = provide_all(wanted, args)
    print("summary:")
    for name, source in wanted:
        print(f"  {name}: {states[source]}: {args.output / source.target}")
    if FAILED in states.values() and not weights:
        print(f"what a browser fetched goes into {args.output / ARCHIVES}/<target>; --no_fetch unpacks it")
    whole = [name for name in names if all(states[s] in (THERE, FETCHED) for n, s in wanted if n == name)]
    ready = [] if weights or args.no_verify else [name for name in whole if name in PROTOCOLS]
    fine = verify(ready, args.output) if ready else True
    return 0 if fine and len(whole) == len(names) else 1


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data.download", allow_abbrev=False, description="Download sets and weights."
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="protocols [default: upstream's five], or weights NAME ...")
    add("--output", type=Path, help="folder to write [default: datasets; for weights this folder]")
    add("--dry_run", action="store_true", help="print the plan only")
    add("--list", action="store_true", help="print all names only")
    add("--delete_archives", action="store_true", help="delete archives once they are unpacked and checked")
    add("--no_fetch", action="store_true", help="only unpack the archives that lie there")
    add("--no_verify", action="store_true", help="do not check the sets at the end (tools/verify.py)")
    args = parser.parse_intermixed_args(argv)  # options may stand before and after names
    if args.list:
        print_list()
        return
    args.names = args.names or list(DEFAULT)
    args.output = args.output or Path("." if args.names[0].lower() == "weights" else "datasets")
    try:
        status = run(args)
    except (UserError, OSError) as error:
        print(f"error: {_words(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
