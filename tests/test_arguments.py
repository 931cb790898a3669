"""Every argument of every registered class with values of the wrong type and size, and many right ones."""

import ast
import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict

import halvit_mm.train
from halvit_mm.arguments import Expect
from halvit_mm.layers import SharedBottleneckStage, TiedFFN, TiedMultiheadAttention
from halvit_mm.layers.windows import join_windows, split_into_windows
from halvit_mm.models.backbones.halvit import TIES, HaLViT
from halvit_mm.registry import HOOKS, LOOPS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from tests.utils import TINY_ARCH

NOTHING = object()
WRONG = [None, -1, 0, 1.5, 'nonsense', (), {}, [], float('nan'), float('inf'), NOTHING, [1, 'a'], True]
WRONG += [dict(type='Absent'), 10**30, 2**31, float('-inf'), b'bytes', print, {1, 2}]

# Arguments with which each class can be built, and what it is then called with
RIGHT = {
    'HaLViT': (dict(arch=TINY_ARCH, img_size=32, patch_size=8), torch.rand(2, 3, 32, 32)),
    'SharedStageResNet': (dict(depth=50, base_channels=4, stem_channels=4, expansion=4), torch.rand(2, 3, 64, 64)),
    'SharedBottleneckStage': (
        dict(num_blocks=2, in_channels=8, out_channels=16, mid_channels=4),
        torch.rand(2, 8, 8, 8),
    ),
    'TiedMultiheadAttention': (dict(embed_dims=24, num_heads=3), torch.rand(2, 5, 24)),
    'TiedFFN': (dict(embed_dims=24, feedforward_channels=40), torch.rand(2, 5, 24)),
    'ViTPyramid': (dict(in_channels=24), [torch.rand(1, 24, 4, 4)] * 4),
    'FiniteStepHook': (dict(), None),
    'BadImageHook': (dict(), None),
    'HangHook': (dict(limit=10.0), None),
}
# Without arguments of their own
NOT_TRIED = {'GlobalAveragePooling', 'WholeCheckpointHook', 'ResumableEpochTrainLoop', 'ResumableIterTrainLoop'}
# They take upstream's arguments too; their own are tried in the tests of their modules.
NOT_TRIED |= {'DistilledClassifier', 'MiniDeiT'}
NOT_TRIED |= {'IterationSeedHook', 'LabelHook', 'PretrainedBackboneHook', 'LearningRateDecayOptimWrapperConstructor'}


def registered() -> dict:
    classes = {}
    for registry in (MODELS, HOOKS, LOOPS, OPTIM_WRAPPER_CONSTRUCTORS):
        registry.import_from_location()
        classes.update(registry.module_dict)
    return classes


def test_no_class_is_left_out():
    assert halvit_mm.train
    left_out = {name for name, cls in registered().items() if '__init__' in vars(cls)} - RIGHT.keys() - NOT_TRIED
    assert left_out == set()


def names_of(value: object) -> set[str]:
    """Words by which an error names a value."""
    words = {repr(value)}
    return words | {'Absent', "'type'", 'registry'} if value == dict(type='Absent') else words


@pytest.mark.parametrize('name', RIGHT)
def test_wrong_values_are_named(name):
    """An error names the argument or its value; without one the object works, and gives numbers of the right shape."""
    cls, (right, inputs) = registered()[name], RIGHT[name]
    unclear = []
    for argument in [*inspect.signature(cls.__init__).parameters][1:]:
        for value in WRONG:
            try:
                made = cls(**{**right, argument: value})
                if inputs is None:
                    continue
                outputs = made(inputs)
            except Exception as error:
                text = str(error)
                if argument not in text and not any(word in text for word in names_of(value)):
                    unclear.append(f'{argument}={value!r}: {type(error).__name__}: {text[:150]}')
                continue
            outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            if not all(isinstance(out, torch.Tensor) and out.isfinite().all() for out in outputs):
                unclear.append(f'{argument}={value!r}: wrong without an error')
    assert not unclear, '\n'.join(unclear)


class Part:
    """The owner of the arguments below."""


EXPECT = Expect(Part())


@pytest.mark.parametrize(
    ('check', 'values'),
    [
        ('whole', [-1, 0, 3, np.int64(3), np.uint8(3), 2**31 - 1]),
        ('positive', [1, np.int64(3)]),
        ('number', [-1.5, 0, 3, np.float32(0.5), np.float64(0.5), 1e30]),
        ('fraction', [0, 1, 0.5, np.float32(0.5), np.int64(1)]),
        ('flag', [True, False]),
        ('string', ['', 'a']),
        ('sequence', [(), [], [1, 'a'], range(3)]),
        ('config', [{}, ConfigDict(a=1)]),
        ('init_cfg', [None, {}, [dict(type='Kaiming')], ConfigDict(type='Kaiming')]),
    ],
)
def test_right_values(check, values):
    for value in values:
        getattr(EXPECT, check)(depth=value)


@pytest.mark.parametrize(
    ('check', 'value', 'error', 'message'),
    [
        ('whole', True, TypeError, 'depth=True is not a whole number; expected an int'),
        ('whole', 1.0, TypeError, 'depth=1.0 is not a whole number; expected an int'),
        ('whole', None, TypeError, 'depth=None is not a whole number; expected an int'),
        ('whole', 2**31, ValueError, '=2147483648 is not a number of 32 bits; expected one between -2**31 and 2**31'),
        ('whole', -(2**31), ValueError, 'is not a number of 32 bits; expected one between -2**31 and 2**31'),
        ('positive', 0, ValueError, 'depth=0 is not a positive whole number; expected 1 or more'),
        ('positive', '3', TypeError, "depth='3' is not a positive whole number; expected 1 or more"),
        ('number', True, TypeError, 'depth=True is not a finite number; expected an int or a float'),
        ('number', float('nan'), ValueError, 'depth=nan is not a finite number; expected an int or a float'),
        ('number', float('-inf'), ValueError, 'depth=-inf is not a finite number; expected an int or a float'),
        ('number', 10**400, ValueError, 'is not a number of 32 bits; expected one between -2**31 and 2**31'),
        ('fraction', 1.5, ValueError, 'depth=1.5 is not a fraction; expected 0 to 1'),
        ('fraction', float('nan'), ValueError, 'depth=nan is not a fraction; expected 0 to 1'),
        ('fraction', False, TypeError, 'depth=False is not a fraction; expected 0 to 1'),
        ('flag', 1, TypeError, 'depth=1 is not a bool; expected True or False'),
        ('string', None, TypeError, 'depth=None is not a string; expected a name in quotes'),
        ('sequence', 'ab', TypeError, "depth='ab' is not a sequence; expected a list or a tuple"),
        ('sequence', b'ab', TypeError, "depth=b'ab' is not a sequence; expected a list or a tuple"),
        ('sequence', {}, TypeError, 'depth={} is not a sequence; expected a list or a tuple'),
        ('config', [], TypeError, 'depth=[] is not a config; expected a dict'),
        ('init_cfg', (), TypeError, 'depth=() is not a config; expected a dict, a list of dicts or None'),
    ],
)
def test_wrong_values(check, value, error, message):
    with pytest.raises(error, match='^Part: depth=') as raised:
        getattr(EXPECT, check)(depth=value)
    assert str(raised.value).endswith(message)


def test_parts():
    EXPECT.part('LN', norm_cfg=ConfigDict(type='BN'))
    with pytest.raises(ValueError, match='^Part: norm_cfg=') as raised:
        EXPECT.part('LN', norm_cfg={'eps': 1e-6})
    assert str(raised.value).endswith("={'eps': 1e-06} has no 'type'; expected a dict such as dict(type='LN')")
    with pytest.raises(TypeError, match=r"Part: norm_cfg=\[\] has no 'type'; expected a dict such as"):
        EXPECT.part('LN', norm_cfg=[])


@pytest.mark.parametrize(('value', 'error'), [("'c'", ValueError), ('None', TypeError), ('3', TypeError)])
def test_choices(value, error):
    EXPECT.choice(('a', 'b'), mode='b')
    with pytest.raises(error, match=f"Part: mode={value} is not a choice; expected one of 'a', 'b'"):
        EXPECT.choice(('a', 'b'), mode=ast.literal_eval(value))


def test_each_entry():
    EXPECT.each(EXPECT.positive, strides=(1, np.int64(2)), dilations=[], depth=3)
    with pytest.raises(ValueError, match=r'Part: strides\[1\]=0 is not a positive whole number; expected 1 or more$'):
        EXPECT.each(EXPECT.positive, strides=(1, 0))
    with pytest.raises(TypeError, match=r'Part: strides\[0\]=True is not a positive whole number'):
        EXPECT.each(EXPECT.positive, strides=[True])
    for value in ('12', b'12', {1, 2}, None):
        with pytest.raises(TypeError, match='is not a positive whole number; expected 1 or more, or a list of these$'):
            EXPECT.each(EXPECT.positive, strides=value)


@pytest.mark.parametrize('name', RIGHT)
def test_misspelled_arguments_are_named(name):
    cls, (right, _) = registered()[name], RIGHT[name]
    for argument in [*inspect.signature(cls).parameters]:
        message = rf"^{name}: there is no argument '{argument}s'; did you mean '{argument}'\?$"
        with pytest.raises(TypeError, match=message):
            cls(**right, **{f'{argument}s': None})


def test_misspelled_arguments():
    with pytest.raises(TypeError, match=r"^HaLViT: there is no argument 'drop_path'; did you mean 'drop_path_rate'\?$"):
        HaLViT(drop_path=0.1)
    with pytest.raises(TypeError, match=r"TiedFFN: there is no argument 'feedforward_channel'; did you mean 'feed"):
        MODELS.build(dict(type='halvit_mm.TiedFFN', feedforward_channel=40))
    with pytest.raises(TypeError, match="^HaLViT: there is no argument 'embed_dim'; there are arch, .*, init_cfg$"):
        HaLViT(embed_dim=24)


def test_a_constructor_stays_what_it_is():
    assert [*inspect.signature(TiedFFN).parameters][:2] == ['embed_dims', 'feedforward_channels']

    class Wide(TiedFFN):
        """Errors name the class that is built."""

    with pytest.raises(TypeError, match='^Wide: there is no argument'):
        Wide(embed_dim=24)
    with pytest.raises(ValueError, match='^Wide: embed_dims=0 is'):
        Wide(0)
    layer = MODELS.build(dict(type='halvit_mm.TiedFFN', embed_dims=24, feedforward_channels=40))
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied.weight, layer.weight)


DTYPES = st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.2)])
FEW = settings(max_examples=25, deadline=None)


@FEW
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.booleans(), st.booleans(), DTYPES)
def test_attention_of_any_shape(heads, width, batch, tokens, qkv_bias, proj_bias, dtype):
    dtype, tolerance = dtype
    dims = heads * width
    layer = TiedMultiheadAttention(dims, heads, qkv_bias=qkv_bias, proj_bias=proj_bias).to(dtype)
    x = torch.randn(batch, tokens, dims, dtype=dtype)
    q_bias, k_bias, v_bias = layer.qkv_bias.double().chunk(3) if qkv_bias else [torch.zeros(dims)] * 3
    w_q, w_kv, y = layer.q_weight.double(), layer.kv_weight.double(), x.double()

    def split(value):
        return value.view(batch, tokens, heads, width).transpose(1, 2)

    q, k, v = split(y @ w_q.T + q_bias), split(y @ w_kv.T + k_bias), split(y @ w_kv + v_bias)
    out = (q @ k.transpose(2, 3) * width**-0.5).softmax(-1) @ v
    out = out.transpose(1, 2).reshape(batch, tokens, dims) @ w_q
    out = out + layer.proj_bias.double() if proj_bias else out
    torch.testing.assert_close(layer(x).double(), out, rtol=tolerance, atol=tolerance)


@FEW
@given(st.integers(1, 9), st.integers(1, 17), st.lists(st.integers(1, 3), max_size=3), st.booleans(), DTYPES)
def test_ffn_of_any_shape(dims, hidden, shape, add_identity, dtype):
    dtype, tolerance = dtype
    layer = TiedFFN(dims, hidden, add_identity=add_identity).to(dtype)
    x = torch.randn(*shape, dims, dtype=dtype)
    weight = layer.weight.double()
    out = F.gelu(x.double() @ weight.T + layer.hidden_bias) @ weight + layer.out_bias
    out = x + out if add_identity else out
    torch.testing.assert_close(layer(x).double(), out, rtol=tolerance, atol=tolerance)


@FEW
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 2), st.integers(4, 9), st.booleans())
def test_stage_of_any_shape(blocks, factor, channels, stride, size, with_cp):
    stage = SharedBottleneckStage(blocks, channels, factor * channels, 2, stride=stride, with_cp=with_cp)
    x = torch.randn(2, channels, size, size, requires_grad=True)
    out = stage(x)
    assert out.shape == (2, factor * channels, -(-size // stride), -(-size // stride))
    out.sum().backward()
    assert stage.weight.grad.isfinite().all()
    assert sum(p is stage.weight for p in stage.parameters()) == 1


@FEW
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2))
def test_windows_of_any_shape(batch, height, width, largest, extra):
    x = torch.randn(batch, extra + height * width, 4)
    joined = join_windows(split_into_windows(x, (height, width), largest), (height, width), largest)
    torch.testing.assert_close(joined[:, extra:], x[:, extra:])


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(TIES),
    st.sampled_from(['cls_token', 'featmap', 'avg_featmap', 'raw']),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 2]),
    st.integers(8, 41),
    st.integers(8, 41),
)
def test_backbone_with_any_options(tie, out_type, with_cls_token, with_cp, window_size, height, width):
    if out_type == 'cls_token' and not with_cls_token:
        return
    model = HaLViT(
        arch=TINY_ARCH,
        img_size=32,
        patch_size=8,
        tie=tie,
        out_type=out_type,
        with_cls_token=with_cls_token,
        with_cp=with_cp,
        window_size=window_size,
        drop_path_rate=0.1,
    )
    [out] = model(torch.randn(2, 3, height, width))
    h, w = -(-height // 8), -(-width // 8)
    shapes = dict(cls_token=(2, 24), featmap=(2, 24, h, w), avg_featmap=(2, 24), raw=(2, h * w + with_cls_token, 24))
    assert out.shape == shapes[out_type]
    out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
