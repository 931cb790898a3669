"""The scripts of this folder, in short."""

import os
import re

import pytest

from tests.reliability.hostile_files import try_all
from tests.utils import run_tool


def test_hostile_files(tmp_path):
    here = os.getcwd()
    try:
        rows, faults = try_all(tmp_path, large=False)
    finally:
        os.chdir(here)
    assert not faults, '\n'.join(faults)
    assert sum(row[0] == 'checkpoint' for row in rows) >= 30
    assert sum(row[0] == 'image' for row in rows) >= 40


@pytest.mark.long
def test_kills():
    told = run_tool('tests/reliability/kills.py', '--kills', '4').stdout.splitlines()[-1]
    match = re.fullmatch(r'4 kills, (\d) of them while .* written; 4 resumed\. At most (\d) iterations .*', told)
    assert int(match[1]) >= 1
    assert int(match[2]) <= 3
    assert 'averages are those of the training that was not killed, bit for bit.' in told


@pytest.mark.long
def test_memory():
    """Too short to tell of growth: that the ranks are watched and checkpoints written."""
    table = run_tool('tests/reliability/memory.py', '--minutes', '0.5', '--seconds', '3', check=False).stdout
    rows = [line for line in table.splitlines() if line.startswith('| rank')]
    assert len(rows) == 2, table
    for row in rows:
        assert all(50 < float(value) < 5000 for value in row.split('|')[3:-2]), table
