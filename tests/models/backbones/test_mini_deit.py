import math

import pytest
import torch
from mmpretrain.registry import MODELS

from halvit_mm.models.backbones.mini_deit import MultiplexedAttention, relative_buckets

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=40)


def build(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = MODELS.build({'type': 'halvit_mm.MiniDeiT', 'arch': ARCH, 'img_size': 64, 'patch_size': 16, **options})
    backbone.init_weights()
    return backbone


def test_buckets_are_those_of_the_paper():
    """Equation 18 of image RPE, pair by pair."""

    def bucket(way: int) -> int:
        if abs(way) <= 1.9:
            return way + 3
        far = round(1.9 + math.log(abs(way) / 1.9) / math.log(15.2 / 1.9) * 1.9)
        return int(math.copysign(min(far, 3), way)) + 3

    found = relative_buckets(5, 14)
    for i in range(70):
        for j in range(70):
            (y, x), (other_y, other_x) = divmod(i, 14), divmod(j, 14)
            assert found[i, j] == bucket(y - other_y) * 7 + bucket(x - other_x)
    assert found.unique().numel() == 49


def test_attention_by_hand():
    attention = MultiplexedAttention(12, 3, resolution=(2, 3))
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x, buckets = torch.randn(2, 6, 12), relative_buckets(2, 3)
    q, k, v = (part.unflatten(-1, (3, 4)) for part in attention.qkv(x).chunk(3, -1))
    scores = torch.zeros(2, 3, 6, 6)
    for i in range(6):
        for j in range(6):
            key = k[:, j] + attention.positions[:, buckets[i, j]]
            scores[:, :, i, j] = (q[:, i] * key).sum(-1) / 2
    before, after = (mixing.weight[:, :, 0, 0] for mixing in (attention.before, attention.after))
    weights = torch.einsum('gh,bhij->bgij', after, torch.einsum('gh,bhij->bgij', before, scores).softmax(-1))
    expected = attention.proj(torch.einsum('bhij,bjhd->bihd', weights, v).flatten(2))
    torch.testing.assert_close(attention(x), expected)
    with pytest.raises(ValueError, match='7 patches are not those of the map; expected 6: set img_size'):
        attention(torch.randn(1, 7, 12))


def test_pairs_share_matrices_and_nothing_else():
    backbone = build()
    names = {name for name, _ in backbone.named_parameters()}
    assert names == {*backbone.state_dict()}
    for name in ('attn.qkv', 'attn.proj', 'ffn.layers.0.0', 'ffn.layers.1'):
        one, other = (backbone.layers[i].get_submodule(name).weight for i in (0, 1))
        assert one is other
        assert one is not backbone.layers[2].get_submodule(name).weight
        assert f'layers.1.{name}.weight' not in names
    for name in ('attn.before.weight', 'attn.after.weight', 'attn.positions', 'ln1.weight', 'attn.qkv.bias'):
        assert f'layers.1.{name}' in names
    [out] = backbone(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 24, 4, 4)
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert 0 < backbone.layers[1].attn.before.weight.std() < 0.05


def test_refusals():
    with pytest.raises(ValueError, match='with_cls_token=True has no relative position; expected False'):
        build(with_cls_token=True)
    with pytest.raises(ValueError, match='share=0 is not a positive whole number'):
        build(share=0)
