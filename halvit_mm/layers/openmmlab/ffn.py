from copy import deepcopy

from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmengine.model import BaseModule
from torch import Tensor, nn

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.registry import MODELS

from ..ffn import FrugalGELU, TiedMLP
from .attention import build_layer_scale


@MODELS.register_module()
class TiedFFN(TiedMLP, BaseModule):
    """:class:`~halvit_mm.layers.TiedMLP` with the shortcut and what stands in front of it.

    Source and initialization: see :mod:`halvit_mm.layers`.

    Args:
        embed_dims (int): Features of a token, D. Defaults to 256.
        feedforward_channels (int): Width of the hidden layer, M. Defaults to 1024.
        num_fcs (int): Number of linear maps. Only 2 can be tied. Defaults to 2.
        act_cfg (dict): Config of the activation F. Defaults to ``dict(type='GELU')``.
        ffn_drop (float): Dropout rate after the activation and after the second map. Defaults to 0.
        dropout_layer (dict, optional): Config of the dropout in front of the shortcut. Defaults to None.
        add_identity (bool): Whether to add the shortcut. Defaults to True.
        layer_scale_init_value (float or Tensor): First value of a learned factor per feature, ``gamma2``;
            0 means none. Defaults to 0.
        with_cp (bool): Whether the hidden layer is computed again in the backward pass instead of being kept: nothing
            is kept but the input, and one matrix product of six is done twice. Defaults to False.
        init_cfg (dict, optional): Initialization config of mmengine. Defaults to None.

    Attributes:
        weight (nn.Parameter): W, shape (M, D).
        hidden_bias (nn.Parameter): b_1, shape (M, ).
        out_bias (nn.Parameter): b_2, shape (D, ).

    Raises:
        ValueError: If ``num_fcs`` is not 2.
    """

    @refuse_unknown_arguments
    def __init__(
        self,
        embed_dims: int = 256,
        feedforward_channels: int = 1024,
        num_fcs: int = 2,
        act_cfg: dict = dict(type='GELU'),
        ffn_drop: float = 0.0,
        dropout_layer: dict | None = None,
        add_identity: bool = True,
        layer_scale_init_value: float | Tensor = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        expect = Expect(self)
        expect.whole(num_fcs=num_fcs)
        expect.part('GELU', act_cfg=act_cfg)
        if dropout_layer is not None:
            expect.part('DropPath', dropout_layer=dropout_layer)
        expect.flag(add_identity=add_identity)
        if not isinstance(layer_scale_init_value, Tensor):
            expect.number(layer_scale_init_value=layer_scale_init_value)
        expect.init_cfg(init_cfg=init_cfg)
        if num_fcs != 2:
            raise ValueError(
                f'num_fcs={num_fcs} cannot be tied: one matrix and its transpose make exactly 2 linear maps'
            )
        activate = FrugalGELU.in_place_of(build_activation_layer(act_cfg))
        super().__init__(embed_dims, feedforward_channels, activate, ffn_drop, with_cp=with_cp)
        self.init_cfg = deepcopy(init_cfg)
        self.num_fcs = num_fcs
        self.add_identity = add_identity
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()
        self.gamma2 = build_layer_scale(embed_dims, layer_scale_init_value)

    def forward(self, x: Tensor, identity: Tensor | None = None, shortcut: bool = True) -> Tensor:
        """Transform every token by itself.

        Args:
            x (Tensor): Shape (..., D).
            identity (Tensor, optional): The shortcut, of x's shape. Defaults to None, which means x.
            shortcut (bool): Whether ``dropout_layer`` and the shortcut follow; otherwise the caller applies both.
                Defaults to True.

        Returns:
            Tensor: Of x's shape.
        """
        out = super().forward(x)
        if not shortcut:
            return out
        out = self.dropout_layer(out)
        if not self.add_identity:
            return out
        return (x if identity is None else identity) + out

    def _transform(self, x: Tensor) -> Tensor:
        return self.gamma2(super()._transform(x))
