import pytest

from halvit_mm.deploy import create_session
from halvit_mm.errors import UserError


def test_session(tmp_path):
    with pytest.raises(UserError, match=r'no\.onnx does not exist'):
        create_session(tmp_path / 'no.onnx')
    (tmp_path / 'bad.onnx').write_text('no graph')
    with pytest.raises(UserError, match=r'ONNX Runtime cannot open .*bad\.onnx'):
        create_session(tmp_path / 'bad.onnx')
    with pytest.raises(UserError, match="prefer='speed' is not a preference; expected 'memory' or 'time'"):
        create_session(tmp_path / 'bad.onnx', prefer='speed')
    with pytest.raises(UserError, match='provider TPU is not in this build of ONNX Runtime; it has '):
        create_session(tmp_path / 'bad.onnx', provider='TPU')
