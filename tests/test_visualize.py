"""tools.visualize writes pictures of the right size from real folders, and refuses what it cannot draw."""

import pytest
from PIL import Image

from tools import visualize
from util.record import write_scores


def test_npr_maps_show_a_column_per_generator_and_one_real(tree, tmp_path):
    root = tree(["a", "b"], size=(64, 48))
    visualize.main(["npr", "--dataroot", str(root), "--output", str(tmp_path / "maps.png")])
    two = Image.open(tmp_path / "maps.png").size
    root = tree(["a"], name="one", size=(64, 48))
    visualize.main(["npr", "--dataroot", str(root), "--output", str(tmp_path / "one.png")])
    assert two[0] == pytest.approx(Image.open(tmp_path / "one.png").size[0] * 3 / 2, rel=0.05)


def test_npr_refuses_a_number_beyond_the_images(tree):
    with pytest.raises(ValueError, match="--number 9"):
        visualize.main(["npr", "--dataroot", str(tree(["a"])), "--number", "9"])


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
