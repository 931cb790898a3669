import copy

import pytest
import torch
from mmengine.runner import load_state_dict, save_checkpoint
from mmpretrain.models.backbones import ResNet, ResNeXt
from mmpretrain.models.backbones.resnet import Bottleneck
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from halvit_mm.cost import count_macs, count_parameters
from halvit_mm.models import SharedBottleneckStage, SharedStageResNet
from tests.utils import assert_equal_gradients, gradients, on_ranks

TINY = dict(depth=50, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
SHARES = [(0, 1, 2, 3), (2, 3), (1,), ()]


def tiny(**cfg) -> SharedStageResNet:
    return SharedStageResNet(**{**TINY, **cfg})


@pytest.mark.parametrize(
    ('shared_stages', 'parameters', 'macs'),
    [
        # Without the classifier's 2,048,000
        ((0, 1, 2, 3), 12_825_984, 4_098_676_736),
        ((2, 3), 13_460_032, 4_095_264_768),
        ((), 23_508_032, 4_087_136_256),
    ],
)
def test_counts_of_the_paper(shared_stages, parameters, macs):
    model = SharedStageResNet(50, shared_stages=shared_stages)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs
    assert macs + 2_048_000 == pytest.approx(4.09e9, rel=3e-3)


def shapes(model: nn.Module, skip: tuple[str, ...] = ()) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in model.state_dict().items() if not k.startswith(skip or ('none',))}


@pytest.mark.parametrize(
    ('cfg', 'upstream', 'upstream_cfg'),
    [
        (dict(depth=18), ResNet, dict()),
        (dict(depth=50, deep_stem=True, avg_down=True), ResNet, dict()),
        (dict(depth=101, norm_cfg=dict(type='GN', num_groups=2)), ResNet, dict()),
        (dict(depth=50, groups=4, width_per_group=2), ResNeXt, dict(groups=4, width_per_group=2)),
    ],
    ids=str,
)
def test_no_shared_stage_is_upstreams(cfg, upstream, upstream_cfg):
    cfg = {**TINY, **cfg}
    plain = upstream(**{**cfg, **upstream_cfg})
    ours = SharedStageResNet(**cfg, shared_stages=())
    ours.load_state_dict(plain.state_dict(), strict=True)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in plain.named_parameters()]
    plain.eval()
    for a, b in zip(ours.eval()(torch.ones(1, 3, 40, 40)), plain(torch.ones(1, 3, 40, 40))):
        assert torch.equal(a, b)


@pytest.mark.parametrize('groups', [1, 4])
def test_other_stages_are_the_hosts_and_take_its_weights(groups):
    upstream = ResNet(**TINY) if groups == 1 else ResNeXt(**TINY, groups=groups, width_per_group=2)
    ours = tiny(shared_stages=(2, 3), groups=groups, width_per_group=2)
    assert shapes(ours, ('layer3', 'layer4')) == shapes(upstream, ('layer3', 'layer4'))
    own = {name: value.clone() for name, value in ours.state_dict().items()}
    for parameter in upstream.parameters():
        nn.init.normal_(parameter)
    load_state_dict(ours, upstream.state_dict())
    for name, value in ours.state_dict().items():
        expected = own if name.startswith(('layer3', 'layer4')) else upstream.state_dict()
        assert torch.equal(value, expected[name]), name
    with pytest.raises(RuntimeError, match=r'layer3\.weight'):
        ours.load_state_dict(upstream.state_dict(), strict=True)
    again = tiny(shared_stages=(2, 3), groups=groups, width_per_group=2)
    again.load_state_dict(ours.state_dict(), strict=True)


def test_shared_weight_is_held_once():
    model = tiny()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if name.endswith('.weight')]
    assert {f'layer{i}.weight' for i in (1, 2, 3, 4)} <= set(names)
    assert not any('conv1' in name or 'conv3' in name for name in names if name.startswith('layer'))
    copied = copy.deepcopy(model)
    assert copied.layer1.weight is not model.layer1.weight
    copied.layer1.weight.data.zero_()
    assert model.layer1.weight.abs().sum() > 0


@pytest.mark.parametrize('size', [(32, 32), (31, 45)])
@pytest.mark.parametrize(
    'cfg',
    [
        *(dict(shared_stages=shared) for shared in SHARES),
        dict(style='caffe'),
        dict(deep_stem=True),
        dict(avg_down=True),
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(groups=4, width_per_group=2),
        dict(with_cp=True),
        dict(drop_path_rate=0.1),
        dict(expansion=2),
        dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), shared_stages=(1, 2), out_indices=(0, 1, 2)),
    ],
    ids=str,
)
def test_trains_with_every_option(cfg, size):
    model, upstream_cfg = tiny(zero_init_residual=False, **cfg), {**TINY, **cfg}
    model.init_weights()
    model.train()
    outs = model(torch.randn(2, 3, *size))
    upstream_cfg = {k: v for k, v in upstream_cfg.items() if k not in ('shared_stages', 'groups', 'width_per_group')}
    assert [out.shape for out in outs] == [out.shape for out in ResNet(**upstream_cfg)(torch.randn(2, 3, *size))]
    sum(out.square().mean() for out in outs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or parameter.numel() < 64, name


def test_checkpointing_changes_nothing():
    model = tiny(shared_stages=(1, 2), norm_cfg=dict(type='GN', num_groups=2)).double()
    other = tiny(shared_stages=(1, 2), norm_cfg=dict(type='GN', num_groups=2), with_cp=True).double()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 40, 40, dtype=torch.double)
    for m in (model, other):
        sum(out.square().mean() for out in m(x)).backward()
    for (name, a), b in zip(model.named_parameters(), other.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_stay_frozen(frozen_stages):
    model = tiny(frozen_stages=frozen_stages)
    assert model.train() is model
    assert model.eval() is model
    model.train()
    for name, parameter in model.named_parameters():
        stage = int(name[5]) if name.startswith('layer') else 0
        assert parameter.requires_grad is (stage > frozen_stages), name
    assert model.layer2[0].widen.norm.training is (frozen_stages < 2)


def test_norm_eval():
    model = tiny(norm_eval=True).train()
    assert model.training
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_initialization(tmp_path):
    model = tiny()
    w = model.layer4.weight.clone()
    model.init_weights()
    assert torch.equal(model.layer4.weight, w)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
    assert len(blocks) == 16
    assert all(block.norm3.weight.abs().max() == 0 for block in blocks)

    for block in blocks:
        nn.init.ones_(block.norm3.weight)
    save_checkpoint(dict(state_dict=model.state_dict()), str(tmp_path / 'w.pth'))
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth'))
    for init_cfg in (pretrained, [dict(type='Kaiming', layer='Conv2d'), pretrained]):
        again = tiny(init_cfg=init_cfg)
        again.init_weights()
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize('prefix', ['backbone.', 'model.backbone.', ''])
@pytest.mark.parametrize('depth', [50, 101, 152])
def test_layer_depth(depth, prefix):
    upstream = ResNet(**{**TINY, 'depth': depth})
    model = tiny(depth=depth, shared_stages=(2, 3))
    renamed = {f'layer{i}.weight': f'layer{i}.0.conv1.weight' for i in (3, 4)}
    last = 4 if depth == 50 else 12
    for name, _ in model.named_parameters():
        expected = upstream.get_layer_depth(f'backbone.{renamed.get(name, name)}', 'backbone.')
        assert model.get_layer_depth(prefix + name, prefix) == expected
    first = model.get_layer_depth(f'{prefix}layer3.0.conv2.weight', prefix)
    assert model.get_layer_depth(f'{prefix}layer3.weight', prefix) == first
    assert model.get_layer_depth(f'{prefix}layer3.{last}.conv2.weight', prefix)[0] > first[0]
    if prefix:
        depth, number = model.get_layer_depth('head.fc.weight', prefix)
        assert depth == number - 1


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(shared_stages=(2, 4)), r'shared_stages=\(2, 4\) names stage 4; the 4 stages are 0, 1, 2, 3'),
        (dict(shared_stages=-1), r'names stage -1'),
        (dict(depth=18), 'depth=18 has no 1x1 convolutions to share.*50, 101 or 152'),
        (dict(depth=34, shared_stages=(), groups=2), 'no grouped form'),
        (dict(groups=0), 'groups=0 and width_per_group=4 must be at least 1'),
        (dict(frozen_stages=5), 'frozen_stages=5 is not a number of stages of this model; expected at most 4'),
        (dict(conv_cfg=dict(type='DCNv2')), 'DCNv2.*shared_stages='),
        (dict(stem_channels=12), 'stage 0 cannot be shared: in_channels=12 cannot be widened to out_channels=32'),
        (dict(stem_channels=64), 'stage 0 cannot be shared: in_channels=64'),
        (dict(style='torch'), "style='torch' is not a choice"),
    ],
    ids=str,
)
def test_refuses(cfg, message):
    with pytest.raises(ValueError, match=message):
        tiny(**cfg)


def test_a_single_stage_and_conv_cfg_of_the_usual_kind():
    model = tiny(shared_stages=2, conv_cfg=dict(type='Conv2d'))
    assert model.shared_stages == (2,)
    assert [isinstance(getattr(model, name), SharedBottleneckStage) for name in model.res_layers] == [
        False,
        False,
        True,
        False,
    ]


def test_autocast():
    model = tiny(zero_init_residual=False).to(memory_format=torch.channels_last).train()
    x = torch.randn(4, 3, 64, 64)
    expected = model(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = model(x)
        loss = sum(out.float().square().mean() for out in outs)
    loss.backward()
    assert outs[0].dtype == torch.bfloat16
    assert (outs[0] - expected[0]).norm() < 0.03 * expected[0].norm()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_export(memory_format):
    model = tiny(shared_stages=(0, 3)).eval().to(memory_format=memory_format)
    x = torch.randn(2, 3, 40, 40).to(memory_format=memory_format)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        for ours, theirs in zip(program.module()(x), model(x)):
            torch.testing.assert_close(ours, theirs)
    weights = [v for k, v in program.state_dict.items() if k.endswith('layer4.weight')]
    assert len(weights) == 1


class Shallow(SharedStageResNet):
    """Two blocks a stage: Inductor compiles a whole ResNet-50 for minutes."""

    arch_settings = {50: (Bottleneck, (2, 2, 2, 2))}


class TestGradients:
    CFG = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))

    def make(self, norm_eval: bool = False, **options) -> SharedStageResNet:
        torch.manual_seed(0)
        cfg = {**TINY, **self.CFG, 'shared_stages': (0, 1), 'zero_init_residual': False, 'norm_eval': norm_eval}
        cfg.update(options)
        return Shallow(**cfg).double().train()

    def images(self, number: int = 4) -> torch.Tensor:
        return torch.randn(number, 3, 40, 40, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def loss(self, outs) -> torch.Tensor:
        # Every weight of the sum is another: after a batch norm, plain sums of squares have no gradient.
        return sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs)

    def test_compiled(self):
        """In one graph; Inductor compiles a stage in ``tests/layers``."""
        grads = []
        for compiled in (False, True):
            model = self.make()
            run = torch.compile(model, backend='aot_eager', fullgraph=True) if compiled else model
            self.loss(run(self.images())).backward()
            grads.append(gradients(model))
        largest = max(grad.abs().max() for grad in grads[0].values())
        assert_equal_gradients(*grads, 1e-10 * largest)

    def test_over_two_ranks(self, tmp_path):
        on_ranks(_rank, str(tmp_path / 'grads.pth'))
        model = self.make(norm_eval=True)
        (sum(self.loss(model(half)) for half in self.images().chunk(2)) / 2).backward()
        ours = torch.load(tmp_path / 'grads.pth')
        largest = max(grad.abs().max() for grad in ours.values())
        assert_equal_gradients(ours, gradients(model), 1e-12 * largest)
        assert 'layer2.weight' in ours


def _rank(out: str, rank: int) -> None:
    case = TestGradients()
    backbone = case.make(norm_eval=True)
    model = DistributedDataParallel(backbone)
    case.loss(model(case.images().chunk(2)[rank])).backward()
    if rank == 0:
        torch.save(gradients(backbone), out)
