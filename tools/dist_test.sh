#!/usr/bin/env bash
# Test a checkpoint on several GPUs, or on several CPU ranks where there is no GPU.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# The arguments of test.py: python tools/test.py --help
# Several machines: the same on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
# example:
#   tools/dist_test.sh configs/digits/halvit_2xb64_digits.py work_dirs/demo/epoch_100.pth 2
set -eu
if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit
elif [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(dirname "$0")
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m halvit_mm.launch "$here/test.py" "$3" "$1" "$2" "${@:4}"
