"""data.download parquet: files that the tests make, written out as folders, resumed and refused."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from common import UserError
from data import discover, download, parquet, scan

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def encoded(number, container):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, container)
    return stream.getvalue()


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make(name, rows, columns) writes rows of (image, label, generator); the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)

    def write(name, rows, columns=("image", "label", "generator")):
        data = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
        pa.parquet.write_table(pa.table(data), name)
        return name

    return write


ROWS = [
    (encoded(0, "PNG"), 0, "SD3"),
    (encoded(1, "JPEG"), 1, "SD3"),
    (encoded(2, "WEBP"), 1, "hub/FLUX.1 dev"),
]


def run(*words):
    download.main(["parquet", *words, "--output", "out"])


def written(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*/*/*.*") if path.is_file()
    }


def test_rows_become_folders_that_val_reads_with_their_bytes_as_they_are(make, tmp_path, capsys):
    run(make("a.parquet", ROWS))
    assert written(tmp_path / "out") == {
        "SD3/0_real/a-000000.png": ROWS[0][0],
        "SD3/1_fake/a-000001.jpg": ROWS[1][0],
        "hub_FLUX.1 dev/1_fake/a-000002.webp": ROWS[2][0],
    }
    assert "3 written" in capsys.readouterr().out
    assert scan("out", discover("out")).counts() == {"SD3": [1, 1], "hub_FLUX.1 dev": [0, 1]}


def test_structs_words_and_other_columns(make, tmp_path):
    rows = [
        ({"bytes": image, "path": "../x.png"}, word, name)
        for (image, _, name), word in zip(ROWS, "ABA", strict=True)
    ]
    run(
        make("a.parquet", rows, ("picture", "kind", "model")),
        *"--image picture --label kind --generator model --real B".split(),
    )
    assert sorted(written(tmp_path / "out")) == [
        "SD3/0_real/a-000001.jpg",
        "SD3/1_fake/a-000000.png",
        "hub_FLUX.1 dev/1_fake/a-000002.webp",
    ]


def test_a_second_run_writes_what_is_missing_only(make, tmp_path, capsys):
    name = make("a.parquet", ROWS)
    run(name)
    kept, gone = tmp_path / "out/SD3/0_real/a-000000.png", tmp_path / "out/SD3/1_fake/a-000001.jpg"
    before = kept.stat().st_mtime_ns
    gone.unlink()
    capsys.readouterr()
    run(name)
    assert gone.read_bytes() == ROWS[1][0] and kept.stat().st_mtime_ns == before
    assert "2 there already, 1 written" in capsys.readouterr().out
    for content in (b"other", ROWS[0][0][:-1] + b"?"):  # also of equal length
        kept.write_bytes(content)
        with pytest.raises(UserError, match=r"a-000000\.png"):
            run(name)


def test_an_image_is_never_left_under_both_labels(make, tmp_path):
    name = make("a.parquet", [(image, word, "g") for (image, *_), word in zip(ROWS, "ABA", strict=True)])
    with pytest.raises(UserError, match="--real"):
        run(name)
    assert not (tmp_path / "out").exists()  # what no --real was needed for is not written either
    run(name, "--real", "A")
    before = written(tmp_path / "out")
    with pytest.raises(UserError, match="--output"):
        run(name, "--real", "B")
    run(name, "--real", "a,C")  # the same in other words
    run(make("b.parquet", [(ROWS[0][0], "B", "g")]), "--real", "B")  # another file has rules of its own
    assert written(tmp_path / "out").items() - before.items() == {("g/0_real/b-000000.png", ROWS[0][0])}


def test_rows_without_an_image_are_counted_and_left_out(make, tmp_path, capsys):
    run(make("a.parquet", [*ROWS, (b"no image", 1, "SD3"), (None, 0, "SD3")]))
    assert len(written(tmp_path / "out")) == 3
    assert f"2 {parquet.BAD}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("generator", "folder"),
    [
        ("a/../b", "a_.._b"),
        ("..", "unnamed"),
        (None, "unnamed"),
        (".hidden", "hidden"),
        ("Real", "Real_images"),
    ],
)
def test_a_generator_is_one_folder_and_never_a_label(generator, folder):
    assert parquet.folder_name(generator) == folder


@pytest.mark.parametrize(
    ("value", "label"), [(0, 0), (True, 1), ("1", 1), ("REAL", 0), ("fake", 1), ("nature", 0), ("1_fake", 1)]
)
def test_known_labels(value, label):
    assert parquet.label_of(value) == label


def test_other_labels_are_refused_until_those_of_reals_are_named():
    with pytest.raises(UserError, match="--real"):
        parquet.label_of("photo")
    assert [parquet.label_of(value, ("Photo",)) for value in ("photo", "flux", 0)] == [0, 1, 1]


def test_a_missing_column_is_refused_with_those_that_are_there(make, tmp_path):
    with pytest.raises(UserError, match=r"--generator COLUMN.*model"):
        run(make("a.parquet", ROWS, ("image", "label", "model")))
    assert not (tmp_path / "out").exists()


def test_what_is_no_parquet_file_and_two_files_of_one_name_are_refused(make, tmp_path, capsys):
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"b\.parquet"):
        run("b.parquet")
    (tmp_path / "deep").mkdir()
    with pytest.raises(SystemExit):
        run(make("a.parquet", ROWS), make("deep/a.parquet", ROWS))
    assert "called a" in capsys.readouterr().err


def test_without_pyarrow_one_line_says_how_to_install_it(make, monkeypatch):
    name = make("a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        run(name)
