#!/usr/bin/env bash
# Train on several GPUs, or on several CPU ranks where there is no GPU.
#   tools/dist_train.sh CONFIG GPUS [--max-restarts N] [arguments of train.py]
# --max-restarts N starts all ranks again from the last checkpoint when one ends, up to N times.
# The arguments of train.py: python tools/train.py --help
# Several machines: the same on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
# example:
#   tools/dist_train.sh configs/digits/halvit_2xb64_digits.py 2 --work-dir work_dirs/demo
set -eu
if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit
elif [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(dirname "$0")
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m halvit_mm.launch "$here/train.py" "$2" "$1" "${@:3}"
