import re

import numpy as np
import onnxruntime
import pytest

from halvit_mm.deploy import create_session
from halvit_mm.errors import UserError
from tests.utils import ROOT


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


def test_the_options_of_the_page_are_ours(exported, monkeypatch):
    """The page's program of onnxruntime runs as it stands, and its session is that of ``create_session``."""
    monkeypatch.chdir(exported[0].parent)
    images = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    [program] = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/onnx_runtime.md').read_text(), re.DOTALL)
    names = dict(images=images)
    exec(program, names)
    ours = create_session('model.onnx')
    assert isinstance(names['session'], onnxruntime.InferenceSession)
    assert np.array_equal(names['outputs'][0], ours.run(None, dict(images=images))[0])
    assert not names['options'].enable_mem_pattern
    assert not ours.get_session_options().enable_mem_pattern
    for key in ('session.disable_prepacking', 'optimization.disable_specified_optimizers'):
        values = [options.get_session_config_entry(key) for options in (names['options'], ours.get_session_options())]
        assert values[0] == values[1] != ''
