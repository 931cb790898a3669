#!/usr/bin/env bash
# UPerNet on handwritten digits, from the backbone on: learn to classify, learn to segment, test, draw.
#   [RANKS=2] tools/digits_seg.sh WORK_DIR [OPTION=VALUE ...]
# RANKS is the number of processes. The options of the config go to both trainings.
# example, the untied counterpart:
#   tools/digits_seg.sh work_dirs/untied model.backbone.tie=none
set -euo pipefail

if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit
elif [ $# -lt 1 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
tools=$(dirname "$0")
configs=$tools/../configs/digits
work_dir=$1 ranks=${RANKS:-2}
shift 1

if [ ! -d data/digits_coco/single ]; then
    python "$tools/prepare_digits_coco.py"
fi
if [ ! -d data/digits_seg ]; then
    python "$tools/prepare_digits_seg.py"
fi
"$tools/dist_train.sh" "$configs/halvit_2xb16_digits-single.py" "$ranks" --work-dir "$work_dir/backbone" \
    ${1:+--cfg-options "$@"}
"$tools/dist_train.sh" "$configs/upernet_halvit_digits-seg.py" "$ranks" --work-dir "$work_dir/segmentor" \
    --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.prefix=backbone. \
    model.backbone.init_cfg.checkpoint="$(cat "$work_dir/backbone/last_checkpoint")" "$@"
"$tools/dist_test.sh" "$configs/upernet_halvit_digits-seg.py" "$(cat "$work_dir/segmentor/last_checkpoint")" \
    "$ranks" --work-dir "$work_dir" ${1:+--cfg-options "$@"}
python "$tools/infer.py" "$configs/upernet_halvit_digits-seg.py" "$(cat "$work_dir/segmentor/last_checkpoint")" \
    data/digits_seg/images/val --out "$work_dir/pictures" ${1:+--cfg-options "$@"} | tail -n 3
echo "Classes of the pixels: $work_dir/pictures"
