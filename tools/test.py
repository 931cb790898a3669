"""Test a checkpoint.

The command line is that of mmpretrain's or mmdet's own ``tools/test.py``, whichever the config belongs to.
"""

from halvit_mm.launch import run_upstream_tool

if __name__ == '__main__':
    run_upstream_tool('test')
