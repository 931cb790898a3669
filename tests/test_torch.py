import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from halvit_mm import _torch
from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import allowed_types


class TestListedTypesUnpickler:
    """The reader of old versions of torch, which runs beside every version."""

    @pytest.fixture(autouse=True)
    def _as_torch_2_1(self, monkeypatch):
        monkeypatch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.1.2'))
        monkeypatch.setattr(torch.serialization, '_weights_only_unpickler', torch._weights_only_unpickler)
        monkeypatch.setattr(_torch.ListedTypesUnpickler, 'listed', _torch.ListedTypesUnpickler.listed.copy())
        _torch.add_safe_globals(allowed_types())

    @staticmethod
    def read(content: bytes):
        return torch.serialization._weights_only_unpickler.load(io.BytesIO(content))

    def test_data(self):
        buffer = HistoryBuffer([1.0, 2.0], [1, 1])
        content = dict(
            buffer=buffer, score=np.float32(77.5), map=np.arange(3), weights=OrderedDict(a=torch.float16), names={'a'}
        )
        read = self.read(pickle.dumps(content, 2))
        assert read.pop('buffer').mean() == 1.5
        assert read.pop('map').tolist() == [0, 1, 2]
        assert read == {key: content[key] for key in ('score', 'weights', 'names')}

    def test_checkpoint(self, tmp_path):
        layer = nn.Linear(2, 3).to(torch.bfloat16)
        for zipped in (True, False):
            torch.save(layer.state_dict(), tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
            loaded = torch.load(str(tmp_path / 'x.pth'), weights_only=True)
            assert torch.equal(loaded['weight'], layer.weight)

    @pytest.mark.parametrize(
        ('content', 'name'),
        [
            (b"cposix\nmkdir\n(S'executed'\ntR.", 'posix.mkdir'),
            (b"cbuiltins\neval\n(S'1'\ntR.", 'eval'),
            (b'ctorch\nhub\n.', 'torch.hub'),
            (b'cnumpy.linalg\nnorm\n.', 'numpy.linalg.norm'),
            (b"(S'executed'\niposix\nmkdir\n.", 'posix.mkdir'),  # another operation than that of a name
        ],
    )
    def test_what_is_not_listed(self, content, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(pickle.UnpicklingError, match=f'Unsupported global: GLOBAL {name}$'):
            self.read(content)
        assert not os.listdir(tmp_path)

    def test_a_class_is_not_changed(self):
        mean = HistoryBuffer.mean
        # Python's reader sets the attributes of the second dict by setattr.
        state = b"(N(dS'mean'\nccollections\nOrderedDict\nst"
        with pytest.raises(pickle.UnpicklingError, match='Can only build objects'):
            self.read(b'cmmengine.logging.history_buffer\nHistoryBuffer\n' + state + b'b.')
        assert HistoryBuffer.mean is mean


def test_require():
    _torch.require('2.1', 'this package')
    with pytest.raises(UserError, match=r'^--out x\.pt2 needs torch 99\.1 or newer; this is torch '):
        _torch.require('99.1', '--out x.pt2')


def test_custom_op(monkeypatch):
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    operator = _torch.custom_op('halvit_mm_test::double', torch.empty_like)(double)
    assert operator(torch.ones(2)).tolist() == [2, 2]
    assert torch.ops.halvit_mm_test.double(torch.ones(2, device='meta')).shape == (2,)
    monkeypatch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.1.2'))
    assert _torch.custom_op('halvit_mm_test::other', torch.empty_like)(double) is double


def test_set_submodule():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    _torch.set_submodule(model, '1.0', nn.GELU())
    _torch.set_submodule(model, '0', nn.Identity())
    assert [type(module) for module in model.modules()][1:] == [nn.Identity, nn.Sequential, nn.GELU]
    with pytest.raises(AttributeError):
        _torch.set_submodule(model, '7.0', nn.GELU())


def test_unfused_attention():
    q = torch.rand(1, 2, 4, 8)
    with torch.profiler.profile() as profile, _torch.unfused_attention():
        nn.functional.scaled_dot_product_attention(q, q, q)
    names = {event.key for event in profile.key_averages()}
    assert 'aten::_scaled_dot_product_attention_math' in names
