#!/usr/bin/env bash
# Make build/stacks/NAME, an environment of another stack with this package in it, and print its path. A second call
# finds it done.
#   requirements/stack.sh openmmlab-lite    OpenMMLab's own packages, Python 3.10, mmcv without operators
#   requirements/stack.sh openmmlab         the same with operators, which are compiled once
#   requirements/stack.sh onedl-3.12        the set of tested.txt with another Python
set -eu
cd "$(dirname "$0")/.."
name=$1 venv=$PWD/build/stacks/$1 log=$PWD/build/stacks/$1.log
mkdir -p build/stacks

stamp=$venv/.installed
wanted=$(cat requirements/*.txt requirements/*.sh setup.py | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "$venv"
    exit
fi

# Of this version, on the path or installed by pyenv
find_python() {
    local python
    for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$python" -c '' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    echo "there is no Python $1"
    return 1
}

trap 'echo "error: $name could not be installed (details: $log)" >&4' ERR
exec 3>&1 4>&2 >"$log" 2>&1
case $name in
onedl-*)
    python=$(find_python "${name#onedl-}")
    HALVIT_VENV=$venv PYTHON=$python requirements/install.sh
    ;;
openmmlab | openmmlab-lite)
    python=$(find_python 3.10)
    uv venv --clear --seed --python "$python" "$venv"
    export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH CUDA_VISIBLE_DEVICES=
    uv pip install --no-deps -r requirements/openmmlab-tested.txt
    if [ "$name" = openmmlab ]; then
        # The package installers keep wheels as well, but some indexes make them forget.
        wheels=${HALVIT_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/halvit_mm}/mmcv==2.1.0-py3.10-torch==2.1.2-cpu
        if ! ls "$wheels"/*.whl; then
            export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}
            python -m pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" mmcv==2.1.0
        fi
        uv pip install --no-deps "$wheels"/*.whl
    else
        uv pip install --no-deps mmcv-lite==2.1.0
    fi
    uv pip install --no-deps --no-build-isolation --editable .
    ;;
*) false ;;
esac
echo "$wanted" >"$stamp"
echo "$venv" >&3
