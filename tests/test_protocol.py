"""Protocols that a user writes in YAML: what every key does, and one clear line for every wrong file."""

import json
from pathlib import Path

import pytest
from conftest import make_tree

import test as test_script
from common import UserError
from data import protocols
from networks import checkpoint
from networks.resnet import NPRDetector
from util import run

MINIMAL = "slug: own\ngenerators: [a, b]\n"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """The working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained weights, with the run's name `mine`."""
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    checkpoint.save(path, NPRDetector(), options={"name": "mine"})
    return path


@pytest.fixture
def run_test(weights):
    """run_test(text of own.yaml, *flags): test.py on ./data with this protocol file."""

    def evaluate(text, *flags):
        Path("own.yaml").write_text(text)
        argv = f"--model_path {weights} --dataroot data --protocol_file own.yaml --num_threads 0 --device cpu"
        test_script.main([*argv.split(), *flags])

    return evaluate


def meta(slug="own"):
    return json.loads(Path("results/mine", slug, "meta.json").read_text())


def rows_of(text):
    Path("own.yaml").write_text(text)
    return protocols.known("own.yaml")


def refused(text):
    """The message about a wrong file, one line."""
    if text is not None:
        Path("own.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((UserError, OSError)) as caught:
        protocols.known("own.yaml")
    message = run.one_line(caught.value)
    assert "own.yaml" in message
    return message


def test_a_minimal_row_takes_images_as_they_are_stored(run_test):
    make_tree("data", ["a", "b"], count=1, size=(33, 40))
    run_test(MINIMAL)
    assert meta()["counts"] == {"a": [1, 1], "b": [1, 1]}
    assert meta()["input"] == "stored size, no crop"
    assert meta()["protocol_row"]["average"] == "macro"


FULL = """
slug: everything
generators:
  - b
  - {name: A, folders: [one, a], family: gan, images: [3, 3]}
roots: [elsewhere, mine]
places: ["{generator}/val", "eval/{generator}"]
real: photos
fake: generated
resize: 64
crop: 48
even: true
interpolation: bicubic
resize_rule: shorter side
average: micro
split: val
seed: 7
source: nowhere
url: https://example.org
bare: true
reals: [photos_of_all]
reencode: {fake: aligned, real: webp:80+blur:1}
"""


def test_a_row_may_use_every_key():
    row = rows_of(FULL)["everything"]
    assert [generator.name for generator in row.generators] == ["b", "A"]
    assert row.generators[1].folders == ("one", "a")
    assert row.generators[1].images == (3, 3)
    assert (row.roots, row.labels) == (("elsewhere", "mine"), ("photos", "generated"))
    assert (row.geometry.load_size, row.geometry.crop_size) == (64, 48)
    assert (row.geometry.even, row.geometry.interpolation) == (True, "bicubic")
    assert row.geometry.resize == "shorter side"
    assert (row.average, row.split, row.seed) == ("micro", "val", 7)
    assert (row.source, row.url) == ("nowhere", "https://example.org")
    assert (row.bare, row.reals) == (True, ("photos_of_all",))
    assert {label: view.chain for label, view in row.encoders.items()} == {
        0: "webp:80+blur:1",
        1: "jpeg:96:pil",
    }


def test_a_row_with_every_key_runs(run_test):
    make_tree("data/mine", ["eval/b", "a/val/c", "a/val/d"], ("photos", "generated"), count=2)
    run_test(FULL)
    record = meta("everything")
    assert record["counts"] == {"b": [2, 2], "A": [4, 4]}
    encoded = "fakes as aligned, reals as webp:80+blur:1"
    assert record["input"] == f"{encoded}, resize shorter side to 64, centre crop 48, trimmed to even sides"


def test_a_row_may_use_a_published_label_pair_beside_its_own(run_test):
    make_tree("data", ["a"], ("photos", "generated"), count=1)
    make_tree("data", ["b"], ("nature", "ai"), count=2)
    run_test(MINIMAL + "real: photos\nfake: generated\n")
    assert meta()["counts"] == {"a": [1, 1], "b": [2, 2]}


def test_a_file_may_hold_several_rows_and_runs_them_all(run_test):
    make_tree("data", ["a", "b"], count=1)
    run_test("- {slug: first, generators: [a]}\n- {slug: second, generators: [b], crop: 16}\n")
    assert meta("first")["input"] == "stored size, no crop"
    assert meta("second")["input"] == "stored size, centre crop 16"
    assert list(meta("second")["counts"]) == ["b"]


def test_a_row_of_the_file_can_be_asked_for_beside_a_published_one(run_test):
    make_tree("data", ["a", "b", "DFIG/test"], count=1)
    run_test(MINIMAL, "--protocols", "OWN", "DFIG")
    assert {folder.name for folder in Path("results/mine").iterdir()} == {"own", "DFIG"}


def test_null_means_no_resize_and_no_crop():
    row = rows_of(MINIMAL + "resize: null\ncrop: null\nseed: null\n")["own"]
    assert (row.geometry.load_size, row.geometry.crop_size, row.seed) == (None, None, None)


def test_a_place_without_generator_holds_the_only_generators_label_folders(run_test):
    make_tree("data/set", ["eval"], count=1)
    run_test("slug: own\ngenerators: [faces]\nroots: [set]\nplaces: [eval]\n")
    assert meta()["counts"] == {"faces": [1, 1]}


def test_the_first_place_that_exists_counts(run_test):
    make_tree("data", ["a/val"], count=1)
    make_tree("data", ["test/a"], count=2)
    run_test("slug: own\ngenerators: [a]\nplaces: ['test/{generator}', '{generator}/val']\n")
    assert meta()["counts"] == {"a": [2, 2]}


def test_the_key_order_of_a_row_does_not_change_its_sha256():
    first = rows_of("slug: own\ngenerators: [a]\ncrop: 16\n")["own"]
    second = rows_of("crop: 16\ngenerators: [a]\nslug: own\nsource: elsewhere\n")["own"]
    assert first.sha256 == second.sha256
    assert first.sha256 != rows_of("slug: own\ngenerators: [a]\ncrop: 17\n")["own"].sha256


@pytest.mark.parametrize("value", ["{fakes: jpeg:96}", "{fake: jpg:96}", "{fake: native}", "3"])
def test_a_wrong_reencode_is_refused_with_the_legal_forms(value):
    message = refused(f"{MINIMAL}reencode: {value}\n")
    assert "aligned" in message and "webp" in message


def test_a_view_and_its_chain_are_the_same_row():
    first, second, third = (
        rows_of(f"{MINIMAL}reencode: {{{text}}}\n")["own"]
        for text in ("fake: aligned", "fake: jpeg:96", "real: jpeg:96")
    )
    assert first.sha256 == second.sha256 != third.sha256
    assert first.sha256 != rows_of(MINIMAL)["own"].sha256


def test_reals_need_bare():
    assert "bare" in refused(MINIMAL + "reals: [photos]\n")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "just words", "3", "- 1", "- {slug: own, generators: [a]}\n- words", "# a comment"],
)
def test_a_file_without_rows_is_refused_with_the_legal_keys(text):
    assert "generators" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "slug: [a",
        "slug: own\n\tgenerators: [a]",
        "slug: own\ngenerators: !!python/object/apply:os.getcwd []",
        "a: b: c",
        b"\xff\xfe\x00own",
        b"\x89PNG\r\n\x1a\n\x00\x00",
    ],
)
def test_a_file_that_is_no_yaml_is_refused_with_its_name(text):
    refused(text)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_missing_or_a_folder_is_refused_with_its_name(kind):
    if kind == "folder":
        Path("own.yaml").mkdir()
    refused(None)


@pytest.mark.parametrize("key", ["resise", "labels", "geometry", "default", "training", "1"])
def test_an_unknown_key_is_refused_with_the_legal_ones(key):
    last = refused(f"{MINIMAL}{key}: 256\n")
    assert key in last and "resize_rule" in last


WRONG_TYPES = """
slug: 3
slug: [own]
slug: null
generators: a
generators: {a: b}
generators: 3
roots: data
roots: 3
places: "{generator}"
resize: big
resize: 25.5
resize: true
resize: "256"
crop: [224, 224]
even: 1
even: "yes"
even: null
interpolation: 3
resize_rule: longer
resize_rule: null
average: 3
average: null
split: 3
seed: one
seed: 1.5
source: [a]
url: 3
roots: [3]
resize: 0
resize: -1
crop: 0
crop: 1000000000000000000000000000000
interpolation: [bilinear]
average: {a: b}
places: [3]
places: ['{other}']
places: ['{']
places: ['{0}']
places: ['{generator.secret}']
places: ['{generator:1}']
places: ['']
bare: 1
reals: real
reals: ['../up']
reencode: jpeg:96
reencode: [fake]
reencode: {}
reencode: {fakes: jpeg:96}
reencode: {fake: 96}
reencode: {fake: ''}
reencode: {fake: jpeg:960}
reencode: {fake: avif:3}
reencode: {fake: native}
"""


@pytest.mark.parametrize("line", WRONG_TYPES.split("\n")[1:-1])
def test_a_wrong_value_is_refused_with_its_key(line):
    key = line.partition(":")[0]
    rest = "".join(row + "\n" for row in MINIMAL.splitlines() if not row.startswith(f"{key}:"))
    assert f"{key} of a protocol" in refused(f"{rest}{line}\n")


LABEL_PAIRS = """
real: 3, fake: x
real: x, fake: [y]
real: null, fake: x
real: '', fake: x
real: photos
fake: generated
real: x, fake: x
real: Photos, fake: photos
real: fake, fake: x
real: AI, fake: x
real: x, fake: nature
"""


@pytest.mark.parametrize("pair", LABEL_PAIRS.split("\n")[1:-1])
def test_label_names_that_are_no_pair_or_reverse_known_ones_are_refused(pair):
    message = refused(f"{{slug: own, generators: [a, b], {pair}}}")
    assert "real" in message or "fake" in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("slug: own", "generators"),
        ("generators: [a]", "slug"),
        ("{}", "slug and generators"),
        ("slug: own\ngenerators: []", "generators"),
        ("slug: ''\ngenerators: [a]", "slug"),
    ],
)
def test_a_needed_key_that_is_missing_or_empty_is_refused(text, key):
    assert key in refused(text).partition(";")[0]


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("average: median", "macro, micro"),
        ("interpolation: cubic", "bilinear, bicubic, lanczos, nearest"),
        ("resize_rule: cubic", "square, shorter side"),
    ],
)
def test_a_wrong_choice_is_refused_with_the_legal_ones(line, choices):
    message = refused(MINIMAL + line)
    assert choices in message and line.split()[1] in message


@pytest.mark.parametrize("slug", ["ForenSynths", "forensynths", "dfig"])
def test_the_slug_of_a_published_protocol_is_taken(slug):
    assert slug in refused(f"slug: {slug}\ngenerators: [a]")


def test_two_generators_need_paths_that_differ():
    assert "places" in refused(f"{MINIMAL}places: [test]\n")


@pytest.mark.parametrize("second", ["own", "Own"])
def test_two_rows_of_one_slug_are_refused(second):
    text = f"- {{slug: own, generators: [a]}}\n- {{slug: {second}, generators: [b]}}\n"
    assert second in refused(text)


@pytest.mark.parametrize("slug", ["a/b", "..", ".", "a\\b", "/etc", "all", "None"])
def test_a_slug_that_is_no_folder_name_or_means_every_protocol_is_refused(slug):
    assert "slug" in refused(f"slug: '{slug}'\ngenerators: [a]")


@pytest.mark.parametrize(
    "generators",
    [
        "[3]",
        "[null]",
        "[[a]]",
        "['']",
        "[{folders: [a]}]",
        "[{name: 3}]",
        "[{name: a, folder: [b]}]",
        "[{name: a, folders: abc}]",
        "[{name: a, folders: [3]}]",
        "[{name: a, family: 3}]",
        "[{name: a, images: 3}]",
        "[{name: a, images: [3]}]",
        "[{name: a, images: [x, y]}]",
        "[{name: a, images: [-1, 3]}]",
        "[a, b, a]",
        "[a, {name: b, folders: [a]}]",
    ],
)
def test_a_wrong_generator_is_refused(generators):
    refused(f"slug: own\ngenerators: {generators}\n")


@pytest.mark.parametrize("text", ["- {slug: own, generators: [a]}\n- {slug: b}", MINIMAL + "crop: x"])
def test_a_wrong_file_stops_a_run_that_did_not_ask_for_its_row(run_test, text, capsys):
    make_tree("data/DFIG", ["test"], count=1)
    with pytest.raises(SystemExit) as stopped:
        run_test(text, "--protocols", "DFIG")
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("test.py: error: own.yaml: ")
    assert not Path("results").exists()
