#!/usr/bin/env bash
# Resolve tested.in, docs.in and openmmlab-tested.in to .txt files anew, for Python 3.10 to 3.12. Run it in the set-up
# environment: mmcv's source package needs torch to tell its version.
set -eu
cd "$(dirname "$0")"
{
    echo "# Made by requirements/compile.sh from tested.in; installed without resolving."
    # Both spellings of OpenCV are asked for and would overwrite each other; the headless one needs no libGL.
    uv pip compile --quiet --universal --python-version 3.10 --no-build-isolation --no-annotate --no-header tested.in |
        grep -v '^opencv-python=='
} >tested.new
mv tested.new tested.txt
{
    echo "# Made by requirements/compile.sh from docs.in."
    uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header docs.in
} >docs.new
mv docs.new docs.txt
{
    echo "# Made by requirements/compile.sh from openmmlab-tested.in, for Python 3.10 on Linux."
    # mmpose's body models alone need chumpy, which does not build without pip.
    uv pip compile --quiet --python-version 3.10 --no-annotate --no-header openmmlab-tested.in | grep -v '^chumpy=='
} >openmmlab-tested.new
mv openmmlab-tested.new openmmlab-tested.txt
