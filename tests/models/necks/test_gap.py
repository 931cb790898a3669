import torch
from mmdet.models.backbones import PyramidVisionTransformer
from mmdet.registry import MODELS

from halvit_mm.models.necks import GlobalAveragePooling


def test_pools_what_backbones_of_both_libraries_return():
    neck = MODELS.build(dict(type='halvit_mm.GlobalAveragePooling'))
    assert isinstance(neck, GlobalAveragePooling)
    maps = [torch.rand(2, 3, 4, 5), torch.rand(2, 6, 2, 3)]
    for given in (maps, tuple(maps)):
        outs = neck(given)
        assert [tuple(out.shape) for out in outs] == [(2, 3), (2, 6)]
        torch.testing.assert_close(outs[1], maps[1].mean((2, 3)))
    torch.testing.assert_close(neck(maps[0]), maps[0].mean((2, 3)))
    backbone = PyramidVisionTransformer(pretrain_img_size=32, embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 4, 8])
    assert neck(backbone(torch.rand(1, 3, 32, 32)))[-1].shape == (1, 64)
