from pathlib import Path

import pytest
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS

from halvit_mm.cost import count_parameters

ROOT = Path(__file__).resolve().parents[2]
IN1K = sorted((ROOT / 'configs/shared_resnet').glob('*.py'))
DIGITS = ROOT / 'configs/digits/resnet50-pe_2xb64_digits.py'
BODY = {
    'resnet50-pe1_8xb32_in1k': 12_825_984,
    'resnet50-pe2_8xb32_in1k': 13_460_032,
    'resnet101-pe2_8xb32_in1k': 23_539_264,
    'resnext101-32x8d-pe2_8xb32_in1k': 18_629_440,
    'resnet50-pe_2xb64_digits': 817_760,
}


@pytest.mark.parametrize('path', [*IN1K, DIGITS], ids=lambda path: path.stem)
def test_model_and_optimizer_are_built(path):
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    assert count_parameters(model, without_head=True) == BODY[path.stem]
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    held = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize('path', IN1K, ids=lambda path: path.stem)
def test_recipe(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.1, 0.9, 1e-4)
    assert cfg.train_cfg.max_epochs == 90
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.type) == (5, 5, 'CosineAnnealingLR')


@pytest.mark.parametrize('option', ['()', '[]'])
def test_twin_of_the_digits_model_by_one_field(option):
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict({'model.backbone.shared_stages': DictAction._parse_iterable(option)})
    names = {name for name, _ in MODELS.build(cfg.model).named_parameters()}
    assert 'backbone.layer4.0.conv1.weight' in names
    assert 'backbone.layer4.weight' not in names
