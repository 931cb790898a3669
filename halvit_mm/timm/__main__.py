"""Run a script of timm's with HaLViT among timm's models: ``python -m halvit_mm.timm SCRIPT ARGUMENTS``."""

import runpy
import sys
from pathlib import Path

import halvit_mm.timm  # noqa: F401
from halvit_mm.errors import UserError, errors_in_one_line


def main() -> None:
    with errors_in_one_line():
        if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
            given = sys.argv[1] if len(sys.argv) > 1 else ''
            raise UserError(f'{given!r} is not a script; expected python -m halvit_mm.timm train.py ARGUMENTS')
        del sys.argv[0]
        # As python itself does for a script
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
