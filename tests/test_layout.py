"""The house rules: who imports whom, which options are read, how long files are, what the README says."""

import ast
import contextlib
import functools
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings

import pytest
from conftest import ROOT

from options import ExperimentOptions, PredictOptions, TestOptions, TrainOptions, ValOptions

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
ROOMS = ("networks", "data", "options", "util", "tools")
MAY_IMPORT = {  # room -> rooms it may import; scripts may import all but tools
    "networks": set(),
    "data": set(),
    "util": set(),
    "options": {"networks", "data"},
    "tools": {"networks", "data", "options", "util", "train_multiscale_experiment"},
    "script": {"networks", "data", "options", "util"},
}
MAX_LINES, MAX_FUNCTION = 300, 60


def sources():
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [*files, *sorted(ROOT.glob("*.py"))]


def room_of(path):
    return path.relative_to(ROOT).parts[0] if path.parent != ROOT else "script"


def imported_rooms(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    inside = {name for name in imported_rooms(ast.parse(path.read_text())) if name in (*ROOMS, *SCRIPTS)}
    assert inside - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short_and_documented(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name
    public = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    undocumented = [
        node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert [name for name in undocumented if name != "main"] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_is_read_somewhere(script):
    options = SCRIPTS[script]()
    parsed = options.parse(NEEDED.get(script, ["--model_path", "x"]))
    code = "\n".join(path.read_text() for path in sources())
    unread = [name for name in vars(parsed) if not re.search(rf"\b(opt|known)\.{name}\b", code)]
    assert set(unread) - {"recipe"} == set()  # the parser itself applies the recipe


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_scripts_tools_and_report_print(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    runnable = "__main__" in path.read_text()
    assert not prints or runnable or path.name in ("report.py", "run.py"), prints


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def readme_commands():
    """Every command in the shell blocks of the README and of docs/, continuation lines joined."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


SUBCOMMANDS = (
    *("npr", "curves", "training", "maps", "cam", "restoration", "lnp", "spectra"),
    *("masks", "toys"),
)


@functools.cache
def program_help(module, subcommand):
    """What `python -m module subcommand --help` prints; flags are checked against it."""
    out, argv = io.TextIOWrapper(io.BytesIO()), [module, *filter(None, [subcommand]), "--help"]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the module may be imported already
            runpy.run_module(module, run_name="__main__")
    assert not end.value.code
    out.seek(0)
    return out.read()


@pytest.fixture
def readme_yaml(tmp_path, monkeypatch):
    """The README's protocol file as my.yaml in the working folder."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "my.yaml").write_text("".join(blocks))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("readme_yaml")
@pytest.mark.parametrize("command", readme_commands())
def test_every_readme_command_parses(command):
    words = shlex.split(command)
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "python" and words[1].removesuffix(".py") in SCRIPTS:
        SCRIPTS[words[1].removesuffix(".py")]().parse(words[2:])
    elif words[:2] == ["python", "-m"]:
        module = ROOT / (words[2].replace(".", "/") + ".py")
        assert module.is_file()
        subcommand = words[3] if words[3:] and words[3] in SUBCOMMANDS else ""
        help_text = program_help(words[2], subcommand)
        assert all(word in help_text for word in words[3:] if word.startswith("--"))
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


def test_no_line_of_the_readme_is_a_placeholder():
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if re.fullmatch(r"\(?(?:[A-Z]{3,}|TODO.*|.*\bfollow\))\)?", line)] == []
