"""Safe extraction of zip and tar archives: all of an archive, or nothing of it.

Every name in an archive is judged before anything is written: a tar is read from end to end for that, of a
zip its directory (and its links).  The files are then written to a hidden folder beside the target, each run
to its own, where a zip's contents are checked against their CRC, and move in when all are complete.  Links
become copies of the files that they name.  What macOS adds (__MACOSX, .DS_Store) is left out.
"""

import filecmp
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.fetch import CHUNK, MARGIN, free_bytes, human
from data.parts import ArchiveError, find_archives, find_parts, join_parts, stem_of

__all__ = ["ArchiveError", "Extracted", "extract", "find_archives", "find_parts", "join_parts", "stem_of"]

DRIVE_LETTER = re.compile(r"[A-Za-z]:")
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
ZIP_STARTS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08", b"PK00")  # files, none, split, split into one part
# What zipfile, tarfile and the decompressors raise for a damaged file; OSError is gzip's and bz2's.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    UnicodeError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: "file", "folder", "link" or what else it is."""

    name: str  # as stored
    kind: str
    size: int = 0
    link: str = ""  # of a link: the name it stands for, from the archive's top
    handle: object = None

    @property
    def path(self):
        return PurePosixPath(self.name)


@dataclass(frozen=True)
class Extracted:
    """What an archive held: files and their bytes, and the size of each by its path below the target."""

    files: int
    bytes: int
    sizes: dict = field(default_factory=dict, compare=False, repr=False)


class _Zip:
    """The members of a zip."""

    def __init__(self, stream):
        self.archive = zipfile.ZipFile(stream)

    def members(self):
        for info in self.archive.infolist():
            if info.flag_bits & 1:
                raise ArchiveError(f"{info.filename} is encrypted; unpack the archive by hand")
            mode = stat.S_IFMT(info.external_attr >> 16)
            if stat.S_ISLNK(mode):
                target = os.fsdecode(self.archive.read(info)) if info.file_size < 4096 else "/"
                yield Member(info.filename, "link", link=_beside(info.filename, target))
            elif info.is_dir():
                yield Member(info.filename, "folder")
            else:
                kind = "file" if mode in (0, stat.S_IFREG) else "a device, pipe or the like"
                yield Member(info.orig_filename, kind, info.file_size, handle=info)

    def second_opinion(self):
        """zipfile has none."""

    def open(self, member):
        return self.archive.open(member.handle)


class _Tar:
    """The members of a tar, packed or not."""

    def __init__(self, stream):
        self.archive = tarfile.open(fileobj=stream, mode="r:*")  # noqa: SIM115 -- the stream is closed by its owner

    def members(self):
        for info in self.archive.getmembers():
            if info.issym() or info.islnk():
                link = _beside(info.name, info.linkname) if info.issym() else info.linkname
                yield Member(info.name, "link", link=link, handle=info)
            elif info.isdir():
                yield Member(info.name, "folder", handle=info)
            else:
                kind = "file" if info.isreg() else "a device, pipe or the like"
                yield Member(info.name, kind, info.size, handle=info)
        self._read_to_the_end()

    def second_opinion(self):
        """The library's own check; Python 3.11.0 to 3.11.3 have none."""
        for info in self.archive.getmembers() if hasattr(tarfile, "data_filter") else ():
            tarfile.data_filter(info, os.curdir)

    def _read_to_the_end(self):
        # tarfile takes any damaged header for the end, and leaves the checksum of a packed tar unread.
        file = self.archive.fileobj
        file.seek(self.archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0") or file.tell() < self.archive.offset + tarfile.BLOCKSIZE:
            raise ArchiveError("it is cut off or damaged: no end mark where one is expected")
        while file.read(CHUNK):
            pass

    def open(self, member):
        return self.archive.extractfile(member.handle)


def _beside(name, target):
    return target if target.startswith("/") else str(PurePosixPath(name).parent / target)


def _flatten(name):
    """A link's target without "." and "..": ".." that leave the top stay in front."""
    return os.path.normpath(name).replace(os.sep, "/")


def _objection(name):
    if not name or "\0" in name:
        return "has no usable name"
    if name.startswith("/"):
        return "has an absolute path"
    if "\\" in name:
        return "has a backslash in its path"
    if DRIVE_LETTER.match(name):
        return "names a drive"
    return "leaves the folder (..)" if ".." in PurePosixPath(name).parts else ""


def _check(members):
    """Raises ArchiveError for the first member that is unsafe, or that clashes with another."""
    files = {member.path for member in members if member.kind == "file"}
    taken = set()
    for member in members:
        reason = _objection(member.name)
        if not reason and member.kind == "link":
            inside = PurePosixPath(_flatten(member.link))
            if _objection(str(inside)):
                reason = f"is a link that leaves the archive ({member.link})"
            elif inside not in files:
                reason = f"is a link to no file of the archive ({member.link})"
        elif not reason and member.kind not in ("file", "folder"):
            reason = f"is {member.kind}"
        if not reason and member.kind != "folder":
            if member.path in taken:
                reason = "occurs twice"
            taken.add(member.path)
        if reason:
            raise ArchiveError(f"refused, nothing of it was unpacked: {member.name!r} {reason}")
    for member in members:
        if not taken.isdisjoint(member.path.parents):
            raise ArchiveError(
                f"refused, nothing of it was unpacked: {member.name!r} lies below a file or link"
            )


@contextmanager
def _opened(archive):
    """The archive's reader; damage becomes ArchiveError with the archive's name in front."""
    try:
        with join_parts(archive) as stream:
            start = stream.read(len(SEVEN_ZIP))
            stream.seek(0)  # a tar may end with a zip, so the first bytes decide
            if start == SEVEN_ZIP:
                raise ArchiveError(f"is a 7-zip archive; unpack it by hand: 7z x {archive}")
            yield _Zip(stream) if start.startswith(ZIP_STARTS) else _Tar(stream)
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}") from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:  # the disk's or the system's, not the archive's
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{archive} is damaged, cut off or no zip or tar archive: {words}") from error


def _is_junk(member):
    return member.path.parts[:1] == ("__MACOSX",) or member.path.name == ".DS_Store"


def _place(members, archive, strip, known, labels):
    """{member: path below the target} of all files and links."""
    entries = {member: member.path.parts for member in members if member.kind != "folder"}
    if not entries:
        raise ArchiveError("holds no files")
    tops = {parts[0] for parts in entries.values()}
    wrapped = len(tops) == 1 and all(len(parts) > 1 for parts in entries.values())
    known = {name.lower() for name in (*known, *labels)}
    if strip and wrapped and not known & {name.lower() for name in tops}:
        return {member: Path(*parts[1:]) for member, parts in entries.items()}
    if tops <= set(labels):
        return {member: Path(stem_of(archive), *parts) for member, parts in entries.items()}
    return {member: Path(*parts) for member, parts in entries.items()}


def _write(reader, member, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with reader.open(member) as source, open(path, "xb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > member.size:
                break
            file.write(chunk)
    if written != member.size:
        raise ArchiveError(f"{member.name!r} has other than the {member.size} bytes that it declares")


def _check_space(folder, needed):
    if needed + MARGIN > (free := free_bytes(folder)):
        raise ArchiveError(
            f"unpacked needs {human(needed + MARGIN)} free disk at {folder}, has {human(free)}"
        )


def _check_target(staging, target):
    """Raises ArchiveError when a file would replace another one; FileExistsError never comes later."""
    for path in sorted(staging.rglob("*")):
        there = target / path.relative_to(staging)
        if not os.path.lexists(there):
            continue
        same = there.is_dir() if path.is_dir() else there.is_file() and filecmp.cmp(path, there, False)
        if not same:
            raise ArchiveError(f"{there} is there already with other content; move it away first")


def _move_in(source, target):
    target.mkdir(parents=True, exist_ok=True)
    for path in list(source.iterdir()):
        there = target / path.name
        if not os.path.lexists(there):
            os.rename(path, there)
        elif path.is_dir():
            _move_in(path, there)


def extract(archive, target, *, strip=False, known=(), labels=()):
    """Unpacks an archive, given by its file or any of its parts, into `target`; returns Extracted.

    strip: a single folder around everything is dropped, unless it is called as one of `known` or `labels`.
    labels: an archive with nothing but such folders at its top goes into a folder of the archive's name.
    Files that are there with equal content stay.  ArchiveError: damaged, unsafe, or another file is there;
    the target is then as it was.
    """
    target = Path(target).resolve()
    with _opened(archive) as reader:
        members = [member for member in reader.members() if not _is_junk(member)]
        _check([member for member in members if member.kind != "folder" or member.path.parts])
        reader.second_opinion()
        places = _place(members, archive, strip, known, labels)
        sizes = {member.path: member.size for member in members if member.kind == "file"}
        origin = {member: PurePosixPath(_flatten(member.link)) for member in places if member.kind == "link"}
        wanted = {place: sizes[origin.get(member, member.path)] for member, place in places.items()}
        _check_space(target, sum(wanted.values()))
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.unpacking-", dir=target.parent))
        try:
            _fill(reader, places, origin, staging)
            _check_target(staging, target)
            _move_in(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for place, size in wanted.items():
            if not (target / place).is_file() or (target / place).stat().st_size != size:
                raise ArchiveError(f"{target / place} is not there as it was unpacked; run this again")
    sizes = {place.as_posix(): size for place, size in wanted.items()}
    return Extracted(len(sizes), sum(sizes.values()), sizes)


def _fill(reader, places, origin, staging):
    written = {}
    for member, place in places.items():
        if member not in origin:
            _write(reader, member, staging / place)
            written[member.path] = staging / place
    for member, source in origin.items():
        copy = staging / places[member]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written[source], copy)
