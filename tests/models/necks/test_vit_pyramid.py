import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from halvit_mm.models import ViTPyramid


def maps(channels: int = 8, size: tuple[int, int] = (5, 7), number: int = 4, dtype=torch.float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, *size, generator=generator).to(dtype) for _ in range(number)]


@pytest.mark.parametrize('mode', ['interpolate', 'deconv'])
@pytest.mark.parametrize('size', [(14, 14), (5, 7), (1, 1), (50, 84)])
def test_shapes(mode, size):
    neck = ViTPyramid(8, mode=mode)
    outs = neck(maps(size=size))
    assert isinstance(outs, tuple)
    for out, channels, stride in zip(outs, neck.out_channels, neck.out_strides, strict=True):
        assert out.shape == (2, channels, *(-(-side * 16 // stride) for side in size))


def test_what_it_gives():
    for mode, channels in (('interpolate', (8, 8, 8, 8)), ('deconv', (2, 4, 8, 8))):
        neck = ViTPyramid(8, mode=mode)
        assert neck.out_channels == channels
        assert neck.out_strides == (4, 8, 16, 32)


def test_values_of_interpolation_and_pooling():
    x = maps(dtype=torch.double)
    fine, finer, same, coarse = ViTPyramid(8)(x)
    torch.testing.assert_close(fine, F.interpolate(x[0], scale_factor=4, mode='bilinear'), rtol=0, atol=0)
    torch.testing.assert_close(finer, F.interpolate(x[1], scale_factor=2, mode='bilinear'), rtol=0, atol=0)
    assert torch.equal(same, x[2])
    for i in range(3):
        for j in range(4):
            patch = x[3][:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert torch.equal(coarse[:, :, i, j], patch.amax((2, 3)))


@pytest.mark.parametrize(
    ('in_stride', 'out_strides'), [(16, (16,)), (8, (4, 8, 16, 32)), (14, (7, 14, 28)), (16, (32, 4)), (16, (1, 128))]
)
@pytest.mark.parametrize('mode', ['interpolate', 'deconv'])
def test_other_strides(in_stride, out_strides, mode):
    neck = ViTPyramid(16, in_stride=in_stride, out_strides=list(out_strides), mode=mode)
    assert neck.out_strides == out_strides
    for out, stride in zip(neck(maps(16, (3, 4), len(out_strides))), out_strides, strict=True):
        assert out.shape[2:] == (-(-3 * in_stride // stride), -(-4 * in_stride // stride))


def test_no_parameters_by_default():
    neck = ViTPyramid(8)
    assert not [*neck.parameters()]
    assert not neck.state_dict()


def test_deconv_learns():
    neck = ViTPyramid(8, mode='deconv').double()
    shapes = {name: tuple(p.shape) for name, p in neck.named_parameters()}
    assert shapes == {
        'stages.0.0.weight': (8, 4, 2, 2),
        'stages.0.0.bias': (4,),
        'stages.0.1.weight': (4,),
        'stages.0.1.bias': (4,),
        'stages.0.3.weight': (4, 2, 2, 2),
        'stages.0.3.bias': (2,),
        'stages.1.0.weight': (8, 4, 2, 2),
        'stages.1.0.bias': (4,),
    }
    x = [value.requires_grad_() for value in maps(dtype=torch.double)]
    outs = neck(x)
    first, norm, _, second = neck.stages[0]
    hidden = F.conv_transpose2d(x[0], first.weight, first.bias, stride=2)
    hidden = F.layer_norm(hidden.permute(0, 2, 3, 1), (4,), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    expected = F.conv_transpose2d(F.gelu(hidden), second.weight, second.bias, stride=2)
    torch.testing.assert_close(outs[0], expected)
    sum(out.square().sum() for out in outs).backward()
    assert all(p.grad.abs().max() > 0 for p in neck.parameters())
    assert all(value.grad.abs().max() > 0 for value in x)


def test_norm_and_activation_of_deconv():
    neck = ViTPyramid(8, mode='deconv', norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))
    assert isinstance(neck.stages[0][1], torch.nn.BatchNorm2d)
    assert isinstance(neck.stages[0][2], torch.nn.ReLU)


@pytest.mark.parametrize('stride', [3, 24, 0, -4, -16, 48])
def test_refuses_strides(stride):
    with pytest.raises(ValueError, match=f'stride {stride} cannot be made from in_stride=16'):
        ViTPyramid(8, out_strides=(stride,))


@pytest.mark.parametrize('stride', [0, -16])
def test_refuses_a_stride_of_the_input(stride):
    with pytest.raises(ValueError, match=f'cannot be made from in_stride={stride}'):
        ViTPyramid(8, in_stride=stride, out_strides=(stride,))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(mode='conv'), "mode='conv' is not a choice; expected one of 'interpolate', 'deconv'"),
        (dict(mode='deconv', in_channels=6), 'stride 4 needs in_channels=6 to be a multiple of 4'),
        (dict(mode='deconv', in_channels=5, out_strides=(8,)), 'stride 8 needs in_channels=5 to be a multiple of 2'),
    ],
)
def test_refuses_arguments(cfg, message):
    with pytest.raises(ValueError, match=message):
        ViTPyramid(**{'in_channels': 8, **cfg})


def test_refuses_inputs():
    neck = ViTPyramid(8)
    for number in (1, 3, 5):
        with pytest.raises(ValueError, match=f'got {number} maps for .* must return 4: see its out_indices'):
            neck(maps(number=number))
    with pytest.raises(ValueError, match=r'shape \(2, 9, 5, 7\), and expects \(B, 8, H, W\)'):
        neck(maps(9))
    with pytest.raises(ValueError, match="returns maps with out_type='featmap'"):
        neck([torch.rand(2, 35, 8)] * 4)


@pytest.mark.parametrize('mode', ['interpolate', 'deconv'])
def test_in_a_list_with_fpn(mode):
    backbone = dict(type='halvit_mm.HaLViT', arch=dict(embed_dims=24, num_layers=4, num_heads=3))
    backbone['arch']['feedforward_channels'] = 40
    backbone.update(out_type='featmap', out_indices=(0, 1, 2, 3), window_size=2, global_attn_layers=(3,))
    pyramid = dict(type='halvit_mm.ViTPyramid', in_channels=24, mode=mode)
    channels = list(ViTPyramid(24, mode=mode).out_channels)
    neck = MODELS.build([pyramid, dict(type='mmdet.FPN', in_channels=channels, out_channels=16, num_outs=5)])
    neck.init_weights()
    outs = neck(MODELS.build(backbone)(torch.rand(1, 3, 96, 72)))
    # 72 pixels are 5 patches, of which the last is filled up
    assert [tuple(out.shape[2:]) for out in outs] == [(24, 20), (12, 10), (6, 5), (3, 3), (2, 2)]
    assert {out.shape[1] for out in outs} == {16}
    sum(out.square().mean() for out in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())
