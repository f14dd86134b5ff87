"""tools.extract: faces cut out, noise patterns, toy weights; how a tree becomes a tree, and is resumed."""

import functools
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLES, interrupt_after, toy_image
from PIL import Image

from common import CheckpointError, UserError, owned
from networks import cycleisp
from tools.extract import __main__ as extract
from tools.extract import masks
from tools.extract.tree import Extraction, encoded
from util import run

GOLDEN = SAMPLES / "dfig-golden"
CPU = ("--num_threads", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def segment_anything():
    return pytest.importorskip("segment_anything")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Folder with the random weights of seed 0; networks are built once for each weight file."""
    pytest.importorskip("segment_anything")
    folder = tmp_path_factory.mktemp("toys")
    extract.main(["toys", "--output", str(folder)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycleisp, "load", functools.cache(cycleisp.load))
        patch.setattr(masks, "load_sam", functools.cache(masks.load_sam))
        yield folder


@pytest.fixture
def picture(tmp_path, rng):
    """picture(name, size, mode) saves noise below in/ and returns its path."""

    def make(name, size=(16, 16), mode="RGB"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        toy_image(rng, fake=False, size=size).convert(mode).save(path)
        return path

    return make


@pytest.fixture
def cut(toys, tmp_path):
    """cut(flags...) runs `masks` on in/ with the toy SAM; returns the output folder."""

    def go(*flags, source=tmp_path / "in", output=tmp_path / "out"):
        named = ["--input", source, "--output", output, "--sam", toys / "sam_toy.pth"]
        flags = flags if "--model_type" in flags else (*flags, "--model_type", "toy")
        extract.main([str(word) for word in ["masks", *named, *CPU, *flags]])
        return output

    return go


@pytest.fixture
def pattern(toys, tmp_path):
    """pattern(flags...) runs `lnp` on in/ with the toy CycleISP; returns the output folder."""

    def go(*flags, source=tmp_path / "in", output=tmp_path / "out"):
        named = ["--input", source, "--output", output]
        weights = () if "--weights" in flags else ("--weights", toys / "cycleisp_toy.pth")
        extract.main([str(word) for word in ["lnp", *named, *weights, *CPU, *flags]])
        return output

    return go


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """copy(flags...) turns in/ into a tree of inverted images, without a network; returns the output."""
    monkeypatch.setattr(run, "environment", lambda device: {"device": str(device)})  # saves time

    def go(*flags, source=tmp_path / "in", output=tmp_path / "out", what="masks", suffix=".png"):
        words = ["masks", "--sam", "-", "--input", source, "--output", output, *CPU, *flags]
        opt = extract.parse([str(word) for word in words])
        opt.what = what

        def invert(images):
            return [encoded(suffix, image) for image in 255 - images.permute(0, 2, 3, 1).numpy()]

        Extraction(opt, {}, suffix).run(invert)
        return output

    return go


@pytest.fixture
def calls(monkeypatch, segment_anything):
    """A list that gets the arguments of every SamPredictor.predict."""
    arguments_of_calls, real = [], segment_anything.SamPredictor.predict

    def predict(self, **arguments):
        arguments_of_calls.append(arguments)
        return real(self, **arguments)

    monkeypatch.setattr(segment_anything.SamPredictor, "predict", predict)
    return arguments_of_calls


def pixels(path):
    """RGB (H, W, 3) of a file, at its own depth."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def contents(folder):
    """{relative path: bytes}, the record left out."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != "extract.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def tree_of(folder):
    """{path of a file without its suffix: suffix}, the record left out."""
    paths = map(Path, contents(folder))
    return {path.with_suffix("").as_posix(): path.suffix for path in paths}


def record(folder):
    return json.loads((folder / "extract.json").read_text())


# --- masks ---


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no real faces here")
def test_real_faces_keep_their_stems_and_sizes_and_lose_pixels_only(cut, tmp_path, capsys):
    originals, published = GOLDEN / "original" / "test", GOLDEN / "masked" / "test"
    jpg = cut("--format", "jpg95", source=originals)
    png = cut(source=originals, output=tmp_path / "png")
    theirs = tree_of(published)
    assert f"{len(theirs)} of {len(theirs)} files written" in capsys.readouterr().out
    assert len(theirs) > 3 and tree_of(jpg) == theirs  # .jpg like the published
    assert tree_of(png) == dict.fromkeys(theirs, ".png")
    for stem in theirs:
        with Image.open(published / f"{stem}.jpg") as known, Image.open(jpg / f"{stem}.jpg") as ours:
            assert ours.size == known.size
        face = np.array(Image.open(originals / f"{stem}.jpg").convert("RGB"))
        cut_out = pixels(png / f"{stem}.png")
        black = ~cut_out.any(axis=2)
        assert (cut_out[~black] == face[~black]).all()
        assert 0.01 < black.mean() < 0.99
        # A second JPEG generation at quality 95 moves few pixels far from the face or from black.
        assert np.abs(pixels(jpg / f"{stem}.jpg").astype(int) - cut_out).mean() < 6
        coded = cv2.imencode(".jpg", cut_out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert (jpg / f"{stem}.jpg").read_bytes() == coded


def published_mask(predictor, face):
    """SAM.py's mask of one face of 256x256: two points, the best of three, which prompts a single mask."""
    predictor.set_image(face)
    points = {"point_coords": np.array([[128, 128], [128, 236]]), "point_labels": np.array([1, 1])}
    _, scores, logits = predictor.predict(**points, multimask_output=True)
    best = logits[np.argmax(scores), :, :]
    mask, _, _ = predictor.predict(**points, mask_input=best[None, :, :], multimask_output=False)
    return mask[0]


def test_masks_are_those_of_the_packages_own_predictor(cut, picture, toys, segment_anything):
    paths = [picture(f"{number}.png", (3 + number, 4)) for number in range(4)]
    for path in paths:  # smooth pictures of 256x256 that differ
        Image.open(path).resize((256, 256), Image.Resampling.BICUBIC).save(path)
    predictor = segment_anything.SamPredictor(masks.load_sam(toys / "sam_toy.pth", "toy").eval())
    out = cut()
    expected = []
    for path in paths:
        face = np.array(Image.open(path))
        mask = published_mask(predictor, face)
        assert (pixels(out / path.name) == face * mask[..., None]).all()
        expected.append(mask)
    assert all(0.01 < mask.mean() < 0.99 for mask in expected)
    # Images that swapped their masks would be noticed.
    assert all((expected[a] != expected[b]).sum() > 20 for a in range(4) for b in range(a))


def test_images_of_other_sizes_get_masks_of_their_size_and_scaled_points(cut, picture, calls):
    picture("a.png", (128, 64))
    picture("deep/er/b.jpg", (40, 80))
    out = cut()
    assert tree_of(out) == {"a": ".png", "deep/er/b": ".png"}
    assert (pixels(out / "a.png").shape, pixels(out / "deep/er/b.png").shape) == ((64, 128, 3), (80, 40, 3))
    assert len(calls) == 4
    for call in calls[:2]:
        assert call["point_coords"].tolist() == [[64, 32], [64, 59]]
        assert call["point_labels"].tolist() == [1, 1]
    assert calls[2]["point_coords"].tolist() == [[20, 40], [20, 73.75]]
    assert [call["multimask_output"] for call in calls] == [True, False, True, False]
    assert "mask_input" not in calls[0]
    assert calls[1]["mask_input"].shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--points", "3,4"], {"point_coords": [[3, 4]], "point_labels": [1]}),
        (
            ["--points", "3,4", "10,11.5", "1,1"],
            {"point_coords": [[3, 4], [10, 11.5], [1, 1]], "point_labels": [1, 1, 1]},
        ),
        (["--box", "1,2,13,14"], {"box": [1, 2, 13, 14]}),
    ],
)
def test_points_and_a_box_replace_the_default(cut, picture, calls, flags, expected):
    picture("a.png", (64, 64))
    cut(*flags)
    assert len(calls) == 2
    for call in calls:
        names = [name for name in call if name.startswith("point") or name == "box"]
        assert {name: call[name].tolist() for name in names} == expected


@pytest.mark.parametrize(
    "flags",
    [
        "--points 1",
        "--points 1,-1",
        "--points nan,1",
        "--box 5,1,5,9",
        "--box 1,9,5,2",
        "--box 1,2,3",
        "--box 1,1,2,2 --points 1,1",
    ],
)
def test_impossible_prompts_are_refused(capsys, flags):
    with pytest.raises(SystemExit) as stopped:
        extract.parse(["masks", "--input", "in", "--output", "out", "--sam", "s", *flags.split()])
    assert stopped.value.code == 2
    assert flags.split()[0] in capsys.readouterr().err.splitlines()[-1]


def test_images_that_the_prompt_or_sam_cannot_take_are_listed_and_the_others_written(cut, picture, capsys):
    small = picture("small.png", (40, 64))
    picture("large.png", (64, 64))
    picture("strip.png", (3000, 2))
    picture("z.png", (64, 64))
    out = cut("--points", "50,50", "20,20")
    assert tree_of(out) == {"large": ".png", "z": ".png"}
    why = record(out)["failed"][str(small)]
    assert "40x64" in why and "50,50" in why
    assert "20,20" not in why  # that one is inside
    printed = capsys.readouterr().out
    assert "2 bad images" in printed and str(small) in printed and "3000x2" in printed


@pytest.mark.parametrize(("width", "name"), [(1280, "vit_h"), (1024, "vit_l"), (768, "vit_b")])
def test_weights_of_another_model_type_are_named(cut, picture, tmp_path, width, name):
    picture("a.png")
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, width)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=f"--model_type {name}") as bad:
        cut("--sam", tmp_path / "sam.pth")
    assert "\n" not in str(bad.value)
    assert not (tmp_path / "out" / "a.png").exists()


def test_toy_weights_for_the_published_structure_are_named(cut, picture, monkeypatch, segment_anything):
    picture("a.png")
    real = segment_anything.sam_model_registry["vit_b"]

    def without_numbers():
        with torch.device("meta"):
            return real()

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", without_numbers)
    with pytest.raises(CheckpointError, match="--model_type toy"):
        cut("--model_type", "vit_b")


@pytest.mark.parametrize(
    ("command", "flag", "name", "other", "words"),
    [
        ("cut", "--sam", "sam_toy.pth", "cycleisp_toy.pth", "SAM"),
        ("pattern", "--weights", "cycleisp_toy.pth", "sam_toy.pth", "CycleISP"),
    ],
)
def test_unusable_weight_files_are_refused(
    command, flag, name, other, words, picture, tmp_path, request, toys
):
    go = request.getfixturevalue(command)
    picture("a.png")
    (tmp_path / "text.pth").write_text("no weights")
    content = torch.load(toys / name, weights_only=True)
    state = content.get("state_dict", content)
    first = next(iter(state))
    state[first] = torch.full_like(state[first], float("nan"))
    torch.save(content, tmp_path / "nan.pth")
    for path, message in (
        (tmp_path / "text.pth", r"text\.pth"),
        (toys / other, words),
        (tmp_path / "nan.pth", r"nan\.pth"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            go(flag, path)
        assert "\n" not in str(refused.value)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        go(flag, tmp_path / "absent.pth")


def test_the_package_of_sam_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(UserError, match="segment-anything"):
        masks.toy_sam()


# --- noise patterns ---

MIXED = {
    "a.png": ((20, 12), "RGB"),
    "x/b.jpg": ((12, 12), "RGB"),
    "x/y z/c.png": ((11, 14), "L"),
    "x/d.png": ((12, 12), "P"),
    "x/y z/e.f.webp": ((20, 12), "RGBA"),
}


@pytest.fixture
def mixed(picture):
    """in/ with pictures of several sizes and modes; {stem: path}."""
    return {name.rpartition(".")[0]: picture(name, *form) for name, form in MIXED.items()}


def float_noise(toys, path, order):
    """(H, W, 3) float32 noise of CycleISP, given channels in the order "RGB" or "BGR", in that order."""
    denoiser = cycleisp.load(str(toys / "cycleisp_toy.pth"))
    image = np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255
    given = np.ascontiguousarray(image[..., ::-1] if order == "BGR" else image)
    return denoiser.noise(torch.from_numpy(given).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def require_equal(ours, expected, exact):
    """ours == expected, except where `exact`, the value before rounding, is within 0.002 of a tie."""
    tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 0.002
    assert tie.mean() < 0.05
    assert (ours == expected)[~tie].all()


def test_wrapped_files_are_dfigs_arithmetic_on_channels_given_as_bgr(pattern, mixed, toys):
    out = pattern("--encoding", "wrapped", "--batch_size", "3")
    assert tree_of(out) == dict.fromkeys(mixed, ".png")
    wrong_order = 0
    for stem, path in mixed.items():
        content = (out / f"{stem}.png").read_bytes()
        assert (content[24], content[25]) == (8, 2)
        bgr = float_noise(toys, path, "BGR")
        exact = np.clip(bgr, 0, 1) * np.float32(255)
        with np.errstate(over="ignore"):
            expected = np.rint(exact).astype(np.uint8) * np.uint8(255)  # modulo 256; cv2.imwrite of a BGR
        ours = pixels(out / f"{stem}.png")
        assert ours.dtype == np.uint8
        require_equal(ours[..., ::-1], expected, exact)
        assert (np.array(Image.open(out / f"{stem}.png")) == ours).all()
        assert (ours == 0).any() and (ours > 128).any()
        rgb = np.rint(np.clip(float_noise(toys, path, "RGB"), 0, 1) * 255).astype(int)
        wrong_order += ((256 - rgb) % 256 != ours).mean() > 0.3
    assert wrong_order == len(mixed)  # the order in which channels are given shows


def test_signed_files_hold_the_noise_in_sixteen_bits(pattern, mixed, toys, capsys):
    out = pattern()
    assert tree_of(out) == dict.fromkeys(mixed, ".png")
    for stem, path in mixed.items():
        content = (out / f"{stem}.png").read_bytes()
        assert (content[24], content[25]) == (16, 2)
        noise = float_noise(toys, path, "RGB").astype(np.float64)
        assert noise.min() < -0.05 and noise.max() > 0.05
        ours = pixels(out / f"{stem}.png")
        assert ours.dtype == np.uint16
        expected = 32768 + np.rint(noise * 32767)
        # float32 sums in another order: a unit is 3e-5 of the range, most values agree
        assert np.abs(ours - expected).max() <= 1
        assert (ours == expected).mean() > 0.9
    known = record(out)
    assert "train with --lnp_encoding signed" in capsys.readouterr().out
    assert (known["what"], known["encoding"], known["precision"]) == ("lnp", "signed", "fp32")
    assert known["failed"] == {}
    assert known["environment"]["torch"] == torch.__version__


def test_bf16_is_refused_where_a_step_wraps_and_is_close_where_it_does_not(pattern, picture, tmp_path):
    picture("a.png")
    with pytest.raises(UserError, match="--amp off"):
        pattern("--encoding", "wrapped", "--amp", "bf16")
    assert not (tmp_path / "out").exists()
    exact = pixels(pattern() / "a.png").astype(int)
    half = pixels(pattern("--amp", "bf16", output=tmp_path / "half") / "a.png").astype(int)
    assert record(tmp_path / "half")["precision"] == "bf16"
    assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact - 32768).max()


def test_tiles_give_a_file_of_the_same_size_that_differs_little(pattern, picture, tmp_path):
    path = picture("long.png", (136, 12))
    halves = np.array(Image.open(path))
    halves[:, :68] //= 8  # a tile does not see what the other half is like
    Image.fromarray(halves).save(path)
    whole = pixels(pattern() / "long.png").astype(int)
    tiled = pixels(pattern("--tile", "32", output=tmp_path / "tiled") / "long.png").astype(int)
    assert tiled.shape == whole.shape == (12, 136, 3)
    away = np.abs(tiled - whole)
    assert away.max() > 1  # it is another computation
    assert away.max() < 0.05 * np.abs(whole - 32768).max()
    assert record(tmp_path / "tiled")["tile"] == 32
    with pytest.raises(SystemExit):
        pattern("--tile", "8")


def test_fp32_is_fp32_also_where_a_gpu_has_tf32(pattern, picture, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    picture("a.png")
    pattern()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark


# --- what must not be mixed ---


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "--encoding wrapped", "encoding"),
        ("--encoding wrapped", "", "encoding"),
        ("", "--tile 64", "tile"),
        ("", "--amp bf16", "precision"),
    ],
)
def test_noise_of_other_settings_is_not_mixed(pattern, picture, first, second, words):
    picture("a.png")
    out = pattern(*first.split())
    before, known = contents(out), record(out)
    picture("b.png")
    with pytest.raises(UserError, match=words) as refused:
        pattern(*second.split())
    assert "--overwrite" in str(refused.value)
    assert (contents(out), record(out)) == (before, known)


def test_noise_of_other_weights_is_not_mixed(pattern, picture, tmp_path, toys):
    picture("a.png")
    pattern()
    content = torch.load(toys / "cycleisp_toy.pth", weights_only=True)
    torch.save(content, tmp_path / "other.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="weights_sha256"):
        pattern("--weights", tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "--format jpg95", "format"),
        ("", "--points 3,4", "points"),
        ("--points 3,4", "", "points"),
        ("--points 3,4", "--points 4,3", "points"),
        ("", "--box 1,1,9,9", "box"),
        ("--box 1,1,9,9", "--box 1,1,9,8", "box"),
        ("--box 1,1,9,9", "", "box|points"),
    ],
)
def test_masks_of_other_settings_are_not_mixed(cut, picture, first, second, words):
    picture("a.png")
    out = cut(*first.split())
    picture("b.png")
    cut(*first.split())  # the same command does resume
    assert set(contents(out)) == {"a.png", "b.png"}
    picture("c.png")
    with pytest.raises(UserError, match=words):
        cut(*second.split())
    assert set(contents(out)) == {"a.png", "b.png"}


def test_noise_is_not_written_among_masks(copy, picture, tmp_path):
    picture("a.png")
    out = copy()
    with pytest.raises(UserError, match="masks"):
        copy(what="lnp")
    noise = copy(what="lnp", output=tmp_path / "noise")
    with pytest.raises(UserError, match="noise"):
        copy(source=noise, output=tmp_path / "twice")
    copy(source=out, output=tmp_path / "of_masks")


def test_another_input_is_not_continued_in_the_same_folder(copy, picture, tmp_path):
    picture("a.png")
    out = copy()
    before = contents(out)
    (tmp_path / "other").mkdir()
    toy_image(np.random.default_rng(9), fake=True, size=(16, 16)).save(tmp_path / "other/a.png")
    with pytest.raises(UserError, match="input"):
        copy(source=tmp_path / "other")
    assert contents(out) == before


def test_a_damaged_record_is_named(copy, picture):
    picture("a.png")
    out = copy()
    (out / "extract.json").write_text('{"what": "ln')
    with pytest.raises(UserError, match=r"extract\.json"):
        copy()
    copy("--overwrite")
    assert record(out)["what"] == "masks"


def test_an_output_folder_belongs_to_one_process_at_a_time(copy, picture, tmp_path):
    picture("a.png")
    with owned(tmp_path / "out"), pytest.raises(UserError, match="process"):
        copy()
    assert set(contents(copy())) == {"a.png"}


# --- a tree becomes a tree ---


@pytest.fixture
def six(picture):
    return [picture(f"f/{number}.png") for number in range(6)]


def test_only_what_is_missing_is_written_again(copy, six, capsys):
    out = copy()
    before = contents(out)
    (out / "f/1.png").unlink()
    (out / "f/4.png").unlink()
    (out / "f/2.png").write_bytes(b"left alone")
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "f").iterdir()}
    capsys.readouterr()
    copy()
    assert contents(out) == {**before, "f/2.png": b"left alone"}
    assert {name: (out / "f" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert "2 of 6 files written" in capsys.readouterr().out
    copy()
    assert "0 of 6 files written" in capsys.readouterr().out


@pytest.mark.parametrize("checks", [0, 2])
def test_an_interrupted_run_finishes_as_an_unbroken_one(copy, six, tmp_path, monkeypatch, checks):
    whole = copy("--batch_size", "2", output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, checks)
        with pytest.raises(run.Interrupted, match="--overwrite"):
            copy("--batch_size", "2")
    out = tmp_path / "out"
    assert len(contents(out)) == 2 * checks
    copy("--batch_size", "2")
    assert contents(out) == contents(whole)
    assert record(out)["failed"] == {}


def test_a_write_that_fails_leaves_no_part(copy, six, tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        if str(target).endswith("3.png"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="space"):
            copy()
    assert set(contents(tmp_path / "out")) == {"f/0.png", "f/1.png", "f/2.png"}
    copy()
    assert len(contents(tmp_path / "out")) == 6


def test_an_image_that_changed_is_done_again(copy, picture):
    path, kept = picture("a.png"), picture("b.png")
    out = copy()
    before, written = contents(out), (out / "b.png").stat().st_mtime_ns
    toy_image(np.random.default_rng(9), fake=True, size=(16, 16)).save(path)
    later = (out / "a.png").stat().st_mtime + 5
    os.utime(path, (later, later))
    os.utime(kept, (1, 1))
    copy()
    assert contents(out)["a.png"] != before["a.png"]
    assert contents(out)["b.png"] == before["b.png"]
    assert (out / "b.png").stat().st_mtime_ns == written


def test_overwrite_replaces_files_of_another_format_and_nothing_else(copy, picture):
    picture("f/a.png")
    out = copy(suffix=".jpg")
    (out / "f/mine.txt").write_text("kept")
    assert tree_of(out) == {"f/a": ".jpg", "f/mine": ".txt"}
    copy("--overwrite", what="lnp")
    assert tree_of(out) == {"f/a": ".png", "f/mine": ".txt"}
    assert record(out)["what"] == "lnp"
    copy("--overwrite", suffix=".jpg")
    assert tree_of(out) == {"f/a": ".jpg", "f/mine": ".txt"}
    (out / "f/a.jpg").write_bytes(b"old")
    copy("--overwrite", suffix=".jpg")
    assert pixels(out / "f/a.jpg").shape == (16, 16, 3)


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["a.jpg", "thesis.txt"])
def test_a_folder_that_holds_something_else_is_left_alone(copy, picture, tmp_path, flags, name):
    picture("a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=r"extract\.json"):
        copy(*flags)
    assert contents(tmp_path / "out") == {name: b"mine"}
    (tmp_path / "out" / name).unlink()
    copy()  # an empty folder is fine
    assert set(contents(tmp_path / "out")) == {"a.png"}


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_files_of_images_that_are_no_longer_there_are_named(copy, picture, flags):
    picture("a.png")
    gone = picture("f/b.png")
    out = copy()
    gone.unlink()
    with pytest.raises(UserError, match=r"f/b\.png"):
        copy(*flags)
    assert set(contents(out)) == {"a.png", "f/b.png"}


@pytest.mark.parametrize("path", ["in", "in/f", "in/new", "in/../in/./new", ".", "link"])
def test_input_and_output_lie_apart(copy, six, tmp_path, path):
    (tmp_path / "link").symlink_to(tmp_path / "in" / "f")
    with pytest.raises(UserError, match="inside"):
        copy(output=tmp_path / path)
    assert not list(tmp_path.rglob("extract.json"))


def test_the_input_may_be_the_working_folder(copy, six, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "in")
    out = copy(source=".", output=Path("../out"))
    assert set(tree_of(out)) == {f"f/{number}" for number in range(6)}


def test_images_that_would_become_one_file_are_refused(copy, picture, tmp_path):
    picture("f/a.jpg")
    picture("f/a.png")
    picture("g/a.png")
    with pytest.raises(UserError, match=r"f/a\.png") as refused:
        copy()
    assert "g/a.png" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_inputs_and_outputs_of_the_wrong_kind_are_refused(copy, picture, tmp_path, capsys):
    path = picture("a.png")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for words, paths in (
        ("--input", {"source": path}),
        ("--input", {"source": tmp_path / "absent"}),
        ("empty", {"source": tmp_path / "empty"}),
    ):
        with pytest.raises((UserError, OSError), match=words):
            copy(**paths)
    with pytest.raises(SystemExit):
        copy(output=tmp_path / "file")
    assert "--output" in capsys.readouterr().err


def test_images_that_cannot_be_used_are_listed_and_the_others_written(copy, picture, tmp_path, capsys):
    for name in ("a.png", "f/b.png", "f/c.png"):
        picture(name)
    whole = picture("f/broken.png").read_bytes()
    (tmp_path / "in/f/broken.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/notes.txt").write_text("no image")
    picture("wide.png", (64, 64))
    out = copy("--max_mpx", "0.001")
    assert tree_of(out) == {"a": ".png", "f/b": ".png", "f/c": ".png"}
    failed = record(out)["failed"]
    assert set(failed) == {str(tmp_path / "in/f/broken.png"), str(tmp_path / "in/wide.png")}
    assert "truncated" in failed[str(tmp_path / "in/f/broken.png")]
    assert "--max_mpx" in failed[str(tmp_path / "in/wide.png")]
    printed = capsys.readouterr().out
    assert "3 of 5 files written" in printed
    assert "2 bad images" in printed
    assert "passed over: 1 .txt" in printed
    copy("--max_mpx", "0.001")  # still broken, nothing to do again
    assert "0 of 5 files written" in capsys.readouterr().out
    assert record(out)["failed"] == failed
    (tmp_path / "in/f/broken.png").write_bytes(whole)
    copy()
    assert set(tree_of(out)) == {"a", "f/b", "f/c", "f/broken", "wide"}
    assert record(out)["failed"] == {}


def test_when_no_image_can_be_used_the_status_says_so(copy, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stopped:
        copy()
    assert stopped.value.code == 1


# --- toy weights ---


def test_the_seed_decides_the_toy_weights_and_their_files_load(toys, tmp_path, capsys):
    for seed in (0, 1):
        extract.main(["toys", "--output", str(tmp_path / str(seed)), "--seed", str(seed)])
    assert "random weights" in capsys.readouterr().out
    names = ("sam_toy.pth", "cycleisp_toy.pth")
    assert {path.name for path in (tmp_path / "0").iterdir()} == set(names)
    for name in names:
        first, again, other = (
            torch.load(folder / name, weights_only=True) for folder in (toys, tmp_path / "0", tmp_path / "1")
        )
        first, again, other = (content.get("state_dict", content) for content in (first, again, other))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(key.startswith("module.") for key in first)
    masks.load_sam(str(tmp_path / "1" / "sam_toy.pth"), "toy")
    denoiser = cycleisp.load(str(tmp_path / "1" / "cycleisp_toy.pth"))
    assert sum(value.numel() for value in denoiser.buffers()) == 2_834_947
