"""Models of the digits, and their optimizer."""

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from halvit_mm.io.build import build_model
from tests.utils import ROOT


def build(name: str) -> nn.Module:
    return build_model(Config.fromfile(ROOT / f'configs/digits/{name}.py'))


def sgd(model: nn.Module):
    return build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
