import copy
import gc
import io
from contextlib import nullcontext

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrize

from halvit_mm.layers import EncoderLayer, TiedEncoderLayer, TiedFFN, add_slack
from halvit_mm.layers.recompute import LEVELS
from tests.models.test_tie import LowRank
from tests.utils import assert_equal_gradients, gradients

D, M, H, N = 24, 40, 3, 2 * 7


def make(kind: type = TiedEncoderLayer, **cfg) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = kind(embed_dims=D, num_heads=H, feedforward_channels=M, **cfg)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def tokens(dtype=torch.double) -> torch.Tensor:
    return torch.randn(2, 7, D, dtype=dtype, generator=torch.Generator().manual_seed(1))


def live_tensors() -> list[torch.Tensor]:
    """All that Python holds, but for integers, of which each checkpoint has the state of the random numbers."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]  # none is fake
    return [one for one in tensors if one.is_floating_point() and one.layout == torch.strided]


def kept_numbers(layer: torch.nn.Module, function, x: torch.Tensor) -> int:
    """Numbers that a call keeps for the backward pass, without those of the layer; a memory counts once.

    Selective checkpointing holds tensors that autograd does not: whatever tensor the call leaves behind counts too.
    """
    before = live_tensors()
    owned = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            # The tensor is held, so that no address is used twice.
            kept[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(x)
    assert out.requires_grad
    known = {tensor.untyped_storage().data_ptr() for tensor in (*before, out)}
    for tensor in live_tensors():
        if tensor.untyped_storage().data_ptr() not in known:
            pack(tensor)
    return sum(numbers for numbers, _ in kept.values())


def run(layer, x: torch.Tensor, *args) -> dict[str, torch.Tensor]:
    """Output and gradients, of dropout masks of one seed."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    out = layer(x, *args)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return {
        **{k.removeprefix('_orig_mod.'): g.clone() for k, g in gradients(layer).items()},
        'x': x.grad,
        'out': out.detach(),
    }


# x, queries, keys, values, output of attention, the FFN's input, and a number for each head and token; besides, if
# nothing is computed again, both norms' outputs with mean and deviation, and the hidden layer before and after GELU
KEPT = {False: N * (8 * D + 2 * M + H + 4), 'ffn': N * (6 * D + H), 'all_but_attn': N * (5 * D + H), True: N * D}


@pytest.mark.parametrize(('with_cp', 'expected'), KEPT.items())
def test_what_a_layer_keeps(with_cp, expected):
    layer = make(with_cp=with_cp)
    assert kept_numbers(layer, layer, tokens(torch.float).requires_grad_()) == expected
    # Stochastic depth: a number for each image and branch, in fact
    dropping = make(with_cp=with_cp, drop_path_rate=0.2)
    assert kept_numbers(dropping, dropping, tokens(torch.float).requires_grad_()) <= expected + 2 * 2


@pytest.mark.parametrize(('with_cp', 'more'), [('ffn', 2 * D + 2 * 2), ('all_but_attn', 2 * D + 2), (True, 0)])
def test_what_a_layer_with_slack_keeps(with_cp, more):
    """Of the values, both products besides their sum; each slack's first product has as many columns as its rank."""
    layer = make(with_cp=with_cp)
    add_slack(layer, 2)
    assert kept_numbers(layer, layer, tokens(torch.float).requires_grad_()) == KEPT[with_cp] + N * more


def test_what_a_compiled_layer_keeps():
    """No more, in one graph; the compiler may compute more again, and keeps the state of the random numbers."""
    for with_cp in ('ffn', 'all_but_attn'):
        layer = make(with_cp=with_cp)
        # Inductor's split into a forward and a backward pass, without its code
        compiled = torch.compile(layer, backend='aot_eager_decomp_partition', fullgraph=True)
        assert kept_numbers(layer, compiled, tokens(torch.float).requires_grad_()) <= KEPT[with_cp]
        assert_equal_gradients(run(compiled, tokens(torch.float)), run(make(), tokens(torch.float)), 1e-4)


def test_an_exported_layer_is_the_plain_one():
    x = tokens(torch.float)
    nodes = [
        [node.target for node in torch.export.export(make(with_cp=with_cp).eval(), (x,)).graph.nodes]
        for with_cp in (False, *LEVELS)
    ]
    assert all(others == nodes[0] for others in nodes)
    for with_cp in LEVELS:
        layer = make(with_cp=with_cp).eval()
        torch.testing.assert_close(torch.jit.trace(layer, x)(x), layer(x))


@pytest.mark.parametrize('with_cp', LEVELS)
@pytest.mark.parametrize('tie', ['both', 'attn', 'ffn', 'none'])
@pytest.mark.parametrize(
    'cfg',
    [
        dict(),
        dict(drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.4),
        dict(layer_scale_init_value=0.1, qkv_bias=False, act_cfg=dict(type='ReLU')),
        dict(window_size=2, drop_path_rate=0.4),
    ],
)
def test_a_layer_computes_the_same(with_cp, tie, cfg):
    kind, tie = (EncoderLayer, {}) if tie == 'none' else (TiedEncoderLayer, dict(tie=tie))
    plain = make(kind, **tie, **cfg).double()
    if with_cp == 'all_but_attn' and tie.get('tie') not in ('both', 'attn'):
        with pytest.raises(ValueError, match=r"with_cp='all_but_attn' needs tied attention, and this is untied"):
            plain.with_cp = with_cp
        return
    saving = make(kind, **tie, **cfg, with_cp=with_cp).double()
    expected, ours = (run(layer, tokens(), (2, 3)) for layer in (plain, saving))
    assert_equal_gradients(ours, expected, 1e-12)
    with torch.no_grad():
        assert torch.equal(saving.eval()(tokens(), (2, 3)), plain.eval()(tokens(), (2, 3)))


@pytest.mark.parametrize('with_cp', LEVELS)
@pytest.mark.parametrize('cfg', [dict(), dict(window_size=2), dict(tie='attn'), dict(tie='ffn'), dict(qkv_bias=False)])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16], ids=str)
def test_output_and_gradients_are_those_of_the_plain_layer_bit_for_bit(with_cp, dtype, cfg):
    if with_cp == 'all_but_attn' and cfg.get('tie') == 'ffn':
        return  # refused: test_a_layer_computes_the_same
    layers = [make(**cfg, drop_path_rate=0.4, with_cp=cp) for cp in (False, with_cp)]
    with torch.autocast('cpu', dtype) if dtype else nullcontext():
        plain, saving = (run(layer, tokens(torch.float), (2, 3)) for layer in layers)
    assert plain.keys() == saving.keys()
    assert all(torch.equal(saving[name], value) for name, value in plain.items())


@pytest.mark.parametrize('with_cp', LEVELS)
def test_a_second_backward_pass_is_refused_where_products_are_kept(with_cp):
    layer = make(with_cp=with_cp)
    out = layer(tokens(torch.float)).sum()
    out.backward(retain_graph=True)
    first = gradients(layer)
    layer.zero_grad()
    if with_cp is True:
        out.backward()
        assert all(torch.equal(gradients(layer)[name], value) for name, value in first.items())
    else:
        with pytest.raises(RuntimeError, match='only allowed to backward once'):
            out.backward()


def test_a_layer_refuses_other_levels():
    for value in ('attn', None, 1):
        with pytest.raises((TypeError, ValueError), match=r"with_cp=.* expected True, False, 'ffn' or 'all_but_attn'"):
            make(with_cp=value)


@pytest.mark.parametrize('act', ['GELU', 'ReLU', 'Swish', 'HSwish', 'PReLU'])
@pytest.mark.parametrize('change', ['none', 'dropout', 'slack', 'low rank', 'frozen matrix', 'deepcopy', 'pickle'])
def test_ffn_computes_the_same(act, change):
    def build(with_cp: bool) -> TiedFFN:
        torch.manual_seed(0)
        ffn = TiedFFN(D, M, act_cfg=dict(type=act), ffn_drop=0.3 * (change == 'dropout'), with_cp=with_cp).double()
        if change == 'slack':
            add_slack(ffn, 2)
        for parameter in ffn.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        if change == 'low rank':
            parametrize.register_parametrization(ffn, 'weight', LowRank(ffn.weight).double())
        if change == 'frozen matrix':
            ffn.weight.requires_grad_(False)
        if change == 'pickle':
            file = io.BytesIO()
            torch.save(ffn, file)
            file.seek(0)
            return torch.load(file, weights_only=False)
        return copy.deepcopy(ffn) if change == 'deepcopy' else ffn

    plain, saving = build(False), build(True)
    expected, ours = run(plain, tokens()), run(saving, tokens())
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    masks = 2 * N * D if change == 'dropout' else 0
    low_rank = M * D if change == 'low rank' else 0
    assert kept_numbers(saving, saving, tokens()) <= N * D + masks + low_rank


def test_ffn_without_gradients_of_its_own():
    """Of frozen matrices alone, of an input that needs none, of no tokens, and of second order."""
    ffn = TiedFFN(4, 6, with_cp=True).double()
    x = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    parameters = tuple(ffn.parameters())

    def function(x, *values):
        return torch.func.functional_call(ffn, dict(zip(('weight', 'hidden_bias', 'out_bias'), values)), (x,))

    assert gradcheck(function, (x, *parameters))
    assert gradgradcheck(function, (x, *parameters))
    ffn(x.detach()).sum().backward()
    assert ffn.weight.grad.abs().max() > 0
    ffn(torch.zeros(0, 4, dtype=torch.double, requires_grad=True)).sum().backward()
    ffn.requires_grad_(False)
    ffn(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert not ffn(x.detach()).requires_grad


@pytest.mark.parametrize('with_cp', LEVELS)
def test_a_training_ends_with_the_same_weights(with_cp):
    """With stochastic depth and dropout, bit for bit, after 50 steps of AdamW."""

    def train(with_cp: bool | str) -> dict[str, torch.Tensor]:
        layers = [make(with_cp=with_cp, drop_path_rate=0.2, drop_rate=0.1) for _ in range(2)]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.manual_seed(4)
        for _ in range(50):
            x = torch.randn(8, 7, D)
            optimizer.zero_grad()
            (model(x) - x.flip(1)).square().mean().backward()
            optimizer.step()
        return model.state_dict()

    plain, recomputed = train(False), train(with_cp)
    assert all(torch.equal(recomputed[name], value) for name, value in plain.items())
