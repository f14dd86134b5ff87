"""Command lines: the published ones, every published flag, typing errors, recipes, resumed runs, imports."""

import argparse
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from common import as_typed, file_path
from options import PredictOptions, TestOptions, TrainOptions, ValOptions
from options.train_options import RESUMABLE

# What each script cannot do without.
WEIGHTS = ["--model_path", "a.pth"]
NEEDED = {TrainOptions: [], ValOptions: WEIGHTS, TestOptions: WEIGHTS}
NEEDED[PredictOptions] = [*WEIGHTS, "--input", "a.png"]
ALL_SCRIPTS = pytest.mark.parametrize("script", NEEDED)

NPR_TRAINING = """--name 4class-resnet-car-cat-chair-horse --dataroot ./datasets/ForenSynths_train_val
    --classes car,cat,chair,horse --batch_size 32 --delr_freq 10 --lr 0.0002 --niter 50"""


def parse(script, line=""):
    words = line.split() if isinstance(line, str) else line
    return script().parse([*NEEDED[script], *words])


def train(line=""):
    return parse(TrainOptions, line)


def has(opt, **values):
    """Whether all these options have these values; names the first that has not."""
    for name, value in values.items():
        assert getattr(opt, name) == value, name
    return True


@pytest.fixture
def refused(capsys):
    """The last line on stderr of a command line that must end with status 2."""

    def run(script, line, needed=None):
        words = line.split() if isinstance(line, str) else line
        with pytest.raises(SystemExit) as stopped:
            script().parse([*(NEEDED[script] if needed is None else needed), *words])
        assert stopped.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


# --- the published commands


def test_the_published_training_commands_have_their_published_meaning():
    shared = {"lr": 2e-4, "optim": "adam", "beta1": 0.9, "delr_freq": 10, "loadSize": 256, "cropSize": 224}
    shared |= {"arch": "npr", "no_flip": False, "blur_prob": 0, "jpg_prob": 0, "class_bal": False}
    shared |= {"train_split": "train", "val_split": "val", "serial_batches": False, "resize_rule": "square"}
    npr = train(NPR_TRAINING)
    assert has(npr, **shared, batch_size=32, niter=50, seed=100, recipe="npr", model_path=None)
    assert has(npr, classes=("car", "cat", "chair", "horse"), dataroot="datasets/ForenSynths_train_val")
    bare = vars(train())
    different = {name for name, value in vars(npr).items() if value != bare[name]}
    assert different == {"name", "dataroot", "classes"}

    line = "--name genimage --dataroot ./GenImage --classes sdv4 --batch_size 32 --lr 0.0002 --niter 1"
    assert has(train(f"{line} --cropSize 224 --seed 70"), **shared, classes=("sdv4",), niter=1, seed=70)

    cvimg = train("--model_path ./NPR.pth --recipe cvimg")
    assert has(cvimg, **shared, batch_size=64, niter=20, seed=100, protocol="Tiny-GenImage", classes=())
    assert has(cvimg, model_path="NPR.pth", dataroot="genimage")


def test_the_published_evaluation_commands_parse():
    opt = TestOptions().parse(["--model_path", "./NPR.pth", "--batch_size", "64"])
    assert has(opt, model_path="NPR.pth", batch_size=64, dataroot="datasets/Generalization_Test")
    path = Path("checkpoints/final/model_epoch_last.pth")
    assert has(ValOptions().parse(["--model_path", f"./{path}"]), model_path=str(path))


# --- every flag that upstream's three option files know

UPSTREAM_BASE = """--mode --arch --rz_interp --blur_prob --blur_sig --jpg_prob --jpg_method --jpg_qual
    --dataroot --classes --class_bal --batch_size --loadSize --cropSize --gpu_ids --name --epoch --num_threads
    --checkpoints_dir --serial_batches --resize_or_crop --no_flip --init_type --init_gain --suffix
    --delr_freq"""
UPSTREAM_TRAIN = """--earlystop_epoch --data_aug --optim --new_optim --loss_freq --save_latest_freq
    --save_epoch_freq --continue_train --epoch_count --last_epoch --train_split --val_split --niter
    --beta1 --lr"""
UPSTREAM_TEST = """--model_path --no_resize --no_crop --eval --earlystop_epoch --lr --niter"""

KEPT = """--arch npr|--dataroot dataset|--classes car,cat|--batch_size 64|--loadSize 300|--cropSize 200
    |--name a|--num_threads 8"""
KEPT_IN_TRAINING = f"""{KEPT}|--rz_interp bilinear|--rz_interp bilinear,nearest|--blur_prob 0.1|--blur_sig 0.5
    |--blur_sig 0.0,3.0|--jpg_prob 0.5|--jpg_method cv2|--jpg_method cv2,pil|--jpg_qual 75|--jpg_qual 30,100
    |--class_bal|--num_threads 0|--checkpoints_dir checkpoints|--serial_batches|--no_flip|--delr_freq 20
    |--earlystop_epoch 15|--optim sgd|--loss_freq 400|--continue_train|--train_split train|--val_split val
    |--niter 1000|--beta1 0.9|--lr 0.0001"""
KEPT_IN_EVALUATION = f"{KEPT}|--model_path b.pth|--no_resize|--no_crop|--rz_interp bicubic"
RETIRED = """--mode binary|--resize_or_crop scale_and_crop|--init_type normal|--init_gain 0.02|--epoch latest
    |--suffix {model}"""
RETIRED_IN_TRAINING = f"""{RETIRED}|--data_aug|--epoch_count 1|--last_epoch -1|--save_latest_freq 2000
    |--save_epoch_freq 20|--new_optim"""
RETIRED_IN_EVALUATION = f"""{RETIRED}|--eval|--earlystop_epoch 15|--lr 2e-5|--niter 0|--blur_prob 0
    |--blur_sig 0.5|--jpg_prob 0|--jpg_method cv2|--jpg_qual 75|--class_bal|--checkpoints_dir ./c
    |--serial_batches|--no_flip|--delr_freq 20"""
IN_TRAINING = (f"{UPSTREAM_BASE} {UPSTREAM_TRAIN}", KEPT_IN_TRAINING, RETIRED_IN_TRAINING)
IN_EVALUATION = (f"{UPSTREAM_BASE} {UPSTREAM_TEST}", KEPT_IN_EVALUATION, RETIRED_IN_EVALUATION)


@pytest.mark.parametrize(
    ("script", "lines"),
    [(TrainOptions, IN_TRAINING), (ValOptions, IN_EVALUATION), (TestOptions, IN_EVALUATION)],
)
def test_every_published_flag_takes_its_value_or_says_what_became_of_it(refused, script, lines):
    published, kept, retired = (part.split("|") for part in lines)
    for flag, *typed in map(str.split, kept):
        value = getattr(parse(script, [flag, *typed]), flag[2:])
        assert str(as_typed(value)) == (typed[0] if typed else "True"), flag
    for flag, *typed in map(str.split, retired):
        assert f"{flag} is not an option here: " in refused(script, [flag, *typed])
    covered = {line.split()[0] for line in [*kept, *retired]}
    assert set(published[0].split()) - covered == {"--gpu_ids"}  # has its own test


@ALL_SCRIPTS
def test_every_retired_flag_stops_with_its_hint_in_any_form(refused, script):
    for flag, hint in script.retired.items():
        for typed in ([flag], [f"{flag}=npr"], [flag, "npr"]):
            assert refused(script, typed).endswith(f"{flag} is not an option here: {hint}")
    hints = " ".join(TrainOptions.retired.values())
    known = {*TrainOptions().build_parser("npr")._option_string_actions, *TrainOptions.retired}
    assert set(re.findall(r"--\w+", hints)) <= known


# --- typing errors


@ALL_SCRIPTS
def test_a_misspelt_or_shortened_flag_stops_and_is_named(refused, script):
    for line in ("--bacth_size 8", "--bacth_size=8", "--Batch_size 8", "--batch 8", "--batch=8", "--no_res"):
        flag = re.split("[ =]", line)[0]
        message = refused(script, line)
        assert flag in message
        assert "did you mean --batch_size" in message or "atch_size" not in flag
    if script is not PredictOptions:  # which takes it as an input
        assert "stray" in refused(script, "stray")


def test_a_flag_of_another_detector_names_the_detectors_that_have_it(refused):
    assert "--arch ssp" in refused(TrainOptions, "--ssp_select grid")
    assert "--arch npr" in refused(TrainOptions, "--arch cnndet --npr_factor=0.25")
    assert "--arch mobilev2 or res50" in refused(ValOptions, "--train_mode 0")
    assert has(parse(ValOptions, "--arch res50 --train_mode 0"), train_mode=0)


WRONG = """
--batch_size 0|--batch_size -1|--batch_size 1.5|--batch_size many|--niter 0|--delr_freq 0: above 0, got
--loadSize 0|--cropSize 22.4|--lr 0|--lr -1|--lr nan|--lr inf|--max_mpx 0: above 0, got
--batch_size: expected one argument
--num_threads -1|--seed -1|--earlystop_epoch -1: 0 or above, got '-1'
--blur_prob 1.1|--blur_prob nan|--jpg_prob -0.1|--beta1 2: from 0 to 1, got
--blur_sig 3,0|--blur_sig nan|--blur_sig x: from 0 to 100
--jpg_qual 0|--jpg_qual 101|--jpg_qual 30,60,90|--jpg_qual 100,30|--jpg_qual 75.5: from 1 to 100
--jpg_qual 30,|--jpg_qual x: from 1 to 100
--rz_interp bilinear,cubic|--rz_interp ,: nearest, got
--jpg_method opencv: cv2, pil, got 'opencv'
--device gpu|--device 0|--device cuda:x: or a device of torch
--gpu_ids 0,1|--gpu_ids a|--gpu_ids cuda:0|--gpu_ids 1.0|--gpu_ids ,: one CUDA device
--optim rmsprop: adam
--arch nrp: npr
--recipe none: cvimg
--amp fp16: bf16
--exif maybe: apply
--on_bad_image ignore: skip"""


@pytest.mark.parametrize("row", WRONG.strip().splitlines())
def test_a_wrong_value_stops_with_flag_value_and_expectation(refused, row):
    lines, _, token = row.rpartition(": ")
    for line in lines.split("|"):
        message = refused(TrainOptions, line)
        flag, *value = line.split()
        assert flag in message and token in message
        assert not value or value[0].split(",")[-1] in message


EXCLUSIVE = "--no_resize --loadSize 256|--loadSize 256 --no_resize|--device cuda --gpu_ids 0"
EXCLUSIVE_IN_TRAINING = f"""{EXCLUSIVE}|--continue_train --overwrite|--earlystop_epoch 3 --val_split none
    |--loadSize 200 --cropSize 224|--cropSize 300 --loadSize 256|--model_path a --init_weights b"""
EXCLUSIVE_IN_EVALUATION = f"{EXCLUSIVE}|--resume --overwrite|--no_crop --cropSize 224"


@pytest.mark.parametrize("script", [TrainOptions, ValOptions, TestOptions])
def test_flags_that_exclude_each_other_stop(refused, script):
    lines = EXCLUSIVE_IN_TRAINING if script is TrainOptions else EXCLUSIVE_IN_EVALUATION
    for line in lines.split("|"):
        message = refused(script, line)
        assert all(word in message for word in line.split() if word.startswith("--"))


@pytest.mark.parametrize("script", [TrainOptions, ValOptions, TestOptions])
def test_a_name_that_is_no_plain_folder_stops(refused, script):
    for name in ("", ".", "..", "a/b", "../a", "/a"):
        assert "--name" in refused(script, ["--name", name])
    assert parse(script, "--name My-Run_1.0").name == "My-Run_1.0"


def test_what_an_evaluation_cannot_do_without_is_named(refused):
    for script in (ValOptions, TestOptions):
        assert "--model_path" in refused(script, "", needed=())
    assert "photo" in refused(PredictOptions, "", needed=())
    assert PredictOptions().parse(["a.png", "--input", "b.png"]).input == (
        *map(file_path, ("a.png", "b.png")),
    )


def test_an_unknown_protocol_or_method_lists_the_known_and_case_does_not_matter(refused):
    assert "known: ForenSynths, " in refused(TestOptions, "--protocols ForenSynth")
    for flag in ("--published", "--expect"):
        message = refused(TestOptions, f"--protocols genimage-npr {flag} nrp")
        assert message.endswith("GenImage-NPR: NPR")
    opt = parse(TestOptions, "--published cnnspot --expect ISSUE4")
    assert has(opt, published="CNNSpot", expect="issue4")
    assert has(parse(TestOptions, "--published None"), published="none")


# --- recipes and types


def test_a_flag_wins_over_the_recipe_on_either_side_of_it_even_if_it_repeats_a_default():
    for line in ("--recipe=cvimg {} --niter 1000", "--niter 1000 {} --recipe cvimg"):
        opt = train(line.format("--lr 0.0001 --classes adm"))
        assert has(opt, lr=1e-4, classes=("adm",), niter=1000, batch_size=64, recipe="cvimg")
    assert TrainOptions().parse(["--recipe", "cvimg", "--classes", ""]).classes == ()


def test_without_a_recipe_the_detectors_own_is_taken():
    assert has(train("--arch npr"), recipe="npr", batch_size=32, niter=50, lr=2e-4, delr_freq=10)
    assert has(train("--arch res50"), recipe="dfig", lr_policy="plateau", pretrained=True)


def test_values_are_parsed_and_plain_enough_for_a_checkpoint(monkeypatch):
    for text in ("car,cat", " car , cat ", "car,,cat,"):
        assert TrainOptions().parse(["--classes", text]).classes == ("car", "cat")
    monkeypatch.setenv("HOME", "elsewhere")
    assert train("--dataroot ~/images").dataroot == "elsewhere/images"
    assert parse(TestOptions, "--protocols ForenSynths Sample").protocols == ["ForenSynths", "Sample"]

    def plain(value):
        return value is None or type(value) in (bool, int, float, str) or all(map(plain, value))

    assert all(map(plain, vars(train("--recipe cvimg --jpg_qual 30,100")).values()))


def test_gpu_ids_is_the_published_spelling_of_a_device_of_torch():
    assert has(train(), device="auto")
    for name in ("auto", "cpu", "mps", "cuda", "cuda:1", "xpu:0"):
        assert has(train(f"--device {name}"), device=name)
    for typed, name in {"0": "cuda:0", "1,": "cuda:1", "-1": "cpu"}.items():
        assert has(train(f"--gpu_ids {typed}"), device=name)


# --- parsing as such


@ALL_SCRIPTS
def test_parsing_twice_gives_equal_options_and_leaves_no_trace(script):
    argv = [*NEEDED[script], "--batch_size", "8", "--exif", "apply"]
    options, before = script(), list(argv)
    first = options.parse(argv)
    options.parse([*NEEDED[script], "--seed", "7", "--no_resize"])
    assert options.parse(argv) == first == script().parse(tuple(argv))
    assert argv == before


def test_without_an_argument_the_programs_command_line_is_parsed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--batch_size", "5", "--recipe", "cvimg"])
    assert has(TrainOptions().parse(), batch_size=5, niter=20)


def test_given_names_what_was_typed_although_it_equals_the_default():
    options = TrainOptions()
    options.parse("--batch_size 32 --no_flip --classes car --gpu_ids -1 --batch_size 32".split())
    assert options.given == {"batch_size", "no_flip", "classes", "device"}
    options.parse([])
    assert options.given == set()


# --- describe and help


@ALL_SCRIPTS
def test_describe_has_a_line_for_every_option_and_marks_the_changed_with_their_default(script):
    options = script()
    opt = options.parse([*NEEDED[script], "--batch_size", "8", "--rz_interp", "nearest"])
    rows = [line.partition(":") for line in options.describe(opt).splitlines()[1:]]
    lines = {name.strip(): value.strip() for name, _, value in rows}
    assert set(lines) == set(vars(opt))
    assert re.fullmatch(r"8 +\[default: (32|64)\]", lines["batch_size"])
    assert "[default" not in lines["exif"] + lines["max_mpx"]
    if script is TrainOptions:
        assert "30,100   [default: 75]" in options.describe(options.parse(["--jpg_qual", "30,100"]))


@pytest.mark.parametrize("script", NEEDED)
def test_help_of_a_script_lists_every_flag_and_a_misspelt_one_ends_with_status_2(monkeypatch, capsys, script):
    file = script.script

    def status(*argv):
        monkeypatch.setattr(sys, "argv", [file, *argv])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / file), run_name="__main__")
        return stopped.value.code

    assert not status("--help", "--arch", "npr")
    text = capsys.readouterr().out
    parser = script().build_parser("npr")
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    assert f"usage: {file}" in text
    shown = set(re.findall(r"^  (?:-h, )?(--\w+)", text, flags=re.MULTILINE))
    assert shown == {action.option_strings[-1] for action in actions if action.option_strings}
    assert [action.dest for action in actions if len(action.help) < 10] == []
    assert status("--bacth_size", "8") == 2
    assert "--bacth_size" in capsys.readouterr().err


def test_help_says_which_of_two_switches_is_on(capsys):
    for line, flag in (("--arch npr", "--flip"), ("--arch ssp", "--no_flip"), ("--arch ssp", "--pretrained")):
        with pytest.raises(SystemExit):
            train(f"{line} --help")
        text = " ".join(capsys.readouterr().out.split())
        assert re.search(rf"{flag} [^\[]*\[on by default\]", text.partition("start weights:")[2])


LATE = """torchvision sklearn scipy skimage pandas matplotlib tensorboardX requests gdown
    pytorch_grad_cam segment_anything statsmodels""".split()


def test_imports_that_take_long_or_are_extras_wait_until_they_are_used():
    code = "import sys, networks, data, options; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(LATE) & set(imported.stdout.split()) == set()


# --- runs that are resumed


def merged(first, second):
    """Options of a run started with one command line and resumed with another."""
    saved, options = vars(train(first)), TrainOptions()
    return options.merge_saved(options.parse(f"{second} --continue_train".split()), dict(saved))


def test_a_resumed_run_keeps_what_is_not_typed_again():
    first = "--name a --batch_size 8 --lr 0.01 --classes car,cat --no_flip --recipe cvimg --seed 5"
    opt = merged(first, "--name a")
    assert has(opt, batch_size=8, lr=0.01, classes=("car", "cat"), no_flip=True, recipe="cvimg", seed=5)
    assert has(opt, niter=20, continue_train=True)
    assert vars(merged(NPR_TRAINING, NPR_TRAINING)) == {**vars(train(NPR_TRAINING)), "continue_train": True}
    assert has(merged("--arch ssp", ""), arch="ssp", ssp_select="random64")


def test_a_resumed_run_may_change_what_is_no_part_of_its_result():
    lines = """--niter 90|--num_threads 3|--device cpu|--loss_freq 7|--on_bad_image skip|--dataroot elsewhere
        |--checkpoints_dir c|--save_minutes 2.5"""
    for flag, value in map(str.split, lines.split("|")):
        opt = merged("--name a --batch_size 8 --device cuda", f"{flag} {value}")
        assert str(getattr(opt, flag[2:])) == value
        assert flag[2:] in RESUMABLE <= set(vars(train()))


def test_a_resumed_run_cannot_become_another_run(capsys):
    before = """--batch_size 9 (was 8)|--lr 0.5 (was 0.01)|--seed 1 (was 100)|--classes dog (was car)
        |--recipe cvimg (was npr)|--optim sgd (was adam)|--cropSize 128 (was 224)|--blur_prob 0.5 (was 0.0)
        |--amp off (was auto)|--delr_freq 3 (was 10)|--no_flip True (was False)"""
    changes = [change.strip() for change in before.split("|")]
    typed = [change.partition(" (")[0].removesuffix(" True") for change in changes]
    for line in [*typed, " ".join(typed)]:  # each, and all at once
        with pytest.raises(SystemExit) as stopped:
            merged("--name a --batch_size 8 --lr 0.01 --classes car", f"{line} --niter 70")
        message = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2 and "niter" not in message
        assert [change in message for change in changes] == [words in line for words in typed]


def test_a_resumed_run_of_an_earlier_version_lacks_options_and_has_others():
    saved = dict(vars(train("--name a")))
    del saved["resize_rule"], saved["exif"]
    saved |= {"gpu_ids": "1", "forgotten": 3, "arch": "npr"}
    for line, device in {"--exif ignore": "cuda:1", "--device cpu": "cpu"}.items():
        options = TrainOptions()
        opt = options.merge_saved(options.parse(["--continue_train", *line.split()]), dict(saved))
        assert has(opt, resize_rule="square", exif="ignore", device=device)
