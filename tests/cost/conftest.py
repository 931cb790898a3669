"""Models of the digits, and their optimizer."""

from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from tests.utils import ROOT


def build(name: str) -> nn.Module:
    cfg = Config.fromfile(ROOT / f'configs/digits/{name}.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return (DETECTORS if cfg.default_scope == 'mmdet' else MODELS).build(cfg.model)


def sgd(model: nn.Module):
    return build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
