"""data.download manifest: files of a server and of git copies, checked, resumed, refused."""

import csv
import hashlib
import io
import shutil
import subprocess
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from common import UserError, read_table
from data import discover, download, manifest, scan


def encoded(number, container):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, container)
    return stream.getvalue()


FILES = {
    "a b/one #1?.png": encoded(0, "PNG"),
    "a b/two.png": encoded(1, "WEBP"),  # its name says another format
    "thrée.jpg": encoded(2, "JPEG"),
    "palette.png": encoded(3, "PNG"),
}
COMMIT = "1" * 40
COLUMNS = (*manifest.COLUMNS, "part", "pixel_state", "mark", "licence")


def row(path, label, generator, part="train", state="original", mark="", **cells):
    content = FILES.get(path, b"")
    given = {
        "repo": "me/pictures",
        "commit": COMMIT,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    given |= {"label": label, "generator": generator, "part": part, "pixel_state": state, "mark": mark}
    return given | cells


ROWS = [
    row("a b/one #1?.png", 0, "coco"),
    row("a b/two.png", 1, "sd3", mark="corner"),
    row("thrée.jpg", 1, "sd3", part="test"),
    row("palette.png", 1, "gpt", state="palette"),
]
TREE = {
    "train/real_coco/0_real/00000_one_1_.png": FILES["a b/one #1?.png"],
    "train/sd3/1_fake/00001_two.webp": FILES["a b/two.png"],
    "test/sd3/1_fake/00002_thr_e.jpg": FILES["thrée.jpg"],
    "train/gpt/1_fake/00003_palette.png": FILES["palette.png"],
}


class Handler(BaseHTTPRequestHandler):
    """Serves FILES at /<repo>/<commit>/<path>; server.answers holds statuses to give first."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        content = FILES.get(unquote(self.path).removeprefix(f"/me/pictures/{COMMIT}/"))
        status = self.server.answers.pop(0) if self.server.answers else 200 if content else 404
        content = content if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(manifest.time, "sleep", lambda _: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.answers = [], []
        server.flags = ("--url", f"http://127.0.0.1:{server.server_address[1]}/{{repo}}/{{commit}}/{{path}}")
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def git(folder, *words):
    name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", "-C", folder, *name, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def mirror(tmp_path):
    """(flags, commit) of a git copy of FILES."""
    folder = tmp_path / "mirror" / "me+pictures" / "repo"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "pictures")
    return ("--mirror", str(tmp_path / "mirror")), git(folder, "rev-parse", "HEAD")


@pytest.fixture
def get(tmp_path, capsys):
    """get(rows, flags) runs the command; returns (exit status, lines that it printed, {path: bytes})."""

    def run(rows, flags, columns=COLUMNS):
        with open(tmp_path / "m.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as ended:
            download.main(["manifest", str(tmp_path / "m.csv"), "--output", str(out), *flags])
        files = [path for path in out.rglob("*") if path.is_file()]
        tree = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
        return ended.value.code, capsys.readouterr().out.splitlines(), tree

    return run


def test_a_server_and_a_git_copy_give_the_same_folders(get, server, mirror, tmp_path):
    assert get(ROWS, server.flags)[::2] == (0, TREE)
    assert scan(str(tmp_path / "out"), discover(str(tmp_path / "out" / "train"))).counts() == {
        "gpt": [0, 1],
        "real_coco": [1, 0],
        "sd3": [0, 1],
    }
    shutil.rmtree(tmp_path / "out")
    flags, commit = mirror
    rows = [{**row, "commit": commit} for row in ROWS]
    assert get(rows, flags)[::2] == (0, TREE)
    bare = tmp_path / "bare"
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "mirror/me+pictures/repo"), str(bare))
    shutil.rmtree(tmp_path / "mirror/me+pictures/repo")
    shutil.move(bare, tmp_path / "mirror/me+pictures/repo")
    shutil.rmtree(tmp_path / "out")
    assert get(rows, flags)[::2] == (0, TREE)


def test_a_second_run_asks_for_what_is_missing_or_changed_only(get, server, tmp_path):
    get(ROWS, server.flags)
    (tmp_path / "out/test/sd3/1_fake/00002_thr_e.jpg").unlink()
    (tmp_path / "out/train/gpt/1_fake/00003_palette.png").write_bytes(b"half")
    server.asked.clear()
    status, lines, tree = get(ROWS, server.flags)
    assert (status, len(server.asked), tree) == (0, 2, TREE)
    assert "2 there already, 2 written" in lines[0]


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ("--part train", "013"),
        ("--part train,test --no_palette", "012"),
        ("--no_marks", "023"),
    ],
)
def test_flags_leave_rows_out(get, server, flags, numbers):
    status, _, tree = get(ROWS, (*server.flags, *flags.split()))
    assert status == 0
    assert {path.split("/")[-1][4] for path in tree} == set(numbers)


def test_the_folder_of_a_part_is_that_of_split_or_none(get, server):
    columns = [*manifest.COLUMNS, "split"]
    tree = get([{**ROWS[0], "split": "val"}], server.flags, columns)[2]
    tree |= get([ROWS[0]], server.flags, manifest.COLUMNS)[2]
    assert sorted(tree) == ["real_coco/0_real/00000_one_1_.png", "val/real_coco/0_real/00000_one_1_.png"]


WRONG = {
    "sha256": row("a b/two.png", 1, "x", sha256="0" * 64),
    "404": row("gone.png", 1, "x"),
    "inside": row("a/../../b.png", 1, "x", sha256="1" * 64),
    "inside the": row("a\nb.png", 1, "x", sha256="2" * 64),
    "repo": row("a.png", 1, "x", repo="../..", sha256="3" * 64),
    "commit": row("a.png", 1, "x", commit="--all", sha256="4" * 64),
    "real": row("a.png", "maybe", "x", sha256="5" * 64),
    "again": row("a b/one #1?.png", 1, "coco"),
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_row_is_a_line_and_the_others_are_fetched(get, server, word):
    status, lines, tree = get([*ROWS, WRONG[word]], server.flags)
    assert (status, tree, len(lines)) == (1, TREE, 2)
    assert "1 missing" in lines[0]
    assert "row 4" in lines[1] and word in lines[1]


def test_the_same_image_twice_is_written_once_and_said(get, server):
    status, lines, tree = get([*ROWS, ROWS[1]], server.flags)
    assert (status, tree, len(lines)) == (0, TREE, 2)
    assert "row 1" in lines[1]


def test_what_a_mirror_lacks_is_one_line_per_repository_or_file(get, mirror, tmp_path):
    flags, commit = mirror
    (tmp_path / "mirror/not+git/repo").mkdir(parents=True)
    there = {**ROWS[0], "commit": commit}
    rows = [
        there,
        {**ROWS[1], "commit": "2" * 40},
        {**ROWS[2], "commit": commit, "path": "a b"},  # a folder
        {**there, "path": "a b/two.png", "sha256": "5" * 64},
        {**ROWS[3], "commit": commit},
        *[{**there, "repo": "no/copy", "sha256": digit * 64} for digit in "67"],
        *[{**there, "repo": "not/git", "sha256": digit * 64} for digit in "89"],
    ]
    status, lines, tree = get(rows, flags)
    assert status == 1 and len(tree) == 2
    assert "7 missing" in lines[0]
    assert len(lines) == 6  # three files, two repositories
    assert sum("2 images" in line for line in lines) == 2


def test_without_git_a_mirror_is_refused(get, mirror, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="git"):
        get(ROWS, mirror[0])


@pytest.mark.parametrize(("answers", "status"), [([503, 429], 0), ([503] * 4, 1), ([403], 1)])
def test_a_busy_server_is_asked_again(get, server, answers, status):
    server.answers = answers
    assert get(ROWS[:1], server.flags)[0] == status


@pytest.mark.parametrize(
    ("columns", "flags", "word"),
    [
        (COLUMNS[1:], [], "repo"),
        (manifest.COLUMNS, ["--no_palette"], "pixel_state"),
        (manifest.COLUMNS, ["--no_marks"], "mark"),
        (manifest.COLUMNS, ["--part", "train"], "split"),
        (COLUMNS, ["--part", "train,dev"], "dev"),
    ],
)
def test_an_absent_column_or_part_is_refused(get, columns, flags, word):
    with pytest.raises(UserError, match=word):
        get(ROWS, flags, columns)


def test_an_unknown_field_of_the_url_is_refused(get):
    for url in ("http://x/{branch}", "http://x/{repo.y}", "x/{path}"):
        assert get(ROWS, ["--url", url])[0] == 2


# ----- the manifest of this repository


@pytest.fixture(scope="module")
def own():
    return read_table(ROOT / "weights" / "manifest.csv", (*manifest.COLUMNS, "part", "licence", "mark"))


def test_the_own_manifest_is_split_by_repository_and_each_part_has_photographs(own):
    assert len({(row["repo"], row["part"]) for row in own}) == len({row["repo"] for row in own})
    assert len({row["sha256"] for row in own}) == len(own)
    photographs = Counter(row["part"] for row in own if row["label"] == "0")
    assert photographs.keys() == {"train", "calibrate", "test"} and min(photographs.values()) >= 200
    shared = ("EliSchwartz/", "bento170502/", "comfyanonymous/", "leejet/")  # sources of wild-mini, too
    assert {row["part"] for row in own if row["repo"].startswith(shared)} == {"test"}


def test_the_page_gives_the_counts_of_the_own_manifest(own):
    page = (ROOT / "docs" / "training-aligned.md").read_text(encoding="utf-8")
    counts = Counter((row["part"], row["repo"], "real" if row["label"] == "0" else "fake") for row in own)
    for (part, repo, label), count in counts.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {part} | `{repo}` |"))
        assert line.split(" | ")[2 if label == "real" else 3] == str(count)
