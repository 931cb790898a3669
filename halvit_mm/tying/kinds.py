"""Upstream's layers that can be tied: how their weights are read, what replaces them, and how that is filled."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from halvit_mm._torch import set_submodule
from halvit_mm.layers import TiedFFN, TiedModule, TiedMultiheadAttention, set_matrix, tied_modules
from halvit_mm.layers.ffn import FrugalGELU
from halvit_mm.layers.recompute import Recomputing
from halvit_mm.layers.stand_ins import (
    TiedConv1x1,
    TiedKeyValue,
    TiedLinear,
    TiedQueryKeyValue,
    TiedTorchAttention,
    TransposedConv1x1,
    TransposedLinear,
)

from .bases import AttentionWeights, FFNWeights, align_ffn, align_products, move_biases

Weights = AttentionWeights | FFNWeights


# How the weights of an untied layer are prepared before the mean of a pair becomes the shared matrix
WAYS = ('mean', 'products')


def align(weights: Weights, way: str) -> Weights:
    """Change the bases of an untied layer in one of ``WAYS``; see :func:`~halvit_mm.tying.tie_model`."""
    if way not in WAYS:
        raise ValueError(f'way={way!r} is not a way to tie; expected one of {", ".join(map(repr, WAYS))}')
    if way == 'mean':
        return weights
    if isinstance(weights, FFNWeights):
        return align_ffn(weights)
    return align_products(move_biases(weights))


def _stacked_bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias


def _fill(owner: TiedModule, weights: Weights) -> None:
    pairs = weights.pairs()
    for name in owner.matrices:
        set_matrix([owner], name, [pairs[name]])


@torch.no_grad()
def _fill_bias(bias: Tensor | None, *values: Tensor) -> None:
    if bias is not None:
        bias.copy_(torch.cat(values))


class Projections:
    """Attention with one projection for queries, keys and values: window attentions, timm's."""

    part = 'attn'

    def refusal(self, attn: nn.Module) -> str | None:
        """The reason why an untied module cannot be tied, or None."""
        if attn.qkv.out_features != 3 * attn.qkv.in_features or attn.proj.in_features != attn.proj.out_features:
            qkv, proj = tuple(attn.qkv.weight.shape), tuple(attn.proj.weight.shape)
            return f'matrices that are not square: qkv {qkv}, proj {proj}'
        # timm's options
        for name in ('q_norm', 'k_norm', 'norm', 'gate'):
            if not isinstance(getattr(attn, name, None), (nn.Identity, type(None))):
                return f'{name} between its matrices'
        return 'v_shortcut=True' if getattr(attn, 'v_shortcut', False) else None

    def read(self, attn: nn.Module) -> AttentionWeights:
        """The weights of an untied module."""
        return AttentionWeights(
            *attn.qkv.weight.chunk(3),
            attn.proj.weight,
            *_stacked_bias(attn.qkv).chunk(3),
            attn.proj.bias,
            attn.num_heads,
        )

    def tie(self, attn: nn.Module) -> nn.Module:
        """The tied form, not filled yet: the untied module itself with tied parts, or a module to replace it."""
        attn.qkv = TiedQueryKeyValue(attn.qkv.in_features, attn.qkv.bias is not None)
        attn.proj = TransposedLinear(attn.qkv, 'q_weight', attn.proj.bias is not None)
        return attn

    def fill(self, attn: nn.Module, weights: AttentionWeights) -> None:
        """Set the shared matrices of a tied module to the mean of two, and its biases."""
        _fill(attn.qkv, weights)
        _fill_bias(attn.qkv.bias, weights.query_bias, weights.key_bias, weights.value_bias)
        _fill_bias(attn.proj.bias, weights.out_bias)


class VisionTransformerAttention(Projections):
    """mmpretrain's ``MultiheadAttention``, which becomes a HaLViT's, key for key."""

    def tie(self, attn: nn.Module) -> TiedMultiheadAttention:
        tied = TiedMultiheadAttention(
            attn.embed_dims,
            attn.num_heads,
            attn_drop=attn.attn_drop,
            qkv_bias=attn.qkv.bias is not None,
            proj_bias=attn.proj.bias is not None,
        )
        tied.proj_drop, tied.out_drop, tied.gamma1 = attn.proj_drop, attn.out_drop, attn.gamma1
        return tied

    def fill(self, attn: TiedMultiheadAttention, weights: AttentionWeights) -> None:
        _fill(attn, weights)
        _fill_bias(attn.qkv_bias, weights.query_bias, weights.key_bias, weights.value_bias)
        _fill_bias(attn.proj_bias, weights.out_bias)


class SubsampledAttention(Projections):
    """Twins' global attention, whose keys and values are of fewer tokens."""

    def refusal(self, attn: nn.Module) -> str | None:
        if attn.q.in_features != attn.q.out_features:
            return f'matrices that are not square: q {tuple(attn.q.weight.shape)}'
        return 'v_shortcut=True' if attn.v_shortcut else None

    def read(self, attn: nn.Module) -> AttentionWeights:
        return AttentionWeights(
            attn.q.weight,
            *attn.kv.weight.chunk(2),
            attn.proj.weight,
            _stacked_bias(attn.q),
            *_stacked_bias(attn.kv).chunk(2),
            attn.proj.bias,
            attn.num_heads,
        )

    def tie(self, attn: nn.Module) -> nn.Module:
        width = attn.q.in_features
        attn.q = TiedLinear(width, width, attn.q.bias is not None)
        attn.kv = TiedKeyValue(width, attn.kv.bias is not None)
        attn.proj = TransposedLinear(attn.q, bias=attn.proj.bias is not None)
        return attn

    def fill(self, attn: nn.Module, weights: AttentionWeights) -> None:
        set_matrix([attn.q], 'weight', [weights.pairs()['q_weight']])
        _fill(attn.kv, weights)
        _fill_bias(attn.q.bias, weights.query_bias)
        _fill_bias(attn.kv.bias, weights.key_bias, weights.value_bias)
        _fill_bias(attn.proj.bias, weights.out_bias)


class TorchAttention(Projections):
    """torch's ``nn.MultiheadAttention``, which mmcv's wraps: PVT's, DETR's."""

    def refusal(self, attn: nn.MultiheadAttention) -> str | None:
        if not attn._qkv_same_embed_dim:
            return f'keys or values of another width: {attn.embed_dim}, {attn.kdim}, {attn.vdim}'
        return 'add_bias_kv or add_zero_attn' if attn.bias_k is not None or attn.add_zero_attn else None

    def read(self, attn: nn.MultiheadAttention) -> AttentionWeights:
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return AttentionWeights(
            *weight.chunk(3), attn.out_proj.weight, *bias.chunk(3), attn.out_proj.bias, attn.num_heads
        )

    def tie(self, attn: nn.MultiheadAttention) -> TiedTorchAttention:
        return TiedTorchAttention(
            attn.embed_dim, attn.num_heads, attn.dropout, attn.in_proj_bias is not None, attn.batch_first
        )

    def fill(self, attn: TiedTorchAttention, weights: AttentionWeights) -> None:
        _fill(attn, weights)
        _fill_bias(attn.in_proj_bias, weights.query_bias, weights.key_bias, weights.value_bias)
        _fill_bias(attn.out_proj.bias, weights.out_bias)


@dataclass
class Pair:
    """Two linear maps or 1x1 convolutions with something between them.

    Attributes:
        part (str): ``'ffn'`` or ``'bottleneck'``.
        first (str): Name of the map on the way in.
        last (str): Name of the map on the way out.
    """

    part: str
    first: str
    last: str

    def scalable(self, module: nn.Module) -> bool:
        """Whether hidden units may grow by a factor."""
        return False

    def _maps(self, module: nn.Module) -> tuple[nn.Module, nn.Module]:
        return module.get_submodule(self.first), module.get_submodule(self.last)

    def refusal(self, module: nn.Module) -> str | None:
        first, last = (layer.weight.shape for layer in self._maps(module))
        if first[:2] != last[:2][::-1] or first[2:].numel() != 1 or last[2:].numel() != 1:
            return f'matrices that do not mirror each other: {tuple(first)}, {tuple(last)}'
        return None

    def read(self, module: nn.Module) -> FFNWeights:
        first, last = self._maps(module)
        return FFNWeights(first.weight.flatten(1), last.weight.flatten(1), first.bias, last.bias, self.scalable(module))

    def tie(self, module: nn.Module) -> nn.Module:
        first, last = self._maps(module)
        if isinstance(first, nn.Linear):
            way_in = TiedLinear(first.in_features, first.out_features, first.bias is not None)
            way_out = TransposedLinear(way_in, bias=last.bias is not None)
        else:
            way_in = TiedConv1x1(first.in_channels, first.out_channels, first.stride, first.bias is not None)
            way_out = TransposedConv1x1(way_in, bias=last.bias is not None)
        self._replace(module, way_in, way_out)
        return module

    def _replace(self, module: nn.Module, way_in: nn.Module, way_out: nn.Module) -> None:
        set_submodule(module, self.first, way_in)
        set_submodule(module, self.last, way_out)

    def recompute(self, module: nn.Module) -> None:
        """Let a tied module's activations be computed again in the backward pass instead of being kept."""
        module.forward = Recomputing(module)

    def fill(self, module: nn.Module, weights: FFNWeights) -> None:
        first, last = self._maps(module)
        _fill(first, weights)
        _fill_bias(first.bias, weights.hidden_bias)
        _fill_bias(last.bias, weights.out_bias)


class MixFFN(Pair):
    """PVT's; in PVTv2's the way out is one place further, after a depthwise convolution."""

    def _maps(self, module: nn.Module) -> tuple[nn.Module, nn.Module]:
        return module.layers[0], module.layers[-2]

    def _replace(self, module: nn.Module, way_in: nn.Module, way_out: nn.Module) -> None:
        module.layers[0], module.layers[-2] = way_in, way_out


class MmcvFFN(Pair):
    """mmcv's, which becomes a :class:`~halvit_mm.layers.openmmlab.TiedFFN`."""

    def scalable(self, ffn: nn.Module) -> bool:
        return isinstance(ffn.layers[0][1], nn.ReLU)

    def refusal(self, ffn: nn.Module) -> str | None:
        if ffn.num_fcs != 2:
            return f'num_fcs={ffn.num_fcs}: one matrix and its transpose make 2 linear maps'
        return super().refusal(ffn)

    def tie(self, ffn: nn.Module) -> TiedFFN:
        tied = TiedFFN(ffn.embed_dims, ffn.feedforward_channels, add_identity=ffn.add_identity)
        _, activate, tied.ffn_drop = ffn.layers[0]
        tied.activate = FrugalGELU.in_place_of(activate)
        tied.dropout_layer, tied.gamma2 = ffn.dropout_layer, ffn.gamma2
        return tied

    def recompute(self, ffn: TiedFFN) -> None:
        ffn.with_cp = True

    def fill(self, ffn: TiedFFN, weights: FFNWeights) -> None:
        _fill(ffn, weights)
        _fill_bias(ffn.hidden_bias, weights.hidden_bias)
        _fill_bias(ffn.out_bias, weights.out_bias)


Kind = Projections | Pair
_PROJECTIONS = Projections()
_BOTTLENECK = Pair('bottleneck', 'conv1', 'conv3')
_MMPRETRAIN = 'mmpretrain.models.'
# By name, so that no library is imported for it; by exact class, for a subclass may compute something else.
KINDS: dict[str, Kind] = {
    f'{_MMPRETRAIN}utils.attention.MultiheadAttention': VisionTransformerAttention(),
    f'{_MMPRETRAIN}utils.attention.WindowMSA': _PROJECTIONS,
    f'{_MMPRETRAIN}backbones.twins.LocallyGroupedSelfAttention': _PROJECTIONS,
    f'{_MMPRETRAIN}backbones.twins.GlobalSubsampledAttention': SubsampledAttention(),
    'mmdet.models.backbones.swin.WindowMSA': _PROJECTIONS,
    'timm.layers.attention.Attention': _PROJECTIONS,
    'timm.models.vision_transformer.Attention': _PROJECTIONS,
    'timm.models.swin_transformer.WindowAttention': _PROJECTIONS,
    'torch.nn.modules.activation.MultiheadAttention': TorchAttention(),
    'mmcv.cnn.bricks.transformer.FFN': MmcvFFN('ffn', 'layers.0.0', 'layers.1'),
    'mmdet.models.backbones.pvt.MixFFN': MixFFN('ffn', 'layers.0', 'layers.-2'),
    'timm.layers.mlp.Mlp': Pair('ffn', 'fc1', 'fc2'),
    f'{_MMPRETRAIN}backbones.resnet.Bottleneck': _BOTTLENECK,
    f'{_MMPRETRAIN}backbones.resnext.Bottleneck': _BOTTLENECK,
    'mmdet.models.backbones.resnet.Bottleneck': _BOTTLENECK,
    'mmdet.models.backbones.resnext.Bottleneck': _BOTTLENECK,
    'torchvision.models.resnet.Bottleneck': _BOTTLENECK,
}


def kind_of(module: nn.Module) -> Kind | None:
    """How an untied module can be tied, or None where its class is not known."""
    return KINDS.get(f'{type(module).__module__}.{type(module).__qualname__}')


def is_tied(module: nn.Module) -> bool:
    """Whether a module, or a part of it, owns a shared matrix."""
    return any(True for _ in tied_modules(module))
