"""The sample dataset: layout, splits, repeatability, reuse, and what it must never touch."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from common import UserError
from data import sample, upsamplers

PLAN = {"size": 64, "steps": 2, "train": 10, "val": 3, "test": 4}  # smaller than that of --fast
PAIRS = {"train/photo": PLAN["train"], "val/photo": PLAN["val"]}
PAIRS |= {f"test/{name}": PLAN["test"] for name in upsamplers.UPSAMPLERS}


def hashes(root):
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def small_plan():
    """--fast makes even less."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "FAST_PLAN", PLAN)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder and the record of a fast build."""
    output = tmp_path_factory.mktemp("sample") / "set"
    return output, sample.build(output, fast=True)


@pytest.fixture
def stub_images(monkeypatch):
    """Replace the slow part of a build, for tests about folders only; returns the seeds of the calls."""
    seeds = []

    def write(folder, seed, plan):
        seeds.append(seed)
        (folder / "image.txt").write_text(str(seed))
        return {}

    monkeypatch.setattr(sample, "write_dataset", write)
    return seeds


def run_refused(capsys, *argv):
    """The message of a refused command."""
    with pytest.raises((UserError, OSError, SystemExit)) as refused:
        sample.main(list(argv))
    return str(refused.value) + capsys.readouterr().err


def test_layout_and_counts(built):
    output, record = built
    folders = {f"{pair}/{label}": count for pair, count in PAIRS.items() for label in ("0_real", "1_fake")}
    found = {str(path.parent.relative_to(output)) for path in output.rglob("*.png")}
    assert found == set(folders)
    assert all(len(list((output / folder).iterdir())) == count for folder, count in folders.items())
    assert json.loads((output / "sample.json").read_text()) == record
    assert set(record["psnr_db"]) == set(PAIRS)
    assert not output.with_name("set.part").exists()


def test_images_share_format_mode_and_size(built):
    for path in built[0].rglob("*.png"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (PLAN["size"],) * 2)


def test_real_and_fake_hold_the_same_number_of_crops_per_photograph(built):
    for pair in PAIRS:
        real, fake = (
            sorted(p.name for p in (built[0] / pair / label).iterdir()) for label in ("0_real", "1_fake")
        )
        assert real == fake


def test_no_image_twice(built):
    found = hashes(built[0])
    assert len(set(found.values())) == len(found)


def test_photographs_of_splits_are_disjoint(built):
    output, record = built
    splits = record["photographs"]
    names = [name for split in splits.values() for name in split]
    assert len(names) == len(set(names))
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(splits["train"])
    for split, own in splits.items():
        used = {path.stem.partition("_")[2] for path in (output / split).rglob("*.png")}
        assert used <= {Path(name).stem for name in own}


def test_same_bytes_on_every_build(built, tmp_path):
    torch.manual_seed(99)
    torch.set_num_threads(2)
    sample.build(tmp_path / "again", fast=True)
    assert hashes(tmp_path / "again") == hashes(built[0])


def test_second_run_reuses(built, capsys):
    before = {path: path.stat().st_mtime_ns for path in built[0].rglob("*")}
    sample.main(["--fast", "--output", str(built[0])])
    assert "reused" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in built[0].rglob("*")} == before


def test_other_settings_are_refused_and_overwrite_replaces(tmp_path, stub_images, capsys):
    output = tmp_path / "set"
    sample.main(["--output", str(output)])
    before = hashes(output)
    capsys.readouterr()
    assert "seed: there 0, now 1" in run_refused(capsys, "--output", str(output), "--seed", "1")
    assert hashes(output) == before
    sample.main(["--output", str(output), "--seed", "1", "--overwrite"])
    assert stub_images == [0, 1]
    assert json.loads((output / "sample.json").read_text())["seed"] == 1


@pytest.mark.parametrize("where", ["set", "set.part"])
@pytest.mark.parametrize("content", [None, "{}", "[1]", '{"dataset": "other"}', "not json"])
def test_foreign_folder_is_never_deleted(tmp_path, stub_images, capsys, where, content):
    foreign = tmp_path / where
    foreign.mkdir()
    (foreign / "holiday.png").write_bytes(b"mine")
    if content is not None:
        (foreign / "sample.json").write_text(content)
    before = hashes(tmp_path)
    assert "not a sample dataset" in run_refused(capsys, "--output", str(tmp_path / "set"), "--overwrite")
    assert hashes(tmp_path) == before
    assert stub_images == []


def test_output_that_is_a_file_is_refused(tmp_path, stub_images, capsys):
    (tmp_path / "set").write_text("mine")
    run_refused(capsys, "--output", str(tmp_path / "set"), "--overwrite")
    assert (tmp_path / "set").read_text() == "mine"


def test_interrupted_build_leaves_nothing_and_does_not_block_the_next(tmp_path, monkeypatch):
    output = tmp_path / "set"

    def interrupt(folder, seed, plan):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample, "write_dataset", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sample.build(output)
    assert not output.exists()
    monkeypatch.setattr(sample, "write_dataset", lambda folder, seed, plan: {})
    sample.build(output)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_negative_seed_is_refused(tmp_path, capsys):
    assert "seed" in run_refused(capsys, "--seed", "-1", "--output", str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic"])
def test_doubling_matrix_equals_interpolate(kind):
    x = torch.rand(1, 2, 6, 6)
    matrix = upsamplers.doubling_matrix(6, kind)
    corners = {} if kind == "nearest" else {"align_corners": False}
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode=kind, **corners)
    assert torch.allclose(matrix @ x @ matrix.T, expected, atol=1e-5)


@pytest.mark.parametrize("kind", upsamplers.UPSAMPLERS)
def test_zero_padding_stays_within_the_margin(kind):
    generator = upsamplers.make_generator(kind)
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    upsamplers.cut(generator(x), upsamplers.MARGIN).sum().backward()
    reach = upsamplers.MARGIN - int(x.grad.abs().sum((0, 1, 3)).nonzero()[0])
    assert reach <= 12


def test_grey_windows_stay_grey():
    window = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8).expand(1, 3, 32, 32)
    out = upsamplers.regenerate(upsamplers.make_generator("nearest"), window)
    assert torch.equal(out, out[:, :1].expand_as(out))
