"""Archives in several parts, read as one file without a copy on the disk.

Known ways to cut: name.zip.001, .002, ... and name.tar.gz.00, .01, ... (plain pieces), and zip's own
name.z01, name.z02, ..., name.zip, whose directory counts from the start of each part.
"""

import io
import re
import struct
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from common import UserError

NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<number>\d{2,3})$")
SUFFIX = re.compile(r"\.(zip|7z|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
SPLIT_ZIP = re.compile(r"(?P<stem>.+)\.z(?P<number>\d{2,})$", re.IGNORECASE)

# Records of the zip format (APPNOTE 6.3.10, sections 4.3.12 to 4.3.16).
END = struct.Struct(
    "<4s4H2LH"
)  # signature, disk, directory's disk, entries here, entries, size, offset, comment
END64 = struct.Struct(
    "<4sQ2H2L4Q"
)  # signature, rest, versions, disk, directory's disk, entries x2, size, offset
LOCATOR64 = struct.Struct("<4sLQL")  # signature, disk of END64, its offset, disks
ENTRY = struct.Struct("<4s6H3L5H2L")  # lengths of name, extra, comment: 10, 11, 12; disk 13; offset 16
END_MARK, END64_MARK, LOCATOR_MARK, ENTRY_MARK = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
ZIP64_EXTRA = 1
LONGEST_COMMENT = 0xFFFF


class ArchiveError(UserError):
    """An archive that is damaged, incomplete or unsafe; one line."""


class Joined(io.RawIOBase):
    """Files, one after the other, as one seekable file; with `cut`, `tail` stands for what follows there."""

    def __init__(self, paths, cut=None, tail=b""):
        super().__init__()
        self.streams = [open(path, "rb") for path in paths]  # noqa: SIM115 -- closed by close()
        self.ends = list(accumulate(stream.seek(0, io.SEEK_END) for stream in self.streams))
        if cut is not None:
            kept = bisect_right(self.ends, cut)
            self.streams[kept + 1 :] = [io.BytesIO(tail)]
            self.ends[kept:] = [cut, cut + len(tail)]
        self.starts = [0, *self.ends[:-1]]
        self.position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.position = max(0, offset + (0, self.position, self.ends[-1])[whence])
        return self.position

    def tell(self):
        return self.position

    def readinto(self, buffer):
        index = bisect_right(self.ends, self.position)
        if index == len(self.ends):
            return 0
        stream = self.streams[index]
        stream.seek(self.position - self.starts[index])
        count = stream.readinto(memoryview(buffer)[: self.ends[index] - self.position])
        self.position += count
        return count

    def close(self):
        for stream in self.streams:
            stream.close()
        super().close()


def find_parts(path):
    """All files of the archive that `path` is or belongs to, in order; ArchiveError names a missing one."""
    path = Path(path)
    numbered, split = NUMBERED.match(path.name), SPLIT_ZIP.match(path.name)
    if numbered:
        found = _numbers(path.parent, NUMBERED, numbered["stem"])
        first = 0 if 0 in found else 1
        return _without_gap(
            path.parent,
            found,
            range(first, max(found) + 1),
            numbered["stem"] + ".{:0" + str(len(numbered["number"])) + "d}",
        )
    stem = split["stem"] if split else path.stem
    last = path.parent / f"{stem}.zip" if split else path
    if not last.is_file():
        raise ArchiveError(f"{last} is missing: the last part of a multi-part archive, or the archive itself")
    found = _numbers(path.parent, SPLIT_ZIP, stem) if last.suffix.lower() == ".zip" else {}
    expected = max(_disks_before(last), max(found, default=0)) if last.suffix.lower() == ".zip" else 0
    if not expected:
        return [last]
    return [*_without_gap(path.parent, found, range(1, expected + 1), stem + ".z{:02d}"), last]


def find_archives(folder):
    """The first file of every archive below `folder`, in the order of their names."""
    found = {}
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        split = SPLIT_ZIP.match(path.name)
        numbered = NUMBERED.match(path.name)
        stem = f"{split['stem']}.zip" if split else numbered["stem"] if numbered else path.name
        if SUFFIX.search(stem):
            found.setdefault(path.with_name(stem), path)
    return list(found.values())


def stem_of(path):
    """An archive's name without the endings that say how it is packed and cut."""
    name = Path(path).name
    for pattern in (NUMBERED, SPLIT_ZIP):
        match = pattern.match(name)
        name = match["stem"] if match else name
    return SUFFIX.sub("", name)


def _numbers(folder, pattern, stem):
    matches = ((pattern.match(path.name), path) for path in sorted(folder.iterdir()))
    return {int(match["number"]): path for match, path in matches if match and match["stem"] == stem}


def _without_gap(folder, found, expected, form):
    missing = [form.format(number) for number in expected if number not in found]
    if missing:
        raise ArchiveError(
            f"{folder}: part {', '.join(missing)} is missing; the archive has {len(expected)}"
            " or more such parts"
        )
    return [found[number] for number in expected]


def join_parts(first):
    """One seekable binary file over all parts of the archive that `first` belongs to."""
    parts = find_parts(first)
    split = len(parts) > 1 and SPLIT_ZIP.match(parts[0].name)
    cut, tail = _new_directory(parts) if split else (None, b"")
    return io.BufferedReader(Joined(parts, cut, tail), 2**18)


def _find_end(data):
    """Position and fields of the end record in the last bytes of a zip; None without one."""
    at = data.rfind(END_MARK)
    while at >= 0 and at + END.size > len(data):
        at = data.rfind(END_MARK, 0, at)
    return (at, END.unpack_from(data, at)) if at >= 0 else None


def _tail(file):
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - LONGEST_COMMENT - END.size - LOCATOR64.size - END64.size)
    file.seek(start)
    return start, file.read()


def _disks_before(path):
    with open(path, "rb") as file:
        found = _find_end(_tail(file)[1])
    return found[1][1] if found and found[1][1] != FULL16 else 0


def _new_directory(parts):
    """Where the directory of a split zip begins in all its parts, and the directory of one whole file.

    The parts hold offsets counted from the start of each part; `zip -s-` rewrites them in the same way.
    """
    with Joined(parts) as whole:
        disks = whole.starts
        _, data = _tail(whole)
        found = _find_end(data)
        if found is None:
            raise ArchiveError(f"{parts[-1]} has no end record: it is damaged, or no zip archive")
        at, (_, _, disk, _, entries, size, offset, _) = found
        locator = at - LOCATOR64.size
        if locator >= 0 and data.startswith(LOCATOR_MARK, locator):
            _, end_disk, end_offset, _ = LOCATOR64.unpack_from(data, locator)
            whole.seek(_absolute(disks, end_disk, end_offset))
            fields = END64.unpack(_exactly(whole, END64.size))
            disk, entries, size, offset = fields[5], *fields[7:10]
            if fields[0] != END64_MARK:
                raise ArchiveError(f"{parts[-1]}: its zip64 end record is damaged")
        begin = _absolute(disks, disk, offset)
        whole.seek(begin)
        directory = _rewrite(_exactly(whole, size), entries, disks)
        return begin, directory + _end_records(begin, len(directory), entries)


def _absolute(disks, disk, offset):
    if disk >= len(disks):
        raise ArchiveError(f"the zip names part {disk + 1}, but has {len(disks)} parts")
    return disks[disk] + offset


def _exactly(file, count):
    if count > file.ends[-1] - file.position:
        raise ArchiveError("the zip's directory is cut off")
    data = b""
    while len(data) < count:
        data += file.read(count - len(data))
    return data


def _rewrite(old, entries, disks):
    """The directory's entries with all offsets counted from the start of the first part."""
    new, at = [], 0
    for _ in range(entries):
        fields = list(ENTRY.unpack_from(old.ljust(at + ENTRY.size, b"\0"), at))
        if fields[0] != ENTRY_MARK:
            raise ArchiveError("the zip's directory is damaged")
        begin, (name, extra, comment) = at + ENTRY.size, fields[10:13]
        at = begin + name + extra + comment
        others, wide = _extras(old[begin + name : begin + name + extra])
        wide = iter(wide)
        whole = next(wide, 0) if fields[9] == FULL32 else fields[9]  # the order of the extra field
        packed = next(wide, 0) if fields[8] == FULL32 else fields[8]
        offset = next(wide, None) if fields[16] == FULL32 else fields[16]
        disk = next(wide, None) if fields[13] == FULL16 else fields[13]
        if offset is None or disk is None:
            raise ArchiveError("the zip's directory is damaged (zip64)")
        absolute = _absolute(disks, disk, offset)
        extra64 = struct.pack("<2H3Q", ZIP64_EXTRA, 24, whole, packed, absolute)
        fields[8:10], fields[11], fields[13], fields[16] = (FULL32,) * 2, len(extra64 + others), 0, FULL32
        tail = old[begin + name + extra : at]
        new.append(ENTRY.pack(*fields) + old[begin : begin + name] + extra64 + others + tail)
    return b"".join(new)


def _extras(data):
    """An entry's extra fields without zip64's, and the 64-bit numbers of zip64's (its disk number last)."""
    others, wide, at = b"", [], 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from("<2H", data, at)
        body = data[at + 4 : at + 4 + length]
        if kind == ZIP64_EXTRA:
            wide = [value for (value,) in struct.iter_unpack("<Q", body[: length // 8 * 8])]
            wide += [int.from_bytes(body[length // 8 * 8 :], "little")] if length % 8 else []
        else:
            others += data[at : at + 4 + length]
        at += 4 + length
    return others, wide


def _end_records(begin, size, entries):
    end64 = END64.pack(END64_MARK, END64.size - 12, 45, 45, 0, 0, entries, entries, size, begin)
    locator = LOCATOR64.pack(LOCATOR_MARK, 0, begin + size, 1)
    return end64 + locator + END.pack(END_MARK, 0, 0, FULL16, FULL16, FULL32, FULL32, 0)
