"""tools.visualize writes pictures of the right size from real folders, and refuses what it cannot draw."""

import importlib.util
import sys
from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import networks
from data.transforms import to_tensor
from networks import checkpoint
from tools.visualize import __main__ as visualize
from tools.visualize import cam, images, maps
from util import pictures
from util.record import write_scores

OPTIONS = {"name": "toy", "loadSize": 64, "cropSize": 48}  # of the checkpoint that the tests save


def test_npr_maps_show_a_column_per_generator_and_one_real(tree, tmp_path):
    root = tree(["a", "b"], size=(64, 48))
    visualize.main(["npr", "--dataroot", str(root), "--output", str(tmp_path / "maps.png")])
    two = Image.open(tmp_path / "maps.png").size
    root = tree(["a"], name="one", size=(64, 48))
    visualize.main(["npr", "--dataroot", str(root), "--output", str(tmp_path / "one.png")])
    assert two[0] == pytest.approx(Image.open(tmp_path / "one.png").size[0] * 3 / 2, rel=0.05)


def test_npr_refuses_an_index_beyond_the_images(tree):
    with pytest.raises(ValueError, match="--index 9"):
        visualize.main(["npr", "--dataroot", str(tree(["a"])), "--index", "9"])


def test_curves_come_from_scores_and_skip_one_sided_generators(tmp_path):
    rows = [("p", "a", label, score, 0.0) for label, score in ((0, 0.1), (1, 0.9), (0, 0.6), (1, 0.4))]
    write_scores(tmp_path / "scores.csv", [*rows, ("p", "only_real", 0, 0.2, -1.0)])
    visualize.main(["curves", "--results", str(tmp_path)])
    assert Image.open(tmp_path / "curves.png").size[0] > 800


@pytest.mark.parametrize("columns", ["epoch,loss,acc", "epoch,loss,acc,val_acc,val_ap"])
def test_training_is_drawn_with_and_without_validation(tmp_path, columns):
    width = columns.count(",")
    rows = [",".join(["0", *["0.5"] * width]), ",".join(["1", *["0.4"] * width])]
    (tmp_path / "train.csv").write_text("\n".join([columns, *rows]) + "\n")
    visualize.main(["training", "--run", str(tmp_path)])
    assert Image.open(tmp_path / "training.png").size[0] > 800


def test_maps_hold_one_image_and_23_maps_in_rows_of_six(tree, tmp_path):
    image = tree(["a"], size=(40, 30)) / "a" / "0_real" / "0.png"
    visualize.main(
        ["maps", "--image", str(image), "--size", "24", "--output", str(tmp_path / "new" / "m.png")]
    )
    width, height = Image.open(tmp_path / "new" / "m.png").size
    assert 1.0 < width / height < 1.2
    flags = maps.map_flags()
    assert len(flags) == 1 + 4 + 4 * 3 + 6
    assert list(flags)[5:8] == ["nearest, 0.25", "nearest, 0.5", "nearest, 0.75"]


def test_each_map_is_what_its_flags_make_of_the_pixels(rng):
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 12, 10), dtype=np.uint8))
    flags = maps.map_flags()

    def mapped(pixels, title):
        return pictures.npr_map(networks.get("npr").from_options(Namespace(**flags[title])), pixels)

    half = mapped(pixels, "nearest, 0.5")
    np.testing.assert_array_equal(half, mapped(pixels, "window 2, w1"))
    assert (half[::2, ::2] == 0).all()
    assert mapped(pixels, "gray, 0.5").shape == (12, 10, 1)
    assert (mapped(pixels, "window 2, max") <= 0).all()
    flat = mapped(torch.full((3, 8, 8), 90, dtype=torch.uint8), "local gradient")
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


def test_maps_refuse_bad_sizes_and_missing_images(tree, tmp_path, capsys):
    image = str(tree(["a"]) / "a" / "0_real" / "0.png")
    output = ["--output", str(tmp_path / "m.png")]
    with pytest.raises(ValueError, match="at least 2x2"):
        visualize.main(["maps", "--image", image, "--size", "1", *output])
    with pytest.raises(ValueError, match="--size is at most 1024, got 5000"):
        visualize.main(["maps", "--image", image, "--size", "5000", *output])
    with pytest.raises(ValueError, match=r"bad image .*none\.png: No such file"):
        visualize.main(["maps", "--image", str(tmp_path / "none.png"), *output])
    with pytest.raises(SystemExit):
        visualize.main(["maps", "--image", image, "--size", "0", *output])
    assert "a whole number above 0" in capsys.readouterr().err
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize(
    "argv",
    ["npr --dataroot", "maps --image", "curves --results", "training --run", "cam --model_path m --images"],
)
def test_another_suffix_is_refused_before_any_work(argv, tmp_path):
    with pytest.raises(ValueError, match=r"written as \.png or \.pdf, got .*p\.jpg"):
        visualize.main([*argv.split(), str(tmp_path / "none"), "--output", str(tmp_path / "p.jpg")])


def test_a_picture_can_be_a_pdf(tree, tmp_path):
    visualize.main(["npr", "--dataroot", str(tree(["a"])), "--output", str(tmp_path / "m.PDF")])
    assert (tmp_path / "m.PDF").read_bytes().startswith(b"%PDF")


@pytest.fixture
def detector():
    """An untrained detector whose logit depends on the image, in evaluation mode."""
    torch.manual_seed(0)
    return networks.get("npr")().eval()


def test_cam_equals_grad_cam_by_hand_at_the_detectors_layer(detector, rng):
    pytest.importorskip("pytorch_grad_cam")
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 32, 32), dtype=np.uint8))
    evidence, logit = pictures.grad_cam(detector, pixels)

    activations = detector.layer2(detector.layer1(detector.stem(detector.preprocess(pixels[None]))))
    activations = activations.detach().requires_grad_()
    value = detector.head(activations)
    (gradient,) = torch.autograd.grad(value.sum(), activations)
    expected = (
        (gradient.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)[0].clamp(min=0).detach().numpy()
    )
    expected = (expected - expected.min()) / np.ptp(expected)

    assert logit == pytest.approx(value.item(), abs=1e-5)
    assert evidence.shape == (32, 32) and np.ptp(evidence) == pytest.approx(1, abs=1e-4)
    enlarged = cv2.resize(expected, (32, 32))  # as the package does, which then stretches once more
    enlarged = (enlarged - enlarged.min()) / np.ptp(enlarged)
    np.testing.assert_allclose(evidence, enlarged, atol=1e-4)
    assert not detector.cam_layer._forward_hooks  # nothing stays behind


def save_toy(path, detector, **options):
    checkpoint.save(path, detector, options={**OPTIONS, **options})
    return str(path)


def test_cam_has_a_column_per_checkpoint_and_a_row_per_image(tree, tmp_path, detector):
    pytest.importorskip("pytorch_grad_cam")
    root, model = tree(["a", "b"], size=(80, 70)), save_toy(tmp_path / "m.pth", detector)
    argv = ["cam", "--model_path", model, model, "--dataroot", str(root), "--index", "1"]
    visualize.main([*argv, "--output", str(tmp_path / "three.png")])
    three = Image.open(tmp_path / "three.png").size
    files = [str(root / "a" / folder / "0.png") for folder in ("0_real", "1_fake")]
    argv = ["cam", "--model_path", model, "--images", *files]
    visualize.main([*argv, "--output", str(tmp_path / "two.png")])
    two = Image.open(tmp_path / "two.png").size
    assert three[0] > two[0] and three[1] > two[1]


def test_cam_prepares_images_as_the_checkpoint_was_validated(tree, tmp_path, detector):
    path = tree(["a"], size=(80, 70)) / "a" / "0_real" / "0.png"
    image = images.read_image(path)
    ours = checkpoint.load(save_toy(tmp_path / "m.pth", detector))
    resized = to_tensor(image.resize((64, 64), Image.Resampling.BILINEAR))
    torch.testing.assert_close(cam.prepared(image, ours, path), resized[:, 8:56, 8:56], rtol=0, atol=0)
    native = checkpoint.load(save_toy(tmp_path / "n.pth", detector, no_resize=True, cropSize=32))
    expected = to_tensor(image)[:, 19:51, 24:56]
    torch.testing.assert_close(cam.prepared(image, native, path), expected, rtol=0, atol=0)


def test_cam_runs_of_one_name_are_told_apart(tmp_path, detector):
    loaded = [checkpoint.load(save_toy(tmp_path / name, detector)) for name in ("best.pth", "last.pth")]
    assert cam.run_titles(loaded) == ["toy best", "toy last"]
    assert cam.run_titles(loaded[:1]) == ["toy"]


def test_cam_takes_at_most_six_images(tree, tmp_path):
    root = tree([*"abcdefg"], count=1)
    files = sorted(root.glob("*/0_real/0.png"))
    with pytest.raises(ValueError, match="at most 6 files, got 7"):
        images.examples_of(Namespace(images=files, dataroot=None, index=None))
    with pytest.raises(ValueError, match="--index chooses from --dataroot"):
        images.examples_of(Namespace(images=files[:1], dataroot=None, index=0))
    examples, note = images.examples_of(Namespace(images=None, dataroot=root, index=None))
    assert [title for title, _ in examples] == ["real", *(f"fake: {name}" for name in "abcde")]
    assert note == "Left out: 2 more."


def test_cam_says_what_is_missing(tree, tmp_path, monkeypatch):
    image = str(tree(["a"]) / "a" / "0_real" / "0.png")
    argv = [
        "cam",
        "--model_path",
        str(tmp_path / "none.pth"),
        "--output",
        str(tmp_path / "c.png"),
        "--images",
    ]
    if importlib.util.find_spec("pytorch_grad_cam"):
        with pytest.raises(ValueError, match=r"no weight file at .*none\.pth"):
            visualize.main([*argv, image])
        with pytest.raises(ValueError, match=r"bad image .*gone\.png"):
            visualize.main([*argv, str(tmp_path / "gone.png")])
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ValueError, match="pip install grad-cam"):
        visualize.main([*argv, image])


def test_overlay_is_warm_where_evidence_is_and_keeps_the_image_visible():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    none, full = pictures.overlay(pixels, np.zeros((1, 2))), pictures.overlay(pixels, np.ones((1, 2)))
    assert (full[..., 0] > full[..., 2]).all() and (none[..., 2] > none[..., 0]).all()
    np.testing.assert_allclose(none[0, 1] - none[0, 0], 1 - pictures.OVERLAY, atol=1e-3)


@pytest.mark.parametrize(("logit", "words"), [(0.0, "score 0.50: real"), (3.0, "score 0.95: fake")])
def test_score_below_an_overlay(logit, words):
    assert cam.verdict(logit) == words
