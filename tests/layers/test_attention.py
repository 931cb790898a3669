"""Against the equations in float64; beside mmpretrain's attention: tests/layers/openmmlab/test_attention.py."""

import pytest
import torch
from torch import Tensor

from halvit_mm.layers import TiedAttention


def written_out(attn: TiedAttention, x: Tensor, allowed: Tensor) -> Tensor:
    """The equations head by head, without a fused operator; token i attends to the tokens j that are allowed."""
    q_bias, k_bias, v_bias = torch.zeros(3, 24).double() if attn.qkv_bias is None else attn.qkv_bias.chunk(3)
    q = x @ attn.q_weight.T + q_bias
    k = x @ attn.kv_weight.T + k_bias
    v = x @ attn.kv_weight + v_bias
    heads = []
    for part in range(attn.num_heads):
        rows = slice(part * 8, part * 8 + 8)
        weights = (q[..., rows] @ k[..., rows].mT / 8**0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
        heads.append(weights @ v[..., rows])
    out = torch.cat(heads, -1) @ attn.q_weight
    return out if attn.proj_bias is None else out + attn.proj_bias


@pytest.mark.parametrize('mask', ['none', 'given', 'causal'])
@pytest.mark.parametrize('biases', [True, False])
def test_equations(mask, biases):
    attn = TiedAttention(24, 3, qkv_bias=biases, proj_bias=biases, dtype=torch.double)
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 24, dtype=torch.double)
    allowed = torch.ones(5, 5, dtype=torch.bool)
    if mask != 'none':
        allowed = allowed.tril()
    options = dict(none={}, given=dict(attn_mask=allowed), causal=dict(is_causal=True))[mask]
    out = attn.project_out(attn.attend(x, **options))
    torch.testing.assert_close(out, written_out(attn, x, allowed), rtol=0, atol=1e-12)
    if mask == 'none':
        assert torch.equal(attn(x), out)


def test_arguments():
    with pytest.raises(ValueError, match='TiedAttention: embed_dims=0 is not a positive whole number'):
        TiedAttention(0, 1)
    with pytest.raises(ValueError, match='embed_dims=24 cannot be split into num_heads=5 heads'):
        TiedAttention(24, 5)
    assert TiedAttention(24, 3, device='meta').q_weight.is_meta
