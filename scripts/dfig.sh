#!/usr/bin/env bash
# DFIG's whole chain on a folder of faces: masks, noise patterns, training, test, prediction, pictures.
#   bash scripts/dfig.sh FACES OUT                                  random weights, 2 epochs: shows that everything runs
#   SAM=sam_vit_h_4b8939.pth CYCLEISP=sidd_rgb.pth bash scripts/dfig.sh FACES OUT [flags of train.py]     the real thing
# FACES holds {train,val,test}/{0_real,1_fake} (or real/fake), aligned faces of 256x256.  The same command resumes.
set -euo pipefail
case ${1:-} in -h | --help | "") sed -n '2,5s/^# \{0,1\}//p' "$0"; [ -n "${1:-}" ]; exit ;; esac
FACES=$(realpath "$1")
OUT=$(realpath -m "${2:?name a folder for the results as well: bash scripts/dfig.sh FACES OUT}")
shift 2
for split in train val test; do
    [ -d "$FACES/$split" ] || { [ "$split" = val ] && [ -d "$FACES/valid" ]; } ||
        { echo "error: $FACES has no folder $split (expected train, val and test)" >&2; exit 1; }
done
cd "$(dirname "$0")/.."
export NPR_LAB_PARENT=$$  # the commands below save and stop when this script ends
PY=${PYTHON:-python}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || PY=.venv/bin/python
MODEL=${MODEL_TYPE:-vit_h} TRAIN=()
if [ -z "${SAM:-}${CYCLEISP:-}" ]; then
    [ -f "$OUT/toys/cycleisp_toy.pth" ] || "$PY" -m tools.extract toys --output "$OUT/toys"
    SAM=$OUT/toys/sam_toy.pth CYCLEISP=$OUT/toys/cycleisp_toy.pth MODEL=toy
    TRAIN=(--no_pretrained --niter 2 --batch_size 4)
    echo "no SAM= and CYCLEISP= given: random weights, so this only checks that everything runs"
fi
: "${SAM:?give both SAM= and CYCLEISP=}" "${CYCLEISP:?give both SAM= and CYCLEISP=}"
RUN=$OUT/checkpoints/mob_mode0_cha
if [ -f "$RUN/model_epoch_last.pth" ]; then TRAIN+=(--continue_train); fi

echo; echo "1/6 masks"
"$PY" -m tools.extract masks --input "$FACES" --output "$OUT/masked" --sam "$SAM" --model_type "$MODEL"
echo; echo "2/6 noise patterns"
"$PY" -m tools.extract lnp --input "$OUT/masked" --output "$OUT/LNP" --weights "$CYCLEISP" --encoding wrapped
echo; echo "3/6 training: MobileNetV2, fusion mode 0"
"$PY" train.py --name mob_mode0_cha --checkpoints_dir "$OUT/checkpoints" --dataroot "$OUT/LNP" --classes face \
    --arch mobilev2 --train_mode 0 ${TRAIN[@]+"${TRAIN[@]}"} "$@"
echo; echo "4/6 test, next to the published number"
"$PY" test.py --model_path "$RUN/model_epoch_best.pth" --dataroot "$OUT/LNP" --protocols DFIG \
    --published DFIG-mobilev2-mode0 --results_dir "$OUT/results" --resume
echo; echo "5/6 scores of single files"
"$PY" predict.py --model_path "$RUN/model_epoch_best.pth" --input "$OUT/LNP/test" --labels folder \
    --output "$OUT/scores.csv" --overwrite
echo; echo "6/6 pictures"
"$PY" -m tools.visualize lnp --original "$FACES" --masked "$OUT/masked" --lnp "$OUT/LNP" --output "$OUT/faces.png"
"$PY" -m tools.visualize spectra --input "$OUT/LNP" --output "$OUT/spectra.png"
"$PY" -m tools.visualize training --run "$RUN" --output "$OUT/training.png"
echo "-> $OUT"
