"""Against the equation in float64; beside mmcv's network: tests/layers/openmmlab/test_ffn.py."""

import pytest
import torch
from torch import nn

from halvit_mm.layers import TiedMLP


@pytest.mark.parametrize('with_cp', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_equation(bias, with_cp):
    ffn = TiedMLP(24, 40, nn.ReLU(), bias=bias, with_cp=with_cp, dtype=torch.double)
    for parameter in ffn.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 5, 24, dtype=torch.double, requires_grad=True)
    hidden_bias, out_bias = (ffn.hidden_bias, ffn.out_bias) if bias else (0, 0)
    expected = (x @ ffn.weight.T + hidden_bias).relu() @ ffn.weight + out_bias
    out = ffn(x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    inputs = [x, *ffn.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (out, expected))):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_arguments():
    with pytest.raises(ValueError, match='TiedMLP: feedforward_channels=0 is not a positive whole number'):
        TiedMLP(24, 0, nn.GELU())
    assert TiedMLP(24, 40, nn.GELU(), device='meta').weight.is_meta
