"""The former name of export.py, kept for one release."""

import runpy
import sys
from pathlib import Path

if __name__ == '__main__':
    print('export_onnx.py is now called export.py; this name goes with the next release', file=sys.stderr)
    runpy.run_path(str(Path(__file__).with_name('export.py')), run_name='__main__')
