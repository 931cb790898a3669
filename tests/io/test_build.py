import pytest
import torch
from mmengine.config import Config

from halvit_mm.deploy.network import load_network
from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model, load_model
from halvit_mm.io.configs import load_config
from tests.utils import ROOT

DIGITS = str(ROOT / 'configs/digits/halvit_2xb64_digits.py')


@pytest.mark.parametrize('build', [build_model, lambda cfg: load_network(cfg).model])
def test_the_preprocessor_beside_the_model_is_its_own(build):
    """mmpretrain's configs name it at the top; without it an export would be tried on raw pixels."""
    cfg = load_config(str(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py'), {'model.backbone.arch': 'micro'})
    cfg.model.head.in_channels = 192
    before = cfg.model.to_dict()
    preprocessor = build(cfg).data_preprocessor
    assert preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert preprocessor.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert cfg.model.to_dict() == before


def test_a_preprocessor_within_the_model_comes_first():
    cfg = load_config(DIGITS, {'model.data_preprocessor': dict(mean=[1.0] * 3, std=[2.0] * 3)})
    assert build_model(cfg).data_preprocessor.mean.flatten().tolist() == [1.0] * 3


def test_a_detector_is_built_in_its_scope():
    model = build_model(load_config(str(ROOT / 'configs/digits/mask-rcnn_halvit_digits-coco.py')))
    assert model.data_preprocessor.mean.flatten().tolist() == [78.0] * 3


def test_weights_fill_the_model_to_the_last(tmp_path):
    cfg = Config.fromfile(DIGITS)
    model = build_model(cfg)
    state = model.state_dict()
    for value in state.values():
        torch.nn.init.normal_(value)
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    loaded = load_model(cfg, str(tmp_path / 'a.pth'))
    assert not loaded.training
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    del state['head.layers.head.bias']
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    told = r'a\.pth is not a checkpoint of this model: head\.layers\.head\.bias missing instead of \(10,\)'
    with pytest.raises(UserError, match=told):
        load_model(cfg, str(tmp_path / 'a.pth'))
