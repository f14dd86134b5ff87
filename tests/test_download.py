"""Downloads from a server on this machine: resume, checksums, retries, Drive's failures, command line."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from conftest import ROOT

from data import download, fetch
from data.fetch import FetchError, fetch_drive, fetch_http
from data.protocols import DEFAULT as PROTOCOL_DEFAULT
from data.protocols import PROTOCOLS
from data.sources import DEFAULT, SOURCES, WEIGHTS, Source, Weights

BODY = os.urandom(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves server.body as server.state says; notes every request's Range in server.ranges."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server.state
        state.ranges.append(self.headers.get("Range"))
        status = state.statuses.pop(0) if state.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        start = self.first_byte(state)
        self.send_response(206 if start else 200)
        if start:
            told = start + state.shift
            self.send_header("Content-Range", f"bytes {told}-{len(state.body) - 1}/{len(state.body)}")
        self.send_header("Content-Type", state.kind)
        self.send_header("Content-Length", str(len(state.body) - start))
        if state.etag:
            self.send_header("ETag", state.etag)
        self.end_headers()
        stop = state.cuts.pop(0) if state.cuts else None
        self.wfile.write(state.body[start:stop])

    def first_byte(self, state):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, state.etag)
        return int(asked[1]) if asked and same and not state.ignore_range else 0


@pytest.fixture
def server():
    """A server; its `state` says how it answers, `url` where it is."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.state = SimpleNamespace(
        body=BODY,
        etag='"one"',
        kind="application/zip",
        cuts=[],
        statuses=[],
        ranges=[],
        ignore_range=False,
        shift=0,
    )
    httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}/file.zip"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def get(server, tmp_path):
    """fetch_http into <tmp>/new/file.zip; notes the pauses in get.pauses."""
    pauses = []

    def run(**facts):
        return fetch_http(server.url, run.target, sleep=pauses.append, timeout=5, **facts)

    run.target, run.pauses = tmp_path / "new" / "file.zip", pauses
    run.part = run.target.with_name("file.zip.part")
    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server, get):
    assert get(size=len(BODY), sha256=SHA) is True
    assert get.target.read_bytes() == BODY
    assert get(size=len(BODY), sha256=SHA) is False
    assert server.state.ranges == [None]
    assert names(get.target.parent) == ["file.zip"]


def test_a_cut_download_goes_on_where_it_stopped(server, get):
    server.state.cuts = [100_000, 200_000]
    assert get(size=len(BODY), sha256=SHA)
    assert server.state.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert get.target.read_bytes() == BODY


def test_a_later_run_goes_on_where_ctrl_c_stopped(server, get, monkeypatch):
    server.state.cuts = [120_000]

    def ctrl_c(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_http(server.url, get.target, sleep=ctrl_c)
    assert get.part.stat().st_size == 120_000
    assert not get.target.exists()
    assert get()
    assert server.state.ranges[-1] == "bytes=120000-"
    assert get.target.read_bytes() == BODY


def stop(*_):
    raise KeyboardInterrupt


def test_a_kill_before_the_first_byte_of_a_new_version_does_not_glue_it_to_the_old(server, get, monkeypatch):
    server.state.cuts = [100_000]
    with pytest.raises(KeyboardInterrupt):
        fetch_http(server.url, get.target, sleep=stop)
    server.state.body, server.state.etag = os.urandom(300_000), '"two"'
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_write", stop)  # the notes tell of version two by now
        get()
    assert get()
    assert get.target.read_bytes() == server.state.body


@pytest.mark.parametrize("facts", [{"size": len(BODY), "sha256": SHA}, {}])
def test_a_complete_part_is_not_fetched_again(server, get, monkeypatch, facts):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_accept", stop)
        get(**facts)
    usage = namedtuple("usage", "total used free")(0, 0, fetch.MARGIN)  # no room for the file once more
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert get(**facts)
    assert server.state.ranges == [None]
    assert get.target.read_bytes() == BODY
    assert names(get.target.parent) == ["file.zip"]


def test_a_complete_part_that_nothing_vouches_for_is_fetched_again(server, get, monkeypatch):
    server.state.etag = ""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_accept", stop)
        get()
    server.state.body = os.urandom(300_000)
    assert get()
    assert get.target.read_bytes() == server.state.body


def test_a_web_page_that_came_whole_is_not_kept_as_a_complete_part(server, get):
    server.state.body = b"<!DOCTYPE html><title>Quota exceeded</title>"
    with pytest.raises(FetchError, match="web page"):
        get()
    server.state.body = BODY
    assert get()
    assert get.target.read_bytes() == BODY


def test_a_server_without_range_sends_all_again(server, get):
    server.state.cuts, server.state.ignore_range = [100_000], True
    assert get()
    assert server.state.ranges == [None, "bytes=100000-"]
    assert get.target.read_bytes() == BODY


def test_a_file_that_changed_is_not_glued_to_the_old_one(server, get):
    server.state.cuts = [100_000]
    with pytest.raises(KeyboardInterrupt):
        fetch_http(server.url, get.target, sleep=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    server.state.body, server.state.etag = os.urandom(300_000), '"two"'
    assert get()
    assert get.target.read_bytes() == server.state.body


def test_nothing_vouches_for_the_part_then_it_starts_anew(server, get):
    server.state.cuts, server.state.etag = [100_000], ""
    assert get()
    assert server.state.ranges == [None, None]
    assert get.target.read_bytes() == BODY


def test_a_range_other_than_asked_for_is_not_used(server, get):
    server.state.cuts, server.state.shift = [100_000], 7
    assert get()
    assert server.state.ranges == [None, "bytes=100000-", None]
    assert get.target.read_bytes() == BODY


def test_a_wrong_checksum_is_set_aside(get):
    with pytest.raises(FetchError, match=f"has sha256 {SHA}, expected {'0' * 64}"):
        get(sha256="0" * 64)
    assert names(get.target.parent) == ["file.zip.wrong"]


def test_another_size_than_published_is_refused_before_it_is_fetched(get):
    with pytest.raises(FetchError, match="300000 bytes, the published file 5"):
        get(size=5)
    assert not get.target.exists()


def test_a_file_that_is_there_is_checked_and_never_replaced(server, get):
    get.target.parent.mkdir()
    get.target.write_bytes(b"mine")
    with pytest.raises(FetchError, match="4 bytes, expected 300000; move it away"):
        get(size=len(BODY))
    with pytest.raises(FetchError, match="has sha256"):
        get(sha256=SHA)
    assert get() is False
    assert get.target.read_bytes() == b"mine"
    assert server.state.ranges == []


def test_passing_failures_are_tried_again_with_growing_pauses(server, get):
    server.state.statuses = [500, 429, 503]
    assert get()
    assert get.pauses == [1, 2, 4]


def test_lasting_failures_end_in_one_line(server, get):
    server.state.statuses = [500] * 9
    with pytest.raises(FetchError, match=r"HTTP 500.*run the same command again"):
        get()
    assert len(server.state.ranges) == fetch.ATTEMPTS
    server.state.statuses = [404]
    with pytest.raises(FetchError, match="HTTP 404"):
        get()
    assert len(server.state.ranges) == fetch.ATTEMPTS + 1


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_a_web_page_is_not_taken_for_a_file(server, get, kind):
    server.state.body, server.state.kind = b"\n<!DOCTYPE html><title>Quota exceeded</title>", kind
    with pytest.raises(FetchError, match="web page"):
        get()
    assert not get.target.exists()


def test_no_server_is_one_line(get, server):
    server.server_close()
    with pytest.raises(FetchError, match="no connection") as caught:
        get()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("facts", [{"size": 300_000}, {}])
def test_a_full_disk_is_noticed_first(server, get, monkeypatch, facts):
    usage = namedtuple("usage", "total used free")(0, 0, fetch.MARGIN + 299_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match="free disk"):
        get(**facts)
    assert len(server.state.ranges) == (0 if facts else 1)  # without a known size the server says it


# ---- Google Drive


class ConnectionError_(Exception):
    """Named like the one of requests."""


ConnectionError_.__name__ = "ConnectionError"


@pytest.mark.parametrize(
    "error, words",
    [
        (RuntimeError("Cannot retrieve\n\tthe public link"), "Cannot retrieve the public link"),
        (ConnectionError_("HTTPSConnectionPool(host=...)"), "no connection to drive.google.com"),
        (ImportError("gdown"), "pip install gdown"),
        (None, "gave nothing"),
    ],
)
def test_a_failure_of_gdown_becomes_one_line_with_the_way_by_hand(tmp_path, monkeypatch, error, words):
    def fail(*_):
        if error:
            raise error

    monkeypatch.setattr(fetch, "call_gdown", fail)
    with pytest.raises(FetchError, match=words) as caught:
        fetch_drive("id", tmp_path / "a.zip", "https://drive.google.com/file/d/id/view")
    assert "by hand: https://drive.google.com/file/d/id/view" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", [False, True])
def test_a_page_of_drive_is_set_aside(tmp_path, monkeypatch, folder):
    def page(_, target, folder):
        path = target / "a.zip" if folder else target
        path.parent.mkdir(exist_ok=True)
        path.write_text("<html>Quota exceeded")
        return [str(path)]

    monkeypatch.setattr(fetch, "call_gdown", page)
    with pytest.raises(FetchError, match="web page"):
        fetch_drive("id", tmp_path / "got", "page", folder=folder)
    assert names(tmp_path / "got" if folder else tmp_path) == ["a.zip.wrong" if folder else "got.wrong"]


def test_gdown_gets_only_options_that_it_knows(tmp_path, monkeypatch):
    calls = []

    def folder(id, output, quiet, resume=False):
        calls.append((id, output, quiet, resume))

    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download_folder=folder))
    fetch.call_gdown("id", tmp_path, True)
    assert calls == [("id", str(tmp_path), False, True)]


# ---- the command line


def archive(top="CNN_test"):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(f"{top}/progan/0_real/a.png", b"real")
        file.writestr(f"{top}/progan/1_fake/a.png", b"fake")
    return data.getvalue()


@pytest.fixture
def site(server, monkeypatch):
    """The server with an archive, as the only source of ForenSynths; other protocols have no network."""
    server.state.body = archive()
    source = Source(
        server.url, "http", "Generalization_Test/ForenSynths_test", name="file.zip", unpack=True, strip=True
    )
    table = {name: (source,) if name == "ForenSynths" else value for name, value in SOURCES.items()}
    monkeypatch.setattr(download, "SOURCES", table)

    def offline(*_):
        raise ConnectionError_("no")

    monkeypatch.setattr(fetch, "call_gdown", offline)
    return server


def run(*arguments):
    """The exit status of data.download."""
    with pytest.raises(SystemExit) as caught:
        download.main([str(argument) for argument in arguments])
    return caught.value.code


def test_a_set_is_fetched_unpacked_and_left_alone_the_second_time(site, tmp_path, capsys):
    command = ("forensynths", "--output", tmp_path, "--no_verify")
    assert run(*command) == 0
    target = tmp_path / "Generalization_Test" / "ForenSynths_test"
    assert names(target) == ["download.json", "progan"]
    assert (target / "progan" / "1_fake" / "a.png").read_bytes() == b"fake"
    record = json.loads((target / "download.json").read_text())
    body = site.state.body
    part = {"name": "file.zip", "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert record["archives"][0]["parts"] == [part]
    assert record["archives"][0]["members"] == 2
    assert names(tmp_path / "archives" / "Generalization_Test" / "ForenSynths_test") == ["file.zip"]
    capsys.readouterr()
    assert run(*command) == 0
    assert "ForenSynths: already there" in capsys.readouterr().out
    assert len(site.state.ranges) == 1
    (target / "progan" / "1_fake" / "a.png").unlink()
    assert run(*command) == 0
    assert (target / "progan" / "1_fake" / "a.png").read_bytes() == b"fake"
    assert len(site.state.ranges) == 1  # from the archive that is still there


def test_an_archive_is_deleted_only_when_asked_and_only_after_it_was_unpacked(site, tmp_path, capsys):
    command = ("ForenSynths", "--output", tmp_path, "--no_verify", "--delete_archives")
    folder = tmp_path / "archives" / "Generalization_Test" / "ForenSynths_test"
    good = site.state.body
    site.state.body = good.replace(b"real", b"torn")
    if site.state.body == good:
        pytest.fail("the archive was not damaged")
    assert run(*command) == 1
    assert "damaged" in capsys.readouterr().err
    assert names(folder) == ["file.zip"]
    (folder / "file.zip").unlink()
    site.state.body = good
    assert run(*command) == 0
    assert names(folder) == []


def test_no_network_is_one_line_each_and_the_others_get_their_turn(site, tmp_path, capsys):
    command = ("Diffusion1kStep", "ForenSynths", "--output", tmp_path, "--no_verify")
    assert run(*command) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: Diffusion1kStep: Google Drive: no connection")
    assert "Diffusion1kStep: failed" in out
    assert "ForenSynths: done" in out
    assert "Traceback" not in err


def test_ctrl_c_says_how_to_go_on(site, tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "call_gdown", stopped)
    assert run("Diffusion1kStep", "--output", tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(site, tmp_path, capsys):
    assert run("--dry_run", "--output", tmp_path / "new") == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in DEFAULT)
    assert out.count("size unknown, so free disk is not checked beforehand") == len(DEFAULT)
    assert "free disk at" in out
    assert names(tmp_path) == []
    assert site.state.ranges == []


def test_manual_sources_are_named_with_their_folder(tmp_path, capsys):
    assert run("GenImage-NPR", "Tiny-GenImage", "DFIG", "--output", tmp_path) == 1
    out = capsys.readouterr().out
    for folder in ("GenImage", "Tiny-GenImage", "DFIG"):
        assert f"by hand: put it into {tmp_path / folder}" in out
    assert "GenImage-NPR: by hand" in out


def test_archives_that_were_put_there_by_hand_are_unpacked(tmp_path):
    folder = tmp_path / "archives" / "GenImage" / "ADM"
    folder.mkdir(parents=True)
    (folder / "adm.zip.001").write_bytes(archive("val")[:100])
    (folder / "adm.zip.002").write_bytes(archive("val")[100:])
    folder = tmp_path / "archives" / "Generalization_Test" / "GANGen-Detection"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "AttGAN.tar.gz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("0_real/a.png"))
    command = ("GenImage-SSP", "GANGen-Detection", "--output", tmp_path, "--no_verify", "--no_fetch")
    assert run(*command) == 0
    assert (tmp_path / "GenImage" / "ADM" / "val" / "progan" / "1_fake" / "a.png").is_file()
    assert (tmp_path / "Generalization_Test" / "GANGen-Detection" / "AttGAN" / "0_real" / "a.png").is_file()


@pytest.fixture
def genimage(tmp_path):
    """Runs GenImage-NPR without a server; put() lays an archive of a generator down."""

    def go(*options):
        return run("GenImage-NPR", "--output", tmp_path, "--no_verify", *options)

    def put(generator, data=None):
        path = go.folder / generator / f"{generator}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or archive("val"))
        return path

    go.put, go.folder, go.target = put, tmp_path / "archives" / "GenImage", tmp_path / "GenImage"
    go.recorded = lambda: [
        entry["name"] for entry in json.loads((go.target / "download.json").read_text())["archives"]
    ]
    go.image = lambda generator: go.target / generator / "val" / "progan" / "0_real" / "a.png"
    return go


@pytest.mark.parametrize("options", [(), ("--delete_archives",)])
def test_an_archive_that_arrives_later_is_unpacked_and_the_record_keeps_the_earlier(
    genimage, capsys, options
):
    genimage.put("ADM")
    assert genimage(*options) == 0
    genimage.put("BigGAN")
    assert genimage(*options) == 0
    assert genimage.image("ADM").is_file()
    assert genimage.image("BigGAN").is_file()
    assert genimage.recorded() == ["ADM/ADM.zip", "BigGAN/BigGAN.zip"]
    assert (genimage.folder / "ADM" / "ADM.zip").exists() == (not options)
    out = capsys.readouterr().out
    assert out.count("unpack ") == 2
    assert genimage(*options) == 0
    assert "GenImage-NPR: already there" in capsys.readouterr().out


def test_an_archive_with_other_parts_than_recorded_is_unpacked_again(genimage, capsys):
    genimage.put("ADM")
    assert genimage() == 0
    genimage.put("ADM", archive("train"))
    assert genimage() == 0
    assert (genimage.target / "ADM" / "train" / "progan" / "0_real" / "a.png").is_file()
    assert genimage.recorded() == ["ADM/ADM.zip"]


def test_a_damaged_archive_leaves_the_others_recorded(genimage, capsys):
    genimage.put("ADM")
    genimage.put("BigGAN", b"no zip")
    assert genimage() == 1
    assert genimage.recorded() == ["ADM/ADM.zip"]
    assert genimage("--delete_archives") == 1
    genimage.put("BigGAN")
    capsys.readouterr()
    assert genimage("--delete_archives") == 0
    assert capsys.readouterr().out.count("unpack ") == 1
    assert not [path for path in genimage.folder.rglob("*") if path.is_file()]


def test_a_drive_folder_is_asked_again_when_an_archive_of_it_was_damaged(tmp_path, monkeypatch):
    def give(_, target, folder):
        target.mkdir(parents=True, exist_ok=True)
        for name, data in bodies.items():
            (target / name).write_bytes(data)
        return ["a.zip"]

    monkeypatch.setattr(fetch, "call_gdown", give)
    command = ("GANGen-Detection", "--output", tmp_path, "--no_verify")
    bodies = {"a.zip": archive("A"), "b.zip": b"torn"}
    assert run(*command) == 1
    (tmp_path / "archives" / "Generalization_Test" / "GANGen-Detection" / "b.zip").unlink()
    bodies = {"a.zip": archive("A"), "b.zip": archive("B")}
    assert run(*command) == 0
    assert names(tmp_path / "Generalization_Test" / "GANGen-Detection") == ["A", "B", "download.json"]


def test_a_lost_image_is_noticed_although_another_file_makes_up_the_number(genimage, capsys):
    genimage.put("ADM")
    assert genimage() == 0
    genimage.image("ADM").unlink()
    genimage.image("ADM").with_name("junk.png").write_bytes(b"junk")
    assert genimage() == 0
    assert genimage.image("ADM").read_bytes() == b"real"


def test_an_image_of_another_size_is_noticed(genimage, capsys):
    genimage.put("ADM")
    assert genimage() == 0
    genimage.image("ADM").write_bytes(b"cut")
    assert genimage() == 1
    assert "a.png is there already with other content" in capsys.readouterr().err


def test_lost_images_without_their_archive_are_an_error_of_one_line(genimage, capsys):
    genimage.put("ADM")
    genimage.put("BigGAN")
    assert genimage("--delete_archives") == 0
    genimage.image("ADM").unlink()
    assert genimage() == 1
    lines = capsys.readouterr().err.splitlines()
    words = f"files of ADM/ADM.zip are missing or changed in {genimage.target}; put ADM/ADM.zip into"
    assert [line for line in lines if words in line] == lines
    genimage.put("ADM")
    assert genimage() == 0
    assert genimage.image("ADM").is_file()


@pytest.mark.parametrize("record", ["", "[]", '{"archives": [{}]}', "null"])
def test_a_record_that_is_no_record_counts_as_none(genimage, record):
    genimage.put("ADM")
    assert genimage() == 0
    (genimage.target / "download.json").write_text(record)
    assert genimage() == 0
    assert genimage.recorded() == ["ADM/ADM.zip"]


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
        (["Foren"], "unknown protocol Foren; known: ForenSynths, "),
        (["weights", "VGG"], "unknown weights VGG; known: NPR, "),
        (["weights"], "weights needs a name; known: NPR, "),
    ],
)
def test_an_unknown_name_lists_the_known_ones(arguments, words, capsys):
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


def test_weights_show_their_licence_and_are_checked(server, tmp_path, monkeypatch, capsys):
    source = Source(server.url, "http", "pretrained/net.pth", bytes=len(BODY), sha256=SHA)
    monkeypatch.setattr(download, "WEIGHTS", {"Net": Weights(source, "none stated")})
    for state in ("done", "already there"):
        assert run("weights", "net", "--output", tmp_path) == 0
        out = capsys.readouterr().out
        assert "licence: none stated" in out
        assert f"Net: {state}" in out
    assert (tmp_path / "pretrained" / "net.pth").read_bytes() == BODY
    (tmp_path / "pretrained" / "net.pth").write_bytes(b"mine")
    assert run("weights", "net", "--output", tmp_path) == 1
    assert "move it away" in capsys.readouterr().err


def test_weights_in_a_drive_folder_are_checked(tmp_path, monkeypatch, capsys):
    source = Source("id", "gdrive_folder", "pretrained/Net", name="net.pth", sha256=SHA)
    monkeypatch.setattr(download, "WEIGHTS", {"Net": Weights(source, "none stated")})

    def give(_, target, folder):
        target.mkdir(exist_ok=True)
        (target / "net.pth").write_bytes(bodies.pop(0))
        return ["net.pth"]

    monkeypatch.setattr(fetch, "call_gdown", give)
    bodies = [BODY]
    assert run("weights", "net", "--output", tmp_path) == 0
    assert run("weights", "net", "--output", tmp_path) == 0
    bodies = [b"other"]
    assert run("weights", "net", "--output", tmp_path / "b") == 1
    assert "expected" in capsys.readouterr().err


def test_the_list_names_everything(capsys):
    download.main(["--list"])
    out = capsys.readouterr().out
    assert all(f"  {name}: " in out for name in (*SOURCES, *WEIGHTS))


def test_the_script_runs_a_dry_run(tmp_path):
    command = ["bash", str(ROOT / "download_dataset.sh"), "--dry_run", "GANGen-Detection", "--output"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GANGen-Detection: https://drive.google.com/drive/folders/" in done.stdout
    assert names(tmp_path) == []


# ---- the table


def test_the_table_names_protocols_and_the_folders_they_look_in():
    assert set(SOURCES) - {"ForenSynths-train"} == set(PROTOCOLS) - {"Sample"}
    assert set(DEFAULT) == set(PROTOCOL_DEFAULT)
    for name, sources in SOURCES.items():
        row = PROTOCOLS.get(name)
        roots = [root.lower() for root in (*row.roots, *row.borrowed)] if row else []
        for source in sources:
            assert not roots or source.target.rpartition("/")[2].lower() in roots
            assert source.name or source.kind not in ("http", "gdrive")
    unpacked = {source for sources in SOURCES.values() for source in sources if source.unpack}
    assert len({source.target for source in unpacked}) == len(unpacked)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'ftp'; known: http, "):
        Source("x", "ftp", "x")


def test_weights_have_a_licence_and_where_they_are_fetched_a_checksum():
    for weights in WEIGHTS.values():
        assert weights.licence
        assert weights.source.kind == "manual" or re.fullmatch("[0-9a-f]{64}", weights.source.sha256)
