import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN

from halvit_mm.layers import TiedFFN
from tests.utils import assert_equal_gradients, gradients, tie_gradients, untie_state_dict


class Wrapped(torch.nn.Module):
    """Gives the network the name that it has in a backbone."""

    def __init__(self, ffn: torch.nn.Module) -> None:
        super().__init__()
        self.ffn = ffn

    def forward(self, *args):
        return self.ffn(*args)


def make_pair(**cfg) -> tuple[Wrapped, Wrapped]:
    torch.manual_seed(0)
    tied = Wrapped(TiedFFN(24, 40, **cfg)).double()
    for parameter in tied.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    untied = Wrapped(FFN(24, 40, **cfg)).double()
    untied.load_state_dict(untie_state_dict(tied.state_dict()), strict=True)
    return tied, untied


@pytest.mark.parametrize('act', ['GELU', 'ReLU'])
@pytest.mark.parametrize('shape', [(2, 7, 24), (2, 3, 5, 24), (24,)])
@pytest.mark.parametrize('shortcut', ['own', 'given', 'none'])
def test_equals_untied_counterpart(act, shape, shortcut):
    tied, untied = make_pair(act_cfg=dict(type=act), add_identity=shortcut != 'none')
    args = [torch.randn(shape, dtype=torch.double) for _ in range(2 if shortcut == 'given' else 1)]
    ours, theirs = tied(*args), untied(*args)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    assert_equal_gradients(gradients(tied), tie_gradients(gradients(untied)), 1e-10)


@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_gelu_is_the_same_without_gradients(approximate):
    ffn = TiedFFN(24, 40, act_cfg=dict(type='GELU', approximate=approximate)).double()
    x = torch.randn(2, 7, 24, dtype=torch.double)
    given, expected = x.clone(), ffn(x)
    with torch.no_grad():
        assert torch.equal(ffn(x), expected)
        assert torch.equal(torch.jit.trace(ffn, x)(x), expected)
    with torch.inference_mode():
        assert torch.equal(ffn(x), expected)
    assert torch.equal(x, given)


def test_gelu_makes_no_second_hidden_layer_without_gradients():
    ffn = TiedFFN(24, 40)
    places = []
    ffn.activate.register_forward_hook(lambda _, args, out: places.append(args[0].data_ptr() == out.data_ptr()))
    ffn(torch.randn(7, 24))
    with torch.no_grad():
        ffn(torch.randn(7, 24))
    assert places == [False, True]


def test_layer_scale():
    tied, untied = make_pair(act_cfg=dict(type='GELU'), layer_scale_init_value=0.1)
    x = torch.randn(2, 7, 24, dtype=torch.double)
    torch.testing.assert_close(tied(x), untied(x), rtol=0, atol=1e-12)
    values = torch.rand(24)
    torch.testing.assert_close(TiedFFN(24, 40, layer_scale_init_value=values).gamma2.weight.detach(), values)


def test_parameters_are_the_promised_ones():
    shapes = {name: tuple(p.shape) for name, p in TiedFFN(24, 40).named_parameters()}
    assert shapes == dict(weight=(40, 24), hidden_bias=(40,), out_bias=(24,))


def test_dropouts_act_in_training_only():
    x = torch.randn(64, 2, 24)
    for cfg in (dict(ffn_drop=0.5), dict(dropout_layer=dict(type='DropPath', drop_prob=0.5))):
        torch.manual_seed(0)
        ffn = TiedFFN(24, 40, **cfg)
        assert not torch.equal(ffn(x), ffn(x)), cfg
        ffn.eval()
        assert torch.equal(ffn(x), ffn(x)), cfg


def test_starts_xavier_uniform_with_zero_biases():
    ffn = TiedFFN(96, 384)
    bound = (6 / (96 + 384)) ** 0.5
    assert ffn.weight.abs().max() <= bound
    assert ffn.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert ffn.hidden_bias.abs().max() == ffn.out_bias.abs().max() == 0


def test_refuses_another_number_of_maps():
    with pytest.raises(ValueError, match='num_fcs=3 cannot be tied'):
        TiedFFN(24, 40, num_fcs=3)
