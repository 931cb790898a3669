#!/usr/bin/env bash
# Train on several GPUs, or on several CPU ranks where there is no GPU.
#   tools/dist_train.sh CONFIG GPUS [--max-restarts N] [arguments of train.py]
# On several machines, the same on each with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
here=$(dirname "$0")
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m halvit_mm.launch "$here/train.py" "$2" "$1" "${@:3}"
