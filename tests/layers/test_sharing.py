"""Layers that share are the same layers with matrices of their own, and the gradients are summed over the layers."""

import copy
import re
from itertools import product

import onnx
import pytest
import torch
from torch import nn

from halvit_mm.errors import UserError
from halvit_mm.layers import EncoderLayer, TiedEncoderLayer, share_matrices
from halvit_mm.layers.sharing import groups_that_share
from halvit_mm.models import HaLViT
from halvit_mm.models.backbones.halvit import TIES
from tests.utils import TINY_ARCH, gradients

SMALL = dict(arch={**TINY_ARCH, 'num_layers': 5}, img_size=32, patch_size=8)
MATRICES = re.compile(r'(attn\.(q_weight|kv_weight|qkv\.weight|proj\.weight)|ffn\.(weight|layers\..*weight))$')


def make(**options) -> HaLViT:
    torch.manual_seed(0)
    model = HaLViT(**{**SMALL, **options}).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def owner_of(name: str, share: int) -> str:
    """Name of the matrix that a layer's matrix of that name is."""
    layer = int(name.split('.')[1])
    return name.replace(f'layers.{layer}.', f'layers.{layer - layer % share}.', 1)


def unshared(model: HaLViT, **options) -> HaLViT:
    """The same function with a matrix for each layer."""
    own = HaLViT(**{**SMALL, **options, 'share': 1}).double()
    state = model.state_dict()
    own.load_state_dict(
        {name: state[owner_of(name, options['share']) if MATRICES.search(name) else name] for name in own.state_dict()}
    )
    return own


IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ('share', 'tie', 'tie_rank'),
    [case for case in product((2, 3), TIES, (0, 2)) if case[1:] != ('none', 2)],
)
def test_gradients_are_summed_over_all_uses(share, tie, tie_rank):
    options = dict(share=share, tie=tie, tie_rank=tie_rank)
    model = make(**options)
    own = unshared(model, **options)
    out, expected = (one(IMAGES)[0] for one in (model, own))
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    for one in (out, expected):
        one.square().sum().backward()
    summed = {}
    for name, grad in gradients(own).items():
        key = owner_of(name, share) if MATRICES.search(name) else name
        summed[key] = summed.get(key, 0) + grad
    ours = gradients(model)
    assert ours.keys() == summed.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, summed[name], atol=1e-10, rtol=1e-10, msg=name)


def test_one_layer_a_group_changes_nothing():
    assert [*make(share=1).state_dict()] == [*make().state_dict()]


@pytest.mark.parametrize('tie', TIES)
def test_each_matrix_has_one_owner(tie):
    model = make(share=2, tie=tie)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len({*map(id, model.parameters())})
    assert {name.split('.')[1] for name in names if MATRICES.search(name)} == {'0', '2', '4'}
    for copied in (copy.deepcopy(model), copy.deepcopy(model).float().double()):
        torch.testing.assert_close(copied(IMAGES)[0], model(IMAGES)[0])
        before = [value.clone() for value in model.state_dict().values()]
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        assert all(torch.equal(*pair) for pair in zip(before, model.state_dict().values()))
        assert not copied(IMAGES)[0].any()


@pytest.mark.parametrize('tie', ['both', 'none'])
def test_compiled_and_exported(tie, tmp_path):
    model = make(share=2, tie=tie, tie_rank=2 if tie == 'both' else 0, out_type='featmap').float().eval()
    x = IMAGES.float()
    with torch.no_grad():
        expected = model(x)[0]
        compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
        torch.testing.assert_close(compiled(x)[0], expected)
        program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x)[0], expected)
    torch.onnx.export(model, (x,), tmp_path / 'shared.onnx', dynamo=True, verbose=False, external_data=False)
    initializers = onnx.load(tmp_path / 'shared.onnx').graph.initializer
    largest = [one for one in initializers if sorted(one.dims) == [24, 40]]
    # Three groups, of one matrix or of two
    assert len(largest) == (3 if tie == 'both' else 6)


@pytest.mark.parametrize('tie', ['both', 'none'])
def test_weights_of_layers_of_their_own_are_refused(tie):
    model, given = make(share=2, tie=tie), make(tie=tie).state_dict()
    with pytest.raises(UserError, match=r'layers\.1\.attn\..*weight is not a matrix of this model, whose layers share'):
        model.load_state_dict(given, strict=False)
    model.load_state_dict(make(share=2, tie=tie).state_dict())


def test_layers_of_another_shape_are_refused():
    layers = [TiedEncoderLayer(24, 3, width) for width in (40, 48)]
    with pytest.raises(
        ValueError, match=r'ffn has matrices of \[\(40, 24\)\] and of \[\(48, 24\)\]; expected one shape'
    ):
        share_matrices(layers)


def test_layers_of_other_parts_are_refused():
    for cfgs in ([{}, dict(tie='attn'), {}, {}, {}], [dict(tie='attn'), {}, {}, {}, {}]):
        with pytest.raises(
            ValueError,
            match='layer_cfgs with share=2: layers 0 to 1: ffn.* is .* and .*; expected the same parts in layers that',
        ):
            HaLViT(**SMALL, share=2, layer_cfgs=cfgs)


@pytest.mark.parametrize('tie', TIES)
def test_groups_that_share(tie):
    names = [f'layers.{i}' for i in range(5)]
    assert groups_that_share(make(share=2, tie=tie), names) == [names[:2], names[2:4], names[4:]]
    assert groups_that_share(make(tie=tie), names) == [[name] for name in names]


def test_a_fused_network_shares():
    layers = [EncoderLayer(24, 3, 40, ffn_type='swiglu_fused') for _ in range(2)]
    share_matrices(layers)
    assert not [name for name, p in layers[1].named_parameters() if p.ndim == 2]
    assert layers[1](torch.rand(1, 4, 24)).shape == (1, 4, 24)
