"""The scripts of this folder, in short."""

import os

from tests.reliability.hostile_files import try_all


def test_hostile_files(tmp_path):
    here = os.getcwd()
    try:
        rows, faults = try_all(tmp_path, large=False)
    finally:
        os.chdir(here)
    assert not faults, '\n'.join(faults)
    assert sum(row[0] == 'checkpoint' for row in rows) >= 30
    assert sum(row[0] == 'image' for row in rows) >= 40
