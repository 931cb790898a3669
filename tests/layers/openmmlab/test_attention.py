import pytest
import torch
from mmpretrain.models.utils import MultiheadAttention

from halvit_mm.layers import TiedMultiheadAttention, add_slack
from tests.utils import assert_equal_gradients, gradients, tie_gradients, untie_state_dict


class Wrapped(torch.nn.Module):
    """Gives the attention the name that it has in a backbone."""

    def __init__(self, attn: torch.nn.Module) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x):
        return self.attn(x)


def make_pair(**cfg) -> tuple[Wrapped, Wrapped]:
    torch.manual_seed(0)
    tied = Wrapped(TiedMultiheadAttention(24, 3, **cfg)).double()
    for parameter in tied.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    untied = Wrapped(MultiheadAttention(24, 3, **cfg)).double()
    untied.load_state_dict(untie_state_dict(tied.state_dict()), strict=True)
    return tied, untied


@pytest.mark.parametrize('qkv_bias', [True, False])
@pytest.mark.parametrize('proj_bias', [True, False])
@pytest.mark.parametrize('layer_scale', [0.0, 0.1])
def test_equals_untied_counterpart(qkv_bias, proj_bias, layer_scale):
    tied, untied = make_pair(qkv_bias=qkv_bias, proj_bias=proj_bias, layer_scale_init_value=layer_scale)
    x = torch.randn(2, 7, 24, dtype=torch.double)
    ours, theirs = tied(x), untied(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    assert_equal_gradients(gradients(tied), tie_gradients(gradients(untied)), 1e-10)


def test_parameters_are_the_promised_ones():
    attn = TiedMultiheadAttention(24, 3)
    shapes = {name: tuple(p.shape) for name, p in attn.named_parameters()}
    assert shapes == dict(q_weight=(24, 24), kv_weight=(24, 24), qkv_bias=(72,), proj_bias=(24,))
    without = TiedMultiheadAttention(24, 3, qkv_bias=False, proj_bias=False)
    assert without.qkv_bias is None
    assert without.proj_bias is None


def test_qk_scale_multiplies_the_scores():
    tied, _ = make_pair(qkv_bias=False)
    scaled, _ = make_pair(qkv_bias=False, qk_scale=0.05)
    x = torch.randn(2, 7, 24, dtype=torch.double)
    # By hand: softmax(scale q k^T) v, back through W_q
    attn = tied.attn
    q, k, v = x @ attn.q_weight.T, x @ attn.kv_weight.T, x @ attn.kv_weight
    heads = [t.unflatten(-1, (3, 8)).transpose(1, 2) for t in (q, k, v)]
    for module, scale in ((tied, 8**-0.5), (scaled, 0.05)):
        weights = (heads[0] @ heads[1].mT * scale).softmax(-1)
        expected = (weights @ heads[2]).transpose(1, 2).flatten(2) @ attn.q_weight + attn.proj_bias
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('cfg', [dict(), dict(qkv_bias=False, qk_scale=0.05)])
@pytest.mark.parametrize('rank', [0, 2])
def test_attention_weights_are_those_of_forward(cfg, rank):
    attn = make_pair(**cfg)[0].attn
    if rank:
        add_slack(attn, rank)
        for parameter in attn.slack.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 7, 24, dtype=torch.double)
    weights = attn.attention_weights(x)
    assert weights.shape == (2, 3, 7, 7)
    bias = attn.qkv_bias.chunk(3)[2] if cfg.get('qkv_bias', True) else 0
    values = x @ attn.way_out('kv_weight') + bias
    heads = weights @ values.unflatten(-1, (3, 8)).transpose(1, 2)
    expected = heads.transpose(1, 2).flatten(2) @ attn.way_out('q_weight') + attn.proj_bias
    torch.testing.assert_close(attn(x), expected, rtol=0, atol=1e-12)


def test_dropouts_act_in_training_only():
    x = torch.randn(64, 2, 24)
    for cfg in (
        dict(attn_drop=0.5),
        dict(proj_drop=0.5),
        dict(dropout_layer=dict(type='DropPath', drop_prob=0.5)),
    ):
        torch.manual_seed(0)
        attn = TiedMultiheadAttention(24, 3, **cfg)
        assert not torch.equal(attn(x), attn(x)), cfg
        attn.eval()
        assert torch.equal(attn(x), attn(x)), cfg
    attn = TiedMultiheadAttention(24, 3, dropout_layer=dict(type='DropPath', drop_prob=0.5))
    dropped = (attn(torch.randn(200, 2, 24)).abs().amax(dim=(1, 2)) == 0).float().mean()
    assert 0.3 < dropped < 0.7


def test_layer_scale_takes_a_tensor():
    values = torch.rand(24)
    attn = TiedMultiheadAttention(24, 3, layer_scale_init_value=values)
    torch.testing.assert_close(attn.gamma1.weight.detach(), values)


def test_starts_xavier_uniform_with_zero_biases():
    attn = TiedMultiheadAttention(96, 3)
    bound = (6 / (96 + 96)) ** 0.5
    for weight in (attn.q_weight, attn.kv_weight):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert attn.qkv_bias.abs().max() == attn.proj_bias.abs().max() == 0


def test_refuses_a_width_that_does_not_split():
    with pytest.raises(ValueError, match='embed_dims=24 cannot be split into num_heads=5'):
        TiedMultiheadAttention(24, 5)


def test_makes_no_copy_of_a_matrix():
    attn = TiedMultiheadAttention(24, 3)
    x = torch.randn(2, 7, 24)
    with torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        attn(x)
    matrices = [[24, 24]]
    copies = [
        e for e in profile.events() if e.name in ('aten::copy_', 'aten::clone') and e.input_shapes[:1] == matrices
    ]
    assert not copies
    products = [e for e in profile.events() if e.name == 'aten::addmm']
    assert len(products) == 4
