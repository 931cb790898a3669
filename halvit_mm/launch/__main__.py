"""``python -m halvit_mm.launch TOOL RANKS CONFIG ...``, which the ``dist_*.sh`` scripts call."""

import sys

from halvit_mm.errors import errors_in_one_line

from .ranks import main

if __name__ == '__main__':
    with errors_in_one_line():
        main(sys.argv[1:])
