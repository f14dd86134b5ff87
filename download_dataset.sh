#!/usr/bin/env bash
# Downloads the public test sets: bash download_dataset.sh [PROTOCOL ...] [--output DIR] [--dry_run] [--list]
cd "$(dirname "$0")" || exit 1
if [ -x .venv/bin/python ]; then PY=.venv/bin/python; else PY=${PYTHON:-python3}; fi
exec "$PY" -m data.download "$@"
