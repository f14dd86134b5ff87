#!/usr/bin/env bash
# Tests the detector of train_val.sh on the eight generators of GenImage and prints SSP's published row (SDv1.4) next to it.
# Run it from any directory; paths are relative to the project's folder.  You may add flags of test.py; they win.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" test.py --model_path checkpoints/ssp-sdv4/model_epoch_best.pth --dataroot ./datasets \
    --protocols GenImage-SSP --published SSP "$@"
