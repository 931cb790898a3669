"""HaLViT as a vision transformer of timm's, and its entries in timm's registry."""

from collections.abc import Mapping
from typing import Optional

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vision_transformer
from torch import Tensor, nn

from halvit_mm.arguments import Expect
from halvit_mm.layers import TiedAttention, TiedMLP, add_slack, share_matrices
from halvit_mm.layers.shared import linear, transposed_linear
from halvit_mm.names import to_timm

TIES = ('both', 'attn', 'ffn', 'none')


class Attention(TiedAttention):
    """Tied attention with the constructor and the call of timm's ``Attention``."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: type[nn.Module] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _refuse(qk_norm=qk_norm, scale_attn_norm=scale_norm)
        super().__init__(
            dim, num_heads, attn_drop, proj_drop, qkv_bias, proj_bias=proj_bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor, attn_mask: Optional[Tensor] = None, is_causal: bool = False) -> Tensor:  # noqa: UP045
        """Attend from every token to every token: shape (B, N, D) to (B, N, D)."""
        if torch.jit.is_scripting():
            out = self._scripted(x, attn_mask, is_causal)
        else:
            out = self.project_out(self.attend(x, None, attn_mask, is_causal))
        return out

    def _scripted(self, x: Tensor, attn_mask: Optional[Tensor], is_causal: bool) -> Tensor:  # noqa: UP045
        B, N, D = x.shape
        tokens = x.reshape(B * N, D)
        q = linear(tokens, self.q_weight, None)
        k = linear(tokens, self.kv_weight, None)
        v = transposed_linear(tokens, self.kv_weight, None)
        if self.qkv_bias is not None:
            q_bias, k_bias, v_bias = self.qkv_bias.chunk(3)
            q, k, v = q + q_bias, k + k_bias, v + v_bias
        shape = [B, N, self.num_heads, self.head_dims]
        q, k, v = q.view(shape).transpose(1, 2), k.view(shape).transpose(1, 2), v.view(shape).transpose(1, 2)
        attn_drop = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask, attn_drop, is_causal)
        out = transposed_linear(out.transpose(1, 2).reshape(B * N, D), self.q_weight, self.proj_bias)
        return self.proj_drop(out.view(B, N, D))


class Mlp(TiedMLP):
    """A tied feed-forward network with the constructor and the call of timm's ``Mlp``."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: type[nn.Module] | None = None,
        bias: bool = True,
        drop: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _refuse(scale_mlp_norm=norm_layer is not None)
        super().__init__(
            in_features, hidden_features or in_features, act_layer(), drop, bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token by itself: shape (..., D) to (..., D)."""
        if torch.jit.is_scripting():
            hidden = self.ffn_drop(self.activate(linear(x.reshape(-1, self.embed_dims), self.weight, self.hidden_bias)))
            out = self.ffn_drop(transposed_linear(hidden, self.weight, self.out_bias)).view(x.shape)
        else:
            out = self._transform(x)
        return out


def _refuse(**options: bool) -> None:
    for name, value in options.items():
        if value:
            raise ValueError(f'HaLViT: {name}={value} is not an option of tied layers; expected False')


class HaLViT(VisionTransformer):
    """Vision transformer whose layers use one matrix on the way in and its transpose on the way out.

    Source: see :mod:`halvit_mm.layers`. Arguments are those of timm's ``VisionTransformer`` but ``qk_norm``,
    ``scale_attn_norm``, ``scale_mlp_norm`` and ``fix_init``, which a tied layer refuses, and besides:

    Args:
        tie (str): Which part of a layer is tied: ``'both'``, ``'attn'``, ``'ffn'`` or ``'none'``. The last is timm's
            ``VisionTransformer``. Defaults to ``'both'``.
        share (int): Consecutive layers that use the same matrices; see :mod:`halvit_mm.layers.sharing`. 1 means that
            every layer has its own. Defaults to 1.
        tie_rank (int): Rank of what the way out of each tied pair has beyond the transpose of the way in; see
            :class:`~halvit_mm.layers.shared.Slack`. 0 means none. Defaults to 0.

    Raises:
        ValueError: If ``tie``, ``share`` or ``tie_rank`` are not as above.
    """

    def __init__(self, *args, tie: str = 'both', share: int = 1, tie_rank: int = 0, **kwargs) -> None:
        expect = Expect(self)
        expect.choice(TIES, tie=tie)
        expect.positive(share=share)
        expect.whole(tie_rank=tie_rank)
        if tie_rank < 0 or (tie_rank and tie == 'none'):
            raise ValueError(
                f'tie_rank={tie_rank} with tie={tie!r} is not a rank beyond a tie; expected 0 or more, of a model that '
                'is tied'
            )
        if tie != 'none':
            _refuse(fix_init=kwargs.get('fix_init', False))
        layers = {}
        if tie in ('both', 'attn'):
            layers['attn_layer'] = Attention
        if tie in ('both', 'ffn'):
            layers['mlp_layer'] = Mlp
        super().__init__(*args, **layers, **kwargs)
        for start in range(0, len(self.blocks), share):
            share_matrices(self.blocks[start : start + share])
        if tie_rank:
            add_slack(self, tie_rank)


def checkpoint_filter_fn(state_dict: Mapping, model: HaLViT) -> dict[str, Tensor]:
    """Bring the weights of a file to a model: mmpretrain's names to timm's, embeddings to the model's size.

    Args:
        state_dict (Mapping): What the file holds: weights, or a dict with them under ``'state_dict'`` or ``'model'``.
        model (HaLViT): The model.

    Returns:
        dict[str, Tensor]: The weights, for ``model.load_state_dict``.
    """
    for key in ('state_dict', 'model'):
        state_dict = state_dict.get(key, state_dict)
    return filter_vision_transformer(to_timm(state_dict), model)


def _create(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    out_indices = kwargs.pop('out_indices', 3)
    return build_model_with_cfg(
        HaLViT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=out_indices, feature_cls='getter'),
        **kwargs,
    )


def _cfg() -> dict:
    return dict(
        url='',
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=None,
        crop_pct=0.875,
        interpolation='bicubic',
        fixed_input_size=True,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv='patch_embed.proj',
        classifier='head',
        license='apache-2.0',
    )


# No trained weights are published.
default_cfgs = generate_default_cfgs(
    {f'halvit_{size}_patch16_224.untrained': _cfg() for size in ('micro', 'tiny', 'medium', 'large')}
)


@register_model
def halvit_micro_patch16_224(pretrained: bool = False, **kwargs) -> nn.Module:
    """HaLViT of DeiT-T's shape."""
    shape = dict(patch_size=16, embed_dim=192, depth=12, num_heads=3)
    return _create('halvit_micro_patch16_224', pretrained, **{**shape, **kwargs})


@register_model
def halvit_tiny_patch16_224(pretrained: bool = False, **kwargs) -> nn.Module:
    """The paper's HaLViT-Tiny, of DeiT-S's shape."""
    shape = dict(patch_size=16, embed_dim=384, depth=12, num_heads=6)
    return _create('halvit_tiny_patch16_224', pretrained, **{**shape, **kwargs})


@register_model
def halvit_medium_patch16_224(pretrained: bool = False, **kwargs) -> nn.Module:
    """The paper's HaLViT-M, of DeiT-B's shape."""
    shape = dict(patch_size=16, embed_dim=768, depth=12, num_heads=12)
    return _create('halvit_medium_patch16_224', pretrained, **{**shape, **kwargs})


@register_model
def halvit_large_patch16_224(pretrained: bool = False, **kwargs) -> nn.Module:
    """HaLViT of ViT-L's shape."""
    shape = dict(patch_size=16, embed_dim=1024, depth=24, num_heads=16)
    return _create('halvit_large_patch16_224', pretrained, **{**shape, **kwargs})
