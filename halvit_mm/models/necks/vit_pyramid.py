from collections.abc import Sequence

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.registry import MODELS

MODES = ('interpolate', 'deconv')


@MODELS.register_module()
class ViTPyramid(BaseModule):
    """Pyramid of strides from maps of one stride, such as several depths of a plain vision transformer.

    The neck stands between a backbone with ``out_type='featmap'`` and mmdet's ``FPN``,
    ``neck=[dict(type='halvit_mm.ViTPyramid', ...), dict(type='FPN', ...)]``. Map i is brought to stride i: to finer
    strides by bilinear interpolation (no parameters) or by transposed convolutions of stride 2, with a norm and GELU
    between two of them, to coarser strides by maximum pooling, as in "Exploring Plain Vision Transformer Backbones for
    Object Detection" (ViTDet, `arXiv 2203.16527 <https://arxiv.org/abs/2203.16527>`_, section 3).

    Args:
        in_channels (int): Channels of each map.
        in_stride (int): Stride of the maps, in pixels. Defaults to 16.
        out_strides (Sequence[int]): Stride of each output, in pixels; ``in_stride`` times or divided by a power of
            2. Defaults to ``(4, 8, 16, 32)``.
        mode (str): How finer maps are made: ``'interpolate'`` or ``'deconv'``, in which a transposed convolution
            halves the channels. Defaults to ``'interpolate'``.
        norm_cfg (dict): Config of the norm between two transposed convolutions, which only ``'deconv'`` has.
            Defaults to ``dict(type='LN2d', eps=1e-6)``, mmpretrain's layer norm over the channels of a pixel.
        act_cfg (dict): Config of the activation there. Defaults to ``dict(type='GELU')``.
        init_cfg (dict, optional): Initialization config of mmengine. Defaults to None.

    Attributes:
        out_channels (tuple[int]): Channels of each output: the ``in_channels`` of an ``FPN``.
        out_strides (tuple[int]): Stride of each output, in pixels.

    Raises:
        ValueError: If a stride cannot be made from ``in_stride``, if ``mode`` is unknown, or if the channels
            cannot be halved as often as ``'deconv'`` needs.

    Examples:
        >>> import torch
        >>> from halvit_mm.models import ViTPyramid
        >>> neck = ViTPyramid(in_channels=384)
        >>> [tuple(out.shape) for out in neck([torch.rand(1, 384, 14, 14)] * 4)]
        [(1, 384, 56, 56), (1, 384, 28, 28), (1, 384, 14, 14), (1, 384, 7, 7)]
    """

    @refuse_unknown_arguments
    def __init__(
        self,
        in_channels: int,
        in_stride: int = 16,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        mode: str = 'interpolate',
        norm_cfg: dict = dict(type='LN2d', eps=1e-6),
        act_cfg: dict = dict(type='GELU'),
        init_cfg: dict | list | None = None,
    ) -> None:
        expect = Expect(self)
        expect.positive(in_channels=in_channels)
        expect.whole(in_stride=in_stride)
        expect.sequence(out_strides=out_strides)
        expect.each(expect.whole, out_strides=out_strides)
        expect.choice(MODES, mode=mode)
        expect.part('LN2d', norm_cfg=norm_cfg)
        expect.part('GELU', act_cfg=act_cfg)
        expect.init_cfg(init_cfg=init_cfg)
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.in_stride = in_stride
        self.out_strides = tuple(out_strides)
        self.mode = mode

        self.stages = ModuleList()
        out_channels = []
        for stride in self.out_strides:
            doublings = count_doublings(in_stride, stride)
            channels = in_channels
            if doublings > 0 and mode == 'deconv':
                channels = in_channels // 2**doublings
                if channels * 2**doublings != in_channels:
                    raise ValueError(
                        f"out_strides={self.out_strides}: in mode='deconv' stride {stride} needs in_channels="
                        f'{in_channels} to be a multiple of {2**doublings}'
                    )
                stage = _make_deconvs(in_channels, doublings, norm_cfg, act_cfg)
            elif doublings > 0:
                stage = nn.Upsample(scale_factor=2**doublings, mode='bilinear')
            else:
                stage = nn.MaxPool2d(2**-doublings, ceil_mode=True) if doublings else nn.Identity()
            self.stages.append(stage)
            out_channels.append(channels)
        self.out_channels = tuple(out_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Bring each map to its stride.

        Args:
            inputs (Sequence[Tensor]): One map for each of ``out_strides``, all of ``in_stride``; shape
                (B, in_channels, H, W).

        Returns:
            tuple[Tensor]: Shape (B, out_channels[i], H * in_stride / out_strides[i], W * in_stride / out_strides[i]),
            rounded up.

        Raises:
            ValueError: If the number of maps or their channels are not as announced.
        """
        if len(inputs) != len(self.stages):
            raise ValueError(
                f'ViTPyramid got {len(inputs)} maps for out_strides={self.out_strides}; the backbone must return '
                f'{len(self.stages)}: see its out_indices'
            )
        for x in inputs:
            if x.ndim != 4 or x.shape[1] != self.in_channels:
                raise ValueError(
                    f'ViTPyramid got a map of shape {tuple(x.shape)}, and expects (B, {self.in_channels}, H, W); a '
                    "vision transformer returns maps with out_type='featmap'"
                )
        return tuple(stage(x) for stage, x in zip(self.stages, inputs))


def count_doublings(in_stride: int, out_stride: int) -> int:
    """How often a map is doubled to come from one stride to another; negative where the map is halved."""
    coarse, fine = max(in_stride, out_stride), min(in_stride, out_stride)
    ratio = coarse // fine if fine > 0 else 0
    if ratio < 1 or ratio * fine != coarse or ratio & (ratio - 1):
        raise ValueError(
            f'stride {out_stride} cannot be made from in_stride={in_stride}: it must be {in_stride} times or divided '
            'by a power of 2'
        )
    doublings = ratio.bit_length() - 1
    return doublings if out_stride < in_stride else -doublings


def _make_deconvs(channels: int, doublings: int, norm_cfg: dict, act_cfg: dict) -> nn.Sequential:
    layers = []
    for i in range(doublings):
        if i > 0:
            layers += [build_norm_layer(norm_cfg, channels), build_activation_layer(act_cfg)]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    return nn.Sequential(*layers)
