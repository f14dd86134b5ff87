#!/usr/bin/env bash
# From nothing to a table: environment, sample dataset, training, test on unseen generators, pictures.
#   bash quickstart.sh              a few minutes on a CPU; uses CUDA if there is a GPU
#   bash quickstart.sh --fast       a small setting that only shows that everything runs
#   bash quickstart.sh --no_venv    with the active Python and its packages
#   bash quickstart.sh --overwrite  repeat training and test
# A second run reuses the environment, the dataset, the training and the scores.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/environment.sh

FAST=0 OVERWRITE=0
for argument in "$@"; do
    case $argument in
        --fast) FAST=1 ;;
        --no_venv) NO_VENV=1 ;;
        --overwrite) OVERWRITE=1 ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' quickstart.sh; exit 0 ;;
        *) stop "unknown argument $argument; known: --fast, --no_venv, --overwrite, --help" ;;
    esac
done

prepare_environment requirements-sample.txt $CORE skimage
started=$(date +%s)

NAME=sample
SAMPLE=() TRAIN=(--niter 16 --cropSize 64 --batch_size 16 --lr 0.001 --delr_freq 1)
if [ "$FAST" = 1 ]; then
    NAME=sample-fast
    SAMPLE=(--fast) TRAIN=(--niter 2 --cropSize 48 --batch_size 16 --lr 0.001)
fi
DATA=datasets/$NAME RUN=checkpoints/$NAME RESULTS=results/$NAME/Sample
TEST=(--resume)
if [ "$OVERWRITE" = 1 ]; then
    TRAIN+=(--overwrite) TEST=(--overwrite)
elif [ -f "$RUN/model_epoch_last.pth" ]; then
    TRAIN+=(--continue_train)
    again="If $RUN or $RESULTS were made with other settings, start over: bash quickstart.sh --overwrite"
fi

echo; echo "1/4 sample dataset"
"$PY" -m data.sample --output "$DATA" ${SAMPLE[@]+"${SAMPLE[@]}"}
echo; echo "2/4 training on fakes of the up-sampler 'nearest' only"
"$PY" train.py --name "$NAME" --dataroot "$DATA" --no_resize "${TRAIN[@]}" || stop "training stopped. ${again:-}"
echo; echo "3/4 test on unseen photographs and unseen up-samplers"
"$PY" test.py --model_path "$RUN/model_epoch_best.pth" --dataroot "$DATA" --protocols Sample "${TEST[@]}" ||
    stop "the test stopped. ${again:-If $RESULTS belongs to another training: bash quickstart.sh --overwrite}"
echo; echo "4/4 pictures"
"$PY" -m tools.visualize npr --dataroot "$DATA/test" --index 1 --output "$RESULTS/npr_maps.png"
"$PY" -m tools.visualize curves --results "$RESULTS"
"$PY" -m tools.visualize training --run "$RUN" --output "$RESULTS/training.png"

echo
if [ "$FAST" = 1 ]; then echo "(--fast shows that everything runs; its numbers mean nothing)"; fi
cat "$RESULTS/table.md"
echo "dataset    $DATA"
echo "training   $RUN (opt.json, train.csv, model_epoch_best.pth, model_epoch_last.pth)"
echo "results    $RESULTS (scores.csv, meta.json, table.csv, table.md)"
echo "pictures   $RESULTS (npr_maps.png, curves.png, training.png)"
echo "time       $(($(date +%s) - started)) s after the installation"
