import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from halvit_mm.layers.stand_ins import TiedConv1x1, TiedLinear, TiedQueryKeyValue, TransposedConv1x1, TransposedLinear


class Products(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('name', ['way_in', 'qkv', 'way_out'])
def test_tokens_in_any_arrangement_take_one_product(name):
    """Windows are views that are not contiguous, of which torch makes a product each."""
    way_in = TiedLinear(24, 40).double()
    linear = dict(way_in=way_in, qkv=TiedQueryKeyValue(24, bias=False), way_out=TransposedLinear(way_in))[name].double()
    with torch.no_grad():
        linear.bias is None or torch.nn.init.normal_(linear.bias)
        x = torch.randn(3, 40 if name == 'way_out' else 24, 5, 7, dtype=torch.double).permute(0, 2, 3, 1)
        with Products() as products:
            out = linear(x)
        torch.testing.assert_close(out, linear(x.contiguous()), rtol=0, atol=1e-12)
        torch.testing.assert_close(linear(x[0, 0, 0]), out[0, 0, 0], rtol=0, atol=1e-12)
    assert 'bmm' not in products.names
    assert sum(product in ('mm', 'addmm') for product in products.names) == 1


@pytest.mark.parametrize('pixels', [2, 9], ids=['fewer pixels than rows', 'more'])
def test_transposed_convolution(pixels):
    way_in = TiedConv1x1(4, 40)
    way_out = TransposedConv1x1(way_in)
    torch.nn.init.normal_(way_out.bias)
    assert way_out.weight.shape == (4, 40, 1, 1)
    pair = torch.nn.Sequential(way_in, way_out).double()
    x = torch.randn(2, 40, pixels, pixels, dtype=torch.double, requires_grad=True)
    # An exported graph has no second, transposed matrix.
    graph = torch.jit.trace(pair, torch.randn(2, 4, pixels, pixels, dtype=torch.double)).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert 'aten::_convolution' in kinds
    assert not kinds & {'aten::transpose', 'aten::permute', 'aten::clone'}
    results = []
    for out in (way_out(x), F.conv2d(x, way_in.weight.transpose(0, 1).contiguous(), way_out.bias)):
        weight = torch.arange(out.numel(), dtype=torch.double).view_as(out).cos()
        gradients = torch.autograd.grad((out * weight).sum(), (x, way_in.weight, way_out.bias))
        results.append((out, *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
