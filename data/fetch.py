"""Downloads: HTTP(S) with resume, checksums and retries; Google Drive through gdown.

A file grows as <name>.part, with its address, validator and length in <name>.part.json beside it, and gets
its name only when its size and its sha256 fit.  A finished file with another sha256 is kept as <name>.wrong.
"""

import hashlib
import http.client
import inspect
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from common import UserError

MARGIN = 64 * 2**20  # bytes of disk that stay free
CHUNK = 2**18
ATTEMPTS = 4  # in a row without a new byte
TIMEOUT = 30  # seconds without an answer
GONE = 416  # the server has no bytes from that offset on
TRY_AGAIN = (408, 425, 429)  # of the 4xx; all 5xx are worth another try
FILES = re.compile(
    r"\.(zip|tar|tgz|gz|tbz2?|bz2|txz|xz|7z|pth|z\d\d+|\d{2,3})$", re.IGNORECASE
)  # never pages
PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")


class FetchError(UserError):
    """A download that cannot succeed; one line."""


class _Interruption(Exception):
    """A failure that may pass: the download is worth another try."""


def digest(path):
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(folder):
    """Free disk at `folder`, which need not exist yet."""
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def human(count):
    """Bytes for people: 17.4 MB."""
    if count is None:
        return "size unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def check_file(path, size=None, sha256=None):
    """Says why a file is not the published one; "" when it is, or nothing is known about it."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found} bytes, expected {size}"
    found = digest(path) if sha256 else None
    return "" if found == sha256 else f"has sha256 {found}, expected {sha256}"


def refuse_page(path):
    """Raises FetchError for a web page, which Drive and others send where they refuse a file."""
    with open(path, "rb") as file:
        start = file.read(200).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(PAGE_STARTS) or path.stat().st_size == 0:
        raise FetchError(f"{path.name} is a web page or empty, not the file: a quota or a login, try later")


def fetch_http(url, target, *, size=None, sha256=None, sleep=time.sleep, timeout=TIMEOUT):
    """Downloads `url` to `target`; returns whether anything was fetched.  FetchError, OSError (disk).

    Goes on with <target>.part when the server vouches that it is the same file.  Ctrl-C keeps the .part.
    """
    target = Path(target)
    if target.exists():
        reason = check_file(target, size, sha256)
        if reason:
            raise FetchError(f"{target} is there but {reason}; move it away to download it")
        return False
    part = target.with_name(target.name + ".part")
    _require_space(target.parent, None if size is None else size - _reached(part))
    target.parent.mkdir(parents=True, exist_ok=True)
    failures, furthest = 0, -1
    while True:
        try:
            _attempt(url, part, size, sha256, timeout)
            break
        except _Interruption as error:
            reached = _reached(part)
            failures = 1 if reached > furthest else failures + 1
            furthest = max(furthest, reached)
            if failures >= ATTEMPTS:
                raise FetchError(f"{url}: {error}; run the same command again to go on") from error
            sleep(2.0 ** (failures - 1))
    _accept(part, target, size, sha256)
    return True


def _reached(part):
    return part.stat().st_size if part.exists() else 0


def _require_space(folder, needed):
    free = free_bytes(folder)
    if needed is not None and needed + MARGIN > free:
        raise FetchError(f"{folder} needs {human(needed + MARGIN)} free disk, has {human(free)}")


def _accept(part, target, size, sha256):
    try:
        refuse_page(part)
    except FetchError:
        _forget(part)  # a complete .part is not asked for again
        raise
    reason = check_file(part, size, sha256)
    _notes(part).unlink(missing_ok=True)
    if reason:
        wrong = target.with_name(target.name + ".wrong")
        os.replace(part, wrong)
        raise FetchError(f"{target.name} {reason}; kept as {wrong}, not used")
    os.replace(part, target)


def _notes(part):
    return part.with_name(part.name + ".json")


def _attempt(url, part, size, sha256, timeout):
    have, notes = _resumable(url, part, sha256)
    if have and have == notes["total"]:  # a run ended between the last byte and the check
        return
    request = urllib.request.Request(url, headers={"User-Agent": "npr-lab"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if notes["validator"]:
            request.add_header("If-Range", notes["validator"])
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            _receive(answer, url, part, size, have, notes)
    except urllib.error.HTTPError as error:
        if error.code == GONE:
            _forget(part)
            raise _Interruption("the server has other bytes than before") from error
        if error.code >= 500 or error.code in TRY_AGAIN:
            raise _Interruption(f"HTTP {error.code} {error.reason}") from error
        raise FetchError(f"{url}: HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Interruption(f"no connection ({error.reason})") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interruption(f"the connection broke ({str(error) or type(error).__name__})") from error


def _resumable(url, part, sha256):
    """Bytes of .part to go on from, and what is known of it; 0 when a changed file could be glued to it."""
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
        same = notes["url"] == url and (notes["validator"] or sha256)
        have = part.stat().st_size if same and notes["total"] is not None else 0
        return (have, notes) if have <= (notes["total"] or 0) else (0, None)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None


def _forget(part):
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _receive(answer, url, part, size, have, notes):
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise FetchError(f"{url}: the server sent a web page, not the file (a quota or a login); try later")
    length = answer.headers.get("Content-Length")
    if have and answer.status == 206:
        total = _check_range(answer, part, have, notes)
    else:  # the server ignores Range, or has another file by now: from the start
        have, total = 0, int(length) if length and length.isdigit() else None
    if None not in (size, total) and total != size:
        raise FetchError(f"{url}: the server has {total} bytes, the published file {size}: it has changed")
    if not have:
        part.unlink(missing_ok=True)  # before the notes of another version: never the old bytes beside them
    _require_space(part.parent, (total or size or 0) - have)
    known = {"url": url, "validator": _validator(answer.headers), "total": total}
    _notes(part).write_text(json.dumps(known), encoding="utf-8")
    _write(answer, part, have, total)


def _check_range(answer, part, have, notes):
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", "").strip())
    start, _, total = map(int, found.groups()) if found else (None, None, None)
    changed = notes["validator"] and _validator(answer.headers) not in ("", notes["validator"])
    if start != have or total != notes["total"] or changed:
        _forget(part)
        raise _Interruption("the server answered with other bytes than asked for")
    return total


def _validator(headers):
    """What If-Range may name: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _write(answer, part, have, total):
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(desc=part.name[: -len(".part")], total=total, initial=have, unit="B", unit_scale=True) as bar,
    ):
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    written = part.stat().st_size
    if total is not None and written < total:
        raise _Interruption(f"the connection broke after {written} of {total} bytes")
    if total is not None and written > total:
        _forget(part)
        raise _Interruption(f"the server sent {written} bytes for {total}")


def call_gdown(drive_id, target, folder):
    """The one call of gdown; returns what gdown returns, raises what it raises."""
    import gdown

    if not folder:
        return gdown.download(id=drive_id, output=str(target), resume=True, quiet=False)
    known = inspect.signature(gdown.download_folder).parameters
    options = {"resume": True, "timeout": TIMEOUT, "retries": ATTEMPTS - 1}
    options = {name: value for name, value in options.items() if name in known}  # old versions know fewer
    return gdown.download_folder(id=drive_id, output=str(target), quiet=False, **options)


def fetch_drive(drive_id, target, page, *, folder=False, size=None, sha256=None):
    """Downloads a Drive file or folder to `target`; returns whether anything was fetched.  FetchError."""
    target = Path(target)
    if not folder and target.exists():
        return fetch_http(page, target, size=size, sha256=sha256)  # checks it, asks no server
    _require_space(target.parent, size or 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = call_gdown(drive_id, target, folder)
    except Exception as error:  # gdown lets whatever its libraries raise pass through
        raise FetchError(f"Google Drive: {_gdown_words(error)}; by hand: {page} into {target}") from error
    if not found or not target.exists():
        raise FetchError(f"Google Drive gave nothing; by hand: {page} into {target}")
    for path in sorted(target.rglob("*")) if folder else [target]:
        if path.is_file() and (not folder or FILES.search(path.name)):
            _set_page_aside(path, page)
    reason = "" if folder else check_file(target, size, sha256)
    if reason:
        wrong = target.with_name(target.name + ".wrong")
        os.replace(target, wrong)
        raise FetchError(f"{target.name} {reason}; kept as {wrong}, not used")
    return True


def _set_page_aside(path, page):
    """A page in place of a file must not pass for the file in the next run."""
    try:
        refuse_page(path)
    except FetchError as error:
        os.replace(path, path.with_name(path.name + ".wrong"))
        raise FetchError(f"{error}; by hand: {page} into {path.parent}") from error


def _gdown_words(error):
    if any(word in type(error).__name__ for word in ("ConnectionError", "Timeout", "SSLError", "ProxyError")):
        return "no connection to drive.google.com"
    if isinstance(error, ImportError):
        return "the package gdown is missing (pip install gdown)"
    return " ".join(str(error).split())[:200] or type(error).__name__
