from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention, build_norm_layer
from torch import Tensor, nn

from .attention import TiedMultiheadAttention
from .ffn import TiedFFN
from .windows import join_windows, split_into_windows


class EncoderLayer(TransformerEncoderLayer):
    """mmpretrain's pre-norm encoder layer, whose tokens may attend within windows.

    Arguments are those of mmpretrain's ``TransformerEncoderLayer``, and besides:

    Args:
        window_size (int): Most tokens along a side of a window; 0 means that every token attends to every token.
            Defaults to 0.
    """

    def __init__(self, *args, window_size: int = 0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._attend_within(window_size)

    def _attend_within(self, window_size: int) -> None:
        self.window_size = window_size
        if window_size:
            # Stochastic depth drops whole images: in front of the shortcut, not in each window.
            self.drop_path, self.attn.out_drop = self.attn.out_drop, nn.Identity()

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
        if not self.window_size:
            return super().forward(x)
        if resolution is None:
            raise ValueError(f'resolution=None is not a size of a map; window_size={self.window_size} expects (H, W)')
        attended = self.attn(split_into_windows(self.ln1(x), resolution, self.window_size))
        x = x + self.drop_path(join_windows(attended, resolution, self.window_size))
        return self.ffn(self.ln2(x), identity=x)


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
        self._attend_within(window_size)
