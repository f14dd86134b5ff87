"""Download the public test sets, training sets and weights: fetch, unpack, verify.

    python -m data.download                                 # the five test sets of NPR, into datasets
    python -m data.download AIGCDetectBenchmark --output D  # one set, into another folder
    python -m data.download weights NPR SAM                 # weight files, into this folder
    python -m data.download parquet FILE... --output D      # images of Parquet files (data/parquet.py)
    python -m data.download manifest FILE --output D        # images that a CSV names (data/manifest.py)
    python -m data.download --list                          # all names

What is complete already stays, an interrupted download resumes.  Archives are kept in
<output>/archives/<target>, unless --delete_archives is given.  Put what a browser downloaded there as well:
the next run unpacks it, with --no_fetch without asking any server.  Exit status: 0 everything is there,
1 something failed or is left to do by hand, 2 an unknown name or option, 130 Ctrl-C.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import base64
import filecmp
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from functools import partial
from shlex import quote

import gdown
import requests
from tqdm import tqdm

from common import Parser, UserError, file_path, owned, sha256, write_json
from data import manifest, parquet
from data.folder import LABELS
from data.protocols import PROTOCOLS
from data.sources import ARCHIVES, DEFAULT, RETRIES, SOURCES, TIMEOUT, WEIGHTS
from util.run import Interrupted, guard

ROOT = Path(__file__).resolve().parent.parent
THERE, FETCHED, MANUAL, FAILED = "already there", "done", "by hand", "failed"

# ----- downloads -----

MARGIN = 64 * 2**20  # bytes of disk that stay free
human = partial(tqdm.format_sizeof, suffix="B")  # bytes for people: 17.4MB


def free_bytes(folder):
    """Free disk at `folder`, which need not exist yet."""
    folder = folder.resolve()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def require_space(folder, needed):
    """Raises UserError unless `needed` bytes fit at `folder`, with a margin."""
    free = free_bytes(folder)
    if needed > 0 and needed + MARGIN > free:
        raise UserError(f"{folder} needs {human(needed + MARGIN)} of free disk, has {human(free)}")


def require_published(path, source):
    """Raises UserError for a file of another size or sha256 than the published one, where they are known."""
    facts = {"bytes": path.stat().st_size, "sha256": sha256(path) if source.sha256 else None}
    for name, value in facts.items():
        expected = getattr(source, name)
        if expected not in (None, value):
            what = f"{path} is not the published file ({name} {value}, expected {expected})"
            raise UserError(f"{what}: move it away and run this again")


def fetch(source, target):
    """Downloads a source to `target`: a file, or a folder for a Drive folder.  UserError, OSError (disk).

    gdown does it, for other servers as well: it tries again, resumes what an earlier run left in
    <target>*.part, and gives a file its name when all of it has arrived.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived = sum(path.stat().st_size for path in target.parent.glob(f"{target.name}*.part"))
    require_space(target.parent, (source.bytes or 0) - arrived)
    download = gdown.download_folder if source.kind == "gdrive_folder" else gdown.download
    where = {"url" if source.kind == "http" else "id": source.where}
    try:
        download(**where, output=str(target), resume=True, timeout=TIMEOUT, retries=RETRIES)
    except Exception as error:  # gdown raises whatever its libraries raise
        by_hand = f"run this again to resume, or download it by hand: {source.page} into {target}"
        raise UserError(f"{one_line(error)}; {by_hand}") from error


def one_line(error):
    """An exception of a library in one line."""
    cause = error.__cause__ or error
    if isinstance(cause, (requests.ConnectionError, requests.Timeout)):
        return f"no connection ({type(cause).__name__})"
    return " ".join(str(error).split()) or type(error).__name__


# ----- archives -----

ARCHIVE = re.compile(r"\.(zip|7z|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
PIECE = re.compile(r"\.\d{2,3}$")  # name.zip.001, name.tar.gz.00
SPLIT_ZIP = re.compile(r"\.z\d\d+$", re.IGNORECASE)  # name.z01, name.z02, ..., name.zip
UNSAFE_NAME = re.compile(r"^/|^[A-Za-z]:|\\|\0|(^|/)\.\.(/|$)|^$")
MAC_JUNK = re.compile(r"^(\./)?__MACOSX/|(^|/)\.DS_Store$")
# Names of generators and labels: a folder of such a name is not just a wrapper around the content.
KNOWN = {
    name.lower()
    for row in PROTOCOLS.values()
    for generator in (*row.generators, *row.training)
    for name in generator.aliases
} | set(LABELS)


def whole_name(path):
    """The name of the archive that a file is, or is a part of."""
    return PIECE.sub("", SPLIT_ZIP.sub(".zip", path.name))


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def find_archives(folder):
    """{path below `folder`: its first file} of every archive there."""
    archives = {}
    for path in _files(folder):
        if ARCHIVE.search(whole_name(path)):
            archives.setdefault(path.with_name(whole_name(path)), path)
    return {path.relative_to(folder).as_posix(): path for path in archives.values()}


def extract(archive, target, strip=False):
    """Unpacks an archive into `target`, all of it or nothing; returns {path below target: bytes}.

    The files are checked in a hidden folder next to the target first.  Equal files that are there already
    stay.  strip: a single folder around everything is dropped, unless it is named as a generator or a label.
    An archive with only label folders at its top goes into a folder of the archive's name.
    UserError: unreadable, unsafe, in pieces, or another file is there.
    """
    target = target.resolve()
    staging = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        content = staging / ARCHIVE.sub("", archive.name)
        require_one_file(archive, target)
        fill(content, archive, target)
        top, sizes = find_top(content, strip), {}
        for path in top.rglob("*"):
            there = target / path.relative_to(top)
            same = there.is_dir()
            if path.is_file():
                sizes[path.relative_to(top).as_posix()] = path.stat().st_size
                same = there.is_file() and filecmp.cmp(path, there, shallow=False)
            if os.path.lexists(there) and not same:
                raise UserError(f"{there} is there already with other content; move it away first")
        shutil.copytree(top, target, copy_function=shutil.move, dirs_exist_ok=True)
        return sizes
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_one_file(archive, target):
    """Raises UserError, with the command to type, for the first file of an archive in several files."""
    whole = archive.with_name(whole_name(archive))
    if archive != whole and whole.suffix.lower() in (".zip", ".7z"):
        start = whole if SPLIT_ZIP.search(archive.name) else archive
        raise UserError(f"one of several files; {seven_zip(start, target)}")
    if archive != whole:
        joined = quote(str(whole))
        raise UserError(f"a piece of a tar; type: cat {joined}.* > {joined} , then run this again")


def seven_zip(archive, target):
    """What the user types when Python cannot read an archive."""
    command = f"7z x {quote(str(archive))} -o{quote(str(target))}"
    return f"type: {command} , move the archive out of {archive.parent}, run this again with --no_fetch"


def fill(folder, archive, target):
    """Writes an archive's files below `folder`."""
    try:
        is_tar = tarfile.is_tarfile(archive)
        with tarfile.open(archive) if is_tar else zipfile.ZipFile(archive) as reader:
            members = list(tar_members(reader) if is_tar else zip_members(reader))
            for _, name, _, is_plain in members:
                if not is_plain or UNSAFE_NAME.search(name):
                    raise UserError(f"nothing was unpacked: {name!r} is a link, a device or an unsafe path")
            members = [member for member in members if not MAC_JUNK.search(member[1])]
            require_space(target, sum(size for _, _, size, _ in members))
            reader.extractall(folder, [entry for entry, *_ in members])
    except UserError:
        raise
    except Exception as error:  # the readers raise whatever they meet in a damaged file
        if getattr(error, "errno", None):  # of the system, such as a full disk
            raise
        remedy = f"remove it and run this again, or {seven_zip(archive, target)}"
        raise UserError(f"damaged, or unreadable for Python: {one_line(error)}; {remedy}") from error
    if not members:
        raise UserError("holds no files")
    if len(_files(folder)) != len(members):
        raise UserError(f"some of its {len(members)} files have the same name or are broken links")


def zip_members(reader):
    """(entry, name, bytes, whether it is a plain file) of all but the folders."""
    for info in reader.infolist():
        if not info.is_dir():
            is_plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            yield info, info.orig_filename, info.file_size, is_plain


def tar_members(reader):
    """The same of a tar, which is read to its end."""
    reader.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
    for info in reader.getmembers():
        if not info.isdir():
            is_plain = info.isreg() or (info.islnk() and not UNSAFE_NAME.search(info.linkname))
            yield info, info.name, info.size, is_plain
    # tarfile takes a damaged header for the end, and leaves the checksum of a compressed tar unread.
    reader.fileobj.seek(reader.offset)
    if reader.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark where one is expected")
    reader.fileobj.read()


def find_top(content, strip):
    """The folder whose entries move into the target."""
    entries = list(content.iterdir())
    if {path.name for path in entries} <= set(LABELS):
        return content.parent
    wrapped = len(entries) == 1 and entries[0].is_dir() and entries[0].name.lower() not in KNOWN
    return entries[0] if strip and wrapped else content


# ----- the record of what was unpacked -----

# In a target folder: the archives unpacked into it, each with the sizes of its files {path below the target:
# bytes}, packed, as there may be a million.
RECORD = "download.json"


def read_record(target):
    """(whether all archives are unpacked, {archive's name: its entry}) of earlier runs."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        return bool(record["complete"]), {entry["name"]: entry for entry in record["archives"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False, {}


def is_whole(target, entry):
    """Whether all files of a recorded archive are in `target`, with the sizes that they had."""
    sizes = json.loads(zlib.decompress(base64.b64decode(entry["sizes"])))
    try:
        return all(os.stat(target / path).st_size == size for path, size in sizes.items())
    except OSError:
        return False


# ----- sets and weights -----


def provide_set(source, target, folder, may_fetch, delete):
    """Fetches the archives of a set into `folder` and unpacks them into `target`."""
    complete, entries = read_record(target)
    whole = set(filter(lambda name: is_whole(target, entries[name]), entries))
    archives = find_archives(folder)
    unfinished = not complete or entries.keys() - whole - archives.keys()
    if may_fetch and source.name not in archives and unfinished:
        fetch(source, folder / source.name)
        archives = find_archives(folder)
    pending = waiting(archives, entries, whole)
    failures = list(unpack(pending, source, target, entries))
    if lost := ", ".join(sorted(entries.keys() - whole - pending.keys())):
        failures.append(f"files of {lost} are missing or changed in {target}; put {lost} into {folder}")
    if may_fetch and not (entries or archives):
        failures.append(f"{source.page} has no archive; what it has is in {folder}")
    if failures:
        raise UserError("\n".join(failures))
    if not entries:
        return state_by_hand(target)
    finish_set(target, complete and not pending, entries, archives if delete else {})
    return FETCHED if pending else THERE


def state_by_hand(target):
    """Of a set without archives: it is there if its folder holds folders."""
    return THERE if target.is_dir() and any(path.is_dir() for path in target.iterdir()) else MANUAL


def waiting(archives, entries, whole):
    """The archives that are not unpacked; a new one may have the name of one that is."""
    return {
        name: archive
        for name, archive in archives.items()
        if name not in whole or archive.stat().st_size != entries[name]["parts"][0]["bytes"]
    }


def finish_set(target, recorded, entries, unwanted):
    """Notes that a set is complete, unless that is on record, and removes unwanted archives."""
    if not recorded:
        write_json(target / RECORD, {"complete": True, "archives": list(entries.values())})
    for archive in unwanted.values():
        archive.unlink()


def unpack(pending, source, target, entries):
    """Unpacks {name: archive} and records each in `entries`; yields what failed."""
    for name, archive in pending.items():
        inside = Path(name).parent
        print(f"unpack {archive} -> {target / inside}", flush=True)
        try:
            if name == source.name:
                require_published(archive, source)
            sizes = extract(archive, target / inside, source.strip)
            sizes = json.dumps({(inside / path).as_posix(): size for path, size in sizes.items()})
            packed = base64.b64encode(zlib.compress(sizes.encode())).decode()
            parts = [{"bytes": archive.stat().st_size}]
            entries[name] = {"name": name, "parts": parts, "sizes": packed}
            write_json(target / RECORD, {"complete": False, "archives": list(entries.values())})
        except UserError as error:
            yield str(error) if str(archive) in str(error) else f"{archive}: {error}"


def provide_file(source, target, may_fetch):
    """Fetches a file, or the copy of a Drive folder."""
    file, state = target / source.name, THERE
    if not file.is_file() and not (file.is_dir() and any(file.iterdir())):
        if not may_fetch:
            return MANUAL
        fetch(source, target)
        state = FETCHED
        if not file.is_file():
            raise UserError(f"{source.page} has no {source.name}; what it has is in {target}")
    if file.is_file():
        try:
            require_published(file, source)
        except UserError as error:
            if state is not FETCHED:
                raise
            raise UserError(f"{error}; it is kept as {file.rename(f'{file}.wrong')}, not used") from None
    return state


# ----- the command line -----


def main(argv=None):
    """Downloads and unpacks data sets, or runs a subcommand on files that are there."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["parquet"]:
        print(parquet.extract(words[1:]))
        return
    if words[:1] == ["manifest"]:
        report, missing = manifest.fetch(words[1:])
        print(report)
        sys.exit(1 if missing else 0)
    args = parse(words)
    if args.list:
        for title, table in (("protocols", SOURCES), ("default", DEFAULT), ("weights", WEIGHTS)):
            print(f"{title}: {', '.join(table)}")
        return
    wanted = [(name, source) for name in args.names for source in args.table[name]]
    for name, source in wanted:
        print(describe(name, source, args.output))
    print(f"free disk at {args.output}: {human(free_bytes(args.output))}", flush=True)
    if args.dry_run:
        return
    try:
        is_well = provide_all(wanted, args)
    except KeyboardInterrupt:
        words = "stopped; what has arrived is kept: run the same command again to resume"
        raise Interrupted(words, 130) from None
    sys.exit(0 if is_well else 1)


def provide_all(wanted, args):
    """Provides and checks all sources; returns whether everything is there and well."""
    states = {}
    for name, source in wanted:
        if source not in states:  # protocols share some
            states[source] = provide(name, source, args)
        print(f"{name}: {states[source]}: {args.output / source.target}", flush=True)
    missing = {name for name, source in wanted if states[source] in (MANUAL, FAILED)}
    ready = [name for name in args.names if name in PROTOCOLS and name not in missing]
    return (args.no_verify or verify(ready, args.output)) and not missing


def parse(argv):
    """The options, with `table` and the names as it has them; exits with status 2 for an unknown one."""
    parser = Parser(prog="python -m data.download", description="Download sets and weights.")
    add = parser.add_argument
    names = "protocols [default: NPR's five], or weights NAME ..., parquet FILE ..., manifest FILE"
    add("names", nargs="*", metavar="NAME", help=names)
    add("--output", type=file_path, help="folder to write [default: datasets; for weights this folder]")
    add("--dry_run", action="store_true", help="print the plan only")
    add("--list", action="store_true", help="print all names only")
    add("--delete_archives", action="store_true", help="delete archives once they are unpacked and checked")
    add("--no_fetch", action="store_true", help="only unpack the archives that are there")
    add("--no_verify", action="store_true", help="do not check the sets at the end (tools/verify.py)")
    args = parser.parse_intermixed_args(argv)  # options may come before and after names
    names = args.names or list(DEFAULT)
    is_weights = names[0].lower() == "weights"
    args.output = Path(args.output or ("." if is_weights else "datasets"))
    args.table, names = (WEIGHTS, names[1:]) if is_weights else (SOURCES, names)
    known = {name.lower(): name for name in args.table}
    unknown = ", ".join(name for name in names if name.lower() not in known)
    if unknown or not names:
        problem = f"unknown name {unknown}" if unknown else "weights needs a name"
        parser.error(f"{problem}; known: {', '.join(args.table)}")
    args.names = list(dict.fromkeys(known[name.lower()] for name in names))
    return args


def describe(name, source, output):
    """A source of the plan, and what is to be done by hand."""
    size = human(source.bytes) if source.bytes else "size unknown, so free disk is not checked beforehand"
    target = output / source.target
    lines = [f"{name}: {source.page} ({size}) -> {target}"]
    if source.kind == "manual":
        archives = f", or its archives into {output / ARCHIVES / source.target}" if source.unpack else ""
        lines.append(f"by hand: put it into {target}{archives}, then run this again")
    lines += [f"note: {source.note}"] if source.note else []
    lines += [f"licence: {source.licence} (the MIT licence here is for code only)"] if source.licence else []
    return "\n    ".join(lines)


def provide(name, source, args):
    """Fetches and unpacks a source; returns THERE, FETCHED, MANUAL or FAILED."""
    target, may_fetch = args.output / source.target, source.kind != "manual" and not args.no_fetch
    try:
        with owned(target, file=True):
            if source.unpack:
                archives = args.output / ARCHIVES / source.target
                return provide_set(source, target, archives, may_fetch, args.delete_archives)
            return provide_file(source, target, may_fetch)
    except (UserError, OSError) as error:
        print(f"error: {name}: {error}", file=sys.stderr)
        return FAILED


def verify(names, output):
    """Runs tools.verify over the sets, once per folder of sets; returns whether everything is well.

    As a separate program: data/ may not import tools/ (tests/test_layout.py).
    """
    roots = {}
    for name in names:
        roots.setdefault((output / SOURCES[name][0].target).parent.resolve(), []).append(name)
    statuses = []
    for root, own in roots.items():
        print(f"verify {', '.join(own)} in {root}", flush=True)
        command = [sys.executable, "-m", "tools.verify", "--dataroot", str(root), "--protocols", *own]
        statuses.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
    return not any(statuses)


if __name__ == "__main__":
    guard(main)
