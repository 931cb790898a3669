import pytest
from deploy_table import KINDS, describe

from tests.deploy.conftest import HALVIT, read_small
from tests.utils import run_tool


@pytest.mark.long
def test_table(tmp_path):
    """With a row for each way that a file is opened."""
    (tmp_path / 'formats.md').write_text('before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n')
    read_small(HALVIT).dump(tmp_path / 'small.py')
    kinds = 'ONNX, int8, weights beside it, for memory', 'TorchScript'
    assert len({describe(*kind) for kind in KINDS}) == len(KINDS)
    short = ('--configs', tmp_path / 'small.py', '--rounds', '2', '--processes', '1', '--kinds', *kinds)
    run_tool('research/make_deploy_table.py', *short, '--out', tmp_path / 'formats.md')
    lines = (tmp_path / 'formats.md').read_text().splitlines()
    assert (lines[0], lines[-1]) == ('before', 'after')
    rows = [line.split(' | ') for line in lines if ' | small | ' in line]
    assert [row[0].removeprefix('| ') for row in rows] == [kinds[0], 'TorchScript, fp32']
    for kind, _, size, resident, ms, *_ in rows:
        assert (0.1 if 'int8' in kind else 0.4) < float(size) < 2, kind
        assert float(resident) > 0
        assert float(ms) > 0
    failed = run_tool('research/make_deploy_table.py', '--kinds', 'TFLite', check=False)
    assert failed.stdout.splitlines()[-1].startswith('error: --kinds TFLite is in no row; expected words such as')
