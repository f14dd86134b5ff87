#!/usr/bin/env bash
# Runs the tests in .venv, which it makes from requirements-dev.txt the first time.  Arguments are passed to pytest.
#   bash run_tests.sh                           without the tests marked slow
#   bash run_tests.sh -k checkpoint -x
#   bash run_tests.sh -m "slow or not slow"     all tests, as .ci/run does
#   bash run_tests.sh -n 0                      in one process, e.g. for a debugger
#   NO_VENV=1 bash run_tests.sh                 with the active Python and its packages
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh
prepare_environment requirements-dev.txt $CORE skimage pandas pytest xdist
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # two processes of one thread each
exec "$PY" -m pytest -n 2 --dist loadfile "$@"
