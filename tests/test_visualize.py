"""tools.visualize writes pictures of the right size from real folders, and refuses what it cannot draw."""

import sys
from argparse import Namespace

import pytest
import torch
from PIL import Image

import networks
from common import UserError
from data.transforms import to_tensor
from networks import checkpoint
from tools.visualize import cam, images, maps
from tools.visualize.__main__ import main
from util.results import write_scores

OPTIONS = {"name": "toy", "loadSize": 64, "cropSize": 48}  # of the checkpoint that the tests save


def draw(*words):
    """Runs a command whose --output comes last; returns the size of its picture."""
    main([str(word) for word in words])
    with Image.open(words[-1]) as picture:
        return picture.size


def test_npr_maps_show_a_column_per_generator_and_one_real(tree, tmp_path):
    two, one = tree(["a", "b"], size=(32, 24)), tree(["a"], name="one", size=(32, 24))
    width, _ = draw("npr", "--dataroot", two, "--output", tmp_path / "two.png")
    narrow, _ = draw("npr", "--dataroot", one, "--index", 1, "--output", tmp_path / "one.png")
    assert width == pytest.approx(narrow * 3 / 2, rel=0.05)
    with pytest.raises(UserError, match="--index 9"):
        draw("npr", "--dataroot", one, "--index", 9)
    file = one / "a" / "1_fake" / "0.png"
    assert draw("npr", "--images", file, file, "--output", tmp_path / "files.png")[0] == narrow
    with pytest.raises(UserError, match="--index"):
        draw("npr", "--images", file, "--index", 1)


def test_curves_come_from_scores_and_skip_one_sided_generators(tmp_path):
    rows = [(f"{score}.png", "a", int(score in (0.9, 0.4)), score, 0.0) for score in (0.1, 0.9, 0.6, 0.4)]
    write_scores(tmp_path / "scores.csv", [*rows, ("p", "only_real", 0, 0.2, -1.0)])
    main(["curves", "--results", str(tmp_path)])
    assert Image.open(tmp_path / "curves.png").size[0] > 800


@pytest.mark.parametrize("columns", ["epoch,loss,acc", "epoch,loss,acc,val_acc,val_ap"])
def test_training_is_drawn_with_and_without_validation(tmp_path, columns):
    width = columns.count(",")
    rows = [",".join(["0", *["0.5"] * width]), ",".join(["1", *["0.4"] * width])]
    (tmp_path / "train.csv").write_text("\n".join([columns, *rows]) + "\n")
    main(["training", "--run", str(tmp_path)])
    assert Image.open(tmp_path / "training.png").size[0] > 800


@pytest.mark.parametrize("words", ["curves --results", "training --run"])
def test_a_folder_without_the_file_of_the_curves_is_named(tmp_path, words):
    with pytest.raises(UserError, match=r"(scores|train)\.csv"):
        main([*words.split(), str(tmp_path)])


def test_maps_hold_one_image_and_23_maps_in_rows_of_six(tree, tmp_path):
    image = tree(["a"], size=(40, 30)) / "a" / "0_real" / "0.png"
    width, height = draw("maps", "--image", image, "--size", 24, "--output", tmp_path / "new" / "m.png")
    assert 1.0 < width / height < 1.2
    flags = maps.map_flags()
    assert len(flags) == 1 + 4 + 4 * 3 + 6
    assert list(flags)[5:8] == ["nearest, 0.25", "nearest, 0.5", "nearest, 0.75"]


def test_maps_refuse_bad_sizes_and_missing_images(tree, tmp_path, capsys):
    image, output = tree(["a"]) / "a" / "0_real" / "0.png", tmp_path / "m.png"
    for size in (1, 5000):
        with pytest.raises(SystemExit):
            draw("maps", "--image", image, "--size", size, "--output", output)
        assert "--size" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"none\.png"):
        draw("maps", "--image", tmp_path / "none.png", "--output", output)
    assert not output.exists()


@pytest.mark.parametrize(
    "words",
    ["npr --dataroot", "maps --image", "curves --results", "training --run", "cam --model_path m --images"],
)
@pytest.mark.parametrize("output", ["p.jpg", ""])
def test_an_output_that_is_no_picture_is_refused_before_any_work(words, output, tmp_path):
    with pytest.raises(UserError, match="--output"):
        draw(*words.split(), tmp_path / "none", "--output", tmp_path / output)


@pytest.fixture(scope="module")
def detector():
    """An untrained detector whose logit depends on the image, in evaluation mode."""
    torch.manual_seed(0)
    return networks.get("npr")().eval()


def save_toy(path, detector, **options):
    checkpoint.save(path, detector, options={**OPTIONS, **options})
    return path


def test_cam_has_a_column_per_checkpoint_and_a_row_per_image(tree, tmp_path, detector):
    pytest.importorskip("pytorch_grad_cam")
    root, model = tree(["a", "b"], size=(60, 50)), save_toy(tmp_path / "m.pth", detector)
    source = ["--dataroot", root, "--index", 1]
    large = draw("cam", "--model_path", model, model, *source, "--output", tmp_path / "three.png")
    files = [root / "a" / folder / "0.png" for folder in ("0_real", "1_fake")]
    small = draw("cam", "--model_path", model, "--images", *files, "--output", tmp_path / "two.png")
    assert large[0] > small[0] and large[1] > small[1]


def test_a_title_of_two_lines_is_not_cut_off(tree, tmp_path, detector):
    pytest.importorskip("pytorch_grad_cam")
    root = tree(["a"], size=(60, 50))
    files = [root / "a" / folder / "0.png" for folder in ("0_real", "1_fake")]
    models = [save_toy(tmp_path / f"{side}.pth", detector, cropSize=side) for side in (32, 48)]
    figure = cam.draw_cam(Namespace(images=files, index=0, model_path=models))
    figure.draw_without_rendering()
    title = figure.axes[0].title
    assert title.get_text() == "image as the first\ncheckpoint gets it"
    assert title.get_window_extent().y1 <= figure.bbox.height


def test_cam_prepares_images_as_the_checkpoint_was_validated(tree, tmp_path, detector):
    path = tree(["a"], size=(80, 70)) / "a" / "0_real" / "0.png"
    image = Image.open(path)
    ours = checkpoint.load(save_toy(tmp_path / "m.pth", detector))
    resized = to_tensor(image.resize((64, 64), Image.Resampling.BILINEAR))
    torch.testing.assert_close(cam.prepared(path, ours), resized[:, 8:56, 8:56], rtol=0, atol=0)
    native = checkpoint.load(save_toy(tmp_path / "n.pth", detector, no_resize=True, cropSize=32))
    expected = to_tensor(image)[:, 19:51, 24:56]
    torch.testing.assert_close(cam.prepared(path, native), expected, rtol=0, atol=0)


def test_cam_names_runs_of_one_name_by_their_files(tmp_path, detector):
    loaded = [checkpoint.load(save_toy(tmp_path / name, detector)) for name in ("best.pth", "last.pth")]
    assert cam.run_titles(loaded) == ["toy best", "toy last"]
    assert cam.run_titles(loaded[:1]) == ["toy"]


def test_examples_are_a_real_image_and_a_fake_per_generator(tree):
    root = tree([*"abcdefg"], count=1)
    chosen = images.examples(Namespace(images=None, dataroot=root, index=0))
    assert [title for title, _ in chosen] == ["real", *(f"fake: {name}" for name in "abcdefg")]
    assert chosen[0][1] == root / "a" / "0_real" / "0.png" and chosen[7][1] == root / "g" / "1_fake" / "0.png"


def test_cam_names_what_is_missing(tree, tmp_path, monkeypatch, detector):
    image, model = tree(["a"]) / "a" / "0_real" / "0.png", save_toy(tmp_path / "m.pth", detector)
    words = ["cam", "--output", tmp_path / "c.png", "--model_path"]
    with pytest.raises(UserError, match=r"none\.pth"):
        draw(*words, tmp_path / "none.pth", "--images", image)
    with pytest.raises(UserError, match=r"gone\.png"):
        draw(*words, model, "--images", tmp_path / "gone.png")
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match="grad-cam"):
        draw(*words, model, "--images", image)


@pytest.mark.parametrize(("logit", "words"), [(0.0, "score 0.50: real"), (3.0, "score 0.95: fake")])
def test_score_below_an_overlay(logit, words):
    assert cam.verdict(logit) == words
