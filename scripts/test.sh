#!/usr/bin/env bash
# Tests what train_val.sh left on the eight generators of GenImage, beside SSP's published row (SDv1.4).
# From any directory; paths are meant from the project's folder.  Flags of test.py may follow; they win.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" test.py --model_path checkpoints/ssp-sdv4/model_epoch_best.pth --dataroot ./datasets \
    --protocols GenImage-SSP --published SSP "$@"
