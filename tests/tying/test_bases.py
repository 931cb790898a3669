import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models.utils import MultiheadAttention

from halvit_mm.tying.bases import (
    align_ffn,
    align_products,
    assign_units,
    change_basis,
    move_biases,
    relative_error,
)
from halvit_mm.tying.kinds import kind_of

WIDTH = 24


def make_attention(num_heads: int, **cfg) -> MultiheadAttention:
    attn = MultiheadAttention(WIDTH, num_heads, **cfg).double().eval()
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return attn


def write(attn: MultiheadAttention, weights) -> None:
    """Put the weights of a plain attention back."""
    with torch.no_grad():
        attn.qkv.weight.copy_(torch.cat((weights.query, weights.key, weights.value)))
        attn.proj.weight.copy_(weights.out)
        if attn.qkv.bias is not None:
            attn.qkv.bias.copy_(torch.cat((weights.query_bias, weights.key_bias, weights.value_bias)))
        if attn.proj.bias is not None:
            attn.proj.bias.copy_(weights.out_bias)


def random_maps(num_heads: int) -> torch.Tensor:
    width = WIDTH // num_heads
    return torch.randn(num_heads, width, width, dtype=torch.double) + 3 * torch.eye(width, dtype=torch.double)


CHANGES = dict(
    change_basis=lambda weights: change_basis(weights, random_maps(weights.num_heads), random_maps(weights.num_heads)),
    align_products=align_products,
    move_biases=move_biases,
)


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('num_heads', [n for n in range(1, WIDTH + 1) if WIDTH % n == 0])
def test_outputs_stay(change, num_heads):
    for biases in (dict(), dict(qkv_bias=False), dict(proj_bias=False)):
        attn = make_attention(num_heads, **biases)
        x = torch.randn(2, 7, WIDTH, dtype=torch.double)
        before, weights = attn(x), kind_of(attn).read(attn)
        changed = CHANGES[change](weights)
        matrix = 'value_bias' if change == 'move_biases' else 'query'
        if biases == {}:
            assert not torch.equal(getattr(changed, matrix), getattr(weights, matrix))
        write(attn, changed)
        torch.testing.assert_close(attn(x), before, rtol=0, atol=1e-9)


def product_errors(weights, tied) -> list[float]:
    return [((a - b).norm() / b.norm()).item() for a, b in zip(tied.products(), weights.products())]


@pytest.mark.parametrize('num_heads', [2, 3])
def test_aligned_products_are_closer(num_heads):
    weights = kind_of(attn := make_attention(num_heads)).read(attn)
    aligned = align_products(weights)
    assert max(product_errors(weights, aligned.tied())) < 0.8 * min(product_errors(weights, weights.tied()))


def test_a_tied_attention_in_other_bases_is_found_again():
    weights = kind_of(attn := make_attention(3)).read(attn).tied()
    turns = [torch.linalg.qr(torch.randn(3, 8, 8, dtype=torch.double))[0] * factor for factor in (2.0, 0.5)]
    hidden = change_basis(weights, *turns)
    assert max(relative_error(pair, [sum(pair) / 2] * 2) for pair in hidden.pairs().values()) > 0.5
    assert max(product_errors(hidden, align_products(hidden).tied())) < 0.5 * min(product_errors(hidden, hidden.tied()))


def test_relative_error():
    a, b = torch.randn(2, 500, 500)
    assert relative_error([a, a], [a, a]) == 0
    assert relative_error([a, -a], [0 * a] * 2) == pytest.approx(1)
    assert relative_error([a, b], [(a + b) / 2] * 2) == pytest.approx(0.5**0.5, rel=1e-2)
    assert relative_error([3 * a, 4 * a], [3 * a, 0 * a]) == pytest.approx(0.8)
    assert relative_error([a * 0], [b * 0]) == 0


def test_only_relu_lets_hidden_units_grow():
    x = torch.randn(5, WIDTH, dtype=torch.double)
    for activation in ('ReLU', 'GELU'):
        ffn = FFN(WIDTH, 40, act_cfg=dict(type=activation)).double()
        torch.nn.init.normal_(ffn.layers[0][0].weight, std=3)
        before, weights = ffn(x), kind_of(ffn).read(ffn)
        aligned = align_ffn(weights)
        with torch.no_grad():
            ffn.layers[0][0].weight.copy_(aligned.way_in)
            ffn.layers[0][0].bias.copy_(aligned.hidden_bias)
            ffn.layers[1].weight.copy_(aligned.way_out)
        torch.testing.assert_close(ffn(x), before, rtol=0, atol=1e-9)
        if activation == 'ReLU':
            torch.testing.assert_close(aligned.way_in.norm(dim=1), aligned.way_out.norm(dim=0))
        else:
            assert torch.equal(aligned.way_in, weights.way_in)


def test_units_are_assigned_within_their_groups():
    similarity = torch.eye(8)[torch.tensor([1, 0, 3, 2, 7, 6, 5, 4])]
    assert assign_units(similarity).tolist() == [1, 0, 3, 2, 7, 6, 5, 4]
    assert assign_units(similarity, groups=2).tolist() == [1, 0, 3, 2, 7, 6, 5, 4]
    crossing = torch.eye(4)[torch.tensor([2, 3, 0, 1])]
    assert sorted(assign_units(crossing, groups=2)[:2].tolist()) == [0, 1]
