import pytest
from deploy_table import KINDS, describe

from tests.utils import run_tool

HALVIT = 'configs/digits/halvit_2xb64_digits.py'


@pytest.mark.long
def test_table(tmp_path):
    (tmp_path / 'formats.md').write_text('before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n')
    short = ('--configs', HALVIT, '--rounds', '2', '--processes', '1')
    run_tool('research/make_deploy_table.py', *short, '--out', tmp_path / 'formats.md')
    lines = (tmp_path / 'formats.md').read_text().splitlines()
    assert (lines[0], lines[-1]) == ('before', 'after')
    rows = [line.split(' | ') for line in lines if ' | halvit_2xb64_digits | ' in line]
    assert {row[0].removeprefix('| ') for row in rows} == {describe(*kind) for kind in KINDS}
    for kind, _, size, resident, ms, *_ in rows:
        assert (0.3 if 'int8' in kind else 0.7 if 'fp16' in kind else 1.4) < float(size) < 6, kind
        assert float(resident) > 0
        assert float(ms) > 0
