"""What all programs in folders share: they start as modules and by their paths."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

ROOMS = {"common", "networks", "data", "options", "util", "experiments", "tools"}
PROGRAMS = [
    path
    for room in ("tools", "data")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "__name__ ==" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", ["tools/compare.py", "tools/visualize"])
def test_a_program_started_by_its_path_finds_the_project(tmp_path, path):
    command = [sys.executable, str(ROOT / path), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "usage" in done.stdout


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_program_leads_imports_to_the_root_before_anything_else_of_the_project(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    first_if = next(index for index, node in enumerate(body) if isinstance(node, ast.If))
    lines = [ast.unparse(node) for node in body[first_if].body]
    parents = len(path.relative_to(ROOT).parts) - 1
    assert lines == [f"sys.path[0] = str(Path(__file__).resolve().parents[{parents}])", "import util.quiet"]
    imports = [node for node in body[:first_if] if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    assert not {name.partition(".")[0] for name in names} & ROOMS
