#!/usr/bin/env bash
# The tests: makes .venv with requirements-dev.txt (once) and runs pytest.  Arguments go to pytest.
#   bash run_tests.sh                    bash run_tests.sh -k checkpoint -x
#   NO_VENV=1 bash run_tests.sh          with the Python and the packages that are active
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
prepare_environment requirements-dev.txt
exec "$PY" -m pytest "$@"
