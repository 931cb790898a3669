from collections.abc import Sequence

import numpy as np
import torch
from mmengine.model import ModuleList
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed, to_2tuple
from torch import Tensor

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.io.weights import guard
from halvit_mm.layers import EncoderLayer, TiedEncoderLayer, add_slack, share_matrices
from halvit_mm.layers.resize import resize
from halvit_mm.registry import MODELS

TIES = ('both', 'attn', 'ffn', 'none')


@MODELS.register_module()
class HaLViT(VisionTransformer):
    """Vision transformer whose layers use one matrix on the way in and its transpose on the way out.

    Source: see :mod:`halvit_mm.layers`. HaLViT stands wherever mmpretrain's ``VisionTransformer`` stands: every
    argument of that class has the same meaning and default here, except ``arch``, whose default is ``'tiny'``.

    Args:
        arch (str or dict): ``'micro'`` (width 192, 12 layers), ``'tiny'`` (384, 12 layers: the paper's
            HaLViT-Tiny, DeiT-S's shape), ``'medium'`` (768, 12 layers: HaLViT-M, DeiT-B's shape), ``'large'``
            (1024, 24 layers), a name of mmpretrain's ``VisionTransformer``, or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads`` and ``feedforward_channels``. mmpretrain's ``'small'`` is 768 wide, with 8
            layers, and not DeiT-S's shape. Defaults to ``'tiny'``.
        img_size (int or tuple): Expected height and width of an image, in pixels; other sizes are accepted at
            run time. Defaults to 224.
        patch_size (int or tuple): Height and width of a patch, in pixels. Defaults to 16.
        in_channels (int): Channels of an image. Defaults to 3.
        out_indices (int or Sequence[int]): Layers whose output is returned, from 0; negative ones count from
            the end. Defaults to -1.
        drop_rate (float): Dropout rate after each projection. Defaults to 0.
        drop_path_rate (float): Stochastic depth rate of the last layer; it grows linearly from 0 at the first.
            Defaults to 0.
        qkv_bias (bool): Whether query, key and value have biases. Defaults to True.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='LN', eps=1e-6)``.
        final_norm (bool): Whether the last layer's output is normalized. Defaults to True.
        out_type (str): What is returned for each of ``out_indices``:

            - ``'cls_token'``: the class token, shape (B, D);
            - ``'featmap'``: the patch tokens as a map, shape (B, D, H, W);
            - ``'avg_featmap'``: the normalized mean of the patch tokens, shape (B, D);
            - ``'raw'``: all tokens, shape (B, N, D).

            Defaults to ``'cls_token'``.
        with_cls_token (bool): Whether a class token is put in front of the patches. Defaults to True.
        frozen_stages (int): Number of first layers that are not trained, together with patch embedding,
            position embedding and class token; they stay so after ``train()``. 0 or less freezes nothing.
            Defaults to -1.
        interpolate_mode (str): How position embeddings are resized. Defaults to ``'bicubic'``.
        layer_scale_init_value (float or Tensor): First value of the layer scale; 0 means none. Defaults to 0.
        patch_cfg (dict): Overrides for the patch embedding. Defaults to ``dict()``.
        layer_cfgs (dict or Sequence[dict]): Overrides for all layers, or for each. Defaults to ``dict()``.
        pre_norm (bool): Whether the tokens are normalized in front of the first layer. Defaults to False.
        tie (str): Which part of a layer is tied: ``'both'``, ``'attn'``, ``'ffn'`` or ``'none'``. The last is
            the control: parameter for parameter and key for key a ``VisionTransformer``. Defaults to ``'both'``.
        share (int): Consecutive layers that use the same matrices; norms, biases and layer scales stay each layer's
            own. Each matrix is a parameter of the first layer of its group, whose learning rate it has under layer-wise
            decay. The last group may be shorter. 1 means that every layer has its own; see
            :mod:`halvit_mm.layers.sharing`. Defaults to 1.
        tie_rank (int): Rank of what the way out of each tied pair has beyond the transpose of the way in, in each
            layer: ``W + U V``, which starts at W; see :class:`~halvit_mm.layers.shared.Slack`. 0 means none. Defaults
            to 0.
        with_cp (bool or str): Which of a layer's activations are computed again in the backward pass instead of being
            kept; the figures are for HaLViT-Tiny and -M, see ``docs/memory.md``:

            - False: none;
            - ``'ffn'``: the feed-forward network's and the norms', 0.39 of the memory is left;
            - ``'all_but_attn'``: all but queries, keys, values and the output of attention, which must be tied; 0.33;
            - True: all, 0.08.

            Defaults to False.
        window_size (int): Most patches along a side of a window, for large images: layers other than
            ``global_attn_layers`` attend within windows; see :mod:`halvit_mm.layers.windows`. The weights are the same
            as without windows. The output for an image that fits a window is the same too. 0 means no windows.
            Defaults to 0.
        global_attn_layers (Sequence[int]): Layers without windows, from 0; negative ones count from the end. Needs
            ``window_size``. Defaults to ``()``.
        init_cfg (dict or list, optional): Initialization config of mmengine. Defaults to None.

    Raises:
        AssertionError: If ``arch`` or ``out_indices`` are not as above.
        ValueError: If ``out_type``, ``tie``, ``share``, ``tie_rank``, ``frozen_stages``, ``layer_cfgs``,
            ``window_size`` or ``global_attn_layers`` are not as above.
        UserError: On loading a file that fills less than 90 % of it; see :func:`~halvit_mm.io.weights.guard`.

    Examples:
        >>> import torch
        >>> from mmpretrain.registry import MODELS
        >>> backbone = MODELS.build(dict(type='halvit_mm.HaLViT', arch='tiny', out_type='featmap'))
        >>> backbone(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 384, 14, 14])
        >>> sum(p.numel() for p in backbone.parameters())
        11048832
    """

    arch_zoo = {
        **VisionTransformer.arch_zoo,
        # DeiT-T's shape
        'micro': dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
        # DeiT-S's shape
        'tiny': dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
        # DeiT-B's shape
        'medium': dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
        # ViT-L's shape
        'large': dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
    }

    @refuse_unknown_arguments
    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        final_norm: bool = True,
        out_type: str = 'cls_token',
        with_cls_token: bool = True,
        frozen_stages: int = -1,
        interpolate_mode: str = 'bicubic',
        layer_scale_init_value: float | Tensor = 0.0,
        patch_cfg: dict = dict(),
        layer_cfgs: dict | Sequence[dict] = dict(),
        pre_norm: bool = False,
        tie: str = 'both',
        share: int = 1,
        tie_rank: int = 0,
        with_cp: bool | str = False,
        window_size: int = 0,
        global_attn_layers: Sequence[int] = (),
        init_cfg: dict | list | None = None,
    ) -> None:
        expect = Expect(self)
        expect.instance((str, dict), 'is not an architecture', "a name such as 'tiny', or a dict", arch=arch)
        sides = dict(img_size=to_2tuple(img_size), patch_size=to_2tuple(patch_size))
        expect.instance(
            (list, tuple), 'is not a height and a width', 'one number or two', lambda v: len(v) == 2, **sides
        )
        expect.each(expect.positive, img_size=img_size, patch_size=patch_size)
        expect.positive(in_channels=in_channels)
        # A dict is refused as upstream's own test-suite expects it.
        assert not isinstance(out_indices, dict), (
            f'"out_indices" must be a sequence or int, get {type(out_indices)} instead.'
        )
        expect.each(expect.whole, out_indices=out_indices)
        expect.fraction(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        expect.flag(qkv_bias=qkv_bias, final_norm=final_norm, with_cls_token=with_cls_token)
        expect.flag(pre_norm=pre_norm)
        expect.part('LN', norm_cfg=norm_cfg)
        expect.string(out_type=out_type, interpolate_mode=interpolate_mode)
        expect.whole(frozen_stages=frozen_stages, window_size=window_size)
        if not isinstance(layer_scale_init_value, Tensor):
            expect.number(layer_scale_init_value=layer_scale_init_value)
        expect.config(patch_cfg=patch_cfg)
        expect.each(expect.config, layer_cfgs=layer_cfgs)
        expect.choice(TIES, tie=tie)
        expect.positive(share=share)
        expect.whole(tie_rank=tie_rank)
        expect.sequence(global_attn_layers=global_attn_layers)
        expect.each(expect.whole, global_attn_layers=global_attn_layers)
        expect.init_cfg(init_cfg=init_cfg)
        arch_settings = self._resolve_arch(arch)
        num_layers = arch_settings['num_layers']
        if frozen_stages > num_layers:
            raise ValueError(
                f'frozen_stages={frozen_stages} is not a number of layers of this model; expected at most {num_layers}'
            )
        if frozen_stages > 0 and frozen_stages % share and frozen_stages < num_layers:
            raise ValueError(
                f'frozen_stages={frozen_stages} is not an end of a group of share={share} layers; expected a multiple '
                f'of {share}, or {num_layers}'
            )
        if tie_rank < 0 or (tie_rank and tie == 'none'):
            raise ValueError(
                f'tie_rank={tie_rank} with tie={tie!r} is not a rank beyond a tie; expected 0 or more, of a model that '
                'is tied'
            )
        if isinstance(layer_cfgs, dict):
            layer_cfgs = [layer_cfgs] * num_layers
        if len(layer_cfgs) != num_layers:
            raise ValueError(f'layer_cfgs has {len(layer_cfgs)} entries for {num_layers} layers')

        if window_size < 0:
            raise ValueError(f'window_size={window_size} is not a number of patches; expected 0 (no windows) or more')
        if global_attn_layers and not window_size:
            raise ValueError(
                f'global_attn_layers={tuple(global_attn_layers)} needs a window_size; it is 0 (no windows)'
            )
        for index in global_attn_layers:
            if not -num_layers <= index < num_layers:
                raise ValueError(
                    f'global_attn_layers={tuple(global_attn_layers)} names layer {index}, which is not a layer; '
                    f'expected 0 to {num_layers - 1}'
                )

        # Without layers: upstream's would be made in full only to be replaced.
        super().__init__(
            arch={**arch_settings, 'num_layers': 0},
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            out_indices=0,
            drop_rate=drop_rate,
            norm_cfg=norm_cfg,
            final_norm=final_norm,
            out_type=out_type,
            with_cls_token=with_cls_token,
            interpolate_mode=interpolate_mode,
            patch_cfg=patch_cfg,
            pre_norm=pre_norm,
            init_cfg=init_cfg,
        )
        self.arch_settings = arch_settings
        self.num_layers = num_layers
        out_indices = out_indices if isinstance(out_indices, Sequence) else [out_indices]
        for index in out_indices:
            assert -num_layers <= index < num_layers, f'Invalid out_indices {index}: there are {num_layers} layers'
        self.out_indices = tuple(index % num_layers for index in out_indices)
        self.tie = tie
        self.share = share
        self.window_size = window_size
        self.global_attn_layers = tuple(index % num_layers for index in global_attn_layers)

        layer_type = EncoderLayer if tie == 'none' else TiedEncoderLayer
        tie_cfg = {} if tie == 'none' else dict(tie=tie)
        self.layers = ModuleList()
        for i, (drop_path, layer_cfg) in enumerate(zip(np.linspace(0, drop_path_rate, num_layers), layer_cfgs)):
            cfg = dict(
                embed_dims=self.embed_dims,
                num_heads=arch_settings['num_heads'],
                feedforward_channels=arch_settings['feedforward_channels'],
                layer_scale_init_value=layer_scale_init_value,
                drop_rate=drop_rate,
                drop_path_rate=float(drop_path),
                qkv_bias=qkv_bias,
                norm_cfg=norm_cfg,
                window_size=0 if i in self.global_attn_layers else window_size,
                with_cp=with_cp,
                **tie_cfg,
            )
            self.layers.append(layer_type(**{**cfg, **layer_cfg}))

        for start in range(0, num_layers, share):
            try:
                share_matrices(self.layers[start : start + share])
            except ValueError as error:
                last = min(start + share, num_layers) - 1
                raise ValueError(f'layer_cfgs with share={share}: layers {start} to {last}: {error}') from None
        if tie_rank:
            add_slack(self, tie_rank)
        guard(self)
        self.frozen_stages = frozen_stages
        self.train()

    @property
    def with_cp(self) -> bool | str:
        return self.layers[0].with_cp

    @with_cp.setter
    def with_cp(self, value: bool | str) -> None:
        for layer in self.layers:
            layer.with_cp = value

    @classmethod
    def _resolve_arch(cls, arch: str | dict) -> dict:
        if isinstance(arch, str):
            assert arch.lower() in cls.arch_zoo, f'Arch {arch} is not in default archs {set(cls.arch_zoo)}'
            return cls.arch_zoo[arch.lower()]
        keys = {'embed_dims', 'num_layers', 'num_heads', 'feedforward_channels'}
        assert keys <= {*arch}, f'Custom arch needs a dict with keys {keys}, got {arch}'
        return arch

    def init_weights(self) -> None:
        # Upstream's own overwrites the position embedding of a checkpoint that is named in a list.
        super(VisionTransformer, self).init_weights()
        init_cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if not any(cfg and cfg['type'] == 'Pretrained' for cfg in init_cfgs):
            trunc_normal_(self.pos_embed, std=0.02)
            if self.cls_token is not None:
                trunc_normal_(self.cls_token, std=0.02)

    def _prepare_pos_embed(self, state_dict, prefix, *args, **kwargs) -> None:
        name = f'{prefix}pos_embed'
        if not self.with_cls_token and {name, f'{prefix}cls_token'} <= state_dict.keys():
            # Upstream takes the class token's embedding out too, but only of a model for images of the same size.
            state_dict[name] = state_dict[name][:, 1:]
        super()._prepare_pos_embed(state_dict, prefix, *args, **kwargs)

    def _pos_embed_for(self, resolution: tuple[int, int]) -> Tensor:
        """The position embedding of a map of H x W patches, shape (1, E + H * W, D)."""
        if any(isinstance(size, torch.SymInt) for size in resolution):
            return self._resize_for_any(resolution)
        if torch.are_deterministic_algorithms_enabled() and tuple(resolution) != tuple(self.patch_resolution):
            return self._resize_for_any(resolution)
        return resize_pos_embed(
            self.pos_embed, self.patch_resolution, resolution, self.interpolate_mode, self.num_extra_tokens
        )

    def _resize_for_any(self, resolution: tuple[torch.SymInt, torch.SymInt]) -> Tensor:
        """mmpretrain's ``resize_pos_embed``, deterministic, and without its test for an unchanged size.

        An export would freeze that test.
        """
        extra, patches = self.pos_embed.split(
            [self.num_extra_tokens, self.pos_embed.shape[1] - self.num_extra_tokens], 1
        )
        grid = patches.mT.unflatten(-1, self.patch_resolution)
        grid = resize(grid, resolution, self.interpolate_mode)
        return torch.cat((extra, grid.flatten(2).mT), 1)

    def _format_output(self, x: Tensor, resolution: tuple[int, int]) -> Tensor:
        out = super()._format_output(x, resolution)
        # Upstream's map is a view in channels_last layout. Convolutions keep that layout, and mmcv's RoIAlign reads the
        # map as if it were contiguous: numbers of other pixels, and no error.
        return out.contiguous() if self.out_type == 'featmap' else out

    def train(self, mode: bool = True) -> 'HaLViT':
        super().train(mode)
        if self.frozen_stages > 0:
            self._freeze_stages()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            x (Tensor): Images, shape (B, C, H, W), any H and W of at least one patch.

        Returns:
            tuple[Tensor]: One output for each of ``out_indices``; see ``out_type``.
        """
        x, patch_resolution = self.patch_embed(x)
        if self.cls_token is None:
            # The patches are a transposed view, in which every later operation would stride or copy.
            x = x.contiguous()
        else:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self._pos_embed_for(patch_resolution)
        x = self.pre_norm(self.drop_after_pos(x))

        outs = []
        for i, layer in enumerate(self.layers):
            x = layer(x, patch_resolution)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, patch_resolution))
        return tuple(outs)
