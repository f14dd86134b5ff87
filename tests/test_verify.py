"""tools.verify: every kind of finding on a small tree, what is a problem and what a note, exit statuses."""

import json
import shutil

import numpy as np
import pytest
from conftest import SAMPLES, make_tree, toy_image

from data.inspection import inspect_file, inspect_files
from tools import verify


@pytest.fixture
def check(tmp_path, capsys):
    """check(root, generators) -> (exit status, {kind: [finding]}, terminal output, JSON)."""

    def run(root, generators="[a, b]", *flags, extra=""):
        rows, out = tmp_path / "p.yaml", tmp_path / "out.json"
        rows.write_text(f"slug: mine\ngenerators: {generators}\n{extra}")
        arguments = ["--dataroot", root, "--protocol_file", rows, "--protocols", "mine", "--json", out]
        with pytest.raises(SystemExit) as stopped:
            verify.main([*map(str, arguments), "--num_threads", "0", *flags])
        content = json.loads(out.read_text())
        kinds = {}
        for one in content["findings"]:
            kinds.setdefault(one["kind"], []).append(one)
        return stopped.value.code, kinds, capsys.readouterr().out, content

    return run


def test_a_clean_tree_is_fine(tree, check):
    status, kinds, text, content = check(tree(["a", "b"]))
    assert (status, kinds) == (0, {})
    assert "12 files in" in text and "0 problems" in text
    assert content["ok"] and content["files"] == 12
    line = content["generators"][0]
    assert line["images"] == [3, 3] and line["formats"] == [{"PNG": 3}] * 2
    assert line["sizes"] == [{"32x32": 3}] * 2 and line["unreadable"] == line["duplicates"] == 0


def test_fakes_only_are_fine_where_the_row_says_so_and_shared_reals_are_no_duplicates(tmp_path, check):
    for folder in ("a", "b", "photos"):
        (tmp_path / "tree" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path in ("a/0.png", "b/0.png", "photos/0.png"):
        toy_image(rng, fake=True).save(tmp_path / "tree" / path)
    assert check(tmp_path / "tree", extra="bare: true\n")[:2] == (0, {})
    status, kinds, _, content = check(tmp_path / "tree", extra="bare: true\nreals: [photos]\n")
    assert (status, kinds) == (0, {})
    assert [line["images"] for line in content["generators"]] == [[1, 1], [1, 1]]
    assert [line["duplicates"] for line in content["generators"]] == [0, 0]
    assert "one-sided" in check(tmp_path / "tree", extra="bare: true\nreals: [gone]\n")[1]


def test_a_missing_generator_is_named_with_its_place(tree, check):
    status, kinds, text, _ = check(tree(["a"]))
    assert status == 1 and list(kinds) == ["missing"]
    assert "mine b: no folder" in text


def test_a_missing_protocol_that_was_asked_for_is_a_problem(tmp_path, check):
    (tmp_path / "empty").mkdir()
    status, kinds, _, _ = check(tmp_path / "empty")
    assert status == 1 and len(kinds["missing"]) == 2


@pytest.mark.parametrize(("count", "within", "status"), [(3, 0, 0), (4, 0, 1), (4, 1, 0), (5, 1, 1)])
def test_counts_are_held_against_the_published_ones(tree, check, count, within, status):
    generators = f"[{{name: a, images: [{count}, 3], images_within: {within}}}]"
    got, kinds, _, _ = check(tree(["a"]), generators)
    assert got == status and list(kinds) == ["count"] * status


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "empty file"),
        (lambda content: content[: len(content) // 2], "unreadable"),
        (lambda content: b"<html>not found</html>", "not an image"),
    ],
)
def test_unreadable_files_are_problems(tree, check, damage, reason):
    root = tree(["a"])
    broken = root / "a/0_real/1.png"
    broken.write_bytes(damage(broken.read_bytes()))
    status, kinds, _, content = check(root, "[a]")
    assert status == 1 and list(kinds) == ["unreadable"]
    assert reason in kinds["unreadable"][0]["text"] and kinds["unreadable"][0]["files"] == [str(broken)]
    assert content["generators"][0]["unreadable"] == 1


def test_no_decode_checks_headers_only(tree, check):
    root = tree(["a"])
    broken = root / "a/0_real/1.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    assert check(root, "[a]")[0] == 1
    assert check(root, "[a]", "--no_decode")[0] == 0


def test_an_extension_that_lies_is_a_problem(tree, check):
    root = tree(["a"])
    (root / "a/1_fake/0.png").rename(root / "a/1_fake/0.jpg")
    status, kinds, text, _ = check(root, "[a]")
    assert status == 1 and list(kinds) == ["extension"]
    assert ".jpg are PNG" in text


def test_files_that_are_no_images_are_passed_over(tree, check):
    root = tree(["a"])
    (root / "a/1_fake/readme.txt").write_text("x")
    status, kinds, text, _ = check(root, "[a]")
    assert status == 0 and list(kinds) == ["passed over"] and "1 .txt" in text


@pytest.mark.parametrize(
    ("source", "target", "kind", "status"),
    [
        ("a/0_real/0.png", "a/0_real/9.png", "duplicates within real", 1),
        ("a/1_fake/0.png", "a/1_fake/9.png", "duplicates within fake", 1),
        ("a/0_real/0.png", "a/1_fake/9.png", "duplicates across labels", 1),
        ("a/0_real/0.png", "b/1_fake/9.png", "duplicates across labels", 1),
        ("a/0_real/0.png", "b/0_real/9.png", "duplicates of reals across generators", 0),
        ("a/1_fake/0.png", "b/1_fake/9.png", "duplicates of fakes across generators", 1),
    ],
)
def test_duplicates(tree, check, source, target, kind, status):
    root = tree(["a", "b"])
    shutil.copy(root / source, root / target)
    got, kinds, _, _ = check(root)
    assert got == status and list(kinds) == [kind]
    assert sorted(kinds[kind][0]["files"]) == sorted([str(root / source), str(root / target)])
    assert check(root, "[a, b]", "--no_hash")[:2] == (0, {})


def test_files_in_training_and_test_part_are_leakage(tmp_path, capsys):
    root = make_tree(tmp_path / "Tiny-GenImage", ["val/adm"], names=("nature", "ai"))
    place = tmp_path / "Tiny-GenImage/train/adm/nature"
    place.mkdir(parents=True)
    shutil.copy(root / "val/adm/nature/0.png", place / "x.png")
    with pytest.raises(SystemExit):
        verify.main(["--dataroot", str(tmp_path), "--protocols", "Tiny-GenImage", "--classes", "ADM"])
    assert "ADM, ADM (train): leakage: 1 " in capsys.readouterr().out


def test_a_folder_of_one_class_is_a_problem(tree, check):
    root = tree(["a"])
    shutil.rmtree(root / "a/1_fake")
    status, kinds, text, _ = check(root, "[a]")
    assert status == 1 and list(kinds) == ["one-sided"] and "3 real and 0 fake" in text


def test_a_copied_label_folder_is_duplicates(tree, check):
    root = tree(["a"])
    shutil.rmtree(root / "a/1_fake")
    shutil.copytree(root / "a/0_real", root / "a/1_fake")
    status, kinds, _, _ = check(root, "[a]")
    assert status == 1 and list(kinds) == ["duplicates across labels"]


@pytest.mark.parametrize("inner", ["0_real", "x/nature"])
def test_a_label_folder_inside_the_other_is_a_note(tree, check, inner):
    root = tree(["a"])
    make_tree(root / "a/1_fake", ["."], names=(inner,), size=(30, 30))
    status, kinds, text, content = check(root, "[a]", "--no_hash")
    assert (status, list(kinds)) == (0, ["contradiction"])
    assert f"1_fake/{inner}" in text
    assert content["generators"][0]["images"] == [3, 6]


def test_two_folders_of_one_label_are_a_problem(tree, check):
    root = tree(["a"])
    (root / "a/real").mkdir()
    status, kinds, _, _ = check(root, "[a]")
    assert status == 1 and list(kinds) == ["layout"]


def own_folder(root, capsys, *flags):
    """(exit status, what tools.verify prints) of a folder without a protocol."""
    with pytest.raises(SystemExit) as stopped:
        verify.main(["--dataroot", str(root), "--num_threads", "0", *flags])
    return stopped.value.code, "".join(capsys.readouterr())


@pytest.mark.parametrize(("folders", "rows"), [(["flux", "sd/cat"], ["flux", "sd"]), (["."], ["tree"])])
def test_a_folder_of_ones_own_is_checked_as_val_takes_it(tree, capsys, folders, rows):
    root = tree(folders)
    status, text = own_folder(root, capsys)
    assert status == 0 and f"{6 * len(folders)} files in" in text and len(text) < 900
    assert [line.split()[0] for line in text.splitlines() if line.endswith("  ok")] == rows
    (root / folders[0] / "1_fake/0.png").write_bytes(b"")
    status, text = own_folder(root, capsys)
    assert status == 1 and "unreadable: empty file" in text


def test_an_image_of_both_splits_of_a_folder_of_ones_own_is_leakage(tree, capsys):
    root = tree(["train/cat", "val/cat"])
    shutil.copy(root / "train/cat/0_real/0.png", root / "val/cat/0_real/9.png")
    status, text = own_folder(root, capsys)
    assert status == 1 and "leakage: 1 " in text


def test_a_folder_that_holds_nothing_to_check_is_one_short_line(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    status, text = own_folder(tmp_path, capsys)
    assert status == 2 and len(text.splitlines()[-1]) < 300


@pytest.mark.parametrize("swapped", [True, False])
def test_names_that_contradict_the_label_look_swapped(tree, check, swapped):
    root = tree(["adm"], names=("nature", "ai"))
    places = ("ai", "nature") if swapped else ("nature", "ai")
    for folder, name in zip(places, ("ILSVRC2012_val_", "0_adm_"), strict=True):
        for number in range(3):
            (root / f"adm/{folder}/{number}.png").rename(root / f"adm/{folder}/{name}{number}.png")
    status, kinds, _, _ = check(root, "[adm]")
    assert (status, list(kinds)) == ((1, ["swapped"]) if swapped else (0, []))


def test_a_format_and_a_size_that_leak_the_label_are_notes(tree, check, rng):
    root = tree(["a"])
    for number in range(3):
        (root / f"a/0_real/{number}.png").unlink()
        toy_image(rng, fake=False, size=(40, 30)).save(root / f"a/0_real/{number}.jpg")
    status, kinds, text, _ = check(root, "[a]")
    assert status == 0 and set(kinds) == {"format leaks", "size leaks"}
    assert "100%" in text


def test_upper_case_extensions_are_counted_and_noted(tree, check):
    status, kinds, _, content = check(tree(["a"], suffix=".PNG"), "[a]")
    assert status == 0 and list(kinds) == ["upper-case"]
    assert content["generators"][0]["images"] == [3, 3]


def test_the_broken_file_of_the_distributed_dalle2_is_a_known_defect(tmp_path, capsys):
    place = make_tree(tmp_path / "AIGCDetectBenchmark", ["DALLE2"], count=1) / "DALLE2/0_real"
    (place / "000000097792.jpg").write_bytes(b"")
    arguments = ["--dataroot", str(tmp_path), "--protocols", "AIGCDetectBenchmark", "--classes", "DALLE2"]
    with pytest.raises(SystemExit):
        verify.main([*arguments, "--num_threads", "0"])
    notes = capsys.readouterr().out.partition("notes:")[2]
    assert "DALLE2: unreadable" in notes and "--on_bad_image skip" in notes


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataroot", "nowhere"],
        ["--dataroot", "."],  # nothing known in it
        ["--dataroot", ".", "--protocols", "Nonsense"],
        ["--dataroot", ".", "--protocols", "Sample", "--classes", "nonsense"],
        ["--dataroot", ".", "--protocol_file", "nowhere.yaml"],
        ["--dataroot", ".", "--wrong"],
        [],
    ],
)
def test_wrong_usage_exits_with_status_2(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        verify.main(arguments)
    assert stopped.value.code == 2 and "tools.verify: error: " in capsys.readouterr().err


def test_worker_processes_find_the_same_in_the_same_order(tree):
    paths = sorted(map(str, tree(["a", "b"], count=20).rglob("*.png")))
    expected = [inspect_file(path) for path in paths]
    assert list(inspect_files(paths, 2)) == expected
    assert len({facts.digest for facts in expected}) == 80


def test_a_protocol_whose_folders_belong_to_a_complete_one_is_left_out(tmp_path, capsys):
    names = "adm biggan glide midjourney sdv5 vqdm wukong".split()  # all of GenImage-NPR, without sdv4
    make_tree(tmp_path / "GenImage", names, count=1)
    with pytest.raises(SystemExit):
        verify.main(["--dataroot", str(tmp_path), "--num_threads", "0"])
    text = capsys.readouterr().out
    assert "--protocols GenImage-SSP" in text and "14 files in" in text


@pytest.mark.skipif(not (SAMPLES / "wild-mini").is_dir(), reason="no real samples here")
def test_real_images(check):
    names = "[biggan_deep, cifake_32, cyclegan, gan_singles, large_1024, ldm_txt2img, sd_v1]"
    status, kinds, _, content = check(SAMPLES / "wild-mini", names, "--no_decode")
    counts = [line["images"] for line in content["generators"]]
    assert [sum(column) for column in zip(*counts, strict=True)] == [566, 537]
    assert status == 0 and set(kinds) == {"format leaks", "size leaks", "upper-case"}
