"""The tie survives what is done to models: each matrix is one storage, equal to its untied counterpart, at the end."""

import copy
import io

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmpretrain.models import VisionTransformer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from halvit_mm.models import HaLViT, SharedStageResNet
from tests.utils import TINY_ARCH, on_ranks, untie_state_dict

IMAGES = torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, 3, 32, 32)
HALVIT = dict(arch=TINY_ARCH, img_size=32, patch_size=8)


def build(**options) -> HaLViT:
    torch.manual_seed(0)
    return HaLViT(**HALVIT, **options)


def build_stage() -> SharedStageResNet:
    torch.manual_seed(0)
    return SharedStageResNet(depth=50, base_channels=4, stem_channels=4, expansion=4, shared_stages=(2, 3))


def assert_tied(model: HaLViT) -> None:
    """Each matrix is one storage, once in the state dict; the plain model with W and its transpose gives the same."""
    fresh = build(tie=model.tie)
    state = {name: value for name, value in model.state_dict().items() if name in fresh.state_dict()}
    assert state.keys() == fresh.state_dict().keys()
    parameters = dict(model.named_parameters())
    matrices = [name for name in parameters if name.endswith(('q_weight', 'kv_weight', 'ffn.weight'))]
    assert len(matrices) == 9
    assert len({parameters[name].untyped_storage().data_ptr() for name in matrices}) == 9
    counterpart = VisionTransformer(**HALVIT)
    counterpart.load_state_dict(untie_state_dict(state))
    fresh.load_state_dict(state)
    outputs = []
    for net in (fresh.double(), counterpart.double()):
        net.eval()
        with torch.no_grad():
            outputs += net(IMAGES.double())
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)


def step(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(IMAGES)[0].square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def state_dict_round_trip(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(init_cfg=None)
    other.load_state_dict(torch.load(file))
    step(other)
    return other


def whole_model_pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def to_double_and_back(model):
    return model.to(torch.float64).to('cpu', torch.float32)


def half(model):
    model.half()
    assert model.layers[0].attn.q_weight.dtype == torch.float16
    return model.float()


def meta_and_empty(model):
    state = model.state_dict()
    with torch.device('meta'):
        other = HaLViT(**HALVIT)
    other.to_empty(device='cpu').load_state_dict(state)
    return other


def deepcopied(model):
    other = copy.deepcopy(model)
    step(other)
    assert not torch.equal(other.layers[0].attn.q_weight, model.layers[0].attn.q_weight)
    return other


def averaged_by_mmengine(model):
    average = ExponentialMovingAverage(model, momentum=0.5)
    step(model)
    average.update_parameters(model)
    return average.module


def averaged_by_swa(model):
    average = AveragedModel(model)
    for _ in range(2):
        step(model)
        average.update_parameters(model)
    return average.module


def compiled(model):
    step(torch.compile(model, backend='aot_eager'))
    return model


def checkpointed(model):
    model.with_cp = True
    step(model)
    return model


def parameters_added_later(model):
    optimizer = torch.optim.AdamW(model.layers[0].parameters(), lr=1e-2)
    optimizer.add_param_group(dict(params=[p for layer in model.layers[1:] for p in layer.parameters()], lr=1e-3))
    with pytest.raises(ValueError, match='some parameters appear in more than one parameter group'):
        optimizer.add_param_group(dict(params=[model.layers[0].attn.kv_weight]))
    step(model, optimizer)
    return model


def decayed_by_layer(model):
    cfg = dict(
        optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
        paramwise_cfg=dict(layer_decay_rate=0.5),
        constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    )
    optimizer = build_optim_wrapper(model, cfg).optimizer
    held = [id(p) for group in optimizer.param_groups for p in group['params']]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    step(model, optimizer)
    return model


def quantized_after_training(model):
    """torch's dynamic quantization changes ``nn.Linear``: there is none in the backbone, and all stays as it was."""
    before = copy.deepcopy(model.state_dict())
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert all(torch.equal(value, before[name]) for name, value in quantized.state_dict().items())
    return quantized


class FakeQuantize(nn.Module):
    """Rounds a matrix to 8 bits; gradients pass."""

    def forward(self, weight):
        scale = weight.detach().abs().max() / 127
        return weight + (weight.detach() / scale).round() * scale - weight.detach()


class LowRank(nn.Module):
    """Adds ``B A`` to a matrix, as LoRA does."""

    def __init__(self, weight):
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, weight.shape[1]) * 0.1)
        self.b = nn.Parameter(torch.randn(weight.shape[0], 2) * 0.1)

    def forward(self, weight):
        return weight + self.b @ self.a


def parametrized(model, make):
    """What is done to W is done to its transpose; afterwards the result is the matrix."""
    tied = [(m, n) for m in model.modules() for n in ('q_weight', 'kv_weight') if n in m._parameters]
    tied += [(layer.ffn, 'weight') for layer in model.layers]
    for module, name in tied:
        parametrize.register_parametrization(module, name, make(getattr(module, name)))
    step(model)
    model.eval()
    with torch.no_grad(), parametrize.cached():
        changed = model(IMAGES)[0]
    for module, name in tied:
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES)[0], changed)
    return model


def trained_for_quantization(model):
    return parametrized(model, lambda weight: FakeQuantize())


def low_rank(model):
    return parametrized(model, LowRank)


@pytest.mark.parametrize(
    'change',
    [
        state_dict_round_trip,
        whole_model_pickled,
        to_double_and_back,
        half,
        meta_and_empty,
        deepcopied,
        averaged_by_mmengine,
        averaged_by_swa,
        compiled,
        checkpointed,
        parameters_added_later,
        decayed_by_layer,
        quantized_after_training,
        trained_for_quantization,
        low_rank,
    ],
    ids=lambda change: change.__name__,
)
def test_tie(change):
    assert_tied(change(build()))


def prepared_for_qat(model: nn.Module) -> None:
    model.train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig('fbgemm')
    torch.ao.quantization.prepare_qat(model, inplace=True)


def test_eager_quantization_aware_training_leaves_the_matrices_alone():
    model = build()
    prepared_for_qat(model)
    step(model)
    assert_tied(model)


def test_shared_stages():
    """The same for the weight of a stage, which all of its blocks use."""
    model = build_stage()
    for other in (copy.deepcopy(model), AveragedModel(model).module, model.double().float()):
        step(other, torch.optim.SGD(other.parameters(), lr=1e-2))
        for stage in (other.layer3, other.layer4):
            weights = [name for name, p in other.named_parameters() if p is stage.weight]
            assert len(weights) == 1
            assert sum(value.data_ptr() == stage.weight.data_ptr() for value in other.state_dict().values()) == 1


def trained_by_one(**options) -> dict:
    model = build(**options)
    step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    return model.state_dict()


def part(rank: int) -> torch.Tensor:
    return IMAGES.chunk(2)[rank]


def ddp(expected: dict, rank: int) -> None:
    model = build()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped(part(rank))[0].square().mean().backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert_tied(model)


def fsdp(expected: dict, rank: int, **options) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = build(**options)
    mesh = init_device_mesh('cpu', (2,))
    # Layers that share matrices are one unit.
    for start in range(0, len(model.layers), model.share):
        fully_shard([*model.layers[start : start + model.share]], mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(part(rank))[0].square().mean().backward()
    assert model.layers[0].ln1.weight.to_local().shape[0] * 2 == TINY_ARCH['embed_dims']
    optimizer.step()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name])
        plain = build(tie=model.tie, share=model.share)
        plain.load_state_dict(state, strict='slack' not in ''.join(state))
        if model.tie == 'both' and model.share == 1:
            assert_tied(plain)


@pytest.mark.parametrize('wrap', [ddp, fsdp])
def test_tie_over_ranks(wrap):
    """Two ranks with half of the images each end as one with all of them; FSDP2 shards each layer."""
    on_ranks(wrap, trained_by_one())


def fsdp_with_windows(options: dict, expected: dict, rank: int) -> None:
    fsdp(expected, rank, **options)


@pytest.mark.parametrize(
    'options',
    [
        *(dict(tie='both', with_cp=with_cp) for with_cp in (False, 'ffn', 'all_but_attn', True)),
        dict(tie='none'),
        dict(tie='both', share=2, tie_rank=2, with_cp='ffn'),
        dict(tie='none', share=2),
    ],
)
def test_windows_over_ranks(options):
    """FSDP2 gathers a layer's weights as the layer is called."""
    options = dict(window_size=2, global_attn_layers=(1,), **options)
    on_ranks(fsdp_with_windows, options, trained_by_one(**options))
