from collections.abc import Sequence

from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import ResLayer
from mmpretrain.models.backbones.resnext import Bottleneck as GroupedBottleneck

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.io.weights import guard
from halvit_mm.layers import SharedBottleneckStage
from halvit_mm.registry import MODELS


@MODELS.register_module()
class SharedStageResNet(ResNet):
    """ResNet or ResNeXt in which all bottlenecks of a stage use one matrix on the way in, its transpose on the way out.

    Source: see :mod:`halvit_mm.layers`. SharedStageResNet stands wherever mmpretrain's ``ResNet`` or ``ResNeXt``
    stands: every argument of those classes has the same meaning and default here, except ``groups``, whose default is
    1. Stages that are not shared are mmpretrain's, parameter for parameter and key for key; mmpretrain's checkpoints
    load into them. Shared stages are of :class:`~halvit_mm.layers.openmmlab.SharedBottleneckStage`.

    Args:
        depth (int): 50, 101 or 152; 18 and 34, whose blocks have no 1x1 convolutions, with no shared stage only.
        shared_stages (int or Sequence[int]): Stages that are shared, from 0: ``(0, 1, 2, 3)`` is the paper's
            ResNet50-PE1, ``(2, 3)`` its PE2, ``()`` a plain ResNet. Defaults to ``(0, 1, 2, 3)``.
        groups (int): Groups of the 3x3 convolutions: 32 in ResNeXt 32x4d and 32x8d. Defaults to 1.
        width_per_group (int): Channels of a group in the first stage, used where ``groups`` is not 1.
            Defaults to 4.
        in_channels (int): Channels of an image. Defaults to 3.
        stem_channels (int): Channels of the stem's output. Defaults to 64.
        base_channels (int): Channels of the first stage's 3x3 convolutions. Defaults to 64.
        expansion (int, optional): Ratio of a block's outer channels to ``base_channels``. Defaults to None, which
            means 4.
        num_stages (int): Number of stages, 1 to 4. Defaults to 4.
        strides (Sequence[int]): Stride of each stage's first block. Defaults to ``(1, 2, 2, 2)``.
        dilations (Sequence[int]): Dilation of each stage's 3x3 convolutions. Defaults to ``(1, 1, 1, 1)``.
        out_indices (Sequence[int]): Stages whose output is returned, from 0. Defaults to ``(3, )``.
        style (str): ``'pytorch'``: a stage's first 3x3 convolution strides; ``'caffe'``: the 1x1 convolution in
            front of it does. Defaults to ``'pytorch'``.
        deep_stem (bool): Whether three 3x3 convolutions are the stem instead of one 7x7. Defaults to False.
        avg_down (bool): Whether shortcuts stride by average pooling. Defaults to False.
        frozen_stages (int): Number of first stages that are not trained, together with the stem; they stay so
            after ``train()``. 0 freezes the stem alone, -1 nothing. Defaults to -1.
        conv_cfg (dict, optional): Config of the convolutions; anything but None or ``dict(type='Conv2d')`` needs
            ``shared_stages=()``. Defaults to None.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN', requires_grad=True)``.
        norm_eval (bool): Whether batch norms keep their statistics in training. Defaults to False.
        with_cp (bool): Whether each block's activations are computed again in the backward pass instead of
            being kept. Defaults to False.
        zero_init_residual (bool): Whether a block's last norm starts at zero. Defaults to True.
        init_cfg (dict or list, optional): Initialization config of mmengine. Defaults to mmpretrain's: Kaiming
            for convolutions, 1 for norms. W starts Xavier normal whatever this says.
        drop_path_rate (float): Stochastic depth rate of the last block; it grows linearly from 0 at the first.
            Defaults to 0.

    Raises:
        KeyError: If ``depth`` is unknown.
        ValueError: If ``shared_stages``, ``frozen_stages``, ``groups`` or ``width_per_group`` are not as above, if
            a shared stage cannot have the shape that the other arguments ask for.
        UserError: On loading a file that fills less than 90 % of it; see :func:`~halvit_mm.io.weights.guard`.

    Examples:
        >>> import torch
        >>> from mmpretrain.registry import MODELS
        >>> backbone = MODELS.build(dict(type='halvit_mm.SharedStageResNet', depth=50, shared_stages=(2, 3)))
        >>> backbone(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 2048, 7, 7])
        >>> sum(p.numel() for p in backbone.parameters())
        13460032
    """

    @refuse_unknown_arguments
    def __init__(
        self,
        depth: int,
        shared_stages: int | Sequence[int] = (0, 1, 2, 3),
        groups: int = 1,
        width_per_group: int = 4,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        expansion: int | None = None,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (3,),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: dict | list | None = [
            dict(type='Kaiming', layer=['Conv2d']),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ],
        drop_path_rate: float = 0.0,
    ) -> None:
        expect = Expect(self)
        expect.positive(depth=depth, in_channels=in_channels, stem_channels=stem_channels)
        expect.positive(base_channels=base_channels, num_stages=num_stages)
        if expansion is not None:
            expect.positive(expansion=expansion)
        expect.whole(groups=groups, width_per_group=width_per_group, frozen_stages=frozen_stages)
        expect.sequence(strides=strides, dilations=dilations, out_indices=out_indices)
        expect.each(expect.whole, shared_stages=shared_stages, out_indices=out_indices)
        expect.each(expect.positive, strides=strides, dilations=dilations)
        expect.string(style=style)
        expect.flag(deep_stem=deep_stem, avg_down=avg_down, norm_eval=norm_eval, with_cp=with_cp)
        expect.flag(zero_init_residual=zero_init_residual)
        if conv_cfg is not None:
            expect.part('Conv2d', conv_cfg=conv_cfg)
        expect.part('BN', norm_cfg=norm_cfg)
        expect.init_cfg(init_cfg=init_cfg)
        expect.fraction(drop_path_rate=drop_path_rate)
        if isinstance(shared_stages, int):
            shared_stages = (shared_stages,)
        for name, values in (('strides', strides), ('dilations', dilations)):
            if len(values) != num_stages:
                raise ValueError(f'{name}={values!r} has {len(values)} entries for num_stages={num_stages}')
        if not out_indices:
            raise ValueError(f'out_indices={out_indices!r} names no stage; expected one or more')
        for stage in shared_stages:
            if not isinstance(stage, int) or not 0 <= stage < num_stages:
                raise ValueError(
                    f'shared_stages={tuple(shared_stages)} names stage {stage!r}; the {num_stages} stages are '
                    f'{", ".join(map(str, range(num_stages)))}'
                )
        if frozen_stages > num_stages:
            raise ValueError(
                f'frozen_stages={frozen_stages} is not a number of stages of this model; expected at most {num_stages}'
            )
        if groups < 1 or width_per_group < 1:
            raise ValueError(f'groups={groups} and width_per_group={width_per_group} must be at least 1')
        if depth in (18, 34) and (shared_stages or groups != 1):
            raise ValueError(
                f'depth={depth} has no 1x1 convolutions to share and no grouped form; choose depth 50, 101 or 152, '
                'or shared_stages=() and groups=1'
            )
        if shared_stages and conv_cfg is not None and conv_cfg['type'] not in ('Conv', 'Conv2d'):
            raise ValueError(
                f'conv_cfg={conv_cfg} cannot be used in a shared stage, whose W is a plain 1x1 convolution; leave it '
                'out, or choose shared_stages=()'
            )
        # Set first: upstream's constructor calls make_res_layer.
        self.shared_stages = tuple(sorted(set(shared_stages)))
        self.groups = groups
        self.width_per_group = width_per_group
        super().__init__(
            depth=depth,
            in_channels=in_channels,
            stem_channels=stem_channels,
            base_channels=base_channels,
            expansion=expansion,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            style=style,
            deep_stem=deep_stem,
            avg_down=avg_down,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            with_cp=with_cp,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
            drop_path_rate=drop_path_rate,
        )
        guard(self)

    def make_res_layer(self, **kwargs) -> ResLayer:
        stage = len(self.res_layers)
        if stage not in self.shared_stages:
            if self.groups == 1:
                return super().make_res_layer(**kwargs)
            return ResLayer(
                **{**kwargs, 'block': GroupedBottleneck},
                groups=self.groups,
                width_per_group=self.width_per_group,
                base_channels=self.base_channels,
            )
        del kwargs['block'], kwargs['conv_cfg']
        mid_channels = kwargs['out_channels'] // kwargs.pop('expansion')
        if self.groups != 1:
            mid_channels = mid_channels // self.base_channels * self.groups * self.width_per_group
        try:
            return SharedBottleneckStage(mid_channels=mid_channels, groups=self.groups, **kwargs)
        except ValueError as error:
            raise ValueError(
                f'stage {stage} cannot be shared: {error}. Otherwise leave {stage} out of '
                f'shared_stages={self.shared_stages}.'
            ) from None

    def init_weights(self) -> None:
        # Upstream's own zeroes the norms of a checkpoint that is named in a list.
        init_cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if any(cfg and cfg['type'] == 'Pretrained' for cfg in init_cfgs):
            super(ResNet, self).init_weights()
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> 'SharedStageResNet':
        super().train(mode)
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Say how deep a parameter lies, for a learning rate that decays with depth.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): What the names of the backbone's parameters begin with. Defaults to ``''``.

        Returns:
            tuple[int, int]: Its depth and the number of depths. A shared W has the depth of its stage's first block.
        """
        if not param_name.startswith(prefix):
            return super().get_layer_depth(param_name, prefix)
        # Upstream knows a stage by the literal prefix 'backbone.', and expects the number of a block after the stage's.
        stage, _, name = param_name[len(prefix) :].partition('.')
        if name == 'weight' and stage in self.res_layers:
            name = '0.weight'
        return super().get_layer_depth(f'backbone.{stage}.{name}', 'backbone.')
