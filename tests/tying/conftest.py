"""Small models, plain and tied."""

import torch
from mmengine.registry import MODELS
from torch import nn

from halvit_mm.models import HaLViT
from tests.utils import TINY_ARCH

SMALL = dict(img_size=32, patch_size=8, layer_scale_init_value=0.5)
VIT = dict(arch=TINY_ARCH, **SMALL)


def make_vit(tie: str, **cfg) -> HaLViT:
    vit = HaLViT(TINY_ARCH, tie=tie, **SMALL, **cfg).double().eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vit


def images(number: int = 4) -> torch.Tensor:
    return torch.randn(number, 3, 32, 32, dtype=torch.double)


def mmpretrain(type: str, **cfg) -> nn.Module:
    return MODELS.build(dict(type=f'mmpretrain.{type}', _scope_='mmpretrain', **cfg))
