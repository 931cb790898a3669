import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from mmpretrain.models.backbones.resnet import Bottleneck, ResLayer
from torch import Tensor, nn

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.registry import MODELS

from ..recompute import recompute
from ..shared import conv1x1, transposed_conv1x1


def fold_norm(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor | None, nn.Module | None]:
    """Fold a batch norm that keeps its statistics into the convolution in front of it, which has no bias.

    Args:
        weight (Tensor): Weight of the convolution, shape (C, ...).
        norm (nn.Module): The norm after the convolution.

    Returns:
        tuple: Weight and bias of the convolution, and the norm that is left to do: None where it is folded, else
        ``weight``, None and ``norm``.
    """
    if norm.training or not isinstance(norm, _BatchNorm) or not norm.affine or not norm.track_running_stats:
        return weight, None, norm
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    return weight * scale.view(-1, 1, 1, 1), bias, None


class Depthwise(nn.Module):
    """A depthwise 3x3 convolution and the norm after it."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.norm_name, norm = build_norm_layer(norm_cfg, out_channels)
        self.add_module(self.norm_name, norm)

    @property
    def norm(self) -> nn.Module:
        return getattr(self, self.norm_name)


class DepthwiseWiden(Depthwise):
    """The channels that the input of a stage lacks: a depthwise 3x3 convolution, a norm and GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, in, H, W) to (N, new, H, W)."""
        weight, bias, norm = fold_norm(self.conv.weight, self.norm)
        out = F.conv2d(x, weight, bias, padding=1, groups=self.conv.groups)
        if norm is not None:
            out = norm(out)
        if out.is_contiguous(memory_format=torch.channels_last):
            # On the CPU torch's fast GELU (about 30 times, both ways) takes contiguous tensors only.
            return F.gelu(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.gelu(out)


class DepthwiseShortcut(Depthwise):
    """Shortcut of a stage that strides: a depthwise 3x3 convolution, then one norm.

    With ``avg_down`` an average pooling strides in place of the convolution.
    """

    def __init__(self, channels: int, stride: int, avg_down: bool, norm_cfg: dict) -> None:
        super().__init__(channels, channels, norm_cfg, stride=1 if avg_down else stride)
        # As upstream's avg_down pools
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.pool = pool if avg_down else nn.Identity()

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Bring the parts of a widened input, each of shape (N, C_i, H, W), to the stride and put them together.

        Returns:
            Tensor: Shape (N, C_1 + C_2 + ..., H / stride, W / stride), rounded up.
        """
        weight, bias, norm = fold_norm(self.conv.weight, self.norm)
        outs = [
            F.conv2d(self.pool(part), w, stride=self.conv.stride, padding=1, groups=part.shape[1])
            for part, w in zip(parts, weight.split([part.shape[1] for part in parts]))
        ]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, 1)
        if norm is not None:
            return norm(out)
        # Not as biases of the convolutions: Inductor (torch 2.10) cannot lower slices of a computed one.
        return out.add_(bias.view(1, -1, 1, 1))


class SharedBottleneck(Bottleneck):
    """Bottleneck without 1x1 convolutions of its own: the stage passes their weight to :meth:`forward`.

    ``widen`` makes from the input the channels that the input lacks, and ``shortcut`` is applied to the parts of the
    widened input. Without ``widen`` the input has ``out_channels``; without ``shortcut`` the widened input itself is
    the shortcut. All other arguments are those of :class:`SharedBottleneckStage`.
    """

    def __init__(
        self,
        out_channels: int,
        mid_channels: int,
        *,
        stride: int = 1,
        dilation: int,
        groups: int,
        widen: nn.Module | None = None,
        shortcut: nn.Module | None = None,
        style: str,
        with_cp: bool,
        norm_cfg: dict,
        act_cfg: dict,
        drop_path_rate: float,
    ) -> None:
        # Upstream's own constructor would make the 1x1 convolutions first.
        BaseModule.__init__(self)
        self.out_channels = out_channels  # upstream's ResNet reads it
        self.with_cp = with_cp
        self.conv1_stride, conv2_stride = (1, stride) if style == 'pytorch' else (stride, 1)
        self.widen = widen
        self.shortcut = shortcut
        self.norm1_name, norm1 = build_norm_layer(norm_cfg, mid_channels, postfix=1)
        self.norm2_name, norm2 = build_norm_layer(norm_cfg, mid_channels, postfix=2)
        self.norm3_name, norm3 = build_norm_layer(norm_cfg, out_channels, postfix=3)
        self.add_module(self.norm1_name, norm1)
        self.conv2 = nn.Conv2d(mid_channels, mid_channels, 3, conv2_stride, dilation, dilation, groups, bias=False)
        self.add_module(self.norm2_name, norm2)
        self.add_module(self.norm3_name, norm3)
        self.relu = build_activation_layer(act_cfg)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Go in by W and out by its transpose.

        Args:
            x (Tensor): Shape (N, C, H, W), C being ``out`` or, with ``widen``, ``in``.
            weight (Tensor): W, shape (mid, out, 1, 1).

        Returns:
            Tensor: Shape (N, out, H / stride, W / stride), rounded up.
        """
        return recompute(self._forward, x, weight) if self.with_cp else self._forward(x, weight)

    def _forward(self, x: Tensor, weight: Tensor) -> Tensor:
        out, identity = self._enter(x, weight)
        out = self.relu(self.norm1(out))
        out = self.relu(self.norm2(self.conv2(out)))
        out = self.norm3(transposed_conv1x1(out, weight))  # W^T G(W x)
        out = self.drop_path(out)
        out += identity
        return self.relu(out)

    def _enter(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The reduced input, shape (N, mid, H', W'), and the shortcut, shape (N, out, H / stride, W / stride).

        W and the shortcut take a widened input in its two parts. The whole would be the largest map of the network.
        """
        parts = (x,) if self.widen is None else (self.widen(x), x)
        columns = (weight,) if len(parts) == 1 else weight.split([part.shape[1] for part in parts], dim=1)
        outs = [conv1x1(part, column, stride=self.conv1_stride) for part, column in zip(parts, columns)]  # W x
        out = outs[0] if len(outs) == 1 else outs[0].add_(outs[1])
        if self.shortcut is not None:
            return out, self.shortcut(parts)
        return out, x if self.widen is None else torch.cat(parts, 1)


@MODELS.register_module()
class SharedBottleneckStage(ResLayer):
    """Stage of bottlenecks in which one matrix W is every reduction, and its transpose every expansion.

    With G_i = norm, ReLU, 3x3 convolution, norm, ReLU:

    - ``y_i = ReLU(norm_i(W^T G_i(W x_i)) + shortcut_i(x_i))``, ``x_{i+1} = y_i``,
    - ``x_0 = concat(new, input)`` where the input has fewer channels than the output, ``new`` being the output of a
      depthwise 3x3 convolution, a norm and GELU for the input,
    - ``shortcut_0`` is a depthwise 3x3 convolution and a norm where the stage strides; every other is the identity.

    Source and initialization: see :mod:`halvit_mm.layers`. The authors' code has two norms in a row in ``shortcut_0``;
    the second adds nothing, and one is kept.

    A checkpoint in which this stage is a plain one has no W to go with its 3x3 convolutions and norms. Loading leaves
    them out, and the log has a warning.

    Args:
        num_blocks (int): Number of bottlenecks.
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output; ``in_channels`` must divide it.
        mid_channels (int): Channels of the 3x3 convolutions.
        stride (int): Stride of the first block. Defaults to 1.
        dilation (int): Dilation of the 3x3 convolutions. Defaults to 1.
        groups (int): Groups of the 3x3 convolutions; must divide ``mid_channels``. Defaults to 1.
        style (str): ``'pytorch'``: the first block's 3x3 convolution strides; ``'caffe'``: its 1x1 reduction
            does. Defaults to ``'pytorch'``.
        avg_down (bool): Whether the shortcut that strides does so by average pooling. Defaults to False.
        with_cp (bool): Whether each block's activations are computed again in the backward pass instead of
            being kept. Defaults to False.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        act_cfg (dict): Config of the activation. Defaults to ``dict(type='ReLU', inplace=True)``.
        drop_path_rate (float or Sequence[float]): Stochastic depth rate of all blocks, or of each. Defaults to 0.

    Attributes:
        weight (nn.Parameter): W, shape (mid, out, 1, 1).

    Raises:
        ValueError: If the widening cannot make ``out_channels``, if ``groups`` does not divide ``mid_channels``,
            if ``style`` is unknown or if ``drop_path_rate`` does not have one entry for each block.
    """

    matrices = ('weight',)

    @refuse_unknown_arguments
    def __init__(
        self,
        num_blocks: int,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        style: str = 'pytorch',
        avg_down: bool = False,
        with_cp: bool = False,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU', inplace=True),
        drop_path_rate: float | Sequence[float] = 0.0,
    ) -> None:
        expect = Expect(self)
        expect.positive(num_blocks=num_blocks, in_channels=in_channels, out_channels=out_channels)
        expect.positive(mid_channels=mid_channels, stride=stride, dilation=dilation)
        expect.whole(groups=groups)
        expect.choice(('pytorch', 'caffe'), style=style)
        expect.flag(avg_down=avg_down, with_cp=with_cp)
        expect.part('BN', norm_cfg=norm_cfg)
        expect.part('ReLU', act_cfg=act_cfg)
        expect.each(expect.fraction, drop_path_rate=drop_path_rate)
        if out_channels % in_channels:
            raise ValueError(
                f'in_channels={in_channels} cannot be widened to out_channels={out_channels}: the new channels are '
                f'made by a depthwise convolution, so in_channels must be a divisor of {out_channels}'
            )
        if groups < 1 or mid_channels % groups:
            raise ValueError(f'groups={groups} is not a divisor of mid_channels={mid_channels}; expected one')
        if isinstance(drop_path_rate, (int, float)):
            drop_path_rate = [drop_path_rate] * num_blocks
        if len(drop_path_rate) != num_blocks:
            raise ValueError(f'drop_path_rate has {len(drop_path_rate)} entries for {num_blocks} blocks')

        widen = shortcut = None
        if in_channels < out_channels:
            widen = DepthwiseWiden(in_channels, out_channels - in_channels, norm_cfg)
        if stride != 1:
            shortcut = DepthwiseShortcut(out_channels, stride, avg_down, norm_cfg)
        blocks = []
        for i, rate in enumerate(drop_path_rate):
            entry = dict(stride=stride, widen=widen, shortcut=shortcut) if i == 0 else {}
            blocks.append(
                SharedBottleneck(
                    out_channels,
                    mid_channels,
                    dilation=dilation,
                    groups=groups,
                    style=style,
                    with_cp=with_cp,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                    drop_path_rate=rate,
                    **entry,
                )
            )
        # Upstream's own constructor would build its blocks, and a dense shortcut.
        nn.Sequential.__init__(self, *blocks)
        self.block = SharedBottleneck
        self.weight = nn.Parameter(torch.empty(mid_channels, out_channels, 1, 1))
        nn.init.xavier_normal_(self.weight)
        self._register_load_state_dict_pre_hook(self._leave_out_plain_stage)

    def _leave_out_plain_stage(self, state_dict, prefix, *args) -> None:
        if f'{prefix}weight' in state_dict or f'{prefix}0.conv1.weight' not in state_dict:
            return
        for name in [name for name in state_dict if name.startswith(prefix)]:
            del state_dict[name]
        print_log(
            f'{prefix.rstrip(".") or "This stage"} is a shared stage, and the weights that are loaded are those of a '
            'plain one: they are left out, and the stage keeps its own initialization.',
            logger='current',
            level=logging.WARNING,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, in, H, W) to (N, out, H / stride, W / stride), rounded up."""
        for block in self:
            x = block(x, self.weight)
        return x
