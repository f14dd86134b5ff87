"""Command lines: the published ones, every published flag, typing errors, recipes, and runs that go on."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from options import PredictOptions, TestOptions, TrainOptions, ValOptions
from options.base_options import Retired
from options.train_options import RESUMABLE

ALL_SCRIPTS = pytest.mark.parametrize("script", [TrainOptions, ValOptions, TestOptions, PredictOptions])
EVALUATIONS = pytest.mark.parametrize("script", [ValOptions, TestOptions])
# What each script cannot do without.
WEIGHTS = ["--model_path", "a.pth"]
NEEDED = {
    TrainOptions: [],
    ValOptions: WEIGHTS,
    TestOptions: WEIGHTS,
    PredictOptions: [*WEIGHTS, "--input", "a.png"],
}

NPR_TRAINING = """--name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val
    --classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50"""
NPR_GENIMAGE_TRAINING = """--name genimage --dataroot ./GenImage --classes sdv4 --batch_size 32 --lr 0.0002
    --niter 1 --cropSize 224"""


def parse(script, *argv):
    return script().parse([*NEEDED[script], *argv])


def train(line=""):
    return TrainOptions().parse(line.split())


def refused(capsys, script, *argv):
    """The message on stderr of a command line that must end with status 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(script, *argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- the published commands


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "4class-resnet-car-cat-chair-horse"),
        ("dataroot", "datasets/ForenSynths_train_val"),
        ("classes", ("car", "cat", "chair", "horse")),
        ("batch_size", 32),
        ("delr_freq", 10),
        ("lr", 2e-4),
        ("niter", 50),
        ("arch", "npr"),
        ("optim", "adam"),
        ("beta1", 0.9),
        ("seed", 100),
        ("loadSize", 256),
        ("cropSize", 224),
        ("no_flip", False),
        ("blur_prob", 0),
        ("jpg_prob", 0),
        ("train_split", "train"),
        ("val_split", "val"),
        ("model_path", None),
        ("serial_batches", False),
        ("class_bal", False),
        ("recipe", "npr"),
    ],
)
def test_nprs_training_command_has_its_published_meaning(name, value):
    assert getattr(train(NPR_TRAINING), name) == value


def test_nprs_training_command_equals_the_bare_recipe_but_for_name_and_data():
    typed, bare = vars(train(NPR_TRAINING)), vars(train())
    assert {name for name in typed if typed[name] != bare[name]} == {"name", "dataroot", "classes"}


def test_nprs_genimage_training_command_parses():
    opt = train(f"{NPR_GENIMAGE_TRAINING} --seed 70")
    assert (opt.classes, opt.niter, opt.cropSize, opt.lr, opt.seed) == (("sdv4",), 1, 224, 2e-4, 70)


def test_nprs_test_command_parses():
    opt = TestOptions().parse(["--model_path", "./NPR.pth", "--batch_size", "64"])
    assert Path(opt.model_path) == Path("NPR.pth")
    assert opt.batch_size == 64
    assert Path(opt.dataroot) == Path("datasets/Generalization_Test")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 64),
        ("niter", 20),
        ("lr", 2e-4),
        ("delr_freq", 10),
        ("optim", "adam"),
        ("beta1", 0.9),
        ("seed", 100),
        ("loadSize", 256),
        ("cropSize", 224),
        ("arch", "npr"),
        ("protocol", "Tiny-GenImage"),  # whose row has its seven classes
        ("classes", ()),
    ],
)
def test_cvimgs_training_command_has_its_published_meaning(name, value):
    opt = train("--model_path ./NPR.pth --recipe cvimg")
    assert Path(opt.model_path) == Path("NPR.pth")
    assert Path(opt.dataroot) == Path("genimage")
    assert getattr(opt, name) == value


def test_cvimgs_val_command_parses():
    opt = ValOptions().parse(["--model_path", "./checkpoints/final/model_epoch_last.pth"])
    assert Path(opt.model_path) == Path("checkpoints/final/model_epoch_last.pth")


# --- every flag that upstream's three option files know

UPSTREAM_BASE = """--mode --arch --rz_interp --blur_prob --blur_sig --jpg_prob --jpg_method --jpg_qual
    --dataroot --classes --class_bal --batch_size --loadSize --cropSize --gpu_ids --name --epoch --num_threads
    --checkpoints_dir --serial_batches --resize_or_crop --no_flip --init_type --init_gain --suffix
    --delr_freq"""
UPSTREAM_TRAIN = """--earlystop_epoch --data_aug --optim --new_optim --loss_freq --save_latest_freq
    --save_epoch_freq --continue_train --epoch_count --last_epoch --train_split --val_split --niter
    --beta1 --lr"""
UPSTREAM_TEST = """--model_path --no_resize --no_crop --eval --earlystop_epoch --lr --niter"""

KEPT_IN_TRAINING = [
    ("--arch npr", "arch", "npr"),
    ("--rz_interp bilinear", "rz_interp", ("bilinear",)),
    ("--rz_interp bilinear,nearest", "rz_interp", ("bilinear", "nearest")),
    ("--blur_prob 0.1", "blur_prob", 0.1),
    ("--blur_sig 0.5", "blur_sig", (0.5,)),
    ("--blur_sig 0.0,3.0", "blur_sig", (0.0, 3.0)),
    ("--jpg_prob 0.5", "jpg_prob", 0.5),
    ("--jpg_method cv2", "jpg_method", ("cv2",)),
    ("--jpg_method cv2,pil", "jpg_method", ("cv2", "pil")),
    ("--jpg_qual 75", "jpg_qual", (75,)),
    ("--jpg_qual 30,100", "jpg_qual", (30, 100)),
    ("--dataroot ./dataset/", "dataroot", "dataset"),
    ("--classes car,cat", "classes", ("car", "cat")),
    ("--class_bal", "class_bal", True),
    ("--batch_size 64", "batch_size", 64),
    ("--loadSize 300", "loadSize", 300),
    ("--cropSize 200", "cropSize", 200),
    ("--gpu_ids 0", "gpu_ids", "0"),
    ("--gpu_ids -1", "gpu_ids", "-1"),
    ("--name a", "name", "a"),
    ("--num_threads 8", "num_threads", 8),
    ("--num_threads 0", "num_threads", 0),
    ("--checkpoints_dir ./checkpoints", "checkpoints_dir", "checkpoints"),
    ("--serial_batches", "serial_batches", True),
    ("--no_flip", "no_flip", True),
    ("--delr_freq 20", "delr_freq", 20),
    ("--earlystop_epoch 15", "earlystop_epoch", 15),
    ("--optim sgd", "optim", "sgd"),
    ("--loss_freq 400", "loss_freq", 400),
    ("--continue_train", "continue_train", True),
    ("--train_split train", "train_split", "train"),
    ("--val_split val", "val_split", "val"),
    ("--niter 1000", "niter", 1000),
    ("--beta1 0.9", "beta1", 0.9),
    ("--lr 0.0001", "lr", 1e-4),
]
RETIRED_IN_TRAINING = [
    "--mode binary",
    "--data_aug",
    "--resize_or_crop scale_and_crop",
    "--init_type normal",
    "--init_gain 0.02",
    "--epoch_count 1",
    "--last_epoch -1",
    "--save_latest_freq 2000",
    "--save_epoch_freq 20",
    "--new_optim",
    "--epoch latest",
    "--suffix {model}",
]
KEPT_IN_EVALUATION = [
    ("--model_path b.pth", "model_path", "b.pth"),
    ("--no_resize", "no_resize", True),
    ("--no_crop", "no_crop", True),
    ("--arch npr", "arch", "npr"),
    ("--rz_interp bicubic", "rz_interp", ("bicubic",)),
    ("--dataroot ./x/", "dataroot", "x"),
    ("--classes car,cat", "classes", ("car", "cat")),
    ("--batch_size 1", "batch_size", 1),
    ("--loadSize 300", "loadSize", 300),
    ("--cropSize 200", "cropSize", 200),
    ("--gpu_ids 0", "gpu_ids", "0"),
    ("--name a", "name", "a"),
    ("--num_threads 8", "num_threads", 8),
]
RETIRED_IN_EVALUATION = [
    "--eval",
    "--earlystop_epoch 15",
    "--lr 2e-5",
    "--niter 0",
    "--mode binary",
    "--blur_prob 0",
    "--blur_sig 0.5",
    "--jpg_prob 0",
    "--jpg_method cv2",
    "--jpg_qual 75",
    "--class_bal",
    "--epoch latest",
    "--checkpoints_dir ./c",
    "--serial_batches",
    "--resize_or_crop scale_and_crop",
    "--no_flip",
    "--init_type normal",
    "--init_gain 0.02",
    "--suffix x",
    "--delr_freq 20",
]


@pytest.mark.parametrize(("line", "name", "value"), KEPT_IN_TRAINING)
def test_a_published_training_flag_takes_its_value(line, name, value):
    assert getattr(parse(TrainOptions, *line.split()), name) == value


@EVALUATIONS
@pytest.mark.parametrize(("line", "name", "value"), KEPT_IN_EVALUATION)
def test_a_published_evaluation_flag_takes_its_value(script, line, name, value):
    assert getattr(parse(script, *line.split()), name) == value


@pytest.mark.parametrize("line", RETIRED_IN_TRAINING)
def test_a_published_training_flag_without_effect_is_answered(capsys, line):
    assert f"{line.split()[0]} is not an option here: " in refused(capsys, TrainOptions, *line.split())


@EVALUATIONS
@pytest.mark.parametrize("line", RETIRED_IN_EVALUATION)
def test_a_published_evaluation_flag_without_effect_is_answered(capsys, script, line):
    assert f"{line.split()[0]} is not an option here: " in refused(capsys, script, *line.split())


@pytest.mark.parametrize(
    ("published", "kept", "retired"),
    [
        (f"{UPSTREAM_BASE} {UPSTREAM_TRAIN}", KEPT_IN_TRAINING, RETIRED_IN_TRAINING),
        (f"{UPSTREAM_BASE} {UPSTREAM_TEST}", KEPT_IN_EVALUATION, RETIRED_IN_EVALUATION),
    ],
)
def test_the_tables_above_leave_out_no_published_flag(published, kept, retired):
    covered = [row[0].split()[0] for row in kept] + [line.split()[0] for line in retired]
    assert set(published.split()) == set(covered)


@ALL_SCRIPTS
def test_every_retired_flag_stops_with_its_hint(capsys, script):
    assert script.retired
    for flag, hint in script.retired.items():
        for typed in ([flag], [f"{flag}=npr"], [flag, "npr"]):
            assert refused(capsys, script, *typed).endswith(f"{flag} is not an option here: {hint}")


def test_every_flag_that_a_retirement_hint_of_training_names_exists_there():
    known = set(TrainOptions().build_parser("npr")._option_string_actions)
    named = {flag for hint in TrainOptions.retired.values() for flag in re.findall(r"--\w+", hint)}
    assert named - known - set(TrainOptions.retired) == set()


@ALL_SCRIPTS
def test_retired_flags_leave_no_trace_among_the_options(script):
    opt = parse(script)
    retired = {flag.removeprefix("--") for flag in script.retired}
    assert retired & set(vars(opt)) == set()
    assert not any("SUPPRESS" in name for name in vars(opt))


# --- typing errors


@ALL_SCRIPTS
@pytest.mark.parametrize(
    "line",
    [
        "--bacth_size 8",
        "--bacth_size=8",
        "--batch-size 8",
        "--Batch_size 8",
        "--batch_siz 8",
        "--batch 8",
        "--batch=8",
        "--no_res",
    ],
)
def test_a_misspelt_or_shortened_flag_stops_and_is_named(capsys, script, line):
    assert line.split("=")[0].split()[0] in refused(capsys, script, *line.split())


@pytest.mark.parametrize("script", [TrainOptions, ValOptions, TestOptions])  # predict.py takes it as an input
def test_a_stray_word_stops_and_is_named(capsys, script):
    assert "stray" in refused(capsys, script, "stray")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--batch_size 0", "a whole number above 0, got '0'"),
        ("--batch_size -1", "a whole number above 0, got '-1'"),
        ("--batch_size 1.5", "a whole number above 0, got '1.5'"),
        ("--batch_size many", "got 'many'"),
        ("--batch_size", "expected one argument"),
        ("--lr 0", "a number above 0, got '0'"),
        ("--lr -1", "got '-1'"),
        ("--lr nan", "got 'nan'"),
        ("--lr inf", "got 'inf'"),
        ("--niter 0", "got '0'"),
        ("--delr_freq 0", "got '0'"),
        ("--loadSize 0", "got '0'"),
        ("--cropSize 22.4", "got '22.4'"),
        ("--num_threads -1", "0 or above, got '-1'"),
        ("--seed -1", "got '-1'"),
        ("--earlystop_epoch -1", "got '-1'"),
        ("--blur_prob 1.1", "from 0 to 1, got '1.1'"),
        ("--blur_prob nan", "got 'nan'"),
        ("--jpg_prob -0.1", "got '-0.1'"),
        ("--beta1 2", "got '2'"),
        ("--optim rmsprop", "rmsprop"),
        ("--arch nrp", "npr"),
        ("--recipe none", "cvimg"),
        ("--device gpu", "cuda"),
        ("--amp fp16", "bf16"),
        ("--exif maybe", "apply"),
        ("--on_bad_image ignore", "skip"),
        ("--max_mpx 0", "got '0'"),
        ("--rz_interp bilinear,cubic", "got 'bilinear,cubic'"),
        ("--rz_interp ,", "got ','"),
        ("--jpg_method opencv", "cv2, pil, got 'opencv'"),
        ("--jpg_qual 0", "from 1 to 100, got '0'"),
        ("--jpg_qual 101", "got '101'"),
        ("--jpg_qual 30,60,90", "got '30,60,90'"),
        ("--jpg_qual 100,30", "got '100,30'"),
        ("--jpg_qual 75.5", "got '75.5'"),
        ("--jpg_qual 30,", "got ''"),
        ("--blur_sig 3,0", "got '3,0'"),
        ("--blur_sig nan", "got 'nan'"),
        ("--blur_sig x", "got 'x'"),
    ],
)
def test_a_wrong_value_stops_with_flag_and_expectation(capsys, line, words):
    message = refused(capsys, TrainOptions, *line.split())
    assert line.split()[0] in message and words in message


@pytest.mark.parametrize(
    "line",
    [
        "--no_resize --loadSize 256",
        "--loadSize 256 --no_resize",
        "--continue_train --overwrite",
        "--earlystop_epoch 3 --val_split none",
        "--loadSize 200",
        "--cropSize 300",
        "--device cuda --gpu_ids 0",
        "--device cpu --gpu_ids -1",
    ],
)
def test_training_flags_that_exclude_each_other_stop(capsys, line):
    message = refused(capsys, TrainOptions, *line.split())
    assert all(word in message for word in line.split() if word.startswith("--"))


@EVALUATIONS
@pytest.mark.parametrize(
    "line",
    [
        "--no_resize --loadSize 256",
        "--resume --overwrite",
        "--no_crop --cropSize 224",
        "--device cpu --gpu_ids 0",
    ],
)
def test_evaluation_flags_that_exclude_each_other_stop(capsys, script, line):
    message = refused(capsys, script, *line.split())
    assert all(word in message for word in line.split() if word.startswith("--"))


@EVALUATIONS
def test_an_evaluation_without_weights_stops_and_says_so(capsys, script):
    with pytest.raises(SystemExit) as stopped:
        script().parse([])
    assert stopped.value.code == 2
    assert "--model_path is needed" in capsys.readouterr().err


@ALL_SCRIPTS
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a"])
def test_a_name_that_is_no_plain_folder_stops(capsys, script, name):
    assert "--name" in refused(capsys, script, "--name", name)


def test_an_unknown_protocol_stops_and_lists_the_known(capsys):
    message = refused(capsys, TestOptions, "--protocols", "ForenSynth")
    assert "'ForenSynth'" in message and "known: ForenSynths, " in message


# --- recipes


@pytest.mark.parametrize(
    "line",
    [
        "--recipe cvimg --lr 0.001 --classes adm --niter 7",
        "--lr 0.001 --classes adm --niter 7 --recipe cvimg",
    ],
)
def test_a_flag_wins_over_the_recipe_on_either_side_of_it(line):
    opt = train(line)
    assert (opt.lr, opt.classes, opt.niter) == (1e-3, ("adm",), 7)
    assert (opt.batch_size, opt.recipe) == (64, "cvimg")


def test_a_flag_wins_although_it_repeats_the_plain_default():
    assert train("--recipe cvimg --niter 1000 --lr 0.0001").niter == 1000
    assert train("--recipe cvimg --niter 1000 --lr 0.0001").lr == 1e-4


def test_a_recipe_with_an_equals_sign_is_the_same():
    assert train("--recipe=cvimg") == train("--recipe cvimg")


def test_without_a_recipe_the_detectors_own_is_taken():
    opt = train("--arch npr")
    assert (opt.recipe, opt.batch_size, opt.niter, opt.lr, opt.delr_freq) == ("npr", 32, 50, 2e-4, 10)


def test_an_empty_list_of_classes_wins_over_the_recipe():
    assert TrainOptions().parse(["--recipe", "cvimg", "--classes", ""]).classes == ()


# --- types


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        ("car", ("car",)),
        ("car,cat", ("car", "cat")),
        (" car , cat ", ("car", "cat")),
        ("car,,cat,", ("car", "cat")),
    ],
)
def test_a_comma_list_becomes_a_tuple(text, value):
    assert TrainOptions().parse(["--classes", text]).classes == value


def test_a_tilde_in_a_path_means_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "elsewhere")
    assert train("--dataroot ~/images").dataroot == "elsewhere/images"


def test_several_protocols_are_a_list():
    opt = parse(TestOptions, "--protocols", "ForenSynths", "Sample")
    assert opt.protocols == ["ForenSynths", "Sample"]


def test_every_option_value_is_plain_enough_for_a_checkpoint():
    def plain(value):
        return (
            value is None
            or type(value) in (bool, int, float, str)
            or (type(value) is tuple and all(plain(part) for part in value))
        )

    assert all(plain(value) for value in vars(train("--recipe cvimg --jpg_qual 30,100")).values())


# --- parsing as such


@ALL_SCRIPTS
def test_parsing_twice_gives_equal_options(script):
    argv = [*NEEDED[script], "--batch_size", "8", "--exif", "apply"]
    options = script()
    assert options.parse(argv) == options.parse(argv) == script().parse(list(argv))


def test_parsing_does_not_depend_on_what_was_parsed_before():
    fresh = train()
    options = TrainOptions()
    options.parse(["--recipe", "cvimg", "--lr", "1", "--no_flip", "--classes", "a"])
    assert options.parse([]) == fresh
    assert options.given == set()


def test_parsing_leaves_its_argument_alone():
    argv = ["--batch_size", "8"]
    TrainOptions().parse(argv)
    assert argv == ["--batch_size", "8"]


def test_without_an_argument_the_programs_command_line_is_parsed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--batch_size", "5", "--recipe", "cvimg"])
    opt = TrainOptions().parse()
    assert (opt.batch_size, opt.niter) == (5, 20)


def test_given_names_what_stood_on_the_command_line_although_it_equals_the_default():
    options = TrainOptions()
    options.parse(["--batch_size", "32", "--no_flip", "--classes", "car"])
    assert options.given == {"batch_size", "no_flip", "classes"}


def test_the_last_of_two_equal_flags_counts():
    assert train("--batch_size 8 --batch_size 9").batch_size == 9


def test_the_name_is_kept_as_typed():
    assert train("--name My-Run_1.0").name == "My-Run_1.0"


# --- describe and help


def described(script, *argv):
    options = script()
    text = options.describe(options.parse([*NEEDED[script], *argv]))
    return {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in text.splitlines()[1:]}


def test_describe_shows_a_changed_option_with_its_default():
    assert described(TrainOptions, "--batch_size", "8")["batch_size"] == "8   [default: 32]"


def test_describe_leaves_an_unchanged_option_unmarked():
    lines = described(TrainOptions, "--batch_size", "32")
    assert lines["batch_size"] == "32"
    assert not any("[default" in line for line in lines.values())


def test_describe_spells_lists_as_they_are_typed():
    assert described(TrainOptions, "--jpg_qual", "30,100")["jpg_qual"] == "30,100   [default: 75]"


@ALL_SCRIPTS
def test_describe_has_a_line_for_every_option(script):
    assert set(described(script)) == set(vars(parse(script)))


@pytest.mark.parametrize("file", ["train.py", "val.py", "test.py", "predict.py"])
def test_help_of_a_script_lists_its_flags_and_ends_with_status_0(monkeypatch, capsys, file):
    monkeypatch.setattr(sys, "argv", [file, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert stopped.value.code in (0, None)
    text = capsys.readouterr().out
    assert f"usage: {file}" in text
    assert all(flag in text for flag in ("--model_path", "--batch_size", "--gpu_ids", "--arch", "--help"))


@pytest.mark.parametrize("file", ["train.py", "val.py", "test.py", "predict.py"])
def test_a_typing_error_ends_a_script_with_status_2(monkeypatch, capsys, file):
    monkeypatch.setattr(sys, "argv", [file, "--bacth_size", "8"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert stopped.value.code == 2
    assert "--bacth_size" in capsys.readouterr().err


@ALL_SCRIPTS
def test_help_shows_every_live_flag_and_no_retired_one(capsys, script):
    with pytest.raises(SystemExit):
        script().parse(["--help", "--arch", "npr"])
    shown = set(re.findall(r"^  (?:-h, )?(--\w+)", capsys.readouterr().out, flags=re.MULTILINE))
    parser = script().build_parser("npr")
    live = {action.option_strings[-1] for action in parser._actions if not isinstance(action, Retired)}
    assert shown == live


@ALL_SCRIPTS
def test_every_live_flag_has_a_help_sentence(script):
    for action in script().build_parser("npr")._actions:
        assert isinstance(action, Retired) or (action.help and len(action.help) > 10), action.option_strings


@pytest.mark.parametrize(
    ("script", "file"),
    [
        (TrainOptions, "train.py"),
        (ValOptions, "val.py"),
        (TestOptions, "test.py"),
        (PredictOptions, "predict.py"),
    ],
)
def test_no_option_is_parsed_without_being_read_somewhere(script, file):
    folders = [ROOT / name for name in ("data", "networks", "util")]
    sources = [ROOT / file, *(path for folder in folders for path in folder.glob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    consumed = {"recipe", "protocols", "protocol_file"}  # by the options themselves
    unread = {name for name in vars(parse(script)) if not re.search(rf"\bopt\.{name}\b", text)}
    assert unread - consumed == set()


# --- runs that go on


def merged(first, second):
    """Options of a run started with one command line and gone on with another."""
    saved = vars(train(first))
    options = TrainOptions()
    return options.merge_saved(options.parse(f"{second} --continue_train".split()), dict(saved))


def test_a_run_that_goes_on_keeps_what_is_not_typed_again():
    opt = merged(
        "--name a --batch_size 8 --lr 0.01 --classes car,cat --no_flip --recipe cvimg --seed 5", "--name a"
    )
    assert (opt.batch_size, opt.lr, opt.classes, opt.no_flip) == (8, 0.01, ("car", "cat"), True)
    assert (opt.recipe, opt.seed, opt.niter) == ("cvimg", 5, 20)


def test_a_run_goes_on_with_its_own_command_line_repeated():
    opt = merged(NPR_TRAINING, NPR_TRAINING)
    assert vars(opt) == {**vars(train(NPR_TRAINING)), "continue_train": True}


def test_a_run_that_goes_on_knows_that_it_does():
    assert merged("--name a", "--name a").continue_train is True


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--niter 90", "niter", 90),
        ("--num_threads 3", "num_threads", 3),
        ("--device cpu", "device", "cpu"),
        ("--gpu_ids -1", "gpu_ids", "-1"),
        ("--loss_freq 7", "loss_freq", 7),
        ("--on_bad_image skip", "on_bad_image", "skip"),
        ("--dataroot elsewhere", "dataroot", "elsewhere"),
        ("--checkpoints_dir c", "checkpoints_dir", "c"),
        ("--save_minutes 2.5", "save_minutes", 2.5),
    ],
)
def test_a_run_that_goes_on_may_change_what_is_no_part_of_its_result(line, name, value):
    assert getattr(merged("--name a --batch_size 8", line), name) == value


@pytest.mark.parametrize(
    ("line", "name", "was"),
    [
        ("--batch_size 9", "batch_size", "8"),
        ("--lr 0.5", "lr", "0.01"),
        ("--seed 1", "seed", "100"),
        ("--no_flip", "no_flip", "False"),
        ("--classes dog", "classes", "car"),
        ("--recipe cvimg", "recipe", "npr"),
        ("--optim sgd", "optim", "adam"),
        ("--cropSize 128", "cropSize", "224"),
        ("--blur_prob 0.5", "blur_prob", "0.0"),
        ("--amp off", "amp", "auto"),
        ("--delr_freq 3", "delr_freq", "10"),
        ("--deterministic", "deterministic", "False"),
    ],
)
def test_a_run_that_goes_on_cannot_become_another_run(capsys, line, name, was):
    with pytest.raises(SystemExit) as stopped:
        merged("--name a --batch_size 8 --lr 0.01 --classes car", line)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--{name} " in message and was in message


def test_every_change_is_named_at_once(capsys):
    with pytest.raises(SystemExit):
        merged("--name a", "--batch_size 9 --lr 0.5 --niter 70")
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        "--batch_size 9 (was 32)" in message and "--lr 0.5 (was 0.0002)" in message and "niter" not in message
    )


@pytest.mark.parametrize(
    ("first", "second", "device", "gpu_ids"),
    [
        ("--gpu_ids 0", "--device cpu", "cpu", None),
        ("--device cuda", "--gpu_ids -1", "auto", "-1"),
        ("--gpu_ids 0", "", "auto", "0"),
        ("--device cpu", "", "cpu", None),
        ("--gpu_ids 0", "--gpu_ids 1", "auto", "1"),
    ],
)
def test_a_run_that_goes_on_uses_the_device_typed_last_in_either_spelling(first, second, device, gpu_ids):
    opt = merged(first, second)
    assert (opt.device, opt.gpu_ids) == (device, gpu_ids)


def test_what_a_run_may_change_are_options_that_exist():
    assert set(vars(train())) >= RESUMABLE
