"""What `import common` finds first in `python tools/verify.py`: leads this and later imports to the root.

So a tool imports `common` before anything else of the project; the tools that are folders link to this file.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
del sys.modules["common"]

import common  # noqa: E402, F401
