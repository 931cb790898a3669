#!/usr/bin/env bash
# Train under Slurm.
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
# On a partition without GPUs: GRES= GPUS=<ranks> GPUS_PER_NODE=<ranks on each machine>.
set -eu
if [ $# -lt 4 ]; then
    sed -n '2,5s/^# *//p' "$0" >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
GRES=${GRES-gpu:$GPUS_PER_NODE}
here=$(dirname "$0")
# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec srun -p "$1" --job-name="$2" ${GRES:+--gres="$GRES"} --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$here/train.py" "$3" --work-dir="$4" --launcher=slurm "${@:5}"
