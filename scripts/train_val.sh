#!/usr/bin/env bash
# Trains SSP on GenImage's Stable Diffusion 1.4 (docs/ssp.md) and validates after each epoch.
# Run it from any directory; paths are relative to the project's folder.  You may add flags of train.py; they win.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" train.py --arch ssp --protocol GenImage-SSP --dataroot ./datasets \
    --classes imagenet_ai_0419_sdv4 --name ssp-sdv4 "$@"
