"""Download the public test sets, training sets and weights: fetch, unpack, verify.

    python -m data.download                                 # the five test sets of NPR, into datasets
    python -m data.download AIGCDetectBenchmark --output D  # one set, into another folder
    python -m data.download weights NPR SAM                 # weight files, into this folder
    python -m data.download --list                          # all names

What is complete already stays, an interrupted download resumes.  Archives are kept in
<output>/archives/<target>, unless --delete_archives is given.  Put what a browser downloaded there as well:
the next run unpacks it, with --no_fetch without asking any server.  Exit status: 0 everything is there,
1 something failed or is left to do by hand, 2 an unknown name or option, 130 Ctrl-C.
"""

import base64
import filecmp
import inspect
import json
import lzma
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from itertools import chain
from pathlib import Path
from shlex import quote

import requests
from tqdm import tqdm

from common import Parser, UserError, file_path, owned, sha256, write_json
from data.folder import LABELS
from data.protocols import PROTOCOLS
from data.sources import ARCHIVES, DEFAULT, SOURCES, TEST_ROOT, WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
THERE, FETCHED, MANUAL, FAILED = "already there", "done", "by hand", "failed"

# ----- files -----

MARGIN = 64 * 2**20  # bytes of disk that stay free
CHUNK = 2**16
PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def size_of(path):
    """Bytes of a file, 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def read_start(path, count):
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(count)


def human(count):
    """Bytes for people: 17.4MB."""
    return "size unknown" if count is None else tqdm.format_sizeof(count, "B")


def free_bytes(folder):
    """Free disk at `folder`, which need not exist yet."""
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder, needed):
    """Raises UserError unless `needed` bytes fit at `folder`, with a margin."""
    free = free_bytes(folder)
    if needed > 0 and needed + MARGIN > free:
        raise UserError(f"{folder} needs {human(needed + MARGIN)} of free disk, has {human(free)}")


def difference(path, size=None, digest=None):
    """Why a file is not the published one; "" when it is, or nothing is known about it."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"has {actual} bytes, expected {size}"
    actual = sha256(path) if digest else None
    return "" if actual == digest else f"has sha256 {actual}, expected {digest}"


def require_published(path, source):
    """Raises UserError for a file that is there, but not as published."""
    if reason := difference(path, source.bytes, source.sha256):
        raise UserError(f"{path} is there but {reason}; move it away to download it")


def accept(path, target, size=None, digest=None):
    """Gives a finished download its name; a web page or a wrong file is kept as <target>.wrong: UserError."""
    start = read_start(path, 200).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    reason = difference(path, size, digest)
    if not start or start.startswith(PAGE_STARTS):
        reason = "is a web page or empty, not the file (a quota or a login; try later)"
    if reason:
        wrong = Path(f"{target}.wrong")
        os.replace(path, wrong)
        raise UserError(f"{target.name} {reason}; kept as {wrong}, not used")
    os.replace(path, target)


# ----- downloads -----

ATTEMPTS = 4  # in a row that bring no new byte
TIMEOUT = 30  # seconds without an answer
TRY_AGAIN = (408, 416, 425, 429)  # of the 4xx; all 5xx are worth another try.  416: no bytes from there on


def fetch(source, target):
    """Downloads a source to `target`: a file, or a folder for a Drive folder.  UserError, OSError (disk)."""
    if target.is_file():
        return require_published(target, source)
    require_space(target.parent, (source.bytes or 0) - size_of(Path(f"{target}.part")))
    target.parent.mkdir(parents=True, exist_ok=True)
    return fetch_http(source, target) if source.kind == "http" else fetch_drive(source, target)


def fetch_http(source, target, sleep=time.sleep):
    """Downloads to <target>.part, resumes it where possible, and accepts it when size and sha256 fit.

    A .part of an earlier run is resumed only if the sha256 is known, which shows whether it is the same file.
    """
    part, validator, failures, furthest = Path(f"{target}.part"), "", 0, -1
    while source.bytes is None or size_of(part) < source.bytes:
        if not (validator or source.sha256):
            part.unlink(missing_ok=True)
        try:
            with _request(source.where, size_of(part), validator) as answer:
                validator = _validator(answer.headers) if answer.ok else validator
                _receive(answer, source, part)
            break
        except requests.RequestException as error:
            is_offline = isinstance(error, (requests.ConnectionError, requests.Timeout))
            reason = f"no connection ({type(error).__name__})" if is_offline else str(error)
        failures = failures + 1 if size_of(part) <= furthest else 1
        furthest = max(furthest, size_of(part))
        if failures == ATTEMPTS:
            raise UserError(f"{source.where}: {reason}; run the same command again to resume")
        sleep(2.0 ** (failures - 1))
    accept(part, target, source.bytes, source.sha256)


def _request(url, start, validator):
    headers = {"User-Agent": "npr-lab", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    headers |= {"If-Range": validator} if start and validator else {}
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def _validator(headers):
    """What If-Range may name: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _receive(answer, source, part):
    """Writes an answer to the .part.  UserError; RequestException for what may pass."""
    code, headers = answer.status_code, answer.headers
    have = size_of(part) if code == 206 else 0
    if code == 416 or (have and not headers.get("Content-Range", "").startswith(f"bytes {have}-")):
        part.unlink(missing_ok=True)
        raise requests.RequestException("the server has other bytes than requested")
    if 400 <= code < 500 and code not in TRY_AGAIN:
        raise UserError(f"{source.where}: HTTP {code} {answer.reason}")
    answer.raise_for_status()
    if "html" in headers.get("Content-Type", ""):
        raise UserError(f"{source.where}: a web page, not the file (a quota or a login; try later)")
    length = headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    if None not in (source.bytes, total) and total != source.bytes:
        raise UserError(f"{source.where}: the server has {total} bytes, the published file {source.bytes}")
    require_space(part.parent, (total or 0) - have)
    bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True)
    with open(part, "ab" if have else "wb") as file, bar:
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if size_of(part) < (total or 0):
        raise requests.RequestException(f"the connection broke after {size_of(part)} of {total} bytes")


def fetch_drive(source, target):
    """Downloads a Drive file or folder through gdown.  UserError with the way by hand."""
    by_hand = f"by hand: {source.page} into {target}"
    try:
        received = call_gdown(source.where, target, source.kind == "gdrive_folder")
    except Exception as error:  # gdown raises whatever its libraries raise
        raise UserError(f"Google Drive: {_gdown_words(error)}; {by_hand}") from error
    if not received or not target.exists():
        raise UserError(f"Google Drive sent nothing; {by_hand}")
    if target.is_file():
        accept(target, target, source.bytes, source.sha256)
    for path in sorted(target.rglob("*")):
        if path.is_file() and (ARCHIVE.search(whole_name(path)) or path.suffix == ".pth"):
            accept(path, path)


def call_gdown(drive_id, target, folder):
    """The one call of gdown; returns what gdown returns, raises what it raises."""
    import gdown

    download = gdown.download_folder if folder else gdown.download
    known = inspect.signature(download).parameters  # gdown 5 has fewer
    options = {"resume": True, "timeout": TIMEOUT, "retries": ATTEMPTS - 1}
    options = {name: value for name, value in options.items() if name in known}
    return download(id=drive_id, output=str(target), quiet=False, **options)


def _gdown_words(error):
    if any(word in type(error).__name__ for word in ("ConnectionError", "Timeout", "SSLError", "ProxyError")):
        return "no connection to drive.google.com"
    if isinstance(error, ImportError):
        return "the package gdown is missing (pip install gdown)"
    return " ".join(str(error).split())[:200] or type(error).__name__


# ----- archives -----

ARCHIVE = re.compile(r"\.(zip|7z|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
PIECE = re.compile(r"\.\d{2,3}$")  # name.zip.001, name.tar.gz.00
SPLIT_ZIP = re.compile(r"\.z\d\d+$", re.IGNORECASE)  # name.z01, name.z02, ..., name.zip
ZIP_STARTS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08", b"PK00")  # files, none, split, split into one part
# What zipfile, tarfile and the decompressors raise for a damaged file.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(NotImplementedError, EOFError, UnicodeError, OSError),
)
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


def find_archives(folder):
    """{name: its files} of every archive below `folder`; the name is the first file's path below `folder`."""
    archives = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if ARCHIVE.search(whole_name(path)):
            archives.setdefault(path.with_name(whole_name(path)), []).append(path)
    return {files[0].relative_to(folder).as_posix(): files for files in archives.values()}


def extract(archive, target, strip=False):
    """Unpacks an archive into `target`, all of it or nothing; returns {path below target: bytes}.

    The files are written to a hidden folder next to the target and move in when all are there and checked.
    Equal files that are in the target already stay.  strip: a single folder around everything is dropped,
    unless it has the name of a generator or a label.  An archive with only label folders at its top goes into
    a folder of the archive's name.  UserError: damaged, unsafe, for 7-Zip, or another file is there.
    """
    target = target.resolve()
    refuse_by_format(archive, target)
    staging = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        content = staging / ARCHIVE.sub("", archive.name)
        _fill(content, archive)
        top = _top(content, strip)
        _check_target(top, target)
        sizes = {path.relative_to(top).as_posix(): path.stat().st_size for path in _files(top)}
        shutil.copytree(top, target, copy_function=shutil.move, dirs_exist_ok=True)
        return sizes
    except UserError as error:
        raise UserError(f"{archive}: {error}") from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # the disk's or the system's, not the archive's
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, NotImplementedError) or "bomb" in words:
            words += f"; if its checksum is right, {by_hand(archive, target)}"
        raise UserError(f"{archive}: damaged, unsafe or not a zip or tar archive: {words}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_by_format(archive, target):
    """Raises UserError, with the command to type, for 7-Zip archives and archives in several files."""
    whole = archive.with_name(whole_name(archive))
    is_piece = PIECE.search(archive.name)
    if is_piece and whole.suffix.lower() not in (".zip", ".7z"):
        command = f"cat {quote(str(whole))}.* > {quote(str(whole))}"
        raise UserError(f"{archive} is a piece of a tar; type: {command} , then run this again")
    if SPLIT_ZIP.search(archive.name):
        raise UserError(f"{archive} is part of a split zip; {by_hand(whole, target)}")
    if is_piece or read_start(archive, 2) == b"7z":
        raise UserError(f"{archive} is for 7-Zip; {by_hand(archive, target)}")


def by_hand(archive, target):
    """What the user types when Python cannot read an archive."""
    command = f"7z x {quote(str(archive))} -o{quote(str(target))}"
    return f"type: {command} , move the archive out of {archive.parent}, run this again with --no_fetch"


def _fill(folder, archive):
    """Writes an archive's files below `folder`."""
    is_zip = read_start(archive, 4) in ZIP_STARTS  # a tar may end with a zip, so the first bytes decide
    with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as reader:
        members = _zip_members(reader) if is_zip else _tar_members(reader)
        files = [(entry, size) for entry, name, size in members if not MAC_JUNK.search(name)]
        require_space(folder.parent.parent, sum(size for _, size in files))
        filtered = not is_zip and hasattr(tarfile, "data_filter")  # from Python 3.11.4 on
        options = {"filter": "data"} if filtered else {}
        reader.extractall(folder, [entry for entry, _ in files], **options)
    if not files:
        raise UserError("holds no files")
    if len(list(_files(folder))) != len(files):
        raise UserError(f"some of its {len(files)} files have the same name or are broken links")


def _zip_members(reader):
    """[(entry, name, bytes)] of the files.  UserError for an unsafe one."""
    files = [(info, info.orig_filename, info.file_size) for info in reader.infolist() if not info.is_dir()]
    for info, name, _ in files:
        _check_member(name, stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG), info.flag_bits & 1)
    return files


def _tar_members(reader):
    """The same of a tar, which is read to its end first."""
    files = [(info, info.name, info.size) for info in reader.getmembers() if not info.isdir()]
    linkable = {name for info, name, _ in files if info.isreg()}
    for info, name, _ in files:
        _check_member(name, info.isreg() or (info.islnk() and info.linkname in linkable))
    # tarfile takes a damaged header for the end, and leaves the checksum of a compressed tar unread.
    reader.fileobj.seek(reader.offset)
    end = reader.fileobj.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise UserError("cut off or damaged: no end mark where one is expected")
    while reader.fileobj.read(CHUNK):
        pass
    return files


def _check_member(name, is_file, is_encrypted=False):
    reason = "is encrypted" if is_encrypted else "" if is_file else "is a link, device or pipe"
    if reason or UNSAFE_NAME.search(name):
        raise UserError(f"refused, nothing of it was unpacked: {name!r} {reason or 'has an unsafe path'}")


def _files(folder):
    return (path for path in folder.rglob("*") if path.is_file())


def _top(content, strip):
    """The folder whose entries move into the target."""
    entries = list(content.iterdir())
    if {path.name for path in entries} <= set(LABELS):
        return content.parent
    wrapped = len(entries) == 1 and entries[0].is_dir() and entries[0].name.lower() not in KNOWN
    return entries[0] if strip and wrapped else content


def _check_target(top, target):
    """Raises UserError when a file would replace another one."""
    for path in sorted(top.rglob("*")):
        there = target / path.relative_to(top)
        if path.is_dir():
            same = there.is_dir()
        else:
            same = there.is_file() and filecmp.cmp(path, there, shallow=False)
        if os.path.lexists(there) and not same:
            raise UserError(f"{there} is there already with other content; move it away first")


# ----- the record of what was unpacked -----

RECORD = "download.json"  # in a target folder: the archives unpacked into it, with the sizes of their files


def read_record(target):
    """(whether all archives are unpacked, {archive's name: its entry}) of earlier runs."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        return bool(record["complete"]), {entry["name"]: entry for entry in record["archives"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False, {}


def write_record(target, source, entries, complete):
    """Writes what read_record reads."""
    record = {"source": source.where, "complete": complete, "archives": list(entries.values())}
    write_json(target / RECORD, record)


def make_entry(name, files, sizes):
    """The entry of an archive.  sizes: {path below the target: bytes}, packed, as there may be a million."""
    packed = base64.b64encode(zlib.compress(json.dumps(sizes).encode())).decode()
    parts = [{"name": file.name, "bytes": size_of(file)} for file in files]
    return {"name": name, "parts": parts, "sizes": packed}


def is_whole(target, entry):
    """Whether all files of a recorded archive are in `target`, with the sizes that they had."""
    try:
        sizes = json.loads(zlib.decompress(base64.b64decode(entry["sizes"])))
        return all(os.stat(os.path.join(target, path)).st_size == size for path, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return False


def find_pending(folder, whole):
    """{name: its files} of the archives in `folder` that are not recorded as they are now."""
    recorded = {name: sum(part["bytes"] for part in entry.get("parts", ())) for name, entry in whole.items()}
    archives = find_archives(folder)
    return {name: files for name, files in archives.items() if recorded.get(name) != sum(map(size_of, files))}


# ----- sets and weights -----


def provide(source, output, may_fetch=True, delete=False):
    """Fetches a source and unpacks it; returns THERE, FETCHED or MANUAL.  UserError, OSError."""
    target, may_fetch = output / source.target, may_fetch and source.kind != "manual"
    with owned(target, file=True):
        if source.unpack:
            return provide_set(source, target, output / ARCHIVES / source.target, may_fetch, delete)
        return provide_file(source, target, may_fetch)


def provide_set(source, target, folder, may_fetch, delete):
    """Fetches the archives of a set into `folder` and unpacks them into `target`."""
    complete, entries = read_record(target)
    whole = {name: entry for name, entry in entries.items() if is_whole(target, entry)}
    pending = find_pending(folder, whole)
    if may_fetch and (not complete or entries.keys() - whole.keys() - pending.keys()):
        fetch(source, folder / source.name)
        pending = find_pending(folder, whole)
    unpack(pending, source, target, entries)
    if lost := ", ".join(sorted(entries.keys() - whole.keys() - pending.keys())):
        raise UserError(f"files of {lost} are missing or changed in {target}; put {lost} into {folder}")
    if not entries and may_fetch:
        raise UserError(f"{source.page} has no archive; what it has is in {folder}")
    if not entries:
        return THERE if target.is_dir() and any(path.is_dir() for path in target.iterdir()) else MANUAL
    if pending or not complete:
        write_record(target, source, entries, complete=True)
    if delete:
        for path in chain.from_iterable(find_archives(folder).values()):
            path.unlink()
    return FETCHED if pending else THERE


def unpack(pending, source, target, entries):
    """Unpacks {name: its files} and records each in `entries`; UserError names all that failed."""
    failures = []
    for name, files in pending.items():
        folder = Path(name).parent
        print(f"unpack {files[0]} -> {target / folder}", flush=True)
        try:
            sizes = extract(files[0], target / folder, source.strip)
            sizes = {(folder / path).as_posix(): size for path, size in sizes.items()}
            entries[name] = make_entry(name, files, sizes)
            write_record(target, source, entries, complete=False)
        except UserError as error:
            failures.append(str(error))
    if failures:
        raise UserError("\n".join(failures))


def provide_file(source, target, may_fetch):
    """Fetches a file, or the copy of a Drive folder."""
    file = target / source.name
    if file.is_file():
        require_published(file, source)
        return THERE
    if file.is_dir() and any(file.iterdir()):
        return THERE
    if not may_fetch:
        return MANUAL
    fetch(source, target)
    if source.name:
        if not file.is_file():
            raise UserError(f"{source.page} has no {source.name}; what it has is in {target}")
        accept(file, file, source.bytes, source.sha256)
    return FETCHED


# ----- the command line -----


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be printable
        status = run(parse(argv))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while the program ends
        print("\nstopped; what has arrived is kept: run the same command again to resume", file=sys.stderr)
        status = 130
    sys.exit(status)


def parse(argv):
    """The options; exits with status 2 for an unknown one."""
    parser = Parser(prog="python -m data.download", description="Download sets and weights.")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="protocols [default: NPR's five], or weights NAME ...")
    add("--output", type=file_path, help="folder to write [default: datasets; for weights this folder]")
    add("--dry_run", action="store_true", help="print the plan only")
    add("--list", action="store_true", help="print all names only")
    add("--delete_archives", action="store_true", help="delete archives once they are unpacked and checked")
    add("--no_fetch", action="store_true", help="only unpack the archives that are there")
    add("--no_verify", action="store_true", help="do not check the sets at the end (tools/verify.py)")
    args = parser.parse_intermixed_args(argv)  # options may come before and after names
    args.names = args.names or list(DEFAULT)
    args.weights = args.names[0].lower() == "weights"
    args.output = Path(args.output or ("." if args.weights else "datasets"))
    return args


def run(args):
    """Prints the plan, provides every source, verifies the sets; returns the exit status."""
    if args.list:
        return print_list()
    names, sources = choose(args)
    wanted = [(name, source) for name in names for source in sources[name]]
    for name, source in wanted:
        print(describe(name, source, args.output))
    print(f"free disk at {args.output}: {human(free_bytes(args.output))}", flush=True)
    if args.dry_run:
        return 0
    states = provide_all(wanted, args)
    print("summary:")
    for name, source in wanted:
        print(f"  {name}: {states[source]}: {args.output / source.target}")
    if FAILED in states.values() and not args.weights:
        print(f"put what a browser downloaded into {args.output / ARCHIVES}/<target>; --no_fetch unpacks it")
    ready = [name for name in names if all(states[source] in (THERE, FETCHED) for source in sources[name])]
    to_verify = [] if args.weights or args.no_verify else [name for name in ready if name in PROTOCOLS]
    return 0 if verify(to_verify, args.output) and len(ready) == len(names) else 1


def choose(args):
    """(names as the tables spell them, {name: its sources}).  UserError lists the known names."""
    table, names = (WEIGHTS, args.names[1:]) if args.weights else (SOURCES, args.names)
    known = {name.lower(): name for name in table}
    unknown = [name for name in names if name.lower() not in known]
    if unknown or not names:
        what = f"unknown name {', '.join(unknown)}" if unknown else "weights needs a name"
        raise UserError(f"{what}; known: {', '.join(table)}")
    return list(dict.fromkeys(known[name.lower()] for name in names)), table


def print_list():
    """All names with their targets; returns the exit status."""
    for title, table in (("protocols", SOURCES), ("weights", WEIGHTS)):
        print(f"{title}:")
        for name, sources in table.items():
            targets = ", ".join(dict.fromkeys(source.target for source in sources))
            remark = f"; licence: {sources[0].licence}" if sources[0].licence else ""
            print(f"  {name}: {sources[0].kind}, {targets}{' [default]' if name in DEFAULT else ''}{remark}")
    return 0


def describe(name, source, output):
    """A source of the plan, and what is to be done by hand."""
    unchecked = ", so free disk is not checked beforehand" if source.bytes is None else ""
    lines = [f"{name}: {source.page} ({human(source.bytes)}{unchecked}) -> {output / source.target}"]
    if source.kind == "manual":
        archives = f" (archives: into {output / ARCHIVES / source.target}, then run this again)"
        lines += [f"by hand: put it into {output / source.target}{archives if source.unpack else ''}"]
    if source.note:
        lines += [f"note: {source.note}"]
    if source.licence:
        lines += [f"licence: {source.licence} (this project's MIT licence is for its code only)"]
    return "\n    ".join(lines)


def provide_all(wanted, args):
    """Provides [(name, source)], each source once, the others after a failure too.  {source: state}."""
    states = {}
    for name, source in wanted:
        if source in states:
            continue
        print(f"{name}: {source.target}", flush=True)
        try:
            states[source] = provide(source, args.output, not args.no_fetch, args.delete_archives)
        except (UserError, OSError) as error:
            states[source] = FAILED
            print(f"error: {name}: {error}", file=sys.stderr)
    return states


def verify(protocols, output):
    """Runs tools.verify over the sets, once per root; returns whether everything is well.

    As a separate program: data/ may not import tools/ (tests/test_layout.py).
    """
    roots, statuses = {}, []
    for name in protocols:
        inside = SOURCES[name][0].target.startswith(f"{TEST_ROOT}/")
        roots.setdefault(output / TEST_ROOT if inside else output, []).append(name)
    for root, names in roots.items():
        print(f"verify {', '.join(names)} in {root}", flush=True)
        command = [sys.executable, "-m", "tools.verify", "--dataroot", str(root.resolve()), "--protocols"]
        statuses.append(subprocess.run([*command, *names], cwd=ROOT, check=False).returncode)
    return not any(statuses)


if __name__ == "__main__":
    main()
