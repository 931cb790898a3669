from check_exports import KINDS, check, name_of, read_config

from halvit_mm.data import write_digits
from tests.deploy.conftest import HALVIT, SMALL


def test_cells(tmp_path):
    write_digits(tmp_path / 'digits')
    cells = {}
    for kind in KINDS:
        if kind[0] == '.pt':
            cells[name_of(kind)] = check(read_config(HALVIT, SMALL[HALVIT], tmp_path), kind, 2)
    assert cells['.pt fp32 one size'].startswith('1 size: error at most 0.000 %, same top-1 100.0 %')
    assert cells['.pt fp32 any size'].startswith('refused: --dynamic-size: a TorchScript trace keeps the size')
    assert check(read_config(HALVIT, {}, tmp_path), ('.onnx', 'fp32', False, True), 2) == 'no detector'
