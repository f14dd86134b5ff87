"""tools.extract as a user runs it: faces cut out, noise patterns, toy weights, how a stopped run resumes."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLES, interrupt_after, toy_image
from PIL import Image

from common import CheckpointError
from networks import cycleisp
from tools.extract import __main__ as extract
from tools.extract import masks
from util import run

GOLDEN = SAMPLES / "dfig-golden"
CPU = ("--num_threads", "0", "--device", "cpu")
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no real faces here")


@pytest.fixture(scope="module")
def segment_anything():
    return pytest.importorskip("segment_anything")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Folder with the random weights of seed 0."""
    pytest.importorskip("segment_anything")
    folder = tmp_path_factory.mktemp("toys")
    extract.main(["toys", "--output", str(folder)])
    return folder


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
def picture(tmp_path, rng):
    """picture(name, size, mode) saves noise below in/ and returns its path."""

    def make(name, size=(16, 16), mode="RGB"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        toy_image(rng, fake=False, size=size).convert(mode).save(path)
        return path

    return make


@pytest.fixture
def faces(picture):
    """Four smooth pictures of 256x256 that differ, as in/0.png to in/3.png."""
    paths = []
    for number in range(4):
        path = picture(f"{number}.png", (3 + number, 4))
        Image.open(path).resize((256, 256), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def told(monkeypatch, segment_anything):
    """A list that gets the arguments of every SamPredictor.predict."""
    calls, real = [], segment_anything.SamPredictor.predict

    def predict(self, **arguments):
        calls.append(arguments)
        return real(self, **arguments)

    monkeypatch.setattr(segment_anything.SamPredictor, "predict", predict)
    return calls


def pixels(path):
    """RGB (H, W, 3) of a file, at its own depth."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def tree_of(folder):
    """{path of a file without its suffix: suffix}, the record left out."""
    files = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return {file.with_suffix("").as_posix(): file.suffix for file in files if file.name != "extract.json"}


def contents(folder):
    """{relative path: bytes}, the record left out."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != "extract.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def record(folder):
    return json.loads((folder / "extract.json").read_text())


def fails(command, *flags, **places):
    """Runs an extraction that writes what it can and ends with status 1."""
    with pytest.raises(SystemExit) as stopped:
        command(*flags, **places)
    assert stopped.value.code == 1


# --- masks ---


@golden
def test_real_faces_keep_their_stems_and_sizes_and_lose_pixels_alone(cut, tmp_path, capsys):
    jpg = cut("--format", "jpg95", source=GOLDEN / "original")
    assert "28 of 28 files written" in capsys.readouterr().out
    png = cut(source=GOLDEN / "original", output=tmp_path / "png")
    theirs = tree_of(GOLDEN / "masked")
    assert len(theirs) == 28
    assert tree_of(jpg) == theirs  # .jpg like the published
    assert tree_of(png) == dict.fromkeys(theirs, ".png")
    shares = []
    for stem in theirs:
        with Image.open(GOLDEN / "masked" / f"{stem}.jpg") as known, Image.open(jpg / f"{stem}.jpg") as ours:
            assert ours.size == known.size
        face = np.array(Image.open(GOLDEN / "original" / f"{stem}.jpg").convert("RGB"))
        cut_out = pixels(png / f"{stem}.png")
        black = ~cut_out.any(axis=2)
        assert (cut_out[~black] == face[~black]).all()
        shares.append(black.mean())
        # A second JPEG generation at quality 95 moves few pixels far from the face or from black.
        away = np.abs(pixels(jpg / f"{stem}.jpg").astype(int) - cut_out)
        assert away.mean() < 6
        coded = cv2.imencode(".jpg", cut_out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert (jpg / f"{stem}.jpg").read_bytes() == coded
    assert all(0.01 < share < 0.99 for share in shares)


def published_mask(predictor, face):
    """SAM.py's mask of one face of 256x256: two points, the best of three, which prompts a single mask."""
    predictor.set_image(face)
    points = {"point_coords": np.array([[128, 128], [128, 236]]), "point_labels": np.array([1, 1])}
    _, scores, logits = predictor.predict(**points, multimask_output=True)
    best = logits[np.argmax(scores), :, :]
    found, _, _ = predictor.predict(**points, mask_input=best[None, :, :], multimask_output=False)
    return found[0]


@pytest.mark.parametrize("batch", [1, 4])
def test_masks_are_those_of_the_packages_own_predictor_one_by_one(
    cut, faces, toys, segment_anything, batch, tmp_path
):
    predictor = segment_anything.SamPredictor(masks.load_sam(toys / "sam_toy.pth", "toy").eval())
    out = cut("--batch_size", batch)
    found = []
    for path in faces:
        face = np.array(Image.open(path))
        mask = published_mask(predictor, face)
        differing = (pixels(out / path.name) != face * mask[..., None]).any(axis=2)
        assert differing.sum() <= (2 if batch > 1 else 0)  # a batch sums in another order
        found.append(mask)
    assert all(0.01 < mask.mean() < 0.99 for mask in found)
    # Blindness: images that swapped their masks would be noticed.
    assert all((found[one] != found[other]).sum() > 20 for one in range(4) for other in range(one))


def test_the_batch_size_does_not_change_the_files(cut, faces, tmp_path):
    alone, together = (cut("--batch_size", n, output=tmp_path / str(n)) for n in (1, 4))
    for path in faces:
        differing = (pixels(alone / path.name) != pixels(together / path.name)).any(axis=2)
        assert differing.sum() <= 2


def test_images_of_other_sizes_get_masks_of_their_size_and_scaled_points(cut, picture, told):
    picture("a.png", (128, 64))
    picture("deep/er/b.jpg", (40, 80))
    out = cut()
    assert tree_of(out) == {"a": ".png", "deep/er/b": ".png"}
    assert (pixels(out / "a.png").shape, pixels(out / "deep/er/b.png").shape) == ((64, 128, 3), (80, 40, 3))
    assert len(told) == 4
    for call in told[:2]:
        assert call["point_coords"].tolist() == [[64, 32], [64, 59]]
        assert call["point_labels"].tolist() == [1, 1]
    assert told[2]["point_coords"].tolist() == [[20, 40], [20, 73.75]]
    assert [call["multimask_output"] for call in told] == [True, False, True, False]
    assert "mask_input" not in told[0]
    assert told[1]["mask_input"].shape == (1, 64, 64)


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
def test_points_and_a_box_take_the_place_of_the_default(cut, picture, told, flags, expected):
    picture("a.png", (64, 64))
    cut(*flags)
    assert len(told) == 2
    for call in told:
        prompt = {
            name: value.tolist() for name, value in call.items() if name.startswith("point") or name == "box"
        }
        assert prompt == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--points 1,1 --box 1,1,2,2", "not allowed with"),
        ("--points 1", "two numbers"),
        ("--points 1,-1", "two numbers"),
        ("--points nan,1", "two numbers"),
        ("--box 5,1,5,9", "left < right"),
        ("--box 1,9,5,2", "left < right"),
        ("--box 1,2,3", "four numbers"),
    ],
)
def test_impossible_prompts_are_refused(cut, picture, capsys, flags, words):
    picture("a.png")
    with pytest.raises(SystemExit) as stopped:
        cut(*flags.split())
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_point_outside_an_image_lists_that_image_and_the_others_are_written(cut, picture, capsys):
    small = picture("small.png", (40, 64))
    picture("large.png", (64, 64))
    picture("z.png", (64, 64))
    cut("--points", "50,50", "20,20")
    out = small.parent.parent / "out"
    assert tree_of(out) == {"large": ".png", "z": ".png"}
    [(path, why)] = record(out)["failed"].items()
    assert path == str(small)
    assert "40x64" in why
    assert "50,50" in why
    assert "20,20" not in why  # that one is inside
    printed = capsys.readouterr().out
    assert "could not be used: 1 of 3 images" in printed
    assert str(small) in printed


@pytest.mark.parametrize(("width", "name"), [(1280, "vit_h"), (1024, "vit_l"), (768, "vit_b")])
def test_weights_of_another_model_type_are_named(cut, picture, tmp_path, width, name):
    picture("a.png")
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, width)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=f"does not fit SAM's toy.*it is of --model_type {name}") as bad:
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
    with pytest.raises(CheckpointError, match=r"does not fit SAM's vit_b.*it is of --model_type toy"):
        cut("--model_type", "vit_b")


@pytest.mark.parametrize("command", ["cut", "pattern"])
def test_weight_files_that_are_none_are_refused(command, picture, tmp_path, request, toys):
    go, flag = request.getfixturevalue(command), {"cut": "--sam", "pattern": "--weights"}[command]
    picture("a.png")
    with pytest.raises(ValueError, match=r"no weight file at .*absent\.pth"):
        go(flag, tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pth") as bad:
        go(flag, tmp_path / "text.pth")
    assert "\n" not in str(bad.value)
    other = toys / {"cut": "cycleisp_toy.pth", "pattern": "sam_toy.pth"}[command]
    words = {"cut": "does not fit SAM's toy", "pattern": "does not fit CycleISP's denoiser"}[command]
    with pytest.raises(CheckpointError, match=words) as bad:
        go(flag, other)
    assert "\n" not in str(bad.value)


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
    """in/ with pictures of several sizes and kinds; {stem: path}."""
    return {name.rpartition(".")[0]: picture(name, *kind) for name, kind in MIXED.items()}


def float_noise(toys, path, order):
    """(H, W, 3) float32 noise of CycleISP, given channels in the order "RGB" or "BGR", in that order."""
    denoiser = cycleisp.load(toys / "cycleisp_toy.pth")
    image = np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255
    given = np.ascontiguousarray(image[..., ::-1] if order == "BGR" else image)
    return denoiser.noise(torch.from_numpy(given).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def require_equal(found, expected, exact):
    """found == expected, but where `exact`, its value before the rounding, lies within 0.002 of a tie."""
    tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 0.002
    assert tie.mean() < 0.05
    assert (found == expected)[~tie].all()


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
        found = pixels(out / f"{stem}.png")
        assert found.dtype == np.uint8
        require_equal(found[..., ::-1], expected, exact)
        assert (np.array(Image.open(out / f"{stem}.png")) == found).all()
        assert (found == 0).any()
        assert (found > 128).any()
        rgb = np.rint(np.clip(float_noise(toys, path, "RGB"), 0, 1) * 255).astype(int)
        wrong_order += ((256 - rgb) % 256 != found).mean() > 0.3
    assert wrong_order == len(mixed)  # the order in which channels are given shows


def test_signed_files_hold_the_noise_in_sixteen_bits(pattern, mixed, toys):
    out = pattern()
    assert tree_of(out) == dict.fromkeys(mixed, ".png")
    for stem, path in mixed.items():
        content = (out / f"{stem}.png").read_bytes()
        assert (content[24], content[25]) == (16, 2)
        noise = float_noise(toys, path, "RGB").astype(np.float64)
        assert noise.min() < -0.05
        assert noise.max() > 0.05
        found = pixels(out / f"{stem}.png")
        assert found.dtype == np.uint16
        expected = 32768 + np.rint(noise * 32767)
        # float32 sums in another order: a unit is 3e-5 of the range, most values agree
        assert np.abs(found - expected).max() <= 1
        assert (found == expected).mean() > 0.9


def test_the_default_encoding_is_recorded_and_named(pattern, picture, toys, capsys):
    picture("a.png")
    known = record(pattern())
    assert "train with --lnp_encoding signed" in capsys.readouterr().out
    assert (known["what"], known["encoding"], known["precision"]) == ("lnp", "signed", "fp32")
    assert known["failed"] == {}
    assert known["environment"]["torch"] == torch.__version__


def test_bf16_is_refused_where_a_step_wraps_and_is_close_where_it_does_not(pattern, picture, tmp_path):
    picture("a.png")
    with pytest.raises(ValueError, match="wrapped needs --amp off"):
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


# --- a tree becomes a tree ---


@pytest.fixture
def six(picture):
    return [picture(f"f/{number}.png") for number in range(6)]


def test_only_what_is_missing_is_written_again(pattern, six, capsys):
    out = pattern()
    before = contents(out)
    (out / "f/1.png").unlink()
    (out / "f/4.png").unlink()
    (out / "f/2.png").write_bytes(b"left alone")
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "f").iterdir()}
    capsys.readouterr()
    pattern()
    assert contents(out) == {**before, "f/2.png": b"left alone"}
    assert {name: (out / "f" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert "2 of 6 files written" in capsys.readouterr().out
    pattern()
    assert "0 of 6 files written" in capsys.readouterr().out


@pytest.mark.parametrize("checks", [0, 2])
def test_an_interrupted_run_finishes_as_an_unbroken_one(pattern, six, tmp_path, monkeypatch, checks):
    whole = pattern("--batch_size", "2", output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, checks)
        with pytest.raises(run.Interrupted, match="the same command, without --overwrite, resumes"):
            pattern("--batch_size", "2")
    out = tmp_path / "out"
    assert len(contents(out)) == 2 * checks
    pattern("--batch_size", "2")
    assert contents(out) == contents(whole)
    assert record(out)["failed"] == {}


def test_a_write_that_fails_leaves_no_part(pattern, six, tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        if str(target).endswith("3.png"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="No space left"):
            pattern()
    assert set(contents(tmp_path / "out")) == {"f/0.png", "f/1.png", "f/2.png"}
    pattern()
    assert len(contents(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "--encoding wrapped", "encoding: there signed, now wrapped"),
        ("--encoding wrapped", "", "encoding: there wrapped, now signed"),
        ("", "--tile 64", "tile: there 1024, now 64"),
        ("", "--amp bf16", "precision: there fp32, now bf16"),
    ],
)
def test_noise_of_other_settings_is_not_mixed(pattern, picture, first, second, words):
    picture("a.png")
    out = pattern(*first.split())
    before, known = contents(out), record(out)
    picture("b.png")
    with pytest.raises(ValueError, match=words) as refused:
        pattern(*second.split())
    assert "--overwrite" in str(refused.value)
    assert (contents(out), record(out)) == (before, known)


def test_noise_of_other_weights_is_not_mixed(pattern, picture, tmp_path):
    picture("a.png")
    pattern()
    extract.main(["toys", "--output", str(tmp_path / "others"), "--seed", "1"])
    with pytest.raises(ValueError, match="weights_sha256: "):
        pattern("--weights", tmp_path / "others" / "cycleisp_toy.pth")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "--format jpg95", "format: there png, now jpg95"),
        ("", "--points 3,4", "points: "),
        ("--points 3,4", "", "points: "),
        ("--points 3,4", "--points 4,3", "points: "),
        ("", "--box 1,1,9,9", "box: "),
        ("--box 1,1,9,9", "--box 1,1,9,8", "box: "),
        ("--box 1,1,9,9", "", "box|points"),
    ],
)
def test_masks_of_other_settings_are_not_mixed(cut, picture, first, second, words):
    picture("a.png")
    out = cut(*first.split())
    picture("b.png")
    cut(*first.split())  # the same command does go on
    assert set(contents(out)) == {"a.png", "b.png"}
    picture("c.png")
    with pytest.raises(ValueError, match=words):
        cut(*second.split())
    assert set(contents(out)) == {"a.png", "b.png"}


def test_noise_is_not_written_among_masks(cut, pattern, picture):
    picture("a.png")
    cut()
    with pytest.raises(ValueError, match="what: there masks, now lnp"):
        pattern()


def test_overwrite_replaces_files_of_another_format_and_nothing_else(cut, pattern, picture):
    picture("f/a.png")
    out = cut("--format", "jpg95")
    (out / "f/mine.txt").write_text("kept")
    assert tree_of(out) == {"f/a": ".jpg", "f/mine": ".txt"}
    pattern("--overwrite")
    assert tree_of(out) == {"f/a": ".png", "f/mine": ".txt"}
    assert pixels(out / "f/a.png").dtype == np.uint16
    assert record(out)["what"] == "lnp"
    cut("--format", "jpg95", "--overwrite")
    assert tree_of(out) == {"f/a": ".jpg", "f/mine": ".txt"}
    pattern("--overwrite")
    (out / "f/a.png").write_bytes(b"old")
    pattern("--overwrite")
    assert pixels(out / "f/a.png").shape == (16, 16, 3)


def test_a_folder_that_holds_something_else_is_not_written_into(pattern, picture, tmp_path):
    picture("a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files, but no extract\.json"):
        pattern()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    (tmp_path / "out" / "thesis.txt").unlink()
    pattern()  # an empty folder is fine
    assert set(contents(tmp_path / "out")) == {"a.png"}


@pytest.mark.parametrize("place", ["in", "in/f", "in/new", "in/../in/./new", "."])
def test_input_and_output_lie_apart(pattern, six, tmp_path, place):
    with pytest.raises(ValueError, match="must not be --input, lie in it or around it"):
        pattern(output=tmp_path / place)
    assert not list(tmp_path.rglob("extract.json"))


def test_a_link_into_the_input_is_seen(pattern, six, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "in" / "f")
    with pytest.raises(ValueError, match="must not be --input"):
        pattern(output=tmp_path / "link")


def test_the_input_may_be_the_working_folder(pattern, six, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "in")
    out = pattern(source=".", output=Path("../out"))
    assert set(tree_of(out)) == {f"f/{number}" for number in range(6)}


def test_images_that_would_become_one_file_are_refused(pattern, picture, tmp_path):
    picture("f/a.jpg")
    picture("f/a.png")
    picture("g/a.png")
    with pytest.raises(ValueError, match=r"would become .*f/a.png") as refused:
        pattern()
    assert "g/a.png" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_inputs_and_outputs_of_the_wrong_kind_are_refused(pattern, picture, tmp_path):
    path = picture("a.png")
    with pytest.raises(ValueError, match="--input is a folder"):
        pattern(source=path)
    with pytest.raises(ValueError, match="--input is a folder"):
        pattern(source=tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output is a folder"):
        pattern(output=tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        pattern(source=tmp_path / "empty")


def test_a_damaged_record_is_named(pattern, picture):
    picture("a.png")
    out = pattern()
    (out / "extract.json").write_text('{"what": "ln')
    with pytest.raises(ValueError, match=r"extract.json is damaged \(.*\); --overwrite starts over"):
        pattern()
    pattern("--overwrite")
    assert record(out)["what"] == "lnp"


@pytest.mark.parametrize("command", ["cut", "pattern"])
def test_images_that_cannot_be_used_are_listed_and_the_others_written(
    command, picture, tmp_path, request, capsys
):
    go = request.getfixturevalue(command)
    for name in ("a.png", "f/b.png", "f/c.png"):
        picture(name)
    whole = picture("f/broken.png").read_bytes()
    (tmp_path / "in/f/broken.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/notes.txt").write_text("no image")
    picture("wide.png", (64, 64))
    go("--max_mpx", "0.001")
    out = tmp_path / "out"
    assert tree_of(out) == {"a": ".png", "f/b": ".png", "f/c": ".png"}
    failed = record(out)["failed"]
    assert set(failed) == {str(tmp_path / "in/f/broken.png"), str(tmp_path / "in/wide.png")}
    assert "truncated" in failed[str(tmp_path / "in/f/broken.png")]
    assert "--max_mpx" in failed[str(tmp_path / "in/wide.png")]
    printed = capsys.readouterr().out
    assert "3 of 5 files written" in printed
    assert "could not be used: 2 of 5 images" in printed
    assert "passed over: 1 .txt" in printed
    go("--max_mpx", "0.001")  # still broken, nothing to do again
    assert "0 of 5 files written" in capsys.readouterr().out
    assert record(out)["failed"] == failed
    (tmp_path / "in/f/broken.png").write_bytes(whole)
    go()
    assert set(tree_of(out)) == {"a", "f/b", "f/c", "f/broken", "wide"}
    assert record(out)["failed"] == {}


# --- toy weights ---


def test_the_seed_decides_the_toy_weights_and_their_files_load(toys, tmp_path, capsys):
    for seed in (0, 1):
        extract.main(["toys", "--output", str(tmp_path / str(seed)), "--seed", str(seed)])
    assert "random weights" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "0").iterdir()} == {"sam_toy.pth", "cycleisp_toy.pth"}
    first, again, other = (
        (
            cycleisp.load(folder / "cycleisp_toy.pth").state_dict(),
            masks.load_sam(folder / "sam_toy.pth", "toy").state_dict(),
        )
        for folder in (toys, tmp_path / "0", tmp_path / "1")
    )
    for one, same, different in zip(first, again, other, strict=True):
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], different[name]) for name in one)
    denoiser = cycleisp.load(toys / "cycleisp_toy.pth")
    assert sum(value.numel() for value in denoiser.parameters()) == 2_834_947
    published = torch.load(toys / "cycleisp_toy.pth", weights_only=True)["state_dict"]
    assert all(name.startswith("module.") for name in published)


# --- what must not be mixed or lost ---


def test_another_input_does_not_go_on_in_the_same_folder(pattern, picture, tmp_path):
    picture("a.png")
    out = pattern()
    before = contents(out)
    (tmp_path / "other").mkdir()
    toy_image(np.random.default_rng(9), fake=True, size=(16, 16)).save(tmp_path / "other/a.png")
    with pytest.raises(ValueError, match=r"is of something else \(input: there .*in, now .*other\)"):
        pattern(source=tmp_path / "other")
    assert contents(out) == before


def test_an_image_that_changed_is_done_again(pattern, picture):
    path, kept = picture("a.png"), picture("b.png")
    out = pattern()
    before, written = contents(out), (out / "b.png").stat().st_mtime_ns
    toy_image(np.random.default_rng(9), fake=True, size=(16, 16)).save(path)
    later = (out / "a.png").stat().st_mtime + 5
    os.utime(path, (later, later))
    os.utime(kept, (1, 1))
    pattern()
    assert contents(out)["a.png"] != before["a.png"]
    assert contents(out)["b.png"] == before["b.png"]
    assert (out / "b.png").stat().st_mtime_ns == written


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_folder_of_the_users_own_is_left_alone(pattern, picture, tmp_path, flags):
    picture("a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"holds files, but no extract\.json"):
        pattern(*flags)
    assert (tmp_path / "out/a.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_files_of_images_that_are_no_longer_there_are_named(pattern, picture, flags):
    picture("a.png")
    gone = picture("f/b.png")
    out = pattern()
    gone.unlink()
    with pytest.raises(ValueError, match=r"holds 1 images of which .* has none, first .*f/b\.png"):
        pattern(*flags)
    assert set(contents(out)) == {"a.png", "f/b.png"}


def test_noise_is_not_taken_of_noise(pattern, picture, tmp_path):
    picture("a.png")
    out = pattern()
    with pytest.raises(ValueError, match="holds noise patterns already"):
        pattern(source=out, output=tmp_path / "twice")


@pytest.mark.parametrize("command", ["cut", "pattern"])
def test_weights_that_are_no_numbers_are_refused(command, picture, toys, tmp_path, request):
    picture("a.png")
    name, flag = {"cut": ("sam_toy", "--sam"), "pattern": ("cycleisp_toy", "--weights")}[command]
    content = torch.load(toys / f"{name}.pth", weights_only=True)
    state = content.get("state_dict", content)
    first = next(iter(state))
    state[first] = torch.full_like(state[first], float("nan"))
    torch.save(content, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match="holds values that are no numbers, first in"):
        request.getfixturevalue(command)(flag, tmp_path / "nan.pth")


def test_an_image_too_narrow_for_sam_is_listed(cut, picture, capsys):
    picture("a.png", (64, 64))
    picture("strip.png", (3000, 2))
    out = cut()
    assert tree_of(out) == {"a": ".png"}
    assert "3000x2 is too narrow for SAM" in capsys.readouterr().out


def test_fp32_is_fp32_also_where_a_gpu_has_tf32(pattern, picture, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    picture("a.png")
    pattern()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark


def test_tiny_tiles_are_refused(pattern, picture):
    picture("a.png")
    with pytest.raises(ValueError, match="--tile is at least 32, got 8"):
        pattern("--tile", "8")


def test_when_no_image_can_be_used_the_status_says_so(pattern, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"no picture")
    fails(pattern)
