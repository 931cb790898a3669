"""Tie upstream's own models."""

import pytest
import torch

import halvit_mm
from halvit_mm.models import HaLViT
from tests.tying.conftest import VIT, mmpretrain


def test_a_vit_becomes_a_halvit():
    vit = mmpretrain('VisionTransformer', **VIT)
    report = halvit_mm.tie_model(vit)
    halvit = HaLViT(**VIT)
    assert {k: v.shape for k, v in vit.state_dict().items()} == {k: v.shape for k, v in halvit.state_dict().items()}
    halvit.load_state_dict(vit.state_dict())
    images = torch.randn(2, 3, 32, 32)
    vit.eval()
    torch.testing.assert_close(vit(images)[0], halvit.eval()(images)[0])
    assert len(report.tied) == 6
    assert not report.left


def test_parts_can_be_chosen():
    for parts, ends in ((dict(attn=False), {'ffn'}), (dict(ffn=False), {'attn'})):
        report = halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), **parts)
        assert {name.rpartition('.')[2] for name, *_ in report.tied} == ends
    report = halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), within=['layers.1'])
    assert {name for name, *_ in report.tied} == {'layers.1.attn', 'layers.1.ffn'}
    with pytest.raises(ValueError, match='nothing in VisionTransformer could be tied'):
        halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), attn=False, ffn=False)
    with pytest.raises(ValueError, match=r"within='encoder' is not a module of the model; expected .* patch_embed"):
        halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), within='encoder')
    with pytest.raises(ValueError, match=r"way='none' is not a way to tie; expected one of 'mean', 'products'"):
        halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), way='none')


def test_it_is_reached_from_the_package():
    assert halvit_mm.tie_model.__module__ == 'halvit_mm.tying.replace'
    with pytest.raises(AttributeError, match="module 'halvit_mm' has no attribute 'none'"):
        _ = halvit_mm.none
