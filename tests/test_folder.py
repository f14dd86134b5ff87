"""Folders to labelled samples: layouts, what is passed over or refused, and bad files in the dataset."""

import os
import signal

import numpy as np
import pytest
import torch
from conftest import make_tree, toy_image

from common import UserError
from data import protocol
from data.folder import (
    RealFakeFolder,
    discover,
    files_scan,
    scan,
)
from data.training import require_both_classes, training_scans
from data.transforms import Augment, Geometry
from options import TrainOptions

STORED = Geometry(None, None)


@pytest.fixture(autouse=True)
def impatience():
    """A test that walks in circles fails after some seconds instead of hanging."""

    def give_up(*_):
        pytest.fail("still walking")  # no OSError: os.walk would swallow it

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(4)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def found(root, classes=()):
    return scan(root, discover(root, classes))


def write(path, size=(8, 8)):
    """One small image at path; the content is PNG whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    toy_image(np.random.default_rng(0), fake=False, size=size).save(path, "PNG")
    return path


def labels_of(result):
    return {sample.path: sample.label for sample in result.samples}


LAYOUTS = [("0_real", "1_fake"), ("nature", "ai"), ("real", "fake")]
UPPER = [(real.upper(), fake.upper()) for real, fake in LAYOUTS]


@pytest.mark.parametrize(("real", "fake"), [*LAYOUTS, *UPPER, ("Real", "FAKE")])
def test_fake_is_1_whatever_the_alphabet_says(tree, real, fake):
    result = found(tree(["gen"], names=(real, fake), count=2))
    assert labels_of(result) == {
        f"gen/{real}/0.png": 0,
        f"gen/{real}/1.png": 0,
        f"gen/{fake}/0.png": 1,
        f"gen/{fake}/1.png": 1,
    }


def test_the_dataset_carries_the_labels_of_its_scan(tree):
    dataset = RealFakeFolder(found(tree(["gen"], names=("nature", "ai"), count=2)), STORED)
    assert dataset.labels.tolist() == [0, 0, 1, 1] == [dataset[index]["label"] for index in range(4)]
    assert [sample.path.split("/")[1] for sample in dataset.samples] == ["nature"] * 2 + ["ai"] * 2


def test_layouts_may_differ_between_generators(tmp_path):
    for number, names in enumerate(LAYOUTS):
        make_tree(tmp_path / "tree", [f"gen{number}"], names=names, count=number + 1)
    result = found(tmp_path / "tree")
    assert result.counts() == {"gen0": [1, 1], "gen1": [2, 2], "gen2": [3, 3]}


def test_classes_below_a_generator_belong_to_it(tree):
    root = tree(["progan/car", "progan/cat/small", "stylegan"], count=2)
    result = found(root)
    assert result.counts() == {"progan": [4, 4], "stylegan": [2, 2]}
    assert list(result.counts()) == ["progan", "stylegan"]
    assert labels_of(result)["progan/cat/small/1_fake/1.png"] == 1


def test_images_below_folders_inside_a_label_folder_count(tmp_path):
    write(tmp_path / "gen/0_real/a/b/deep.png")
    write(tmp_path / "gen/1_fake/top.png")
    assert labels_of(found(tmp_path)) == {"gen/0_real/a/b/deep.png": 0, "gen/1_fake/top.png": 1}


def test_a_root_that_is_itself_a_pair_is_one_generator_named_after_it(tree):
    root = tree(["."], name="biggan", count=2)
    result = found(root)
    assert list(result.counts()) == ["biggan"]
    assert labels_of(result) == {"0_real/0.png": 0, "0_real/1.png": 0, "1_fake/0.png": 1, "1_fake/1.png": 1}


def test_a_relative_root_that_is_a_pair_has_a_name(tree, monkeypatch):
    monkeypatch.chdir(tree(["."], name="biggan", count=1))
    assert list(found(".").counts()) == ["biggan"]


@pytest.mark.parametrize("suffix", [".PNG", ".Jpeg", ".JPEG", ".webp", ".bmp", ".tif", ".TIFF", ".jpg"])
def test_an_image_extension_counts_in_any_case(tmp_path, suffix):
    toy_image(np.random.default_rng(0), fake=True).save(write(tmp_path / f"gen/real/x{suffix}"))
    write(tmp_path / f"gen/fake/a.b{suffix}")
    result = found(tmp_path)
    assert labels_of(result) == {f"gen/real/x{suffix}": 0, f"gen/fake/a.b{suffix}": 1}
    assert not result.passed_over
    assert all("bad" not in item for item in map(RealFakeFolder(result, STORED).__getitem__, range(2)))


@pytest.mark.parametrize("name", ["a.b.png", "with space, comma.png", "ünï.png", "-dash.png", "#1 100%.png"])
def test_unusual_names_are_read(tmp_path, name):
    write(tmp_path / "gen/0_real" / name)
    result = found(tmp_path)
    assert labels_of(result) == {f"gen/0_real/{name}": 0}
    assert "bad" not in RealFakeFolder(result, STORED)[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gen/0_real/.DS_Store", "hidden"),
        ("gen/0_real/._0.png", "hidden"),
        ("gen/0_real/deeper/.hidden.jpg", "hidden"),
        ("gen/0_real/Thumbs.db", ".db"),
        ("gen/1_fake/notes.TXT", ".txt"),
        ("gen/1_fake/README", "without extension"),
        ("gen/1_fake/0.png.part", ".part"),
        ("index.csv", ".csv"),
        (".DS_Store", "hidden"),
        ("preview.png", "image outside a label folder"),
        ("gen/index.csv", ".csv"),
        ("gen/.DS_Store", "hidden"),
        ("gen/preview.png", "image outside a label folder"),
        ("gen/metadata/preview.png", "image outside a label folder"),
    ],
)
def test_what_is_no_sample_is_passed_over_and_counted(tree, name, kind):
    root = tree(["gen"], count=2)
    before = labels_of(found(root))
    write(root / name)
    result = found(root)
    assert labels_of(result) == before
    assert dict(result.passed_over) == {kind: 1}
    assert f"1 {kind}" in result.describe()


@pytest.mark.parametrize("place", [".cache/0_real", "gen/.trash/0_real", "gen/0_real/.thumbnails"])
def test_hidden_folders_are_not_entered(tree, place):
    root = tree(["gen"], count=2)
    write(root / place / "x.png")
    result = found(root)
    assert result.counts() == {"gen": [2, 2]}


def test_samples_stand_in_sorted_order_whatever_order_they_were_written_in(tmp_path):
    names = [
        "b/1_fake/2.png",
        "a/0_real/10.png",
        "b/0_real/z.png",
        "a/0_real/1.png",
        "b/1_fake/1.png",
        "a/1_fake/x.png",
        "b/0_real/y.png",
        "a/0_real/2.png",
    ]
    for name in names:
        write(tmp_path / name)
    assert [sample.path for sample in found(tmp_path).samples] == sorted(names)


def test_the_order_of_the_file_system_does_not_matter(tree, monkeypatch):
    root = tree(["b", "a/y", "a/x"], count=3)
    write(root / "a/x/0_real/deep/q.png")
    write(root / "a/x/0_real/also/q.png")
    expected = found(root).samples
    listdir, scandir = os.listdir, os.scandir

    class Backwards:
        def __init__(self, *args):
            with scandir(*args) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            pass

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def close(self):
            pass

    monkeypatch.setattr(os, "listdir", lambda *args: sorted(listdir(*args), reverse=True))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert found(root).samples == expected


def test_generators_keep_the_order_in_which_scan_was_given_them(tree):
    root = tree(["a", "b", "c"], count=1)
    assert list(scan(root, [(name, root / name) for name in "cab"]).counts()) == ["c", "a", "b"]


@pytest.mark.parametrize(
    "pair", [("real", "0_real"), ("fake", "1_fake"), ("nature", "real"), ("ai", "1_fake"), ("Real", "real")]
)
def test_two_folders_of_the_same_label_are_refused_by_name(tree, pair):
    root = tree(["gen"], names=pair, count=1)
    with pytest.raises(ValueError, match=pair[0]) as caught:
        found(root)
    assert all(name in str(caught.value) for name in pair)


# path below the root -> its label; the outermost label folder counts
CONTRADICTING = {
    "g/1_fake/flux/nature/a.png": 1,
    "g/1_fake/flux/people/b.png": 1,
    "g/0_real/c.png": 0,
    "g/0_real/AI/real/d.png": 0,
    "h/car/nature/1_fake/e.png": 0,
    "h/car/fake/f.png": 1,
    "h/car/fake/ai/g.png": 1,
}


@pytest.mark.parametrize("inside", ["set", "fake"])
def test_every_reader_gives_a_file_the_label_of_the_outermost_label_folder(tmp_path, inside):
    root = tmp_path / inside
    for path in CONTRADICTING:
        write(root / path)
    by_generator, listed = found(root), files_scan([str(root)])
    assert labels_of(by_generator) == CONTRADICTING
    assert {os.path.relpath(sample.path, root): sample.label for sample in listed.samples} == CONTRADICTING
    for notices in map(list, (by_generator.notices(), listed.notices())):
        assert len(notices) == 1
        assert "3 images" in notices[0]
        assert "1_fake/flux/nature" in notices[0] or "0_real/AI/real" in notices[0]
    assert by_generator.describe().splitlines()[1:] == list(by_generator.notices())
    train_root = root.rename(tmp_path / "train")
    opt = TrainOptions().parse(["--dataroot", str(tmp_path), "--val_split", "none"])
    assert labels_of(training_scans(opt)[0]) == CONTRADICTING
    entry = protocol.Protocol("own", (protocol.Generator("g"), protocol.Generator("h")), STORED, "")
    of_row = scan(
        train_root, [(g.name, entry.find(train_root, g)) for g in entry.generators], entry.label_map
    )
    assert labels_of(of_row) == CONTRADICTING


def test_no_notice_where_nothing_contradicts(tree):
    assert list(found(tree(["a", "b"])).notices()) == []


def test_a_label_folder_named_as_a_root_is_refused_where_its_content_would_get_the_other_label(tmp_path):
    write(tmp_path / "g/1_fake/flux/nature/x.png")
    with pytest.raises(UserError, match="1_fake"):
        discover(tmp_path / "g/1_fake")
    assert [sample.label for sample in files_scan([str(tmp_path / "g/1_fake")]).samples] == [1]


def test_a_root_with_the_name_of_a_label_is_a_root_where_both_labels_are_in_it(tree):
    root = tree(["a", "b"], name="fake", count=2)
    assert found(root).counts() == {"a": [2, 2], "b": [2, 2]}
    assert sorted(sample.label for sample in files_scan([str(root)]).samples) == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    "junk",
    [
        "g/0_real/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "g/1_fake/.thumbnails/0.png",
        "g/@eaDir/0_real/x.png",
        "g/.AppleDouble/1_fake/x.png",
        "__MACOSX/g/0_real/._0.png",
        "__MACOSX/g/1_fake/0.png",
        "#recycle/g/1_fake/0.png",
        "$RECYCLE.BIN/g/1_fake/0.png",
        "lost+found/g/1_fake/0.png",
        "System Volume Information/g/0_real/0.png",
    ],
)
def test_folders_that_a_nas_or_an_operating_system_adds_are_passed_over_and_counted(tree, junk):
    root = tree(["g"], count=2)
    before = labels_of(found(root))
    write(root / junk)
    result = found(root)
    assert labels_of(result) == before
    assert discover(root) == [("g", root / "g")]
    require_both_classes(result)
    (reason,) = result.passed_over
    assert reason == "hidden folder" or reason.split()[1] in junk
    assert len(files_scan([str(root)]).samples) == 4


@pytest.mark.parametrize("splits", [("train", "val"), ("valid", "Test")])
def test_splits_taken_as_generators_are_announced(tree, splits):
    (notice,) = found(tree(splits)).notices()
    assert all(split in notice for split in splits)


@pytest.mark.parametrize("splits", [("train", "val"), ("val", "test"), ("Train", "VAL")])
def test_splits_mixed_below_one_generator_are_refused(tree, splits):
    root = tree([f"gen/inner/{split}" for split in splits], names=("nature", "ai"), count=1)
    with pytest.raises(ValueError, match="splits") as caught:
        found(root)
    assert all(split.lower() in str(caught.value) for split in splits)


def test_a_single_split_below_a_generator_is_taken(tree):
    root = tree(["gen/val"], names=("nature", "ai"), count=2)
    assert found(root).counts() == {"gen": [2, 2]}


def test_an_unknown_class_is_refused_with_those_there_are(tree):
    root = tree(["car", "cat", "chair"], count=1)
    with pytest.raises(ValueError, match="horse") as caught:
        discover(root, ("car", "horse"))
    assert "car, cat, chair" in str(caught.value)


def test_classes_choose_folders(tree):
    root = tree(["car", "cat", "chair"], count=1)
    assert list(found(root, ("chair", "car")).counts()) == ["car", "chair"]


def test_a_class_named_twice_is_read_once(tree):
    root = tree(["car", "cat"], count=2)
    assert found(root, ("car", "car")).counts() == {"car": [2, 2]}


def test_classes_have_no_effect_where_the_root_is_itself_a_pair_and_a_notice_says_so(tree):
    root = tree(["."], name="biggan", count=1)
    assert discover(root, ("horse",)) == [("biggan", root)]
    assert "--classes has no effect" in found(root).describe(("horse",))
    assert "--classes" not in found(root).describe() + found(root.parent).describe(("biggan",))


@pytest.mark.parametrize(("folders", "shown"), [(["cats/good", "dogs"], "cats, dogs"), ([], "nothing")])
def test_a_root_without_a_layout_says_what_was_expected_and_what_is_there(tmp_path, folders, shown):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError) as caught:
        discover(tmp_path)
    text = str(caught.value)
    assert all(part in text for part in ("0_real/1_fake", "nature/ai", "real/fake", str(tmp_path), shown))


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_folder_is_refused_by_name(tmp_path, kind):
    root = tmp_path / "nowhere"
    if kind == "file":
        root.write_text("")
    with pytest.raises(ValueError, match="nowhere"):
        discover(root)


def test_a_label_folder_as_root_asks_for_the_folder_above(tree):
    with pytest.raises(UserError, match="above"):
        discover(tree(["a"]) / "a" / "0_real")


@pytest.mark.parametrize(
    "links",
    [
        {"gen/0_real/again": "gen/0_real"},
        {"gen/0_real/up": "gen"},
        {"gen/loop": "gen"},
        {"gen/loop": "."},
        {"gen/loop1": "gen", "gen/loop2": "gen"},
        {"gen/0_real/x/to_y": "gen/0_real/y", "gen/0_real/y/to_x": "gen/0_real/x"},
        {"gen/x/to_y": "gen/y", "gen/y/to_x": "gen/x"},
        {"other/loop1": "other", "other/loop2": "other", "other/loop3": "."},
    ],
    ids=[
        "label in itself",
        "generator in label",
        "generator in itself",
        "root in generator",
        "two loops",
        "two label folders in each other",
        "two folders in each other",
        "folder without labels",
    ],
)
def test_links_that_lead_in_circles_neither_hang_nor_repeat_images(tree, links):
    root = tree(["gen"], count=2)
    expected = labels_of(found(root))
    for link, target in links.items():
        for folder in (root / link).parent, root / target:
            folder.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to((root / target).resolve(), target_is_directory=True)
    result = found(root)
    assert labels_of(result) == expected
    assert len(result.samples) == len(expected)


def test_reals_linked_into_several_generators_count_in_each(tree):
    root = tree(["a"], count=2)
    for name in "bc":
        make_tree(root, [name], names=("unused", "1_fake"), count=1)
        (root / name / "0_real").symlink_to(root / "a" / "0_real", target_is_directory=True)
    result = found(root)
    assert result.counts() == {"a": [2, 2], "b": [2, 1], "c": [2, 1]}
    assert "b/0_real/0.png" in labels_of(result)


def test_linked_files_are_read_under_their_own_name(tree):
    root = tree(["gen"], count=1)
    (root / "gen/1_fake/link.png").symlink_to(root / "gen/1_fake/0.png")
    dataset = RealFakeFolder(found(root), STORED)
    assert [sample.path for sample in dataset.samples][1:] == ["gen/1_fake/0.png", "gen/1_fake/link.png"]
    assert torch.equal(dataset[1]["image"], dataset[2]["image"])


def test_a_folder_that_cannot_be_listed_stops_the_scan(tree, monkeypatch):
    root = tree(["gen"], count=1)
    write(root / "gen/0_real/locked/x.png")
    folders, scandir = discover(root), os.scandir

    def refuse(place="."):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises((OSError, ValueError), match="locked"):
        scan(root, folders)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": (2, 2), "b": (3, 0)}, "b: 3 real, 0 fake"),
        ({"a": (2, 2), "b": (0, 1)}, "b: 0 real, 1 fake"),
        ({"a": (2, 2), "b": (0, 0)}, "b: 0 real, 0 fake"),
        ({"a": (0, 0)}, "no images|a: 0 real, 0 fake"),
        ({"a": (1, 0), "b": (0, 1)}, "a: 1 real, 0 fake; b: 0 real, 1 fake"),
    ],
)
def test_training_refuses_folders_without_both_classes_and_counts_them(tmp_path, counts, expected):
    for name, pair in counts.items():
        for folder, count in zip(("0_real", "1_fake"), pair, strict=True):
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(count):
                write(tmp_path / name / folder / f"{number}.png")
    with pytest.raises(ValueError, match=expected) as caught:
        require_both_classes(found(tmp_path))
    assert "a: 2 real" not in str(caught.value)


@pytest.mark.parametrize("folder", ["0_real", "1_fake"])
def test_training_refuses_a_root_with_one_label_folder(tree, folder):
    root = tree(["."], names=(folder,), count=2)
    with pytest.raises(ValueError, match="2 real, 0 fake" if folder == "0_real" else "0 real, 2 fake"):
        require_both_classes(found(root))


def test_training_accepts_both_classes_in_every_folder(tree):
    require_both_classes(found(tree(["a", "b/car", "b/cat"], count=1)))


def test_the_description_counts_images_and_folders(tree):
    text = found(tree(["a", "b"], count=3)).describe()
    assert all(part in text for part in ("12 images", "6 real, 6 fake", "2 folders"))
    assert "passed over" not in text


def bad_content(path):
    path.write_bytes(path.read_bytes()[:-200])


def bad_text(path):
    path.write_text("no image")


def bad_empty(path):
    path.write_bytes(b"")


def bad_folder(path):
    path.unlink()
    path.mkdir()


def bad_link(path):
    path.unlink()
    path.symlink_to("nowhere.png")


def bad_parent(path):
    for other in path.parent.iterdir():
        other.unlink()
    path.parent.rmdir()


DAMAGES = [bad_content, bad_text, bad_empty, bad_folder, bad_link, bad_parent]


@pytest.mark.parametrize("augment", [None, Augment()], ids=["evaluation", "training"])
@pytest.mark.parametrize("damage", DAMAGES, ids=[damage.__name__ for damage in DAMAGES])
def test_a_bad_file_is_marked_and_no_other_image_takes_its_place(tree, damage, augment):
    root = tree(["gen"], count=3)
    dataset = RealFakeFolder(found(root), STORED, augment)
    damage(root / "gen/1_fake/1.png")
    item = dataset[4]
    assert set(item) == {"index", "bad"}
    assert item["index"] == 4 and item["bad"] and "\n" not in item["bad"]
    assert "image" in dataset[0]
    assert len(dataset) == 6


def test_a_broken_link_in_a_label_folder_is_a_sample_and_marked_bad(tree):
    root = tree(["gen"], count=1)
    (root / "gen/0_real/gone.png").symlink_to(root / "nowhere.png")
    dataset = RealFakeFolder(found(root), STORED)
    assert [sample.path for sample in dataset.samples][1] == "gen/0_real/gone.png"
    assert set(dataset[1]) == {"index", "bad"}


def test_an_item_is_a_uint8_tensor_with_its_label_and_index(tree):
    dataset = RealFakeFolder(found(tree(["gen"], count=1, size=(20, 12))), STORED)
    item = dataset[1]
    assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 12, 20)
    assert (item["label"], item["index"]) == (1, 1)


def test_the_dataset_passes_its_decoding_options_on(tmp_path):
    write(tmp_path / "gen/real/x.png", size=(100, 100))
    result = found(tmp_path)
    assert "image" in RealFakeFolder(result, STORED, max_mpx=0.01)[0]
    assert "--max_mpx" in RealFakeFolder(result, STORED, max_mpx=0.009)[0]["bad"]
