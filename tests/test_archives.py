"""Archives: what is unpacked, what is refused before the target changes, and archives in several parts."""

import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections import namedtuple

import pytest

from data import archives
from data.archives import ArchiveError, Extracted, extract, find_archives, find_parts, join_parts, stem_of

CONTENT = {"progan/0_real/a.png": b"real" * 100, "progan/1_fake/b.png": b"fake" * 200, "notes.txt": b""}


def write_zip(path, content=CONTENT, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def write_tar(path, content=CONTENT, mode="w", extra=()):
    with tarfile.open(path, mode) as file:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for info in extra:
            file.addfile(info)
    return path


def tar_entry(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture
def target(tmp_path):
    """A target that holds a file, and nothing beside it."""
    folder = tmp_path / "home" / "target"
    folder.mkdir(parents=True)
    (folder / "kept.txt").write_text("kept")
    return folder


def untouched(target):
    return (
        tree(target.parent) == {"target/kept.txt": b"kept"} and not (target.parent.parent / "evil").exists()
    )


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_kind_is_unpacked_and_a_second_time_changes_nothing(tmp_path, ending):
    path, packing = tmp_path / f"a.{ending}", ending.removeprefix("tar").lstrip(".")
    if ending == "zip":
        write_zip(path)
    else:
        write_tar(path, mode=f"w:{packing}")
    for _ in range(2):
        assert extract(path, tmp_path / "out") == Extracted(3, 1200)
        assert tree(tmp_path / "out") == CONTENT
    assert path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{ending}", "out"]


HOSTILE_TARS = {
    "absolute": (tar_entry("/evil", tarfile.REGTYPE), "absolute"),
    "dots": (tar_entry("a/../../../evil", tarfile.REGTYPE), "leaves the folder"),
    "symlink out": (tar_entry("a", tarfile.SYMTYPE, "../../evil"), "link that leaves"),
    "symlink absolute": (tar_entry("a", tarfile.SYMTYPE, "/etc/passwd"), "link that leaves"),
    "symlink to folder": (tar_entry("a", tarfile.SYMTYPE, "."), "no file"),
    "hardlink out": (tar_entry("a", tarfile.LNKTYPE, "../../evil"), "link that leaves"),
    "hardlink absolute": (tar_entry("a", tarfile.LNKTYPE, "/etc/passwd"), "link that leaves"),
    "device": (tar_entry("a", tarfile.CHRTYPE), "device"),
    "block device": (tar_entry("a", tarfile.BLKTYPE), "device"),
    "pipe": (tar_entry("a", tarfile.FIFOTYPE), "pipe"),
    "twice": (tar_entry("notes.txt", tarfile.REGTYPE), "twice"),
    "below a file": (tar_entry("notes.txt/x", tarfile.REGTYPE), "below a file"),
}


@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_a_hostile_tar_is_refused_whole(tmp_path, target, name):
    entry, words = HOSTILE_TARS[name]
    path = write_tar(tmp_path / "bad.tar.gz", mode="w:gz", extra=[entry])
    with pytest.raises(ArchiveError, match=words) as caught:
        extract(path, target)
    assert entry.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert untouched(target)
    assert path.exists()


HOSTILE_ZIPS = {
    "absolute": ("/evil", b"x", "absolute"),
    "dots": ("a/../../../evil", b"x", "leaves the folder"),
    "backslash": ("..\\evil", b"x", "backslash"),
    "drive": ("C:/evil", b"x", "drive"),
    "symlink out": (*zip_link("a", "../../evil"), "link that leaves"),
    "symlink absolute": (*zip_link("a", "/etc/passwd"), "link that leaves"),
}


@pytest.mark.parametrize("name", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused_whole(tmp_path, target, name):
    entry, data, words = HOSTILE_ZIPS[name]
    path = write_zip(tmp_path / "bad.zip", {**CONTENT, entry: data})
    with pytest.raises(ArchiveError, match=words):
        extract(path, target)
    assert untouched(target)


def test_links_inside_the_archive_become_copies(tmp_path):
    links = [
        tar_entry("soft.txt", tarfile.SYMTYPE, "progan/0_real/a.png"),
        tar_entry("progan/1_fake/hard.png", tarfile.LNKTYPE, "progan/0_real/a.png"),
        tar_entry("progan/1_fake/up.png", tarfile.SYMTYPE, "../0_real/a.png"),
    ]
    path = write_tar(tmp_path / "a.tar", extra=links)
    assert extract(path, tmp_path / "out").files == 6
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))
    found = tree(tmp_path / "out")
    assert found["soft.txt"] == found["progan/1_fake/up.png"] == CONTENT["progan/0_real/a.png"]


def damage(path, at, data=b"\xff\xff\xff"):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_zip_with_a_wrong_checksum_is_refused(tmp_path, target):
    path = write_zip(tmp_path / "bad.zip")
    damage(path, path.read_bytes().index(b"fakefake"))
    with pytest.raises(ArchiveError, match=r"bad\.zip is damaged.*CRC"):
        extract(path, target)
    assert untouched(target)


@pytest.mark.parametrize("mode, cut", [("w", 1024), ("w", 3500), ("w:gz", 60), ("w:gz", -4), ("w:xz", 80)])
def test_a_cut_tar_is_refused(tmp_path, target, mode, cut):
    path = write_tar(tmp_path / "bad.tar", {f"{n}.png": os.urandom(512) for n in range(3)}, mode=mode)
    path.write_bytes(path.read_bytes()[:cut])
    if (mode, cut) == ("w", 3500):  # a damaged header in the middle, which tarfile takes for the end
        write_tar(path, {f"{n}.png": bytes(512) for n in range(3)})
        damage(path, 1024, b"x" * 512)
    with pytest.raises(ArchiveError, match="damaged"):
        extract(path, target)
    assert untouched(target)


def test_an_encrypted_zip_is_refused(tmp_path, target):
    path = write_zip(tmp_path / "bad.zip")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        extract(path, target)
    assert untouched(target)


@pytest.mark.parametrize(
    "data, words",
    [(b"", "no zip or tar"), (b"<html>", "no zip or tar"), (b"7z\xbc\xaf\x27\x1c rest", "7z x ")],
)
def test_what_is_no_archive_is_named(tmp_path, target, data, words):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=words):
        extract(tmp_path / "a.zip", target)
    assert untouched(target)


def test_another_file_in_the_target_is_never_replaced(tmp_path, target):
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ArchiveError, match=r"notes\.txt is there already with other content"):
        extract(write_zip(tmp_path / "a.zip"), target)
    assert tree(target) == {"kept.txt": b"kept", "notes.txt": b"mine"}


def test_two_runs_at_once_leave_each_other_alone(tmp_path, monkeypatch):
    first, second = write_zip(tmp_path / "a.zip"), write_zip(tmp_path / "b.zip", {"late.png": b"late"})
    check = archives._check_target

    def meanwhile(staging, target):
        monkeypatch.setattr(archives, "_check_target", check)
        extract(second, target)  # the other run begins and ends while the first one's files wait
        check(staging, target)

    monkeypatch.setattr(archives, "_check_target", meanwhile)
    held = extract(first, tmp_path / "out")
    assert tree(tmp_path / "out") == {**CONTENT, "late.png": b"late"}
    assert held.sizes == {name: len(data) for name, data in CONTENT.items()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "out"]


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, target, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, archives.MARGIN + 1199)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ArchiveError, match="free disk"):
        extract(write_zip(tmp_path / "a.zip"), target)
    assert untouched(target)


def test_a_zip_that_declares_less_than_it_holds_is_refused(tmp_path, target):
    path = write_zip(tmp_path / "bomb.zip", {"a.txt": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.rindex(b"PK\1\2") + 24, 10)
    path.write_bytes(data)
    with pytest.raises(ArchiveError):
        extract(path, target)
    assert untouched(target)


def test_a_single_wrapping_folder_is_dropped_unless_it_is_known(tmp_path):
    wrapped = write_zip(tmp_path / "a.zip", {"CNN_test/progan/0_real/a.png": b"1", "__MACOSX/._x": b"2"})
    extract(wrapped, tmp_path / "flat", strip=True, known={"progan"})
    extract(wrapped, tmp_path / "as stored", known={"progan"})
    extract(
        write_zip(tmp_path / "b.zip", {"ProGAN/cat/a.png": b"1"}),
        tmp_path / "kept",
        strip=True,
        known={"progan"},
    )
    assert list(tree(tmp_path / "flat")) == ["progan/0_real/a.png"]
    assert list(tree(tmp_path / "as stored")) == ["CNN_test/progan/0_real/a.png"]
    assert list(tree(tmp_path / "kept")) == ["ProGAN/cat/a.png"]


def test_an_archive_of_label_folders_gets_a_folder_of_its_own(tmp_path):
    for name in ("AttGAN", "BEGAN"):
        path = write_tar(tmp_path / f"{name}.tar.gz", {"0_real/1.png": name.encode()}, mode="w:gz")
        extract(path, tmp_path / "out", labels={"0_real": 0, "1_fake": 1})
    assert tree(tmp_path / "out") == {"AttGAN/0_real/1.png": b"AttGAN", "BEGAN/0_real/1.png": b"BEGAN"}


def cut(path, sizes, form):
    """Cuts a file into pieces; form gives the name of piece n."""
    data, names = path.read_bytes(), []
    for number, size in enumerate([*sizes, len(data)]):
        names.append(path.with_name(form(number)))
        names[-1].write_bytes(data[:size])
        data = data[size:]
    path.unlink()
    return names


@pytest.mark.parametrize("ending, form", [("zip", "a.zip.{:03d}"), ("tar.gz", "a.tar.gz.{:02d}")])
def test_numbered_parts_are_read_as_one(tmp_path, ending, form):
    path = tmp_path / f"a.{ending}"
    _ = write_zip(path) if ending == "zip" else write_tar(path, mode="w:gz")
    start = ending == "zip"
    parts = cut(path, [50, 7, 60], lambda number: form.format(number + start))
    for first in (parts[0], parts[2]):
        assert find_parts(first) == parts
    assert find_archives(tmp_path) == [parts[0]]
    assert extract(parts[0], tmp_path / "out").files == 3
    assert tree(tmp_path / "out") == CONTENT
    parts[1].unlink()
    with pytest.raises(ArchiveError, match=f"{parts[1].name} is missing"):
        extract(parts[0], tmp_path / "out")


def split_zip(folder, content, zip64=False):
    """What `zip -s` writes: entry n in part n, the directory in the last, offsets from each part's start."""
    write_zip(folder / "whole.zip", content)
    with zipfile.ZipFile(folder / "whole.zip") as file:
        infos, begin = file.infolist(), file.start_dir
    data = bytearray((folder / "whole.zip").read_bytes())
    (folder / "whole.zip").unlink()
    starts = [info.header_offset for info in infos]
    at = begin
    for number in range(len(infos)):
        struct.pack_into("<H", data, at + 34, number)
        struct.pack_into("<L", data, at + 42, 0)
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    last, count, size = len(infos) - 1, len(infos), at - begin
    offset = begin - starts[-1]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", last, last, count, count, size, offset, 0)
    if zip64:
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, last, count, count, size, offset)
        locator = struct.pack("<4sLQL", b"PK\6\7", last, offset + size, count)
        tail = (
            end64
            + locator
            + struct.pack("<4s4H2LH", b"PK\5\6", last, last, *(0xFFFF,) * 2, *(0xFFFFFFFF,) * 2, 0)
        )
    data[at:] = tail
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True)):
        name = "test.zip" if number == last else f"test.z{number + 1:02d}"
        (folder / name).write_bytes(data[start:stop])
    return folder / "test.zip"


@pytest.mark.parametrize("zip64", [False, True])
def test_a_split_zip_is_read_as_one(tmp_path, zip64):
    last = split_zip(tmp_path, CONTENT, zip64)
    assert find_archives(tmp_path) == [tmp_path / "test.z01"]
    for given in (last, tmp_path / "test.z01"):
        assert [p.name for p in find_parts(given)] == ["test.z01", "test.z02", "test.zip"]
    assert extract(last, tmp_path / "out").files == 3
    assert tree(tmp_path / "out") == CONTENT
    (tmp_path / "test.z02").unlink()
    with pytest.raises(ArchiveError, match=r"test\.z02 is missing"):
        extract(last, tmp_path / "out")
    last.unlink()
    with pytest.raises(ArchiveError, match=r"test\.zip is missing"):
        extract(tmp_path / "test.z01", tmp_path / "out")


@pytest.mark.skipif(not shutil.which("zip"), reason="no zip program")
@pytest.mark.parametrize("count", [3, 400])  # the directory of 400 entries spans two parts
def test_a_split_zip_of_the_zip_program_is_read_as_one(tmp_path, count):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(count):
        (source / f"{number:0200d}.bin").write_bytes(os.urandom(200_000 // count))
    subprocess.run(["zip", "-q", "-r", "-0", "-s", "64k", "../cut.zip", "."], cwd=source, check=True)
    assert (tmp_path / "cut.z03").exists()
    assert extract(tmp_path / "cut.zip", tmp_path / "out").files == count
    assert tree(tmp_path / "out") == tree(source)


def test_joined_parts_can_be_read_anywhere(tmp_path):
    (tmp_path / "a.zip").write_bytes(bytes(range(100)))
    parts = cut(tmp_path / "a.zip", [10, 20, 30], lambda number: f"a.zip.{number + 1:03d}")
    with join_parts(parts[0]) as stream:
        assert stream.read() == bytes(range(100))
        for at in (0, 9, 10, 29, 30, 99):
            stream.seek(at)
            assert stream.read(25) == bytes(range(at, min(at + 25, 100)))


def test_names_of_archives():
    assert [stem_of(name) for name in ("a.b.zip", "a.tar.gz", "x/a.zip.001", "a.z01", "a.tgz")] == [
        "a.b",
        "a",
        "a",
        "a",
        "a",
    ]
