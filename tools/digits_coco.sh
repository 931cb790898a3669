#!/usr/bin/env bash
# Mask R-CNN on handwritten digits, from the backbone on: learn to classify, learn to detect, test, draw.
#   [RANKS=2] tools/digits_coco.sh halvit|resnet50-pe|pvt WORK_DIR [OPTION=VALUE ...]
# RANKS is the number of processes. The options of the config go to both trainings.
# example, the untied counterpart:
#   tools/digits_coco.sh halvit work_dirs/untied model.backbone.tie=none
set -euo pipefail

if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit
elif [ $# -lt 2 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
tools=$(dirname "$0")
configs=$tools/../configs/digits
name=$1 work_dir=$2 ranks=${RANKS:-2}
shift 2

if [ ! -d data/digits_coco ]; then
    python "$tools/prepare_digits_coco.py"
fi
"$tools/dist_train.sh" "$configs/${name}_2xb16_digits-single.py" "$ranks" --work-dir "$work_dir/backbone" \
    ${1:+--cfg-options "$@"}
"$tools/dist_train.sh" "$configs/mask-rcnn_${name}_digits-coco.py" "$ranks" --work-dir "$work_dir/detector" \
    --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.prefix=backbone. \
    model.backbone.init_cfg.checkpoint="$(cat "$work_dir/backbone/last_checkpoint")" "$@"
"$tools/dist_test.sh" "$configs/mask-rcnn_${name}_digits-coco.py" "$(cat "$work_dir/detector/last_checkpoint")" \
    "$ranks" --work-dir "$work_dir" --show-dir pictures ${1:+--cfg-options "$@"}
echo "Detections beside the truth: $(ls -d "$work_dir"/*/pictures | tail -n 1)"
