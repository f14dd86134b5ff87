"""What all tools share: they start as modules and by their paths."""

import ast
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

TOOLS = ROOT / "tools"
PROGRAMS = [path for path in sorted(TOOLS.rglob("*.py")) if "__name__ ==" in path.read_text(encoding="utf-8")]
PACKAGES = sorted(path.parent for path in TOOLS.glob("*/__main__.py"))


@pytest.mark.parametrize("path", ["tools/module.py", "tools/package", "tools/package/__main__.py"])
def test_a_tool_started_by_its_path_finds_the_project(tmp_path, path):
    package = tmp_path / "tools" / "package"
    package.mkdir(parents=True)
    shutil.copy(TOOLS / "common.py", tmp_path / "tools")
    (package / "common.py").symlink_to("../common.py")
    (tmp_path / "common.py").write_text("WHERE = 'the root'")
    (tmp_path / "room.py").write_text("from common import WHERE")
    program = "from common import WHERE\nimport room\nprint(WHERE, room.WHERE)"
    (tmp_path / "tools" / "module.py").write_text(program)
    (package / "__main__.py").write_text(program)
    command = [sys.executable, str(tmp_path / path)]
    done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=True)
    assert done.stdout == "the root the root\n"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(TOOLS)))
def test_a_tool_imports_common_before_anything_else_of_the_project(path):
    rooms = {"common", "networks", "data", "options", "util", "experiments", "tools"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    assert next(name for name in names if name.partition(".")[0] in rooms) == "common"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_tool_that_is_a_folder_links_to_the_common_file(package):
    assert (package / "common.py").resolve() == TOOLS / "common.py"
