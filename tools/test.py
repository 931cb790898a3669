"""Test a checkpoint.

The command line is that of the ``tools/test.py`` of mmpretrain, mmdet or mmseg, whichever the config belongs to.
"""

from halvit_mm.launch import run_upstream_tool

if __name__ == '__main__':
    run_upstream_tool('test')
