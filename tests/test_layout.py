"""The house rules: who imports whom, which options are read, what the README and docs/ say."""

import ast
import functools
import importlib
import re
import shlex
import subprocess
import textwrap
from argparse import Namespace
from dataclasses import fields

import pytest
import torch
from conftest import ROOT

import networks
from common import Parser
from experiments.options import ExperimentOptions
from networks.variants import Variant
from options import PredictOptions, TestOptions, TrainOptions, ValOptions

SCRIPTS = {
    "train": TrainOptions,
    "val": ValOptions,
    "test": TestOptions,
    "predict": PredictOptions,
    "train_multiscale_experiment": ExperimentOptions,
}
NEEDED = {
    "train": [],
    "predict": ["--model_path", "x", "--input", "x"],
    "train_multiscale_experiment": ["--preset", "sample"],
}
ROOMS = ("networks", "data", "options", "util", "experiments", "tools")
MAY_IMPORT = {  # besides `common`; "script": the files at the top
    "common": set(),
    "networks": set(),
    "data": {"util"},  # identity, locks and worker counts
    "util": set(),
    "options": {"networks", "data", "util"},  # the names of optimisers and policies
    "experiments": {"networks", "data", "options", "util"},
    "script": {"networks", "data", "options", "util", "experiments"},
    "tools": {"networks", "data", "options", "util", "experiments"},
}
LONGEST_FUNCTION = 60
MAY_PRINT = ("tables.py", "run.py")  # besides scripts and tools


@functools.cache
def sources():
    """{path: (text, syntax tree)} of every Python file but the tests."""
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    texts = {path: path.read_text(encoding="utf-8") for path in [*files, *sorted(ROOT.glob("*.py"))]}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def room_of(path):
    if path.name == "common.py":
        return "common"
    return path.relative_to(ROOT).parts[0] if path.parent != ROOT else "script"


def imported_rooms(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_a_room_imports_only_what_it_may():
    names = {*ROOMS, *SCRIPTS}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, (_, tree) in sources().items()
        for name in {*imported_rooms(tree)} & names - {room_of(path)} - MAY_IMPORT[room_of(path)]
    ]
    assert wrong == []


def test_functions_are_short_and_public_names_documented():
    wrong = []
    for path, (_, tree) in sources().items():
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        wrong += [
            f"{path}: {node.name} is long"
            for node in functions
            if node.end_lineno - node.lineno >= LONGEST_FUNCTION
        ]
        public = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        wrong += [
            f"{path}: {node.name} has no docstring"
            for node in public
            if not node.name.startswith("_") and not ast.get_docstring(node)
        ]
        wrong += [] if ast.get_docstring(tree) else [f"{path} has no docstring"]
    assert wrong == []


def test_every_option_is_read_somewhere():
    read = {
        "recipe",
        "no_crop",
        "crops",
        *(f"npr_{field.name}" for field in fields(Variant)),
    }  # applied by their names
    for _, tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = getattr(node.value, "id", getattr(node.value, "attr", ""))  # opt, or state.opt
                read |= {node.attr} if owner in ("opt", "known") else set()
    for script, options in SCRIPTS.items():
        parsed = options().parse(NEEDED.get(script, ["--model_path", "x"]))
        assert vars(parsed).keys() - read == set(), script


def test_only_scripts_and_tools_print():
    printing = [
        str(path)
        for path, (text, tree) in sources().items()
        if "__main__" not in text
        and path.name not in MAY_PRINT
        and room_of(path) not in ("experiments", "tools")
        and any(
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" for node in ast.walk(tree)
        )
    ]
    assert printing == []


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def page_commands():
    """Every command in the shell blocks of the pages, once, continuation lines joined."""
    blocks = [block for page in PAGES for block in fenced(page, "bash|sh")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()))


def fenced(page, languages):
    """The fenced blocks of a Markdown page in one of these languages, a|b."""
    return re.findall(rf"```(?:{languages})\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page):
    """The names that links into a Markdown page can end with, as GitHub makes them from its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))
    targets = [((page.parent / path) if path else page, anchor) for path, anchor in links]
    broken = [
        f"{target.name}#{anchor}"
        for target, anchor in targets
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


class Parsed(BaseException):
    """A program's command line was parsed; what comes next is not run."""


def test_every_file_that_the_pages_name_exists():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    paths = set(re.findall(rf"`((?:{'|'.join(ROOMS)}|tests|scripts|docs)/[\w./-]+)`", text))
    examples = {"networks/mine.py", "tests/test_mine.py"}
    assert {path for path in paths - examples if not (ROOT / path).exists()} == set()


def test_the_page_of_the_tests_names_every_test_file():
    named = re.findall(r"`(test_\w+\.py)`", (ROOT / "tests" / "README.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in (ROOT / "tests").glob("test_*.py"))


def test_the_example_detector_of_the_pages_works(monkeypatch):
    monkeypatch.setattr(networks, "_REGISTRY", dict(networks._REGISTRY))
    exec(textwrap.dedent(fenced(ROOT / "docs" / "adding-a-detector.md", "python")[0]), {})
    detector = networks.create(Namespace(arch="mine", mine_width=4))
    assert detector(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape == (2,)
    assert detector.head.in_features == 4


@pytest.fixture
def parse(monkeypatch):
    """parse(module, words): what `python -m module words` does until its command line is parsed."""

    def stop_after(method):
        def parse(*args, **kwargs):
            method(*args, **kwargs)
            raise Parsed

        return parse

    def run(module, words):
        package = (ROOT / module.replace(".", "/")).is_dir()
        program = importlib.import_module(module + ".__main__" * package)
        assert program.Parser is Parser  # any other parser would be followed by the run itself
        with monkeypatch.context() as patch:
            for name in ("parse_args", "parse_intermixed_args"):
                patch.setattr(Parser, name, stop_after(getattr(Parser, name)))
            program.main(words)

    return run


PROGRAMS = {
    "tools.benchmark": "mixed --numb 3",
    "tools.compare": "a b --overw",
    "tools.extract": "toys --output x --se 1",
    "tools.matrix": "--overw",
    "tools.report": "results/a -o r.html --overw",
    "tools.verify": "--dataroot x --no_has",
    "tools.visualize": "curves --results x --outp y",
    "data.download": "--dry",
    "data.sample": "--overw",
}


@pytest.mark.parametrize("module", PROGRAMS)
def test_every_program_refuses_shortened_flags(module, parse, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(module, PROGRAMS[module].split())
    assert stopped.value.code == 2
    assert "did you mean" in capsys.readouterr().err


def test_a_misspelt_required_flag_is_recognised(parse, capsys):
    with pytest.raises(SystemExit):
        parse("tools.verify", ["--datarot=x"])
    assert "did you mean --dataroot?" in capsys.readouterr().err


@pytest.fixture
def protocol_file(tmp_path, monkeypatch):
    """The protocol file of docs/data.md as my.yaml in the working folder."""
    (tmp_path / "my.yaml").write_text("".join(fenced(ROOT / "docs" / "data.md", "yaml")))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("protocol_file")
@pytest.mark.parametrize("command", page_commands())
def test_every_command_of_the_pages_parses(command, parse):
    words = shlex.split(command)
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "python" and words[1].removesuffix(".py") in SCRIPTS:
        SCRIPTS[words[1].removesuffix(".py")]().parse(words[2:])
    elif words[:2] == ["python", "-m"]:
        with pytest.raises(Parsed):
            parse(words[2], words[3:])
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file()
    else:
        assert words[0] in ("git", "cd", "tensorboard", "jupyter"), f"unknown kind of command: {command}"


def test_the_repository_names_no_place_of_one_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    paths = [ROOT / name for name in tracked.splitlines()]
    texts = {
        path: path.read_text(errors="ignore") for path in paths if path.is_file() and path.suffix != ".png"
    }
    pattern = re.compile(r"(?<![\w.])/(root|home|tmp|work|opt)/\w")
    assert [str(path) for path, text in texts.items() if pattern.search(text)] == []


def test_no_line_of_the_pages_is_a_placeholder():
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if re.fullmatch(r"\(?(?:[A-Z]{3,}|TODO.*|.*\bfollow\))\)?", line)] == []
