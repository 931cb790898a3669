#!/usr/bin/env bash
# Train under Slurm.
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 GRES=... SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of train.py]
# GPUS is the number of all GPUs, GRES what is asked for on each machine (default: gpu:GPUS_PER_NODE), SRUN_ARGS more
# arguments of srun. On a partition without GPUs: GRES= GPUS=<ranks> GPUS_PER_NODE=<ranks on each machine>.
# The arguments of train.py: python tools/train.py --help
# example:
#   GPUS=16 tools/slurm_train.sh gpu halvit configs/halvit/halvit-tiny_8xb128_in1k.py work_dirs/halvit-tiny
set -eu
if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit
elif [ $# -lt 4 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
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
