from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from mmengine.config import Config
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from PIL import Image

from halvit_mm.deploy.attention_maps import attention_weights, class_attention, draw_attention
from halvit_mm.errors import UserError
from halvit_mm.models.backbones import HaLViT
from tests.utils import ROOT, TINY_ARCH, run_tool

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'


@pytest.mark.parametrize('qkv_bias', [True, False])
def test_weights_of_a_plain_layer_are_those_that_it_attends_with(qkv_bias):
    attention = MultiheadAttention(embed_dims=24, num_heads=3, qkv_bias=qkv_bias).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 24).double()
    weights = attention_weights(attention, x)
    assert weights.shape == (2, 3, 7, 7)
    heads = weights @ attention.qkv(x).chunk(3, -1)[2].unflatten(-1, (3, 8)).transpose(1, 2)
    torch.testing.assert_close(attention.proj(heads.transpose(1, 2).flatten(2)), attention(x))


@pytest.mark.parametrize('backbone', [HaLViT, VisionTransformer])
@pytest.mark.parametrize('with_cls_token', [True, False])
def test_maps_of_a_backbone(backbone, with_cls_token):
    out_type = 'cls_token' if with_cls_token else 'avg_featmap'
    model = backbone(arch=TINY_ARCH, img_size=32, patch_size=8, with_cls_token=with_cls_token, out_type=out_type)
    maps = class_attention(model, torch.rand(2, 3, 32, 48))
    assert maps.shape == (3, 2, 3, 4, 6)
    total = maps.sum((-2, -1))
    assert (total < 1).all() if with_cls_token else torch.allclose(total, torch.ones_like(total))
    assert not any(layer.attn._forward_pre_hooks for layer in model.layers)


def test_picture_names_image_class_layers_and_heads(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(pyplot, 'close', kept.append)
    picture = np.zeros((32, 48, 3), np.uint8)
    title = 'digit.png: predicted class 3, score 0.93'
    draw_attention(picture, torch.rand(4, 2, 4, 6), tmp_path / 'a.png', [0, 3], title)
    [figure] = kept
    assert figure.get_suptitle() == title
    assert [place.get_title() for place in figure.axes] == ['image', 'head 0', 'head 1', '', '', '']
    assert [place.get_ylabel() for place in figure.axes[::3]] == ['layer 0', 'layer 3']


def test_windows_are_refused():
    with pytest.raises(
        UserError, match='window_size=2 is not a model whose tokens attend to the whole image; expected window_size=0'
    ):
        class_attention(HaLViT(arch=TINY_ARCH, img_size=32, patch_size=8, window_size=2), torch.rand(1, 3, 32, 32))


@pytest.mark.long
def test_tools_draw(tmp_path):
    """Ours, and mmpretrain's Grad-CAM on our model."""
    from halvit_mm.deploy.network import load_network

    weights, image = tmp_path / 'weights.pth', tmp_path / 'digit.png'
    torch.save(load_network(Config.fromfile(CONFIG)).model.state_dict(), weights)
    Image.effect_noise((20, 30), 90).convert('RGB').save(image)
    tool = ['tools/visualize_attention.py', str(CONFIG), str(weights)]
    shown = run_tool(*tool, str(image), '--out', str(tmp_path / 'out'), '--layers', '0', '-1').stdout
    assert shown.splitlines()[-1] == str(tmp_path / 'out/digit_attention.png')
    with Image.open(tmp_path / 'out/digit_attention.png') as picture:
        assert picture.width > picture.height > 200  # an image and 3 heads wide, 2 layers high
    host = Path(mmpretrain.__file__).parent / '.mim/tools/visualization/vis_cam.py'
    saved = tmp_path / 'cam.png'
    run_tool(host, image, CONFIG, weights, '--vit-like', '--save-path', saved)
    with Image.open(saved) as picture:
        assert len({*picture.convert('RGB').getdata()}) > 100
    failed = run_tool(*tool, str(image), '--out', str(tmp_path / 'out'), '--layers', '6', check=False)
    assert failed.returncode == 2
    assert failed.stdout.splitlines()[-1] == 'error: --layers 6 is not a layer of this model; expected 0 to 5'
