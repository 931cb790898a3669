from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention, build_norm_layer
from torch import Tensor, nn

from halvit_mm.arguments import Expect

from ..recompute import LEVELS, recompute, trains
from ..windows import join_windows, split_into_windows
from .attention import TiedMultiheadAttention
from .ffn import TiedFFN


class EncoderLayer(TransformerEncoderLayer):
    """mmpretrain's pre-norm encoder layer, whose tokens may attend within windows.

    Arguments are those of mmpretrain's ``TransformerEncoderLayer``, and besides:

    Args:
        window_size (int): Most tokens along a side of a window; 0 means that every token attends to every token.
            Defaults to 0.
        with_cp (bool or str): What is computed again in the backward pass instead of being kept; see
            :class:`~halvit_mm.models.HaLViT`. Defaults to False.

    Raises:
        ValueError: If ``with_cp`` is ``'all_but_attn'`` and the attention is not tied.
    """

    def __init__(self, *args, window_size: int = 0, with_cp: bool | str = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._set_options(window_size, with_cp)

    def _set_options(self, window_size: int, with_cp: bool | str) -> None:
        self.with_cp = with_cp
        self.window_size = window_size
        if window_size:
            # Stochastic depth drops whole images: in front of the shortcut, not in each window.
            self.drop_path, self.attn.out_drop = self.attn.out_drop, nn.Identity()

    @property
    def with_cp(self) -> bool | str:
        return self._with_cp

    @with_cp.setter
    def with_cp(self, value: bool | str) -> None:
        expected = f'True, False, {" or ".join(repr(level) for level in LEVELS if level is not True)}'
        Expect(self).instance(
            (bool, str), 'is not a choice', expected, lambda v: isinstance(v, bool) or v in LEVELS, with_cp=value
        )
        if value == 'all_but_attn' and not isinstance(self.attn, TiedMultiheadAttention):
            raise ValueError(f"with_cp={value!r} needs tied attention, and this is untied; expected 'ffn' or True")
        self._with_cp = value

    def forward(self, x: Tensor, resolution: tuple[int, int] | None = None) -> Tensor:
        """Attend, then transform each token alone.

        Args:
            x (Tensor): E extra tokens and the H x W tokens of a map, row by row: shape (B, E + H * W, D).
            resolution (tuple[int, int], optional): H and W, which windows need. Defaults to None.

        Returns:
            Tensor: Of x's shape.

        Raises:
            ValueError: If there are windows and no resolution.
        """
        if self.window_size and resolution is None:
            raise ValueError(f'resolution=None is not a size of a map; window_size={self.window_size} expects (H, W)')

        def enter(x: Tensor) -> Tensor:
            x = self.ln1(x)
            return split_into_windows(x, resolution, self.window_size) if self.window_size else x

        def leave(x: Tensor, attended: Tensor) -> Tensor:
            if self.window_size:
                attended = self.drop_path(join_windows(attended, resolution, self.window_size))
            return x + attended

        if not self.with_cp or not trains():
            x = leave(x, self.attn(enter(x)))
            return self.ffn(self.ln2(x), identity=x)
        if self.with_cp is True:
            x, out = recompute(lambda x: self._transform(leave(x, self.attn(enter(x)))), x)
        elif self.with_cp == 'all_but_attn':
            heads = self.attn.attend(x, enter)
            x, out = recompute(lambda x, heads: self._transform(leave(x, self.attn.project_out(heads))), x, heads)
        else:
            tied = isinstance(self.attn, TiedMultiheadAttention)
            x = leave(x, self.attn(x, enter) if tied else self.attn(enter(x)))
            x, out = recompute(self._transform, x)
        return x + self.ffn.dropout_layer(out) if isinstance(self.ffn, TiedFFN) else out

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x, and the output of the network: of a tied one that in front of stochastic depth and of the shortcut."""
        if isinstance(self.ffn, TiedFFN):
            return x, self.ffn(self.ln2(x), shortcut=False)
        return x, self.ffn(self.ln2(x), identity=x)


class TiedEncoderLayer(EncoderLayer):
    """Encoder layer in which the attention, the feed-forward network or both are tied.

    Arguments are those of :class:`EncoderLayer`, and besides:

    Args:
        tie (str): ``'both'``, ``'attn'`` or ``'ffn'``: which part is tied. Defaults to ``'both'``.
        num_fcs (int): Number of linear maps in the feed-forward network. Only 2 can be tied. Defaults to 2.
        ffn_type (str): ``'origin'``; mmpretrain's ``'swiglu_fused'`` has three matrices and no second one to
            tie. Defaults to ``'origin'``.

    Raises:
        ValueError: If ``ffn_type`` is not ``'origin'``, or if ``num_fcs`` is not 2 where the network is tied.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        tie: str = 'both',
        layer_scale_init_value: float | Tensor = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_fcs: int = 2,
        qkv_bias: bool = True,
        ffn_type: str = 'origin',
        act_cfg: dict = dict(type='GELU'),
        norm_cfg: dict = dict(type='LN'),
        window_size: int = 0,
        with_cp: bool | str = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        # Upstream's own constructor would make the untied matrices first.
        BaseModule.__init__(self, init_cfg)
        if ffn_type != 'origin':
            raise ValueError(f"ffn_type={ffn_type!r} cannot be used in a tied layer; use 'origin', or tie='none'")
        self.embed_dims = embed_dims
        drop_path = dict(type='DropPath', drop_prob=drop_path_rate)

        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        attention = MultiheadAttention if tie == 'ffn' else TiedMultiheadAttention
        self.attn = attention(
            embed_dims=embed_dims,
            num_heads=num_heads,
            attn_drop=attn_drop_rate,
            proj_drop=drop_rate,
            dropout_layer=drop_path,
            qkv_bias=qkv_bias,
            layer_scale_init_value=layer_scale_init_value,
        )
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        ffn = FFN if tie == 'attn' else TiedFFN
        self.ffn = ffn(
            embed_dims=embed_dims,
            feedforward_channels=feedforward_channels,
            num_fcs=num_fcs,
            ffn_drop=drop_rate,
            dropout_layer=drop_path,
            act_cfg=act_cfg,
            layer_scale_init_value=layer_scale_init_value,
        )
        self._set_options(window_size, with_cp)
