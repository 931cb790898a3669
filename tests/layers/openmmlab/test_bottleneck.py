import copy
import re

import pytest
import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from halvit_mm.layers.openmmlab.bottleneck import fold_norm
from halvit_mm.models import SharedBottleneckStage

NORMS = [dict(type='BN'), dict(type='SyncBN'), dict(type='GN', num_groups=2), dict(type='BN', affine=False)]


class UntiedBlock(nn.Module):
    """A block of ordinary layers, each 1x1 convolution with a weight of its own."""

    def __init__(self, block: nn.Module, weight: Tensor) -> None:
        super().__init__()
        mid, out = weight.shape[:2]
        self.widen = self.shortcut = None
        if block.widen is not None:
            self.widen = nn.Sequential(copy.deepcopy(block.widen.conv), copy.deepcopy(block.widen.norm), nn.GELU())
        if block.shortcut is not None:
            shortcut = block.shortcut
            self.shortcut = nn.Sequential(*map(copy.deepcopy, (shortcut.pool, shortcut.conv, shortcut.norm)))
        reduce = nn.Conv2d(out, mid, 1, stride=block.conv1_stride, bias=False)
        expand = nn.Conv2d(mid, out, 1, bias=False)
        reduce.weight.data.copy_(weight.data)
        expand.weight.data.copy_(weight.data.transpose(0, 1))
        g = (block.norm1, nn.ReLU(), block.conv2, block.norm2, nn.ReLU())
        self.body = nn.Sequential(reduce, *map(copy.deepcopy, g), expand, copy.deepcopy(block.norm3))

    def forward(self, x: Tensor) -> Tensor:
        if self.widen is not None:
            x = torch.cat((self.widen(x), x), 1)
        return torch.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


def make_pair(**cfg) -> tuple[SharedBottleneckStage, nn.Sequential]:
    shared = SharedBottleneckStage(**{**dict(num_blocks=3, in_channels=4, out_channels=16, mid_channels=6), **cfg})
    for parameter in shared.parameters():
        nn.init.normal_(parameter, mean=0.2, std=0.3)
    for name, buffer in shared.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            nn.init.uniform_(buffer, 0.5, 1.5)
    shared.double()
    return shared, nn.Sequential(*(UntiedBlock(block, shared.weight) for block in shared)).double()


def tied_gradients(untied: nn.Sequential) -> dict[str, Tensor]:
    """Gradients of the untied counterpart under the names of the shared stage; W's is the sum over all of its uses."""
    grads = dict(weight=0)
    for i, block in enumerate(untied):
        reduce, norm1, _, conv2, norm2, _, expand, norm3 = block.body
        grads['weight'] = grads['weight'] + reduce.weight.grad + expand.weight.grad.transpose(0, 1)
        parts = dict(norm1=norm1, conv2=conv2, norm2=norm2, norm3=norm3)
        if block.widen is not None:
            parts.update({'widen.conv': block.widen[0], 'widen.norm': block.widen[1]})
        if block.shortcut is not None:
            parts.update({'shortcut.conv': block.shortcut[1], 'shortcut.norm': block.shortcut[2]})
        grads.update({f'{i}.{k}.{n}': p.grad for k, part in parts.items() for n, p in part.named_parameters()})
    return grads


def own_gradients(shared: SharedBottleneckStage) -> dict[str, Tensor]:
    """Gradients of a shared stage, its norms named ``norm``, ``norm1``, ... whatever their type."""
    return {re.sub(r'\b(bn|gn)(\d?)\b', r'norm\2', name): p.grad for name, p in shared.named_parameters()}


def assert_equal_to_untied(shared, untied, x, forward=None, tolerance=1e-9):
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outs = [(forward or shared)(inputs[0]), untied(inputs[1])]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=tolerance)
    weight = torch.randn_like(outs[0])
    for out in outs:
        (out * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=tolerance)
    ours, theirs = own_gradients(shared), tied_gradients(untied)
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-9, atol=tolerance, msg=lambda m, n=name: f'{n}: {m}')


# SyncBN trains on GPUs only.
@pytest.mark.parametrize(
    ('norm_cfg', 'training'),
    [(norm, training) for norm in NORMS for training in (True, False) if norm['type'] != 'SyncBN' or not training],
    ids=str,
)
@pytest.mark.parametrize(
    'cfg',
    [
        dict(),
        dict(stride=2),
        dict(stride=2, style='caffe'),
        dict(stride=2, avg_down=True),
        dict(stride=2, in_channels=8),
        dict(stride=1, in_channels=16),
        dict(stride=2, in_channels=16),
        dict(stride=2, dilation=2),
        dict(groups=3),
    ],
    ids=str,
)
def test_equals_untied_counterpart(cfg, norm_cfg, training):
    pair = make_pair(norm_cfg=norm_cfg, **cfg)
    for stage in pair:
        stage.train(training)
    assert_equal_to_untied(
        *pair, torch.randn(2, pair[0][0].widen.conv.in_channels if pair[0][0].widen else 16, 7, 9).double()
    )
    for ours, theirs in zip(pair[0], pair[1]):
        if norm_cfg['type'] == 'BN':
            torch.testing.assert_close(ours.norm3.running_var, theirs.body[-1].running_var)
            if ours.shortcut is not None:
                torch.testing.assert_close(ours.shortcut.norm.running_mean, theirs.shortcut[2].running_mean)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('cfg', [dict(), dict(stride=2, in_channels=8)], ids=str)
def test_checkpointed_equals_untied_counterpart(cfg, training):
    shared, untied = make_pair(with_cp=True, **cfg)
    for stage in (shared, untied):
        stage.train(training)
    assert_equal_to_untied(shared, untied, torch.randn(2, cfg.get('in_channels', 4), 7, 9).double())


@pytest.mark.parametrize('training', [True, False])
def test_compiled_equals_untied_counterpart(training):
    shared, untied = make_pair(stride=2, in_channels=8, num_blocks=1)
    for stage in (shared, untied):
        stage.train(training)
    compiled = torch.compile(shared, fullgraph=True)
    assert_equal_to_untied(shared, untied, torch.randn(2, 8, 7, 9).double(), compiled)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('training', [True, False])
def test_channels_last_gives_the_same_and_stays_so(stride, training):
    stage = make_pair(stride=stride)[0].float().train(training)
    x = torch.randn(2, 4, 7, 9)
    rows = []
    for fmt in (torch.contiguous_format, torch.channels_last):
        clone = copy.deepcopy(stage).to(memory_format=fmt)
        out = clone(x.to(memory_format=fmt))
        assert out.is_contiguous(memory_format=fmt)
        out.square().mean().backward()
        rows.append((out, clone.weight.grad, clone[0].widen.conv.weight.grad))
    for ours, theirs in zip(*rows):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_folded_norm_is_the_norm():
    conv = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    norm = build_norm_layer(dict(type='BN', eps=0.1), 8)[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    assert fold_norm(conv.weight, norm) == (conv.weight, None, norm)
    norm.eval()
    x = torch.randn(2, 4, 5, 5)
    weight, bias, left = fold_norm(conv.weight, norm)
    assert left is None
    torch.testing.assert_close(torch.conv2d(x, weight, bias, groups=4), norm(conv(x)))


def test_parameters_are_the_promised_ones():
    stage = SharedBottleneckStage(2, in_channels=4, out_channels=16, mid_channels=6, stride=2)
    shapes = {name: tuple(p.shape) for name, p in stage.named_parameters() if 'bn' not in name}
    assert shapes == {
        'weight': (6, 16, 1, 1),
        '0.widen.conv.weight': (12, 1, 3, 3),
        '0.shortcut.conv.weight': (16, 1, 3, 3),
        '0.conv2.weight': (6, 6, 3, 3),
        '1.conv2.weight': (6, 6, 3, 3),
    }
    assert {'0.widen.bn.weight', '0.shortcut.bn.weight', '1.bn3.weight'} <= dict(stage.named_parameters()).keys()


def test_starts_xavier_normal():
    weight = SharedBottleneckStage(1, in_channels=64, out_channels=256, mid_channels=64).weight
    assert weight.std().item() == pytest.approx((2 / (64 + 256)) ** 0.5, rel=0.05)


def test_drop_path_acts_in_training_only():
    stage = SharedBottleneckStage(2, 4, 16, 6, drop_path_rate=(0.0, 0.5))
    assert isinstance(stage[0].drop_path, nn.Identity)
    x = torch.randn(32, 4, 5, 5)
    torch.manual_seed(0)
    assert not torch.equal(stage(x), stage(x))
    stage.eval()
    assert torch.equal(stage(x), stage(x))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(in_channels=6), 'in_channels=6 cannot be widened to out_channels=16.*must be a divisor of 16'),
        (dict(in_channels=32), 'in_channels=32 cannot be widened to out_channels=16'),
        (dict(groups=4), 'groups=4 is not a divisor of mid_channels=6; expected one'),
        (dict(groups=0), 'groups=0 is not a divisor'),
        (dict(style='torch'), "style='torch' is not a choice; expected one of 'pytorch', 'caffe'"),
        (dict(drop_path_rate=[0.1]), 'drop_path_rate has 1 entries for 3 blocks'),
    ],
    ids=str,
)
def test_refuses(cfg, message):
    with pytest.raises(ValueError, match=message):
        make_pair(**cfg)
