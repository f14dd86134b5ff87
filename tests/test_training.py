"""Which images a run trains and validates on: held-out shares, and the folders of published benchmarks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_tree
from PIL import Image

import data
import networks
import test as test_script
import train
from common import UserError
from data import protocols
from data.folder import Sample, Scan
from data.training import hold_out, training_scans
from options import TrainOptions

SDV4, ADM = "imagenet_ai_0419_sdv4", "imagenet_ai_0508_adm"
NAMES = ("nature", "ai")
SMALL = (20, 30)  # width, height: below every crop, so images are tiled


# --- a share of the training images ---


def listing(groups):
    """A Scan of {(generator, label): number of images}, one class after the other."""
    samples = [
        Sample(f"{name}/{('0_real', '1_fake')[label]}/{number}.png", name, label)
        for (name, label), count in groups.items()
        for number in range(count)
    ]
    return Scan(Path("root"), samples, list(dict.fromkeys(name for name, _ in groups)))


GROUPS = {("a", 0): 40, ("a", 1): 20, ("b", 0): 7, ("b", 1): 2}


def drawn(found, fraction=0.1, seed=0):
    """(paths kept, paths held out), in their order."""
    return [[sample.path for sample in part.samples] for part in hold_out(found, fraction, seed)]


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 70, 100])
def test_the_two_parts_are_disjoint_complete_and_in_order(fraction, seed):
    found = listing(GROUPS)
    everything = [sample.path for sample in found.samples]
    kept, held = drawn(found, fraction, seed)
    assert not set(kept) & set(held)
    assert sorted(kept + held) == sorted(everything)
    assert kept == [path for path in everything if path in set(kept)]
    assert held == [path for path in everything if path in set(held)]


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [
        (0.001, (1, 1, 1, 1)),  # at least one of each
        (0.1, (4, 2, 1, 1)),
        (0.25, (10, 5, 2, 1)),
        (0.5, (20, 10, None, 1)),
        (0.999, (39, 19, 6, 1)),  # at least one left
    ],
)
def test_each_class_of_each_generator_gives_the_same_share(fraction, counts):
    kept, held = hold_out(listing(GROUPS), fraction, 3)
    for (group, whole), count in zip(GROUPS.items(), counts, strict=True):
        one, other = (
            sum((sample.generator, sample.label) == group for sample in part.samples) for part in (kept, held)
        )
        assert one + other == whole
        assert other == count or (count is None and other in (3, 4))


def test_the_seed_decides_the_draw():
    found = listing(GROUPS)
    assert drawn(found, 0.3, 7) == drawn(listing(GROUPS), 0.3, 7)
    draws = {tuple(drawn(found, 0.3, seed)[1]) for seed in range(20)}
    assert len(draws) == 20


def test_a_larger_share_holds_the_smaller_one():
    found, before = listing(GROUPS), set()
    for fraction in (0.01, 0.05, 0.1, 0.11, 0.2, 0.35, 0.6, 0.95):
        held = set(drawn(found, fraction, 5)[1])
        assert held >= before
        before = held


def test_every_image_is_as_likely_as_another():
    found = listing({("a", 0): 10, ("a", 1): 10})
    times = dict.fromkeys((sample.path for sample in found.samples), 0)
    for seed in range(300):
        for path in drawn(found, 0.2, seed)[1]:
            times[path] += 1
    assert all(35 <= count <= 85 for count in times.values())  # 60 expected, 7 standard deviation


def test_the_parts_keep_root_generators_and_labels():
    found = listing(GROUPS)
    found.labels = {"mine": 0, "theirs": 1}
    for part in hold_out(found, 0.1, 0):
        assert (part.root, part.folders, part.labels) == (found.root, ["a", "b"], found.labels)


def test_a_class_of_one_image_is_refused_with_the_list():
    found = listing({("a", 0): 5, ("a", 1): 1, ("b", 0): 1, ("b", 1): 5})
    with pytest.raises(ValueError, match=r"a \(1 fake\), b \(1 real\)"):
        hold_out(found, 0.1, 0)


# --- protocols ---


@pytest.fixture
def genimage(tmp_path, monkeypatch):
    """GenImage in its original folder names: two generators, 4 + 4 images to train, 1 + 1 to test."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "datasets" / "GenImage"
    make_tree(root, [f"{SDV4}/train", f"{ADM}/train"], NAMES, count=4, size=SMALL)
    make_tree(root, [f"{SDV4}/val", f"{ADM}/val"], NAMES, count=1, size=SMALL)
    return root


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Tiny-GenImage: {train,val}/<generator>/{nature,ai}, 3 + 3 images to train, 1 + 1 to test."""
    monkeypatch.chdir(tmp_path)
    generators = ["adm", "biggan", "glide", "midjourney", "sdv5", "vqdm", "wukong"]
    make_tree(tmp_path / "genimage" / "train", generators, NAMES, count=3)
    return make_tree(tmp_path / "genimage" / "val", generators, NAMES, count=1).parent


def options_of(*flags):
    return TrainOptions().parse([str(flag) for flag in flags])


def paths_of(*flags):
    """(paths to train on, paths to validate on or None), as a run of these flags would use them."""
    train_scan, val_scan = training_scans(options_of(*flags))
    return [part and [sample.path for sample in part.samples] for part in (train_scan, val_scan)]


def trained(*flags, name="run"):
    """Runs train.py for one epoch in batches of 2; returns the run's folder."""
    fixed = "--niter 1 --batch_size 2 --cropSize 32 --num_threads 0 --device cpu"
    flags = ["--name", name, *fixed.split(), *flags]
    train.main([str(flag) for flag in flags])
    return Path("checkpoints") / name


def saved_options(folder):
    return json.loads((folder / "opt.json").read_text())


def steps(folder):
    return torch.load(folder / "model_epoch_last.pth", weights_only=True)["step"]


def every(root, folder, count=4, labels=NAMES):
    return [f"{folder}/{label}/{number}.png" for label in labels for number in range(count)]


def refused(capsys, *flags):
    """The last line on stderr of a command that exits with status 2."""
    with pytest.raises(SystemExit) as left:
        options_of(*flags)
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


NPR_ROW = ("--protocol", "GenImage-NPR", "--dataroot")


def test_the_published_genimage_run_takes_geometry_seed_and_folders_from_its_row(genimage, capsys):
    typed = options_of(*NPR_ROW, genimage)
    assert (typed.no_resize, typed.cropSize) == (True, 224)
    folder = trained(*NPR_ROW, genimage, "--classes", "sdv4")
    opt = saved_options(folder)
    assert (opt["protocol"], opt["seed"], opt["val_fraction"]) == ("GenImage-NPR", 70, 0.1)
    assert opt["no_resize"] is True
    assert (opt["lr"], opt["delr_freq"]) == (2e-4, 10)  # the detector's own recipe still holds
    assert steps(folder) == 3  # 8 images less 1 + 1 held out, in batches of 2
    assert "6 images (3 real, 3 fake)" in capsys.readouterr().out
    assert (folder / "model_epoch_best.pth").is_file()


@pytest.mark.parametrize("below", [True, False], ids=["dataroot", "datasets"])
@pytest.mark.parametrize("classes", [(), ("--classes", "sdv4"), ("--classes", "SDv1.4"), ("--classes", SDV4)])
def test_only_the_training_images_of_the_published_class_are_used(genimage, below, classes):
    kept, held = paths_of(*NPR_ROW, genimage if below else genimage.parent, *classes)
    assert sorted(kept + held) == sorted(every(genimage, f"{SDV4}/train"))
    assert len(held) == 2
    assert {path.split("/")[2] for path in held} == {"nature", "ai"}


def test_other_classes_are_taken_where_they_are_named(genimage):
    kept, held = paths_of(*NPR_ROW, genimage, "--classes", "adm,sdv4")
    assert sorted(kept + held) == sorted(every(genimage, f"{SDV4}/train") + every(genimage, f"{ADM}/train"))
    assert len(held) == 4


def test_nature_is_real_and_ai_is_fake_and_small_images_are_tiled_to_the_crop(genimage):
    opt = options_of(*NPR_ROW, genimage)
    trainset, valset, _ = data.training_sets(opt, networks.get("npr").data_config)
    for dataset in (trainset, valset):
        for number, sample in enumerate(dataset.samples):
            item = dataset[number]
            assert item["label"] == sample.label == int("/ai/" in sample.path)
            assert item["image"].shape == (3, 224, 224)
    assert trainset.augment is not None
    assert valset.augment is None
    image = valset[0]["image"]
    with Image.open(genimage / valset.samples[0].path) as picture:  # 240x240 when tiled, less 8 per side
        assert tuple(image[:, 0, 0].tolist()) == picture.getpixel((8, 8))
    assert torch.equal(image[:, :, :-20], image[:, :, 20:])
    assert torch.equal(image[:, :-30], image[:, 30:])


def test_flags_win_over_the_row(genimage):
    folder = trained(
        *NPR_ROW, genimage, "--seed", 5, "--loadSize", 256, "--cropSize", 64, "--val_fraction", 0.5
    )
    opt = saved_options(folder)
    assert (opt["seed"], opt["loadSize"], opt["no_resize"], opt["cropSize"]) == (5, 256, False, 64)
    assert opt["val_fraction"] == 0.5
    assert steps(folder) == 2


def test_the_renamed_layout_of_nprs_own_scripts_works_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make_tree(tmp_path / "GenImage", ["train/sdv4", "test/adm", "test/biggan"], count=4, size=SMALL)
    kept, held = paths_of(*NPR_ROW, root)
    assert sorted(kept + held) == sorted(every(root, "train/sdv4", labels=("0_real", "1_fake")))
    assert steps(trained(*NPR_ROW, root)) == 3


def test_without_validation_all_images_train(genimage):
    folder = trained(*NPR_ROW, genimage, "--val_split", "none")
    assert steps(folder) == 4
    assert not (folder / "model_epoch_best.pth").exists()


def test_select_on_test_validates_on_every_test_folder_found_and_marks_later_tables(genimage, capsys):
    flags = (*NPR_ROW, genimage.parent, "--select_on_test")
    kept, held = paths_of(*flags)
    assert sorted(kept) == sorted(every(genimage, f"{SDV4}/train"))  # none held out
    assert sorted(held) == sorted(every(genimage, f"{ADM}/val", 1))  # SDv1.4 is no row of NPR's table
    folder = trained(*flags)
    assert saved_options(folder)["select_on_test"] is True
    capsys.readouterr()
    command = ["--model_path", str(folder / "model_epoch_best.pth"), "--dataroot", str(genimage.parent)]
    command += ["--protocols", "GenImage-NPR", "--num_threads", "0", "--device", "cpu"]
    test_script.main(command)
    note = "the best epoch was chosen on the test images"
    assert note in capsys.readouterr().out
    assert note in Path("results/run/GenImage-NPR/table.md").read_text()


def test_select_on_test_finds_the_test_folders_of_a_dataroot_that_holds_the_generators_itself(genimage):
    _, held = paths_of(*NPR_ROW, genimage, "--select_on_test")
    assert sorted(held) == sorted(every(genimage, f"{ADM}/val", 1))


def test_a_run_without_select_on_test_leaves_no_such_mark(genimage, capsys):
    folder = trained(*NPR_ROW, genimage)
    command = ["--model_path", str(folder / "model_epoch_best.pth"), "--dataroot", str(genimage.parent)]
    command += ["--protocols", "GenImage-NPR", "--num_threads", "0", "--device", "cpu"]
    test_script.main(command)
    assert "chosen on the test images" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["GenImage-NRP", "GANGen-Detection", "AIGCDetectBenchmark"])
def test_a_protocol_without_a_training_part_exits_with_the_legal_ones(capsys, name):
    message = refused(capsys, "--protocol", name)
    able = [slug for slug, row in protocols.PROTOCOLS.items() if row.train_places]
    assert {
        "ForenSynths",
        "GenImage-NPR",
        "GenImage-SSP",
        "Tiny-GenImage",
        "DFIG",
        "WildRF",
        "AIGIBench",
    } == set(able)
    assert name in message
    assert all(slug in message for slug in able)


def test_a_protocol_is_known_in_any_case(genimage):
    opt = options_of("--protocol", "genimage-npr", "--dataroot", genimage)
    assert (opt.seed, opt.no_resize) == (70, True)
    assert len(training_scans(opt)[0].samples) == 6


def test_missing_folders_are_one_error_that_names_what_was_looked_for(genimage, tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=SDV4) as told:
            training_scans(options_of(*NPR_ROW, root))
        assert all(word in str(told.value) for word in ("GenImage-NPR", str(root), "{generator}/train"))
        assert "\n" not in str(told.value)
    shutil.rmtree(genimage / SDV4 / "train")
    with pytest.raises(ValueError, match=SDV4):
        training_scans(options_of(*NPR_ROW, genimage, "--classes", "adm,sdv4"))
    with pytest.raises(ValueError, match="sdv9"):
        training_scans(options_of(*NPR_ROW, genimage, "--classes", "sdv9"))


def test_a_class_without_images_is_refused_with_its_counts(genimage):
    shutil.rmtree(genimage / SDV4 / "train" / "ai")
    with pytest.raises(ValueError, match="4 real, 0 fake"):
        training_scans(options_of(*NPR_ROW, genimage))


def test_val_fraction_takes_the_place_of_the_val_folder(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tree(["car", "cat"], name="d/train", count=4).parent
    flags = ("--dataroot", root, "--val_fraction", "0.5", "--no_resize", "--cropSize", "24")
    kept, held = paths_of(*flags)
    assert len(kept) == len(held) == 8
    assert {path.rsplit("/", 1)[0] for path in held} == {
        f"{name}/{label}" for name in ("car", "cat") for label in ("0_real", "1_fake")
    }
    folder = trained(*flags)
    assert steps(folder) == 4
    assert saved_options(folder)["val_fraction"] == 0.5


def test_a_val_folder_is_not_touched_where_a_share_is_held_out(tree):
    root = tree(["car"], name="d/train", count=4).parent
    tree(["car"], name="d/val", count=2)
    found, held = training_scans(options_of("--dataroot", root, "--val_fraction", "0.25"))
    assert found.root == held.root == root / "train"
    assert len(held.samples) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocol", "GenImage-NPR", "--select_on_test", "--val_fraction", "0.2"], "exclude each other"),
        (["--val_split", "val", "--val_fraction", "0.2"], "exclude each other"),
        (["--val_split", "none", "--val_fraction", "0.2"], "exclude each other"),
        (["--protocol", "GenImage-NPR", "--select_on_test", "--val_split", "none"], "exclude each other"),
        (["--select_on_test"], "--select_on_test needs --protocol"),
        (
            ["--recipe", "cvimg", "--protocol", "none", "--select_on_test"],
            "--select_on_test needs --protocol",
        ),
        (["--protocol", "GenImage-NPR", "--val_split", "val"], "--protocol knows the folders"),
        (["--protocol", "GenImage-NPR", "--train_split", "train"], "--protocol knows the folders"),
        pytest.param(
            ["--protocol", "GenImage-NPR", "--train_split", "x", "--val_split", "none"],
            "--train_split",
        ),
        (["--val_split", "none", "--earlystop_epoch", "2"], "--earlystop_epoch needs a validation set"),
        (["--val_fraction", "1"], "between 0 and 1"),
        (["--val_fraction", "0"], "between 0 and 1"),
    ],
)
def test_where_validation_images_come_from_is_said_once(capsys, flags, words):
    assert words in refused(capsys, *flags)


def test_the_same_command_goes_on_and_another_protocol_is_refused(genimage, capsys):
    flags = (*NPR_ROW, genimage)
    folder = trained(*flags)
    trained(*flags, "--continue_train", "--niter", "2")
    assert steps(folder) == 6
    assert saved_options(folder)["seed"] == 70
    with pytest.raises(SystemExit):
        trained("--protocol", "GenImage-SSP", *flags[2:], "--continue_train", "--niter", "3")
    assert "cannot change --protocol GenImage-SSP (was GenImage-NPR)" in capsys.readouterr().err
    trained("--continue_train", "--niter", "3")  # what the row set is in the checkpoint
    assert steps(folder) == 9
    assert saved_options(folder)["no_resize"] is True


# --- the recipe that names a protocol ---


def test_cvimgs_recipe_is_tiny_genimage_with_its_own_numbers(tiny):
    folder = trained("--recipe", "cvimg", "--classes", "adm", "--batch_size", "4")
    opt = saved_options(folder)
    assert (opt["protocol"], opt["seed"], opt["loadSize"]) == ("Tiny-GenImage", 100, 256)
    assert (opt["no_resize"], opt["val_fraction"]) == (False, 0.1)
    assert options_of("--recipe", "cvimg").cropSize == 224
    assert steps(folder) == 1


def test_cvimgs_recipe_validates_on_held_out_training_images_of_all_seven_generators(tiny):
    kept, held = paths_of("--recipe", "cvimg")
    assert len(kept) == 28
    assert len(held) == 14
    assert {path.split("/")[0] for path in kept + held} == {"train"}
    assert len({path.rsplit("/", 1)[0] for path in held}) == 14


def test_cvimgs_recipe_validates_on_its_test_folder_on_request(tiny):
    kept, held = paths_of("--recipe", "cvimg", "--select_on_test")
    assert len(kept) == 42
    assert {path.split("/")[0] for path in held} == {"val"}
    assert len(held) == 14


def test_protocol_none_switches_the_recipes_protocol_off(tiny):
    opt = options_of("--recipe", "cvimg", "--protocol", "none")
    assert (opt.protocol, opt.val_fraction) == (None, None)
    assert (opt.loadSize, opt.cropSize, opt.batch_size, opt.niter) == (256, 224, 64, 20)
    kept, held = paths_of("--recipe", "cvimg", "--protocol", "none")
    assert len(kept) == 42  # train/ as a split, with the recipe's classes
    assert len(held) == 14  # val/ as a split


def test_another_protocol_wins_over_the_recipes():
    opt = options_of("--recipe", "cvimg", "--protocol", "GenImage-NPR")
    assert (opt.protocol, opt.seed, opt.no_resize, opt.batch_size) == ("GenImage-NPR", 70, True, 64)


def test_a_published_validation_folder_that_is_no_test_set_is_used(tree):
    root = tree(["train", "val", "test"], name="DFIG", count=3)
    opt = TrainOptions().parse(["--protocol", "DFIG", "--dataroot", str(root)])
    assert (opt.protocol, opt.val_fraction) == ("DFIG", None)
    train, val = training_scans(opt)
    assert {sample.path.split("/")[0] for sample in train.samples} == {"train"}
    assert {sample.path.split("/")[0] for sample in val.samples} == {"val"}


def test_forensynths_trains_on_its_four_published_classes(tree):
    root = tree(
        [f"{split}/{name}" for split in ("train", "val") for name in ("car", "cat", "chair", "horse", "bus")],
        name="ForenSynths_train_val",
        count=1,
    )
    opt = TrainOptions().parse(["--protocol", "ForenSynths", "--dataroot", str(root.parent)])
    assert (opt.loadSize, opt.cropSize, opt.seed, opt.no_resize) == (256, 224, 100, False)
    train, val = training_scans(opt)
    assert train.folders == val.folders == ["car", "cat", "chair", "horse"]
    assert len(train.samples) == len(val.samples) == 8
    assert {sample.path.split("/")[0] for sample in val.samples} == {"val"}


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ([], "square"),
        (["--arch", "cnndet"], "shorter side"),
        (["--arch", "cnndet", "--resize_rule", "square"], "square"),
        (["--resize_rule", "shorter_side"], "shorter side"),
        (["--arch", "cnndet", "--protocol", "ForenSynths"], "square"),
    ],
)
def test_training_resizes_by_the_detectors_rule_unless_a_flag_or_a_protocol_says_otherwise(flags, rule):
    assert options_of(*flags).resize_rule == rule


def test_both_parts_of_a_training_are_resized_by_the_rule(tree):
    root = tree(["car"], name="d/train", count=4, size=(48, 32)).parent
    flags = ("--dataroot", root, "--val_fraction", "0.5", "--loadSize", "16", "--cropSize", "16")
    sets = data.training_sets(
        options_of(*flags, "--resize_rule", "shorter_side"), networks.get("npr").data_config
    )
    assert [part.geometry.describe() for part in sets[:2]] == [
        "resize shorter side to 16, centre crop 16"
    ] * 2


def test_a_run_from_before_the_resize_rules_continues_with_its_square():
    options = TrainOptions()
    opt = options.parse(["--arch", "cnndet", "--continue_train"])
    saved = {name: value for name, value in vars(opt).items() if name != "resize_rule"}
    assert options.merge_saved(opt, saved).resize_rule == "square"


@pytest.mark.parametrize(
    ("folders", "flags", "words"),
    [
        (["."], (), ["--train_split . --val_fraction"]),
        (["sd", "flux"], (), ["--train_split . --val_fraction", "flux, sd"]),
        (["training"], (), ["--train_split NAME", "training"]),
        (["train"], (), ["--val_fraction", "--val_split none"]),
        (["train", "test"], (), ["--val_split test", "--val_fraction"]),
        (["train", "dev"], (), ["--val_split NAME", "dev"]),
        (["cat/train", "cat/val"], (), ["train/cat, not cat/train", "d/cat"]),
        (["train/cat", "cat/val"], (), ["val/cat, not cat/val"]),
    ],
)
def test_data_without_splits_is_refused_with_the_flag_or_the_layout_that_helps(tree, folders, flags, words):
    root = tree(folders, name="d", count=4)
    with pytest.raises(UserError) as caught:
        training_scans(options_of("--dataroot", root, *flags))
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message
    if "test" not in folders:
        assert "--val_split test" not in message


@pytest.mark.parametrize(
    ("folders", "flags", "counts"),
    [
        (["."], "--train_split . --val_fraction 0.25", (6, 2)),
        (["train", "test"], "--val_split test", (8, 8)),
        (["train", "test"], "--val_split none", (8, None)),
        (["cat/train", "cat/val"], "--dataroot d/cat", (8, 8)),
    ],
)
def test_what_these_errors_advise_works(tree, folders, flags, counts, tmp_path, monkeypatch):
    tree(folders, name="d", count=4)
    monkeypatch.chdir(tmp_path)
    parts = training_scans(options_of("--dataroot", "d", *flags.split()))
    assert tuple(part and len(part.samples) for part in parts) == counts
