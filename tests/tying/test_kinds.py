import copy

import pytest
import timm
import torch
import torchvision
from mmengine.registry import MODELS
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import halvit_mm
from halvit_mm.cost.samples import forward_tensor
from halvit_mm.layers import tied_modules
from halvit_mm.tying.bases import FFNWeights
from halvit_mm.tying.kinds import is_tied, kind_of
from tests.tying.conftest import VIT, mmpretrain
from tests.utils import ROOT, assert_equal_gradients, from_config, gradients

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
    model.eval()  # upstream's backbones return None
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


@pytest.mark.parametrize('name', ['vit', 'pvt', 'pvt-v2', 'timm-vit', 'timm-swin', 'detr'])
def test_networks_are_computed_again(name):
    """mmcv's, mmdet's and timm's: the same numbers, and less is kept; a copy has its own."""
    grads, kept = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = MODELS_TO_TIE[name]()
        halvit_mm.tie_model(model, attn=False, bottleneck=False, way='mean', with_cp=with_cp)
        model = copy.deepcopy(model)
        size = dict(vit=32).get(name, 56 if name == 'timm-swin' else 64)
        numbers = []
        with saved_tensors_hooks(lambda t, numbers=numbers: numbers.append(t.numel()) or t, lambda t: t):
            torch.manual_seed(1)
            out = flat(forward_tensor(model, torch.randn(2, 3, size, size)))
        out.square().sum().backward()
        grads.append(gradients(model))
        kept.append(sum(numbers))
    assert_equal_gradients(*grads, 1e-4 * max(grad.abs().max().item() for grad in grads[0].values()))
    assert kept[1] < kept[0]


def test_what_is_left_is_told():
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


def test_a_class_is_known_by_itself_and_not_by_its_base():
    class Subclass(nn.MultiheadAttention):
        """It may compute something else."""

    assert kind_of(nn.MultiheadAttention(24, 3)) is not None
    assert kind_of(Subclass(24, 3)) is None
    assert kind_of(nn.Linear(2, 2)) is None
    vit = mmpretrain('VisionTransformer', **VIT)
    assert not is_tied(vit)
    halvit_mm.tie_model(vit, ffn=False)
    assert is_tied(vit.layers[0])
    assert not is_tied(vit.layers[0].ffn)
