#!/usr/bin/env bash
# Downloads the public test sets: bash download_dataset.sh [PROTOCOL ...] [--output DIR] [--dry_run] [--list]
cd "$(dirname "$0")" || exit 1
if [ -x .venv/bin/python ]; then PY=.venv/bin/python; else PY=${PYTHON:-python3}; fi
"$PY" -c 'import importlib.util as i, sys; sys.exit(any(i.find_spec(n) is None for n in ("torch", "gdown")))' || {
    echo "download_dataset.sh: $PY lacks the packages of requirements.txt; run quickstart.sh once, or set PYTHON" >&2
    exit 1
}
exec "$PY" -m data.download "$@"
