"""Python finds this file in place of the root's common.py where a tool is started by its path.

`python tools/verify.py` looks for imports in tools/.  This makes it look in the root, and there is common.py.
So a tool imports `common` before anything else of the project; the tools that are folders link to this file.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
del sys.modules["common"]

import common  # noqa: E402, F401
