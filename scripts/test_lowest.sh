#!/usr/bin/env bash
# Runs the tests with the oldest packages that the requirements allow, in .venv-lowest.  Run it once per release: it
# downloads another PyTorch (about 3 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
PYTHON=${PYTHON:-python3.11}  # the oldest packages have no wheels for newer ones
find_python
check_disk
"$PY" -m venv .venv-lowest
grep -h '^[^#].*>=' requirements*.txt | sed 's/>=/==/' > .venv-lowest/pins.txt
.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-lowest/pins.txt
exec .venv-lowest/bin/python -m pytest "$@"
