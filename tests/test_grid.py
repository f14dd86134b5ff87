"""Grids of experiments: what a YAML file means, what is refused, and the command line around it."""

import pytest

from common import UserError
from experiments.grid import DEFAULT_SEEDS, PRESETS, Cell, argv, read_grid, slug
from experiments.options import ExperimentOptions

PAIR = "variants: {a: {npr_factor: 0.25}, b: {}}\n"
ONE = "variants: {a: {}}\n"
TEST_VALUES = {"protocols": ["ForenSynths", "Sample"], "classes": ["car", "cat"], "no_resize": True}


@pytest.fixture
def write(tmp_path):
    """write(text) -> path of a grid file with this text (bytes: as they are)."""

    def put(text):
        path = tmp_path / "my.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


@pytest.fixture
def read(write):
    return lambda text, *rest, **options: read_grid(write(text), *rest, **options)


def value_of(words, flag):
    """The value that counts: the last one."""
    return words[len(words) - words[::-1].index(flag)]


# --- what a file means


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_reads_and_asks_a_question_with_three_seeds(path):
    grid = read_grid(path)
    assert grid.question.endswith("?")
    assert len(grid.variants) > 1
    assert grid.reference in grid.variants
    assert len({cell.name for cell in grid.cells}) == 3 * len(grid.variants)


def test_there_are_presets():
    assert {"sample", "factors", "fusion"} <= {path.stem for path in PRESETS.glob("*.yaml")}


def test_what_a_file_leaves_out_has_defaults(read):
    grid = read(PAIR)
    assert grid.seeds == DEFAULT_SEEDS == (100, 101, 102)
    assert (grid.checkpoint, grid.reference, grid.question, grid.sample) == ("last", "a", "", "")
    assert (grid.train, grid.test) == ([], [])


def test_an_empty_value_is_as_good_as_none(read):
    assert read(ONE + "train:\ntest:\nseeds:\nreference:\n").seeds == DEFAULT_SEEDS


def test_values_become_flags():
    flags = {"npr_factors": [0.25, 0.5], "no_resize": True, "class_bal": False, "name": None, "lr": 0.001}
    assert argv(flags) == ["--npr_factors", "0.25,0.5", "--no_resize", "--lr", "0.001"]


def test_protocols_become_words_and_other_lists_commas():
    assert argv(TEST_VALUES) == "--protocols ForenSynths Sample --classes car,cat --no_resize".split()
    assert argv({"protocols": "Sample"}) == ["--protocols", "Sample"]


def test_cells_come_seed_after_seed(read):
    cells = read(PAIR + "seeds: [7, 5]").cells
    assert cells == [Cell("a", 7), Cell("b", 7), Cell("a", 5), Cell("b", 5)]
    assert [cell.name for cell in cells] == ["a-seed7", "b-seed7", "a-seed5", "b-seed5"]


def test_a_number_of_seeds_counts_from_100(read):
    assert read(ONE + "seeds: 5").seeds == (100, 101, 102, 103, 104)


def test_a_variant_s_flags_come_after_those_for_all(read):
    grid = read(PAIR + "train: {npr_factor: 0.75, niter: 3}\nseeds: [9]")
    words = grid.train_argv(grid.cells[0], "some/runs")
    assert value_of(words, "--npr_factor") == "0.25"
    assert value_of(words, "--niter") == "3"
    assert words[-6:] == ["--name", "a-seed9", "--checkpoints_dir", "some/runs", "--seed", "9"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_the_weights_of_the_checkpoint_asked_for_are_tested(read, which):
    grid = read(ONE + f"checkpoint: {which}\ntest: {{protocols: Sample}}")
    words = grid.test_argv(grid.cells[0], "runs", "tests")
    assert words[:2] == ["--protocols", "Sample"]
    assert value_of(words, "--model_path") == f"runs/a-seed100/model_epoch_{which}.pth"
    assert (value_of(words, "--name"), value_of(words, "--results_dir")) == ("a-seed100", "tests")


def test_a_grid_of_lists_is_every_combination(read):
    grid = read("grid: {npr_factor: [0.25, 0.5], npr_mode: [nearest, bilinear]}")
    assert list(grid.variants) == ["0.25 nearest", "0.25 bilinear", "0.5 nearest", "0.5 bilinear"]
    assert grid.variants["0.5 nearest"] == ["--npr_factor", "0.5", "--npr_mode", "nearest"]
    assert grid.cells[0].name == "0.25_nearest-seed100"


def test_a_list_inside_a_grid_is_one_value_and_a_value_is_a_list_of_one(read):
    grid = read("grid: {npr_factors: [[0.25, 0.5], [0.5, 0.75]], npr_fusion: concat}")
    assert list(grid.variants) == ["0.25,0.5 concat", "0.5,0.75 concat"]
    assert grid.variants["0.25,0.5 concat"] == ["--npr_factors", "0.25,0.5", "--npr_fusion", "concat"]


def test_names_that_yaml_takes_for_numbers_are_text(read):
    grid = read("variants: {0.25: {npr_factor: 0.25}, 0.5: {}}\nreference: 0.5")
    assert list(grid.variants) == ["0.25", "0.5"]
    assert grid.reference == "0.5"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a b", "a_b"),
        ("channel, CBAM form", "channel_CBAM_form"),
        ("../x", "x"),
        ("0.5", "0.5"),
        ("/", "variant"),
        ("größe", "größe"),
        ("a+b=c-d", "a+b=c-d"),
    ],
)
def test_a_folder_name_is_plain(name, folder):
    assert slug(name) == folder


def test_the_record_holds_what_results_depend_on(read):
    grid = read(PAIR + "train: {niter: 2}", None, ["--lr", "0.1"], ["--batch_size", "3"])
    assert grid.identity() == {
        "train": ["--niter", "2", "--lr", "0.1"],
        "test": ["--batch_size", "3"],
        "checkpoint": "last",
        "variants": {"a": ["--npr_factor", "0.25"], "b": []},
    }


# --- the command line wins


@pytest.mark.parametrize(("given", "seeds"), [(2, (100, 101)), ((4, 3), (4, 3)), (None, (8,))])
def test_seeds_of_the_command_line_win(read, given, seeds):
    assert read(ONE + "seeds: [8]", given).seeds == seeds


def test_flags_of_the_command_line_win_over_those_for_all(read):
    grid = read(
        ONE + "train: {niter: 50}\ntest: {batch_size: 2}", None, ["--niter", "3"], ["--batch_size", "9"]
    )
    assert value_of(grid.train_argv(grid.cells[0], "r"), "--niter") == "3"
    assert value_of(grid.test_argv(grid.cells[0], "r", "t"), "--batch_size") == "9"


@pytest.mark.parametrize("flags", [["--seed", "3"], ["--seed=3"], ["--overwrite"]])
def test_managed_flags_are_refused_on_the_command_line_as_well(read, flags):
    with pytest.raises(UserError, match=rf"my\.yaml: .*{flags[0][:6]}"):
        read(ONE, None, flags)


# --- what is refused: one line with the file and the place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "vairants: {}", "vairants"),
        (ONE + "1: 2", "got 1"),
        (ONE + "grid: {npr_factor: [0.5]}", "either"),
        ("seeds: 3", "either"),
        ("variants: [a, b]", r"\['a', 'b'\]"),
        ("grid: {}", "grid needs"),
        ("grid: {npr_factor: []}", "grid needs"),
        ("variants: {a: 0.5}", "variant 'a'"),
        ("variants: {a: {npr_factor: {x: 1}}}", "variant 'a', train.py: argument --npr_factor"),
        ("variants: {a: {npr_fctor: 0.5}}", r"variant 'a', train\.py: .*--npr_fctor"),
        ("variants: {a: {npr_factor: 2}}", r"variant 'a', train\.py: argument --npr_factor: .*'2'"),
        ("variants: {a: {}, b: {npr_factor: true}}", r"variant 'b', train\.py: argument --npr_factor"),
        ("grid: {npr_factor: [0.5, 3]}", r"variant '3', train\.py"),
        ("variants: {a: {npr_factors: [0.5, 0.5]}}", r"variant 'a', train\.py"),
        (ONE + "train: {niter: 0}", r"train\.py: argument --niter"),
        (ONE + "train: [niter]", "train takes"),
        (ONE + "test: {protocols: [Nowhere]}", r"test\.py: .*'Nowhere'"),
        (ONE + "test: {batch_sise: 3}", r"test\.py: .*--batch_sise"),
        (ONE + "test: {protocol_file: nowhere.yaml}", r"test\.py: .*nowhere\.yaml"),
        (ONE + "checkpoint: epoch", "checkpoint .*'epoch'"),
        (ONE + "checkpoint: [last]", "checkpoint .*last, best"),
        (ONE + "reference: c", "reference .*'c'"),
        ("variants: {a b: {}, a_b: {}}", "'a b' and 'a_b'"),
        ("variants: {A: {}, a: {}}", "'A' and 'a'"),
        ("- a\n- b", "'a', 'b'"),
        ("just words", "just words"),
        ("", "got None"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_place(read, text, message):
    with pytest.raises(UserError, match=rf"my\.yaml.*{message}") as refused:
        read(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["a: b: c", "variants: {a", "? [a]\n: 1", b"\x00\x01\x02", b"\xff\xfe\x00\xd8"]
)
def test_a_file_that_is_no_yaml_is_refused_with_its_name(read, text):
    with pytest.raises(UserError, match=r"my\.yaml") as refused:
        read(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "seeds",
    ["0", "-1", "x", "[]", "[1, 1]", "[1, -2]", "[1.0, 2]", "1.5", "true", "[true, 2]", "{a: 1}", "'3'"],
)
def test_bad_seeds_are_refused(read, seeds):
    with pytest.raises(UserError, match=r"my\.yaml: seeds"):
        read(ONE + f"seeds: {seeds}")


@pytest.mark.parametrize("flag", ["name", "checkpoints_dir", "seed", "continue_train", "overwrite"])
def test_what_the_experiment_sets_of_train_py_is_refused(read, flag):
    for text in (
        f"variants: {{a: {{{flag}: 1}}}}",
        ONE + f"train: {{{flag}: 1}}",
        f"grid: {{{flag}: [1, 2]}}",
    ):
        with pytest.raises(UserError, match=rf"my\.yaml: .*--{flag} of train"):
            read(text)


@pytest.mark.parametrize("flag", ["name", "results_dir", "model_path", "resume", "overwrite"])
def test_what_the_experiment_sets_of_test_py_is_refused(read, flag):
    with pytest.raises(UserError, match=rf"my\.yaml: .*--{flag} of test"):
        read(ONE + f"test: {{{flag}: x}}")


def test_start_weights_are_a_variant_s_own_choice(read):
    grid = read("variants: {random: {}, weights: {init_weights: w.pth}, strict: {model_path: w.pth}}")
    assert grid.variants["strict"] == ["--model_path", "w.pth"]


@pytest.mark.parametrize("text", ["variants: {}", "variants:", "grid:"])
def test_a_file_without_any_variant_is_refused_with_its_name(read, text):
    with pytest.raises(UserError, match=r"my\.yaml: "):
        read(text)


@pytest.mark.parametrize(
    "text", [ONE + "train: {amp: off}", "variants: {a: {amp: off}}", "grid: {amp: [off]}"]
)
def test_off_is_given_to_the_script_or_refused(read, text):
    try:
        grid = read(text)
    except UserError:
        return
    assert value_of(grid.train_argv(grid.cells[0], "r"), "--amp") == "off"


@pytest.mark.parametrize(
    "text",
    [
        'variants: {0.5: {}, "0.5": {npr_factor: 0.25}}',
        "variants: {a: {}, a: {npr_factor: 0.25}}",
        "grid: {npr_factor: [0.5, 0.5]}",
    ],
)
def test_two_variants_of_one_name_are_refused(read, text):
    with pytest.raises(UserError, match=r"my\.yaml"):
        read(text)


def test_the_best_checkpoint_without_validation_is_refused(read):
    with pytest.raises(UserError, match="best"):
        read(ONE + "checkpoint: best\ntrain: {val_split: none}")


# --- options of the script


@pytest.fixture
def refused(capsys):
    """refused(flags...) -> the one line of error that the options end with."""

    def go(*flags):
        with pytest.raises(SystemExit) as stopped:
            ExperimentOptions().parse([str(flag) for flag in flags])
        assert stopped.value.code == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith("train_multiscale_experiment.py: error: ")
        return last.partition("error: ")[2]

    return go


def parse(*flags):
    return ExperimentOptions().parse([str(flag) for flag in flags])


def test_a_preset_is_found_and_names_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = parse("--preset", "modes")
    assert list(opt.grid.variants) == ["nearest", "bilinear", "bicubic", "area"]
    assert opt.output == "results/experiment-modes"
    assert (opt.gpus, opt.figures, opt.overwrite) == ((), "png", False)


def test_a_file_of_one_s_own_names_the_output(write):
    assert parse("--grid", write(ONE)).output == "results/experiment-my"
    assert parse("--grid", write(ONE), "--output", "there").output == "there"


@pytest.mark.parametrize(("typed", "seeds"), [("1", (100,)), ("5,4", (5, 4)), ("7,", (7,)), ("0, 3", (0, 3))])
def test_seeds_are_a_number_or_a_list(write, typed, seeds):
    assert parse("--grid", write(ONE), "--seeds", typed).grid.seeds == seeds


def test_further_flags_are_split_as_a_shell_would(write):
    words = "--niter 3 --train_split 'my images'"
    opt = parse("--grid", write(ONE), "--train_flags", words, "--test_flags", "--batch_size 2")
    assert opt.grid.train == ["--niter", "3", "--train_split", "my images"]
    assert opt.grid.test == ["--batch_size", "2"]


@pytest.mark.parametrize("flags", ["", "--preset sample --grid my.yaml"])
def test_one_of_preset_and_grid_is_needed(refused, flags):
    message = refused(*flags.split())
    assert "--preset" in message and "--grid" in message


def test_more_jobs_than_gpus_are_refused(refused, write):
    assert "--jobs 3" in refused("--grid", write(ONE), "--gpus", "0,1", "--jobs", 3)


@pytest.mark.parametrize("gpus", ["", "a", "0,0", "0,-1", "cuda:0", "0.5"])
def test_wrong_gpus_are_refused(refused, write, gpus):
    assert "--gpus" in refused("--grid", write(ONE), f"--gpus={gpus}")


@pytest.mark.parametrize("seeds", ["0", "-1", "x", "1.5", "3,3", "1,x", "1,-2"])
def test_wrong_seeds_are_refused(refused, write, seeds):
    assert "seeds" in refused("--grid", write(ONE), f"--seeds={seeds}")


def test_a_missing_file_is_refused(refused, tmp_path):
    assert str(tmp_path / "no.yaml") in refused("--grid", tmp_path / "no.yaml")


def test_a_folder_is_refused(refused, tmp_path):
    assert str(tmp_path) in refused("--grid", tmp_path)


def test_a_wrong_file_is_refused(refused, write):
    path = write("variants: {a: {npr_factor: 2}}")
    assert refused("--grid", path).startswith(f"{path}: variant 'a', train.py: argument --npr_factor")


@pytest.mark.parametrize("flags", ["--niter", "--npr_fctor 3", "--lr x"])
def test_wrong_further_flags_are_refused(refused, write, flags):
    assert "train.py" in refused("--grid", write(ONE), f"--train_flags={flags}")


def test_an_open_quote_is_refused(refused, write):
    assert "--test_flags" in refused("--grid", write(ONE), "--test_flags=--name 'x")


@pytest.mark.parametrize(
    "flags", ["--preset nothing", "--preset sample --niter 3", "--preset sample --jobs 0"]
)
def test_other_wrong_flags_are_refused(refused, flags):
    assert refused(*flags.split())


def test_a_list_without_a_seed_is_refused(refused, write):
    assert "seeds" in refused("--grid", write(ONE), "--seeds=,")
