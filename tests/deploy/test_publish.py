import hashlib
import re

import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis import get_model
from safetensors import safe_open

from halvit_mm.cost import count_parameters
from halvit_mm.deploy.network import load_network
from halvit_mm.deploy.publish import publish
from halvit_mm.errors import UserError
from tests.utils import ROOT

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'


@pytest.fixture
def model():
    return get_model(str(CONFIG))


@pytest.fixture
def checkpoint(model, tmp_path):
    """As a training with averaged weights leaves one."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    path = tmp_path / 'epoch_1.pth'
    meta = dict(epoch=1, iter=12, cfg='model = dict()', dataset_meta=dict(classes=['0', '1']), seed=0, time='now')
    content = dict(
        meta=meta,
        state_dict=model.state_dict(),
        ema_state_dict={f'module.{name}': value for name, value in model.state_dict().items()},
        optimizer=optimizer.state_dict(),
        param_schedulers=[],
        message_hub=dict(log_scalars={}),
    )
    torch.save(content, path)
    return path


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_weights_and_nothing_else(model, checkpoint, suffix, tmp_path):
    path = publish(checkpoint, tmp_path / f'halvit.{suffix}')
    assert re.fullmatch(rf'halvit_\d{{8}}-[0-9a-f]{{8}}\.{suffix}', path.name)
    assert path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    assert path.stat().st_size <= 1.05 * 4 * count_parameters(model)
    loaded = load_network(Config.fromfile(CONFIG), str(path)).model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value)
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth', path.name}


def test_meta(checkpoint, tmp_path):
    content = torch.load(publish(checkpoint, tmp_path / 'halvit.pth'), weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta'].keys() == {'epoch', 'iter', 'cfg', 'dataset_meta'}
    with safe_open(publish(checkpoint, tmp_path / 'halvit.safetensors'), 'pt') as file:
        assert file.metadata() == dict(classes='["0", "1"]')


def test_views_and_second_names_take_no_room(tmp_path):
    large = torch.rand(1000, 1000)
    torch.save(dict(state_dict=dict(a=large[0], b=large[0])), tmp_path / 'views.pth')
    path = publish(tmp_path / 'views.pth', tmp_path / 'out.pth')
    assert path.stat().st_size < 8_000
    assert torch.equal(torch.load(path, weights_only=True)['state_dict']['b'], large[0])


def test_refusals(checkpoint, tmp_path):
    with pytest.raises(
        UserError, match='is not a file of weights; expected a name that ends with .pth or .safetensors'
    ):
        publish(checkpoint, tmp_path / 'halvit.bin')
    with pytest.raises(UserError, match='folder .*no does not exist or cannot be written to'):
        publish(checkpoint, tmp_path / 'no/halvit.pth')
    with pytest.raises(UserError, match='none.pth does not exist'):
        publish(tmp_path / 'none.pth', tmp_path / 'halvit.pth')
    torch.save(dict(meta={}, optimizer={}), tmp_path / 'empty.pth')
    with pytest.raises(UserError, match='is not a checkpoint with weights; it has the entries meta, optimizer'):
        publish(tmp_path / 'empty.pth', tmp_path / 'halvit.pth')
