#!/usr/bin/env bash
# Make .venv with the tested set and this package in it. A second call finds it done.
#   [PYTHON=python3.12] [HALVIT_VENV=FOLDER] requirements/install.sh
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${HALVIT_VENV:-$PWD/.venv}
LOG=$VENV/install.log
STAMP=$VENV/.installed

fail() {
    echo "error: $*" >&2
    exit 1
}

wanted=$(cat requirements/*.txt requirements/install.sh setup.py | cksum)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    exit 0
fi

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON; install Python 3.10, 3.11 or 3.12, or name one: PYTHON=..."
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$PYTHON does not run"
case $version in
3.10 | 3.11 | 3.12) ;;
*) fail "$PYTHON is Python $version; 3.10, 3.11 or 3.12 is needed: name one with PYTHON=..." ;;
esac
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON has no venv; install it (on Debian and Ubuntu: apt-get install python$version-venv)"
cxx=${CXX:-c++}
command -v "$cxx" >/dev/null ||
    fail "there is no C++ compiler ($cxx), and mmcv's operators are compiled; install one (apt-get install g++)"
header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -f "$header" ] ||
    fail "Python's headers are missing ($header); install them (apt-get install python$version-dev)"

# An environment of another Python cannot be mended.
if [ -x "$VENV/bin/python" ] && [ "$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "$version" ]; then
    rm -rf "$VENV"
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
echo "Setting up $VENV with Python $version; details in $LOG"
: >"$LOG"

# Run one step with its output in the log; where it fails, tell the likely reason in one line.
step() {
    echo "  $1"
    shift
    if ! "$@" >>"$LOG" 2>&1; then
        if grep -qiE 'No space left' "$LOG"; then
            fail "the disk is full; about 8 GB are needed for $VENV and the package cache"
        elif grep -qiE 'name resolution|dns error|connection (refused|reset|timed out)|error sending request|network is unreachable|Failed to establish a new connection|No matching distribution found for uv|tunnel error' "$LOG"; then
            fail "the package index cannot be reached; check the network or your pip and uv settings (details: $LOG)"
        fi
        fail "this step failed: $* (details: $LOG)"
    fi
}

export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
# Another set-up may be compiling mmcv at this moment.
export UV_LOCK_TIMEOUT=3600
# Without a CUDA compiler the operators are built for the CPU, whatever cards there are.
if ! command -v nvcc >/dev/null; then
    if nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU'; then
        echo "note: there is a GPU and no nvcc: mmcv's operators are built for the CPU only. Classification trains on the"
        echo '  GPU; detection does not. For detection install the CUDA toolkit that torch names, remove .venv and run this'
        echo '  again; or take a ready wheel, whose address is on the installation page of onedl-mmcv (docs/get_started.md).'
    fi
    export CUDA_VISIBLE_DEVICES=
fi
export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}

# Where mmpretrain finds transformers, its import takes a fifth longer; one baseline in configs/baselines needs them.
BESIDE='transformers|tokenizers'

has_operators() { python -c 'import torch, mmcv._ext'; }

build_mmcv() {
    mkdir -p "$WHEELS"
    local building
    building=$(mktemp -d "$WHEELS/building.XXXXXX")
    python -m pip wheel --verbose --no-deps --no-build-isolation --no-cache-dir \
        --wheel-dir "$building" "$mmcv" && mv "$building"/*.whl "$WHEELS"
    local status=$?
    rm -rf "$building"
    return $status
}

install_mmcv() { uv pip install --no-deps --reinstall-package onedl-mmcv "$WHEELS"/*.whl; }

# mmcv's operators take long: show how far the compiler is.
step_with_progress() {
    local name=$1 started=$SECONDS
    shift
    step "$name" "$@" &
    local pid=$!
    while kill -0 $pid 2>/dev/null; do
        sleep 5
        if [ $(((SECONDS - started) / 5 % 6)) -eq 5 ]; then
            done_files=$(grep -oE '\[[0-9]+/[0-9]+\]' "$LOG" | tail -n 1) || true
            echo "    $(((SECONDS - started) / 60)) min ${done_files:+$done_files files}"
        fi
    done
    wait $pid
}

step 'package installer' python -m pip install --quiet uv
step 'build tools' uv pip install --no-deps $(grep -E '^(setuptools|wheel|ninja|psutil|packaging)==' requirements/tested.txt)
step 'torch, torchvision and the other packages (2 to 3 GB)' \
    sh -c "grep -vE '^(onedl-mmcv|$BESIDE)==' requirements/tested.txt | uv pip install --no-deps --no-build-isolation -r -"
step 'transformers, for CvT, which is found only where it is asked for' \
    sh -c "grep -E '^($BESIDE)==' requirements/tested.txt | uv pip install --no-deps --target $VENV/transformers -r -"
if ! has_operators 2>>"$LOG"; then
    mmcv=$(grep '^onedl-mmcv==' requirements/tested.txt)
    kind=$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    # The package installers keep wheels as well, but some indexes make them forget.
    WHEELS=${HALVIT_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/halvit_mm}/$mmcv-py$version-$(grep '^torch==' requirements/tested.txt)-$kind
    if ls "$WHEELS"/*.whl >/dev/null 2>&1; then
        step 'mmcv, compiled before' install_mmcv
        has_operators 2>>"$LOG" || rm "$WHEELS"/*.whl
    fi
    if ! ls "$WHEELS"/*.whl >/dev/null 2>&1; then
        step_with_progress 'mmcv, whose operators are compiled once: 10 to 20 minutes on 2 cores' build_mmcv
        step 'mmcv' install_mmcv
    fi
    has_operators 2>>"$LOG" || fail "mmcv's operators were compiled but cannot be loaded (details: $LOG)"
fi
step 'this package' uv pip install --no-deps --no-build-isolation --editable .
python -m halvit_mm.check_env --quiet || fail 'the environment is not sound; what to do stands above'
echo "$wanted" >"$STAMP"
echo "Done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
