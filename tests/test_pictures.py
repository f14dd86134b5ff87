"""util/pictures.py: NPR maps, Grad-CAM, and files of figures."""

from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch

import networks
from common import UserError
from tools.visualize.maps import map_flags
from util import pictures


def npr_map(pixels, title):
    """The map that tools.visualize shows under a title."""
    detector = networks.get("npr").from_options(Namespace(**map_flags()[title]))
    return pictures.npr_map(detector, pixels)


def test_an_npr_map_is_what_the_detectors_flags_make_of_the_pixels(rng):
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 12, 10), dtype=np.uint8))
    half = npr_map(pixels, "nearest, 0.5")
    np.testing.assert_array_equal(half, npr_map(pixels, "window 2, w1"))
    assert (half[::2, ::2] == 0).all()
    assert npr_map(pixels, "gray, 0.5").shape == (12, 10, 1)
    assert (npr_map(pixels, "window 2, max") <= 0).all()
    flat = npr_map(torch.full((3, 8, 8), 90, dtype=torch.uint8), "local gradient")
    assert (flat[:-1, :-1] == 0).all()  # neutral is grey, here too


def test_maps_are_stretched_by_their_percentile_around_grey():
    values = np.zeros((10, 20, 1))
    values[0, :4, 0] = (1, -2, 2, 50)
    picture, limit = pictures.stretched(values)
    assert picture.shape == (10, 20, 3) and limit == pytest.approx(np.percentile(np.abs(values), 99))
    assert picture[0, 0, 0] == pytest.approx(0.5 + 0.5 / limit)
    assert picture[0, 1, 0] == 0 and picture[0, 3, 0] == 1 and picture[5, 5, 0] == 0.5
    assert pictures.stretched(np.zeros((4, 4, 3)))[0].min() == 0.5  # no division by zero
    values[0, :4, 0] = (0, 0, 0, 3)
    assert pictures.stretched(values)[1] == 3  # a percentile of 0 shows nothing


def test_grad_cam_equals_grad_cam_by_hand_at_the_detectors_layer(rng):
    pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    detector = networks.get("npr")().eval()
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 32, 32), dtype=np.uint8))
    evidence, logit = pictures.grad_cam(detector, pixels)

    activations = detector.layer2(detector.layer1(detector.stem(detector.preprocess(pixels[None]))))
    activations = activations.detach().requires_grad_()
    value = detector.fc1(activations.mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(value.sum(), activations)
    weighted = (gradient.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)[0]
    expected = weighted.clamp(min=0).detach().numpy()
    expected = (expected - expected.min()) / np.ptp(expected)

    assert logit == pytest.approx(value.item(), abs=1e-5)
    assert evidence.shape == (32, 32) and np.ptp(evidence) == pytest.approx(1, abs=1e-4)
    enlarged = cv2.resize(expected, (32, 32))  # as the package does, which then stretches once more
    enlarged = (enlarged - enlarged.min()) / np.ptp(enlarged)
    np.testing.assert_allclose(evidence, enlarged, atol=1e-4)
    assert not detector.cam_layer._forward_hooks  # nothing stays behind


def test_an_overlay_is_warm_where_evidence_is_and_keeps_the_image_visible():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    none, full = pictures.overlay(pixels, np.zeros((1, 2))), pictures.overlay(pixels, np.ones((1, 2)))
    assert (full[..., 0] > full[..., 2]).all() and (none[..., 2] > none[..., 0]).all()
    np.testing.assert_allclose(none[0, 1] - none[0, 0], 1 - pictures.OVERLAY, atol=1e-3)


def test_a_figure_is_written_whole_and_twice_the_same(tmp_path):
    figure, _ = pictures.canvas(1, 1, 1, 1)
    for name, start in (("a.png", b"\x89PNG"), ("a.PDF", b"%PDF")):
        paths = [pictures.save(figure, tmp_path / folder / name) for folder in ("new", "again")]
        first, second = (path.read_bytes() for path in paths)
        assert first == second and first.startswith(start)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.PDF", "a.png"]


def test_a_path_that_is_no_picture_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "p.jpg"):
        with pytest.raises(UserError, match=path.name):
            pictures.check_output(path)
