"""The pictures of DFIG's features: which faces stand in them, what is drawn, what is refused."""

import numpy as np
import pytest
import torch
from conftest import make_tree
from PIL import Image

from common import UserError
from networks.cycleisp import wrapped
from tools.visualize import __main__ as visualize
from tools.visualize import spectra

MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


def write_noise(folder, faces=2, side=24, bits=8):
    """folder/test/{0_real,1_fake}/<number>.png of random noise."""
    import cv2

    rng = np.random.default_rng(5)
    for label in ("0_real", "1_fake"):
        inside = folder / "test" / label
        inside.mkdir(parents=True)
        for number in range(faces):
            noise = rng.normal(0, 0.02, (side, side, 3)).astype(np.float32)
            deep = (32768 + 32767 * noise).round().astype(np.uint16)
            cv2.imwrite(
                str(inside / f"{number}.png"),
                deep if bits == 16 else wrapped(torch.from_numpy(noise)).numpy(),
            )
    return folder


@pytest.fixture
def chain(tmp_path):
    """(photographs, masked faces, noise) of the same two reals and two fakes."""
    original = make_tree(tmp_path / "original", ["test"], count=2, size=(24, 24), suffix=".jpg")
    masked = make_tree(tmp_path / "masked", ["test"], count=2, size=(24, 24))
    return original, masked, write_noise(tmp_path / "lnp")


def run(*words):
    visualize.main([str(word) for word in words])


# --- lnp


def test_faces_are_those_of_all_folders_reals_and_fakes_in_turn(chain):
    (chain[1] / "test" / "0_real" / "0.png").unlink()
    faces = spectra.common_faces(chain, rows=3)
    assert list(faces) == ["test/0_real/1", "test/1_fake/0", "test/1_fake/1"]
    assert [path.suffix for path in faces["test/0_real/1"]] == [".jpg", ".png", ".png"]
    assert len(spectra.common_faces(chain, rows=2)) == 2


@pytest.mark.parametrize("bits", [8, 16])
def test_the_picture_of_faces_is_written(chain, tmp_path, bits):
    original, masked, _ = chain
    lnp = write_noise(tmp_path / "other", bits=bits)
    words = ["lnp", "--original", original, "--lnp", lnp, "--rows", 2]
    run(*words, "--masked", masked, "--output", tmp_path / "a.png")
    run(*words, "--output", tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as five, Image.open(tmp_path / "b.png") as four:
        assert five.height > 300
        assert four.width < five.width  # without the column of masked faces


def test_what_cannot_be_drawn_is_said(chain, tmp_path):
    original, _, lnp = chain
    with pytest.raises(UserError, match="0_real"):
        run("lnp", "--original", original / "test" / "0_real", "--lnp", lnp)
    (lnp / "test" / "0_real" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0_real/0\.png"):
        run("lnp", "--original", original, "--lnp", lnp, "--output", tmp_path / "a.png")


def test_the_strength_of_noise_undoes_the_wrapping():
    values = torch.tensor([0, 255, 254, 156]).to(torch.uint8)  # noise 0, 1, 2, 100
    pixels = values.repeat(3, 5, 1)
    shown = spectra.strength(pixels)
    np.testing.assert_allclose(shown[0, :, 0], [0, 0.01, 0.02, 1], atol=1e-6)
    deep = torch.tensor([0, -100, 50, 1000], dtype=torch.int16).repeat(3, 5, 1)
    np.testing.assert_allclose(spectra.strength(deep)[0, :, 0], [0, 0.1, 0.05, 1], atol=1e-6)


# --- spectra


def test_the_mean_spectrum_is_numpys(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 20, 26, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for picture, path in zip(pictures, paths, strict=True):
        Image.fromarray(picture).save(path)
    spectrum = spectra.mean_spectrum(paths, None, 16)
    expected = 0
    for picture in pictures:
        crop = (picture[2:18, 5:21] / 255 - MEAN) / STD
        amplitude = np.abs(np.fft.fft2(crop, axes=(0, 1), norm="ortho")) ** 0.8
        expected = expected + np.log10(np.fft.fftshift(amplitude.mean(axis=2))) / 2
    np.testing.assert_allclose(spectrum, expected, atol=1e-4)


def test_rings_are_averaged_around_frequency_0():
    side = 16
    offset = np.arange(side) - side // 2
    distance = np.hypot(offset[:, None], offset[None]).round()
    frequency, value = spectra.radial(distance * 10)
    np.testing.assert_allclose(value, 10 * np.arange(1, 8))
    np.testing.assert_allclose(frequency, np.arange(1, 8) / 16)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_picture_of_spectra_is_written(tmp_path, bits):
    run("spectra", "--input", write_noise(tmp_path / "lnp", bits=bits), "--output", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 1000


def test_spectra_of_images_and_what_is_refused(tmp_path):
    tree = make_tree(tmp_path / "tree", ["a"], count=2, size=(24, 20))
    run("spectra", "--input", tree, "--lnp_input", "image", "--most", 1, "--output", tmp_path / "s.pdf")
    assert (tmp_path / "s.pdf").read_bytes()[:4] == b"%PDF"
    with pytest.raises(UserError, match="--size 22"):
        run("spectra", "--input", tree, "--lnp_input", "image", "--size", 22)
    with pytest.raises(UserError, match="0_real"):
        run("spectra", "--input", tree / "a" / "0_real")
