from copy import deepcopy

from mmcv.cnn.bricks.drop import build_dropout
from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerScale
from torch import Tensor, nn

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.registry import MODELS

from ..attention import TiedAttention


@MODELS.register_module()
class TiedMultiheadAttention(TiedAttention, BaseModule):
    """:class:`~halvit_mm.layers.TiedAttention` with what stands in front of the shortcut.

    Source and initialization: see :mod:`halvit_mm.layers`.

    Args:
        embed_dims (int): Features of a token, D.
        num_heads (int): Number of heads H; must divide D.
        attn_drop (float): Dropout rate of the attention weights. Defaults to 0.
        proj_drop (float): Dropout rate after the output projection. Defaults to 0.
        dropout_layer (dict): Config of the dropout in front of the shortcut, such as
            ``dict(type='DropPath', drop_prob=0.1)``. Defaults to ``dict(type='Dropout', drop_prob=0.)``.
        qkv_bias (bool): Whether query, key and value have biases. Defaults to True.
        qk_scale (float, optional): Factor on the products of queries and keys. Defaults to None, which
            means ``(D / H) ** -0.5``.
        proj_bias (bool): Whether the output projection has a bias. Defaults to True.
        layer_scale_init_value (float or Tensor): First value of a learned factor per feature, ``gamma1``;
            0 means none. Defaults to 0.
        init_cfg (dict, optional): Initialization config of mmengine. Defaults to None.

    Attributes:
        q_weight (nn.Parameter): W_q, shape (D, D).
        kv_weight (nn.Parameter): W_kv, shape (D, D).
        qkv_bias (nn.Parameter or None): b_q, b_k, b_v in this order, shape (3D, ).
        proj_bias (nn.Parameter or None): b_o, shape (D, ).

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``.
    """

    @refuse_unknown_arguments
    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        dropout_layer: dict = dict(type='Dropout', drop_prob=0.0),
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        layer_scale_init_value: float | Tensor = 0.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        expect = Expect(self)
        expect.part('DropPath', dropout_layer=dropout_layer)
        if not isinstance(layer_scale_init_value, Tensor):
            expect.number(layer_scale_init_value=layer_scale_init_value)
        expect.init_cfg(init_cfg=init_cfg)
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop, qkv_bias, qk_scale, proj_bias)
        self.init_cfg = deepcopy(init_cfg)
        self.out_drop = build_dropout(dropout_layer)
        self.gamma1 = build_layer_scale(embed_dims, layer_scale_init_value)

    def project_out(self, heads: Tensor) -> Tensor:
        return self.out_drop(self.gamma1(super().project_out(heads)))


def build_layer_scale(embed_dims: int, init_value: float | Tensor) -> nn.Module:
    """Layer scale (CaiT, `arXiv 2103.17239 <https://arxiv.org/abs/2103.17239>`_), or nothing for the number 0."""
    if not isinstance(init_value, Tensor) and init_value == 0:
        return nn.Identity()
    return LayerScale(embed_dims, layer_scale_init_value=init_value)
