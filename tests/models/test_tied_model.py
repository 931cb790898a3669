import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

import halvit_mm
from halvit_mm.cost.measure import training_step
from halvit_mm.layers import tied_modules
from tests.utils import ROOT, TINY_ARCH, from_config

CONFIGS = sorted((ROOT / 'configs/tied').glob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_built_counted_and_trained(path):
    model, plain = from_config(path), from_config(path, tied=False)
    tied = [*tied_modules(model)]
    assert tied
    report = halvit_mm.tie_model(plain, **Config.fromfile(path).model.get('tie', {}), way='mean')
    before, after = report.replaced
    assert report.after == sum(p.numel() for p in model.parameters())
    if 'resnext' not in path.stem:
        assert after <= 0.6 * before
    matrices = {f'{name}.{matrix}': getattr(module, matrix) for name, module in tied for matrix in module.matrices}
    start = {name: matrix.detach().clone() for name, matrix in matrices.items()}
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=dict(max_norm=1.0)))
    step = training_step(model, torch.randn(2, 3, 64, 64), wrapper)
    for _ in range(2):
        step()
    # Stochastic depth leaves out a layer now and then.
    changed = [not torch.equal(matrix, start[name]) for name, matrix in matrices.items()]
    assert sum(changed) >= 0.8 * len(changed)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_parts_are_an_option():
    vit = dict(type='halvit_mm.TiedModel', of='mmpretrain.VisionTransformer', arch=TINY_ARCH, img_size=32, patch_size=8)
    model = MODELS.build({**vit, 'tie': dict(attn=False)})
    assert {name.rpartition('.')[2] for name, _ in tied_modules(model)} == {'ffn'}
