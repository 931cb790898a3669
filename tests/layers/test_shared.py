"""The products by W and its transpose, and what lies between untied and tied, against plain products in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from halvit_mm.layers.shared import (
    TiedModule,
    add_slack,
    conv1x1,
    linear,
    set_matrix,
    tied_modules,
    transposed_conv1x1,
    transposed_linear,
    transposed_view,
)


def matrix(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, requires_grad=True)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn_like(ours)
    grads = [torch.autograd.grad((out * weights).sum(), inputs, retain_graph=True) for out in (ours, theirs)]
    for own, expected in zip(*grads):
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('with_bias', [True, False])
def test_tokens(with_bias):
    x, hidden, weight = matrix(5, 3), matrix(5, 7), matrix(7, 3)
    bias, back = (matrix(7), matrix(3)) if with_bias else (None, None)
    given = [] if bias is None else [bias]
    assert_equal(linear(x, weight, bias), x @ weight.T + (0 if bias is None else bias), [x, weight, *given])
    given = [] if back is None else [back]
    expected = hidden @ weight + (0 if back is None else back)
    assert_equal(transposed_linear(hidden, weight, back), expected, [hidden, weight, *given])


@pytest.mark.parametrize('size', [(1, 2), (6, 5)], ids=['few pixels', 'many pixels'])
@pytest.mark.parametrize('with_bias', [True, False])
def test_pixels(size, with_bias):
    x, hidden, weight = matrix(2, 3, *size), matrix(2, 7, *size), matrix(7, 3, 1, 1)
    bias, back = (matrix(7), matrix(3)) if with_bias else (None, None)
    expected = torch.einsum('oi,nihw->nohw', weight[..., 0, 0], x)
    expected = expected if bias is None else expected + bias.view(-1, 1, 1)
    assert_equal(conv1x1(x, weight, bias), expected, [x, weight])
    assert_equal(conv1x1(x, weight, bias, stride=2), expected[..., ::2, ::2], [x, weight])
    expected = torch.einsum('oi,nohw->nihw', weight[..., 0, 0], hidden)
    expected = expected if back is None else expected + back.view(-1, 1, 1)
    assert_equal(transposed_conv1x1(hidden, weight, back), expected, [hidden, weight])


def test_transposed_view_is_no_copy():
    for weight in (matrix(7, 3), matrix(7, 3, 1, 1)):
        view = transposed_view(weight)
        assert view.shape[:2] == (3, 7)
        assert view.data_ptr() == weight.data_ptr()


class Owner(TiedModule, nn.Module):
    matrices = ('weight',)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 3))
        self.bias = nn.Parameter(torch.ones(4))
        self.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return transposed_linear(F.relu(linear(x, self.matrix('weight'), self.bias)), self.way_out('weight'))


def test_slack_is_what_the_way_out_is_beyond_the_mean():
    model = nn.Sequential(Owner(), nn.ReLU())
    [(name, owner)] = tied_modules(model)
    assert (name, owner) == ('0', model[0])
    assert owner.matrix('weight') is owner.way_out('weight') is owner.weight
    assert not owner.bias.any()
    add_slack(model, 5)  # more than the smaller side
    nn.init.normal_(owner.slack.left['weight'])
    way_in, way_out = torch.randn(4, 3), torch.randn(4, 3)
    set_matrix([owner], 'weight', [(way_in, way_out)])
    torch.testing.assert_close(owner.weight, (way_in + way_out) / 2)
    torch.testing.assert_close(owner.way_out('weight'), way_out)


class TestSlack:
    def owner(self) -> Owner:
        torch.manual_seed(0)
        owner = Owner().double()
        add_slack(owner, 2)
        return owner

    def test_starts_tied(self):
        owner = self.owner()
        assert torch.equal(owner.way_out('weight'), owner.weight)
        assert [(name, tuple(p.shape)) for name, p in owner.slack.named_parameters()] == [
            ('left.weight', (4, 2)),
            ('right.weight', (2, 3)),
        ]

    def test_equals_two_matrices(self):
        """In values; and the gradients of W, U and V are those of W_1 and W_2 by the chain rule."""
        owner = self.owner()
        nn.init.normal_(owner.slack.left['weight'])
        left, right = owner.slack.left['weight'], owner.slack.right['weight']
        way_in, way_out = owner.weight.detach().clone().requires_grad_(), (owner.weight + left @ right).detach()
        way_out.requires_grad_()
        x = torch.randn(5, 3, dtype=torch.double)
        ours = owner.transposed_linear('weight', F.relu(owner.linear('weight', x)))
        expected = transposed_linear(F.relu(linear(x, way_in)), way_out)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(owner.way_out('weight'), way_out)
        for out in (ours, expected):
            out.square().sum().backward()
        torch.testing.assert_close(owner.weight.grad, way_in.grad + way_out.grad)
        torch.testing.assert_close(left.grad, way_out.grad @ right.T)
        torch.testing.assert_close(right.grad, left.T @ way_out.grad)
