"""Tie upstream's own models."""

import copy

import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import halvit_mm
from halvit_mm.cost.measure import training_step
from halvit_mm.cost.samples import forward_tensor
from halvit_mm.layers import tied_modules
from halvit_mm.models import HaLViT
from halvit_mm.tying.bases import FFNWeights
from halvit_mm.tying.kinds import kind_of
from tests.utils import ROOT, TINY_ARCH

CONFIGS = sorted((ROOT / 'configs/tied').glob('*.py'))
VIT = dict(arch=TINY_ARCH, img_size=32, patch_size=8, layer_scale_init_value=0.5)


def from_config(path, tied: bool = True) -> nn.Module:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = cfg.model
    part = model if 'of' in model else model.backbone
    if not tied:
        part.type = part.pop('of')
        part.pop('tie', None)
    if 'swin' in path.stem:
        model.backbone.pad_small_map = True
    # No weights from the network
    if cfg.default_scope == 'mmdet':
        model.backbone.init_cfg = None
    return MODELS.build({**model, 'data_preprocessor': cfg.get('data_preprocessor') or model.get('data_preprocessor')})


def mmpretrain(type: str, **cfg) -> nn.Module:
    return MODELS.build(dict(type=f'mmpretrain.{type}', _scope_='mmpretrain', **cfg))


MODELS_TO_TIE = {
    'vit': lambda: mmpretrain('VisionTransformer', **VIT),
    'swin': lambda: mmpretrain('SwinTransformer', arch='tiny', pad_small_map=True),
    'twins': lambda: mmpretrain('SVT', arch='small'),
    'resnext': lambda: mmpretrain('ResNeXt', depth=50),
    'pvt': lambda: MODELS.build(dict(type='mmdet.PyramidVisionTransformer', num_layers=[1, 1, 1, 1])),
    'pvt-v2': lambda: MODELS.build(dict(type='mmdet.PyramidVisionTransformerV2', num_layers=[1, 1, 1, 1])),
    'timm-vit': lambda: timm.create_model('vit_tiny_patch16_224', img_size=64, depth=2),
    'timm-swin': lambda: timm.create_model('swin_tiny_patch4_window7_224', img_size=56, depths=(1, 1, 1, 1)),
    'torchvision-resnet': torchvision.models.resnet50,
    'detr': lambda: from_config(ROOT / 'configs/tied/tied-detr_r50_8xb2-150e_coco.py', tied=False),
}


@torch.no_grad()
def make_ways_equal(model: nn.Module) -> None:
    """Make an untied model one that computes what a tied one can."""
    for module in model.modules():
        kind = kind_of(module)
        if kind is None or kind.refusal(module):
            continue
        weights = kind.read(module)
        if isinstance(weights, FFNWeights):
            weights.way_out.copy_(weights.way_in.T)
        else:
            weights.out.copy_(weights.query.T)
            weights.value.copy_(weights.key.T)
            for bias in (weights.query_bias, weights.key_bias, weights.value_bias):
                bias.normal_()


def flat(outputs) -> torch.Tensor:
    if isinstance(outputs, torch.Tensor):
        return outputs.flatten()
    return torch.cat([flat(output) for output in outputs if output is not None])


@pytest.mark.parametrize('name', MODELS_TO_TIE)
def test_a_model_with_equal_ways_computes_what_it_did(name):
    model = MODELS_TO_TIE[name]()
    model.eval()  # which returns None in some of upstream's backbones
    make_ways_equal(model)
    images = torch.randn(2, 3, 56 if name == 'timm-swin' else 32 if name == 'vit' else 64, 64)
    images = images[..., : images.shape[-2]]
    with torch.no_grad():
        before = flat(forward_tensor(model, images))
        report = halvit_mm.tie_model(model, way='mean')
        torch.testing.assert_close(flat(forward_tensor(model, images)), before, rtol=1e-3, atol=1e-4)
    assert not any(module.training for module in model.modules())
    names = [key for key, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(dict(model.named_parameters()))
    assert report.after == sum(p.numel() for p in model.parameters()) < report.before
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for _, module in tied_modules(copied):
            for matrix in module.matrices:
                getattr(module, matrix).zero_()
        # A copy looks at its own matrices.
        assert not torch.allclose(flat(forward_tensor(copied, images)), before, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(flat(forward_tensor(model, images)), before, rtol=1e-3, atol=1e-4)


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
    with pytest.raises(ValueError, match="within='encoder' is not a module of the model; .* such as patch_embed"):
        halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), within='encoder')
    with pytest.raises(ValueError, match="way='none' is not a way to tie; expected one of 'mean', 'bases'"):
        halvit_mm.tie_model(mmpretrain('VisionTransformer', **VIT), way='none')


def test_what_is_left_is_reported():
    report = halvit_mm.tie_model(mmpretrain('ResNet', depth=50), way='mean')
    assert [name for name, *_ in report.left] == [f'layer{i}.0' for i in range(1, 5)]
    shapes = '(128, 256, 1, 1), (512, 128, 1, 1)'
    assert f'left  layer2.0 (Bottleneck): matrices that do not mirror each other: {shapes}' in str(report)
    vit = mmpretrain('VisionTransformer', **VIT, layer_cfgs=dict(ffn_type='swiglu_fused'))
    assert 'left  layers.0.ffn (SwiGLUFFNFused): not a class that can be tied' in str(halvit_mm.tie_model(vit))
    vit = timm.create_model('vit_tiny_patch16_224', img_size=64, depth=1, qk_norm=True)
    assert 'left  blocks.0.attn (Attention): q_norm between its matrices' in str(halvit_mm.tie_model(vit))
    arch = dict(embed_dims=24, depths=[1] * 4, num_heads=[2, 4, 8, 16], extra_norm_every_n_blocks=0)
    swin = mmpretrain('SwinTransformerV2', arch=arch, window_size=[4] * 4)
    assert 'left  stages.0.blocks.0.attn.w_msa (WindowMSAV2): not a class' in str(halvit_mm.tie_model(swin))


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


def test_it_is_reached_from_the_package():
    assert halvit_mm.tie_model.__module__ == 'halvit_mm.tying.replace'
    with pytest.raises(AttributeError, match="module 'halvit_mm' has no attribute 'none'"):
        _ = halvit_mm.none
