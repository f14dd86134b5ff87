"""data.download: downloads from a server on this machine, Drive's failures, archives, sets, command line."""

import base64
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import namedtuple
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import gdown
import pytest
import requests
from conftest import ROOT

from common import UserError, owned
from data import download
from data.download import extract, fetch
from data.protocols import DEFAULT as PROTOCOL_DEFAULT
from data.protocols import PROTOCOLS
from data.sources import DEFAULT, KINDS, SOURCES, WEIGHTS, Source
from util.run import guard

BODY = os.urandom(300_000)
SHA = hashlib.sha256(BODY).hexdigest()
PAGE = b"\n<!DOCTYPE html><title>Quota exceeded</title>"
KNOWN = {"bytes": len(BODY), "sha256": SHA}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ctrl_c(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(n): all but n bytes are taken, the margin not counted."""

    def fill(free):
        usage = namedtuple("usage", "total used free")(0, 0, download.MARGIN + free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return fill


@pytest.fixture
def drive(monkeypatch):
    """Google Drive without a network: raises `error`, or has a folder with `files`, {name: bytes}."""

    def download_folder(output, **_):
        if drive.error:
            raise drive.error
        Path(output).mkdir(parents=True, exist_ok=True)
        for name, data in drive.files.items():
            (Path(output) / name).write_bytes(data)

    def download_file(output, url=None, **options):
        return real(output=output, url=url, **options) if url else download_folder(output)

    drive, real = SimpleNamespace(files={}, error=None), gdown.download
    monkeypatch.setattr(gdown, "download", download_file)
    monkeypatch.setattr(gdown, "download_folder", download_folder)
    return drive


# ----- downloads


class Handler(BaseHTTPRequestHandler):
    """Serves state.body, cut as state.cuts says; keeps every request's Range in state.ranges."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server.state
        state.ranges.append(self.headers.get("Range"))
        if state.status != 200:
            self.send_error(state.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
        self.send_header("Content-Length", str(len(state.body) - start))
        self.end_headers()
        with suppress(ConnectionError):  # the client refuses the rest
            self.wfile.write(state.body[start : state.cuts.pop(0) if state.cuts else None])


@pytest.fixture(scope="module")
def httpd():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(httpd, monkeypatch):
    """How the server answers; `url` is its only file.  Attempts follow each other without a pause."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0)
    monkeypatch.setattr(sys.modules["gdown.download"], "CHUNK_SIZE", 1000)
    httpd.state = SimpleNamespace(body=BODY, status=200, cuts=[], ranges=[])
    httpd.state.url = f"http://127.0.0.1:{httpd.server_address[1]}/file.zip"
    return httpd.state


@pytest.fixture
def get(server, tmp_path):
    """Provides the file at <tmp>/new/file.zip; returns the state."""

    def run(**facts):
        return download.provide_file(Source(run.url, "http", "file.zip", **facts), run.target, True)

    run.url, run.target = server.url, tmp_path / "new" / "file.zip"
    return run


def test_a_file_is_fetched_once(server, get):
    assert [get(**KNOWN), get(**KNOWN)] == ["done", "already there"]
    assert tree(get.target.parent) == {"file.zip": BODY}
    assert server.ranges == [None]


def test_a_cut_download_resumes_where_it_stopped(server, get):
    server.cuts = [100_000, 200_000]
    get(**KNOWN)
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert tree(get.target.parent) == {"file.zip": BODY}


def test_a_later_run_resumes_where_ctrl_c_stopped(server, get, monkeypatch, full_disk):
    server.cuts = [120_000]
    with monkeypatch.context() as patch:
        patch.setattr(random, "uniform", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            get(**KNOWN)
    assert not get.target.exists()
    full_disk(180_000)  # what has arrived needs no more room
    get(**KNOWN)
    assert server.ranges[-1] == "bytes=120000-"
    assert tree(get.target.parent) == {"file.zip": BODY}


@pytest.mark.parametrize("body", [b"other", PAGE])
@pytest.mark.parametrize("facts", [{"bytes": len(BODY)}, {"sha256": SHA}])
def test_a_wrong_file_that_arrives_is_kept_under_another_name(server, get, body, facts):
    server.body = body
    for _ in range(2):
        with pytest.raises(UserError, match=r"file\.zip\.wrong"):
            get(**facts)
    assert tree(get.target.parent) == {"file.zip.wrong": body}


@pytest.mark.parametrize("facts", [{"bytes": len(BODY)}, {"sha256": SHA}])
def test_a_wrong_file_that_was_there_stays_as_it_is(server, get, facts):
    get.target.parent.mkdir(parents=True, exist_ok=True)
    get.target.write_bytes(b"other")
    for _ in range(2):
        with pytest.raises(UserError, match=r"file\.zip"):
            get(**facts)
    assert tree(get.target.parent) == {"file.zip": b"other"} and not server.ranges


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_one_line_with_the_way_by_hand(server, get, status):
    server.status = status
    with pytest.raises(UserError, match=rf"{status}.*{server.url}") as caught:
        get(**KNOWN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("retries", [0, 1])
def test_no_server_is_one_line(get, monkeypatch, retries):
    monkeypatch.setattr(download, "RETRIES", retries)
    get.url = "http://127.0.0.1:9/file.zip"  # the discard port, where nobody listens
    with pytest.raises(UserError, match="connection") as caught:
        get(**KNOWN)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_noticed_before_a_download(server, get, full_disk):
    full_disk(len(BODY) - 1)
    with pytest.raises(UserError, match="disk"):
        get(**KNOWN)
    assert server.ranges == []


DRIVE_FILE, DRIVE_FOLDER = Source("id", "gdrive", "a", "a.zip"), Source("id", "gdrive_folder", "a")


@pytest.mark.parametrize("source", [DRIVE_FILE, DRIVE_FOLDER])
def test_a_failure_of_gdown_is_one_line_with_the_way_by_hand(tmp_path, drive, source):
    drive.error = RuntimeError("Cannot retrieve\n\tthe public link")
    with pytest.raises(UserError, match="link") as caught:
        fetch(source, tmp_path / "a.zip")
    assert source.page in str(caught.value)
    assert "\n" not in str(caught.value)


# ----- archives

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


def tar_entry(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def target(tmp_path):
    """A target that holds a file, and nothing next to it."""
    folder = tmp_path / "home" / "target"
    folder.mkdir(parents=True)
    (folder / "kept.txt").write_text("kept")
    return folder


def assert_refused(archive, target, words=None):
    """The archive is refused in one line, and nothing is left of it."""
    before = tree(target.parent)
    with pytest.raises((UserError, OSError), match=words) as caught:
        extract(archive, target)
    assert "\n" not in str(caught.value)
    assert tree(target.parent) == before
    assert names(target.parent) == ["target"]
    assert not (target.parent.parent / "evil").exists()


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_format_is_unpacked_and_a_second_time_changes_nothing(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_zip(path) if ending == "zip" else write_tar(path, mode=f"w:{ending[4:]}")
    for _ in range(2):
        assert extract(path, tmp_path / "out") == {name: len(data) for name, data in CONTENT.items()}
        assert tree(tmp_path / "out") == CONTENT
    assert names(tmp_path) == [f"a.{ending}", "out"]


@pytest.mark.parametrize(
    "entry",
    [
        tar_entry("/evil"),
        tar_entry("a/../../../evil"),
        tar_entry("C:/evil"),
        tar_entry("..\\evil"),
        tar_entry("a", tarfile.SYMTYPE, "../../evil"),
        tar_entry("a", tarfile.SYMTYPE, "/etc/passwd"),
        tar_entry("a", tarfile.SYMTYPE, "."),
        tar_entry("a", tarfile.LNKTYPE, "../../evil"),
        tar_entry("a", tarfile.LNKTYPE, "/etc/passwd"),
        tar_entry("a", tarfile.LNKTYPE, "absent"),
        tar_entry("a", tarfile.CHRTYPE),
        tar_entry("a", tarfile.BLKTYPE),
        tar_entry("a", tarfile.FIFOTYPE),
        tar_entry("notes.txt"),
        tar_entry("notes.txt/x"),
    ],
    ids=lambda entry: f"{entry.type.decode()} {entry.name} {entry.linkname}",
)
def test_a_hostile_tar_is_refused_whole(tmp_path, target, entry):
    assert_refused(write_tar(tmp_path / "bad.tar.gz", mode="w:gz", extra=[entry]), target)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", ["/evil", "a/../../../evil", "..\\evil", "C:/evil", "notes.txt", "notes.txt/x"]
)
def test_a_hostile_zip_is_refused_whole(tmp_path, target, name):
    path = write_zip(tmp_path / "bad.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    assert_refused(path, target)


@pytest.mark.parametrize("layout", [stat.S_IFLNK, stat.S_IFIFO])
def test_a_zip_with_a_link_or_a_pipe_is_refused(tmp_path, target, layout):
    info = zipfile.ZipInfo("a")
    info.create_system, info.external_attr = 3, (layout | 0o777) << 16
    assert_refused(write_zip(tmp_path / "bad.zip", {info: "../../evil"}), target, "link")


def test_a_hard_link_inside_a_tar_becomes_a_file(tmp_path):
    link = tar_entry("hard.png", tarfile.LNKTYPE, "progan/0_real/a.png")
    extract(write_tar(tmp_path / "a.tar", extra=[link]), tmp_path / "out")
    assert tree(tmp_path / "out") == {**CONTENT, "hard.png": CONTENT["progan/0_real/a.png"]}


def patch(path, at, data=b"\xff\xff\xff"):
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


def test_a_damaged_encrypted_or_lying_zip_is_refused(tmp_path, target):
    path = tmp_path / "bad.zip"
    assert_refused(patch(path, write_zip(path).read_bytes().index(b"fakefake")), target, "CRC")
    directory = (
        write_zip(path, {"a": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED).read_bytes().rindex(b"PK\1\2")
    )
    assert_refused(patch(path, directory + 24, struct.pack("<L", 10)), target)  # declares less than it holds
    write_zip(path)
    assert_refused(patch(path, path.read_bytes().rindex(b"PK\1\2") + 8, b"\1"), target, "encrypted")


@pytest.mark.parametrize("mode, cut", [("w", 1024), ("w", 3500), ("w:gz", 60), ("w:gz", -4), ("w:xz", 80)])
def test_a_cut_or_damaged_tar_is_refused(tmp_path, target, mode, cut):
    path = write_tar(tmp_path / "bad.tar", {f"{n}.png": os.urandom(512) for n in range(3)}, mode=mode)
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    assert_refused(path, target, "damaged")
    if mode == "w":  # tarfile takes a damaged header for the end
        path.write_bytes(data)
        assert_refused(patch(path, 1024, b"x" * 512), target, "damaged")


@pytest.mark.parametrize(
    "data, words", [(b"", "zip"), (b"<html>", "damaged"), (b"7z\xbc\xaf\x27\x1c", "7z x ")]
)
def test_what_is_not_an_archive_is_named(tmp_path, target, data, words):
    (tmp_path / "a.zip").write_bytes(data)
    assert_refused(tmp_path / "a.zip", target, words)
    assert_refused(
        write_zip(tmp_path / "a.zip", {"__MACOSX/x": b"1", "a/.DS_Store": b"2"}), target, "no files"
    )


@pytest.mark.parametrize(
    "files, command",
    [
        ("test.z01 test.z02 test.zip", "7z x '{0}/test.zip' -o{1}"),
        ("test.zip.001 test.zip.002", "7z x '{0}/test.zip.001' -o{1}"),
        ("test.tar.gz.00 test.tar.gz.01", "cat '{0}/test.tar.gz'.* > '{0}/test.tar.gz'"),
    ],
)
def test_an_archive_in_several_files_is_found_once_and_names_the_command_to_type(
    tmp_path, target, files, command
):
    folder = tmp_path / "my archives"
    folder.mkdir()
    for name in files.split():
        (folder / name).write_bytes(b"piece")
    archives = download.find_archives(folder)
    assert list(archives) == files.split()[:1]
    assert_refused(archives[files.split()[0]], target, re.escape(command.format(folder, target)))


def test_the_zip_that_trips_bomb_guards_names_7z(tmp_path, target, monkeypatch):
    def guard(*_, **__):
        raise zipfile.BadZipFile("Overlapped entries: 'a.png' (possible zip bomb)")  # newer zipfile's words

    path = write_zip(tmp_path / "sdv5.zip")
    monkeypatch.setattr(zipfile.ZipFile, "open", guard)
    assert_refused(path, target, r"7z x .*sdv5\.zip")


def test_another_file_in_the_target_and_a_full_disk_stop_it_before_anything_is_written(
    tmp_path, target, full_disk
):
    path = write_zip(tmp_path / "a.zip")
    for name in ("notes.txt", "progan"):  # a file, and a file where the archive has a folder
        (target / name).write_text("mine")
        assert_refused(path, target, name)
        (target / name).unlink()
    full_disk(1199)
    assert_refused(path, target, "disk")


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".out.unpacking" / "a").mkdir(parents=True)
    extract(write_zip(tmp_path / "a.zip"), tmp_path / "out")
    assert names(tmp_path) == ["a.zip", "out"]


@pytest.mark.parametrize(
    "stored, strip, expected",
    [
        ("CNN_test/progan/0_real/a.png", True, "progan/0_real/a.png"),
        ("CNN_test/progan/0_real/a.png", False, "CNN_test/progan/0_real/a.png"),
        ("ProGAN/cat/a.png", True, "ProGAN/cat/a.png"),
        ("0_real/1.png", True, "AttGAN/0_real/1.png"),
    ],
)
def test_a_wrapping_folder_is_dropped_and_label_folders_get_a_folder_of_their_own(
    tmp_path, stored, strip, expected
):
    path = write_tar(
        tmp_path / "AttGAN.tar.gz", {stored: b"1", "__MACOSX/._x": b"2", ".DS_Store": b"3"}, "w:gz"
    )
    assert extract(path, tmp_path / "out", strip) == {expected: 1}
    assert list(tree(tmp_path / "out")) == [expected]


# ----- sets


def archive(top="CNN_test"):
    data = io.BytesIO()
    write_zip(data, {f"{top}/progan/0_real/a.png": b"real", f"{top}/progan/1_fake/a.png": b"fake"})
    return data.getvalue()


def run(*arguments):
    """The exit status of data.download."""
    with pytest.raises(SystemExit) as caught:
        guard(lambda: download.main([str(argument) for argument in arguments]) or sys.exit(0))
    return caught.value.code


@pytest.fixture
def site(server, drive, monkeypatch):
    """The server with an archive, as the only source of ForenSynths; other protocols have no network."""
    drive.error = requests.ConnectionError("HTTPSConnectionPool(...)")
    server.body = archive()
    target = "Generalization_Test/ForenSynths_test"
    source = Source(server.url, "http", target, name="file.zip", unpack=True, strip=True)
    monkeypatch.setattr(download, "SOURCES", {**SOURCES, "ForenSynths": (source,)})
    return server


def test_a_set_is_fetched_unpacked_and_left_alone_the_second_time(site, tmp_path, capsys):
    command = ("forensynths", "--output", tmp_path, "--no_verify")
    target, image = tmp_path / "Generalization_Test" / "ForenSynths_test", "progan/1_fake/a.png"
    assert run(*command) == 0
    assert names(target) == ["download.json", "progan"]
    assert (target / image).read_bytes() == b"fake"
    assert names(tmp_path / "archives" / "Generalization_Test" / "ForenSynths_test") == ["file.zip"]
    capsys.readouterr()
    assert run(*command) == 0
    assert "ForenSynths: already there" in capsys.readouterr().out
    (target / image).unlink()
    assert run(*command) == 0
    assert (target / image).read_bytes() == b"fake"
    assert len(site.ranges) == 1  # from the archive that is still there


def test_an_archive_is_deleted_only_when_asked_and_only_after_it_was_unpacked(site, tmp_path, capsys):
    command = ("ForenSynths", "--output", tmp_path, "--no_verify", "--delete_archives")
    folder = tmp_path / "archives" / "Generalization_Test" / "ForenSynths_test"
    good, site.body = site.body, site.body.replace(b"real", b"torn", 2)
    assert run(*command) == 1
    assert "damaged" in capsys.readouterr().err
    assert names(folder) == ["file.zip"]
    (folder / "file.zip").unlink()
    site.body = good
    assert run(*command) == 0
    assert names(folder) == []
    assert run(*command) == 0
    assert len(site.ranges) == 2


@pytest.mark.parametrize("facts", [{"bytes": 7}, {"sha256": SHA}])
def test_an_archive_that_is_not_the_published_one_is_not_unpacked(site, tmp_path, monkeypatch, capsys, facts):
    source = replace(download.SOURCES["ForenSynths"][0], **facts)
    monkeypatch.setattr(download, "SOURCES", {**SOURCES, "ForenSynths": (source,)})
    command = ("ForenSynths", "--output", tmp_path, "--no_verify")
    for _ in range(2):  # just fetched, and already there
        assert run(*command) == 1
        assert "file.zip" in capsys.readouterr().err
    assert not (tmp_path / source.target).exists()
    archive_file = tmp_path / "archives" / source.target / "file.zip"
    archive_file.unlink()  # as the message says
    facts = {"bytes": len(site.body), "sha256": hashlib.sha256(site.body).hexdigest()}
    monkeypatch.setattr(download, "SOURCES", {**SOURCES, "ForenSynths": (replace(source, **facts),)})
    assert run(*command) == 0


def test_no_network_is_one_line_each_and_the_others_get_their_turn(site, tmp_path, capsys):
    assert run("Diffusion1kStep", "ForenSynths", "--output", tmp_path, "--no_verify") == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert lines[0].startswith("error: Diffusion1kStep: no connection")
    assert "Diffusion1kStep: failed" in out
    assert "ForenSynths: done" in out
    assert "Traceback" not in err


def test_a_second_run_at_the_same_time_is_refused(site, tmp_path, capsys):
    with owned(tmp_path / "Generalization_Test" / "ForenSynths_test", file=True):
        assert run("ForenSynths", "--output", tmp_path) == 1
    assert "process" in capsys.readouterr().err
    assert site.ranges == []


def test_ctrl_c_says_how_to_resume(site, drive, tmp_path, capsys):
    drive.error = KeyboardInterrupt()
    assert run("Diffusion1kStep", "--output", tmp_path) == 130
    assert "resume" in capsys.readouterr().err


@pytest.fixture
def genimage(tmp_path):
    """Runs GenImage-NPR without a server; put() adds an archive of a generator."""

    def go(*options):
        return run("GenImage-NPR", "--output", tmp_path, "--no_verify", *options)

    def put(generator, data=None):
        path = go.folder / generator / f"{generator}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or archive("val"))

    go.put, go.folder, go.target = put, tmp_path / "archives" / "GenImage", tmp_path / "GenImage"
    go.recorded = lambda: [
        entry["name"] for entry in json.loads((go.target / "download.json").read_text())["archives"]
    ]
    go.image = lambda generator: go.target / generator / "val" / "progan" / "0_real" / "a.png"
    return go


def test_archives_that_were_put_there_by_hand_are_unpacked(genimage, tmp_path):
    genimage.put("ADM")
    folder = tmp_path / "archives" / "Generalization_Test" / "GANGen-Detection"
    folder.mkdir(parents=True)
    write_tar(folder / "AttGAN.tar.gz", {"0_real/a.png": b""}, "w:gz")
    assert run("GenImage-SSP", "GANGen-Detection", "--output", tmp_path, "--no_verify", "--no_fetch") == 0
    assert genimage.image("ADM").is_file()
    assert (tmp_path / "Generalization_Test" / "GANGen-Detection" / "AttGAN" / "0_real" / "a.png").is_file()


@pytest.mark.parametrize("options", [(), ("--delete_archives",)])
def test_an_archive_that_arrives_later_is_unpacked_and_the_record_keeps_the_earlier(
    genimage, capsys, options
):
    for generator in ("ADM", "BigGAN"):
        genimage.put(generator)
        assert genimage(*options) == 0
    assert genimage.image("ADM").is_file()
    assert genimage.image("BigGAN").is_file()
    assert genimage.recorded() == ["ADM/ADM.zip", "BigGAN/BigGAN.zip"]
    assert (genimage.folder / "ADM" / "ADM.zip").exists() == (not options)
    assert capsys.readouterr().out.count("unpack ") == 2
    assert genimage(*options) == 0
    assert "GenImage-NPR: already there" in capsys.readouterr().out


def test_an_archive_of_another_size_than_recorded_is_unpacked_again(genimage):
    genimage.put("ADM")
    assert genimage() == 0
    genimage.put("ADM", archive("train"))
    assert genimage() == 0
    assert (genimage.target / "ADM" / "train" / "progan" / "0_real" / "a.png").is_file()
    assert genimage.recorded() == ["ADM/ADM.zip"]


def test_damaged_and_split_archives_leave_the_others_their_turn(genimage, capsys):
    genimage.put("ADM", b"not a zip")
    genimage.put("Midjourney")
    (genimage.folder / "Midjourney" / "Midjourney.z01").write_bytes(b"")
    genimage.put("wukong")
    assert genimage("--delete_archives") == 1
    assert genimage.recorded() == ["wukong/wukong.zip"]
    error = capsys.readouterr().err
    assert "ADM.zip" in error
    assert f"7z x {genimage.folder}/Midjourney/Midjourney.zip -o{genimage.target}/Midjourney " in error
    shutil.rmtree(genimage.folder / "Midjourney")  # as the message says
    (genimage.target / "Midjourney").mkdir()
    genimage.put("ADM")
    capsys.readouterr()
    assert genimage("--delete_archives") == 0
    assert capsys.readouterr().out.count("unpack ") == 1
    assert tree(genimage.folder) == {}


def test_a_drive_folder_is_asked_again_when_an_archive_of_it_was_damaged(tmp_path, drive):
    command = ("GANGen-Detection", "--output", tmp_path, "--no_verify")
    drive.files = {"a.zip": archive("A"), "b.zip": b"torn"}
    assert run(*command) == 1
    (tmp_path / "archives" / "Generalization_Test" / "GANGen-Detection" / "b.zip").unlink()
    drive.files = {"a.zip": archive("A"), "b.zip": archive("B")}
    assert run(*command) == 0
    assert names(tmp_path / "Generalization_Test" / "GANGen-Detection") == ["A", "B", "download.json"]


def test_a_lost_and_a_changed_image_are_noticed_although_the_number_is_right(genimage, capsys):
    genimage.put("ADM")
    assert genimage() == 0
    genimage.image("ADM").rename(genimage.image("ADM").with_name("junk.png"))
    assert genimage() == 0
    assert genimage.image("ADM").read_bytes() == b"real"
    genimage.image("ADM").write_bytes(b"cut")
    assert genimage() == 1
    assert "a.png" in capsys.readouterr().err


def test_lost_images_without_their_archive_are_an_error_of_one_line(genimage, capsys):
    genimage.put("ADM")
    genimage.put("BigGAN")
    assert genimage("--delete_archives") == 0
    genimage.image("ADM").unlink()
    assert genimage() == 1
    error = capsys.readouterr().err
    assert "ADM/ADM.zip" in error
    assert error.count("\n") == 1
    genimage.put("ADM")
    assert genimage() == 0
    assert genimage.image("ADM").is_file()


def test_a_record_of_an_earlier_version_counts_as_there(site, tmp_path, capsys):
    # Split zips were unpacked, and the record had more keys and the link of that day.
    target, folder = tmp_path / "Generalization_Test" / "ForenSynths_test", tmp_path / "archives"
    (target / "progan").mkdir(parents=True)
    (target / "progan" / "a.png").write_bytes(b"real")
    parts = {"file.z01": b"12", "file.zip": b"345"}
    entry = {
        "name": "file.z01",
        "members": 1,
        "unpacked_bytes": 4,
        "sizes": base64.b64encode(zlib.compress(b'{"progan/a.png": 4}')).decode(),
        "parts": [{"name": name, "bytes": len(data), "sha256": "0"} for name, data in parts.items()],
    }
    record = {"source": "https://example.org/old.zip", "complete": True, "archives": [entry]}
    (target / "download.json").write_text(json.dumps(record))
    for there in (False, True):
        assert run("ForenSynths", "--output", tmp_path, "--no_verify") == 0
        assert "ForenSynths: already there" in capsys.readouterr().out
        (folder / "Generalization_Test" / "ForenSynths_test").mkdir(parents=True, exist_ok=True)
        for name, data in parts.items() if not there else ():
            (folder / "Generalization_Test" / "ForenSynths_test" / name).write_bytes(data)
    assert site.ranges == []


@pytest.mark.parametrize("record", ["", "[]", '{"archives": [{}]}', "null"])
def test_a_damaged_record_counts_as_none(genimage, record):
    genimage.put("ADM")
    assert genimage() == 0
    (genimage.target / "download.json").write_text(record)
    assert genimage() == 0
    assert genimage.recorded() == ["ADM/ADM.zip"]


# ----- the command line


def test_a_dry_run_writes_nothing(site, tmp_path, capsys):
    assert run("--dry_run", "--output", tmp_path / "new") == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in DEFAULT)
    assert "free disk" in out
    assert names(tmp_path) == []
    assert site.ranges == []


def test_manual_sources_are_named_with_their_folder(tmp_path, capsys):
    assert run("GenImage-NPR", "Tiny-GenImage", "--output", tmp_path, "DFIG") == 1
    out = capsys.readouterr().out
    for folder in ("GenImage", "Tiny-GenImage", "DFIG"):
        assert f"{tmp_path / folder}" in out
    assert "GenImage-NPR: by hand" in out


def test_complete_sets_are_verified_once_per_root(site, tmp_path, monkeypatch):
    calls = []

    def note(command, **_):
        calls.append(command[1:])
        return SimpleNamespace(returncode=len(calls) - 1)

    monkeypatch.setattr(download.subprocess, "run", note)
    base = ["-m", "tools.verify", "--dataroot"]
    assert run("ForenSynths", "--output", tmp_path) == 0
    assert calls == [[*base, str(tmp_path / "Generalization_Test"), "--protocols", "ForenSynths"]]
    (tmp_path / "DFIG" / "test").mkdir(parents=True)
    assert run("DFIG", "--output", tmp_path) == 1
    assert calls[1] == [*base, str(tmp_path), "--protocols", "DFIG"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["Foren"], "unknown name Foren; known: ForenSynths, "),
        (["weights", "VGG"], "unknown name VGG; known: NPR, "),
        (["weights"], "weights needs a name; known: NPR, "),
        (["NPR", "--no_fech"], "did you mean --no_fetch"),
    ],
)
def test_an_unknown_name_or_option_lists_the_known_ones(arguments, words, capsys):
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


def test_weights_show_their_licence_and_are_checked(server, tmp_path, monkeypatch, capsys):
    source = Source(server.url, "http", "pretrained/net.pth", **KNOWN, licence="none stated")
    monkeypatch.setattr(download, "WEIGHTS", {"Net": (source,)})
    for state in ("done", "already there"):
        assert run("weights", "net", "--output", tmp_path) == 0
        out = capsys.readouterr().out
        assert "licence: none stated" in out
        assert f"Net: {state}" in out
    assert tree(tmp_path) == {"pretrained/net.pth": BODY}
    (tmp_path / "pretrained" / "net.pth").write_bytes(b"mine")
    assert run("weights", "net", "--output", tmp_path) == 1
    assert "net.pth" in capsys.readouterr().err


def test_weights_in_a_drive_folder_are_checked(tmp_path, monkeypatch, capsys, drive):
    source = Source("id", "gdrive_folder", "pretrained/Net", name="net.pth", sha256=SHA)
    monkeypatch.setattr(download, "WEIGHTS", {"Net": (source,)})
    drive.files = {"net.pth": BODY}
    assert run("weights", "net", "--output", tmp_path) == 0
    drive.files = {"net.pth": b"other"}
    assert run("weights", "net", "--output", tmp_path) == 0  # not asked again
    assert run("weights", "net", "--output", tmp_path / "b") == 1
    assert "net.pth" in capsys.readouterr().err


def test_the_list_names_everything(capsys):
    assert run("--list") == 0
    out = capsys.readouterr().out
    assert {*SOURCES, *WEIGHTS} <= set(re.findall(r"[\w-]+", out))


def test_the_script_runs_a_dry_run(tmp_path):
    command = ["bash", ROOT / "download_dataset.sh", "--dry_run", "GANGen-Detection", "--output", tmp_path]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "GANGen-Detection: https://drive.google.com/drive/folders/" in done.stdout
    assert names(tmp_path) == []


# ----- the tables


def test_the_table_names_protocols_and_the_folders_they_look_in():
    assert set(SOURCES) - {"ForenSynths-train"} == set(PROTOCOLS) - {"Sample", "Open-Test"}
    assert set(DEFAULT) == set(PROTOCOL_DEFAULT)
    for name, sources in SOURCES.items():
        row = PROTOCOLS.get(name)
        roots = [root.lower() for root in (*row.roots, *row.borrowed)] if row else []
        for source in sources:
            assert not roots or source.target.rpartition("/")[2].lower() in roots
            assert source.kind in KINDS
            assert source.name or source.kind not in ("http", "gdrive")
    unpacked = {source for sources in SOURCES.values() for source in sources if source.unpack}
    assert len({source.target for source in unpacked}) == len(unpacked)


def test_weights_have_a_licence_and_where_they_are_fetched_a_checksum():
    for (source,) in WEIGHTS.values():
        assert source.licence
        assert source.kind == "manual" or re.fullmatch("[0-9a-f]{64}", source.sha256)
