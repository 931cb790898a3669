from collections.abc import Callable
from functools import partial

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from halvit_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """Learning rates that decrease towards the first layer, in detectors too.

    mmpretrain's constructor, whose options have the same meaning here, calls the model's ``get_layer_depth``. mmdet's
    detectors have no such method; here the backbone's is called. Necks and heads get the full rate.

    Source: "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet, `arXiv 2203.16527
    <https://arxiv.org/abs/2203.16527>`_, appendix), for the use of layer-wise decay in detection.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper.
        paramwise_cfg (dict): ``layer_decay_rate`` (defaults to 1), ``bias_decay_mult``, ``norm_decay_mult``,
            ``flat_decay_mult``, ``custom_keys``.

    Raises:
        ValueError: If the model has neither ``get_layer_depth`` nor a backbone with it.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', get_layer_depth: Callable | None = None, **kwargs
    ) -> None:
        if get_layer_depth is None and not hasattr(module, 'get_layer_depth'):
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise ValueError(
                    f'layer-wise learning rates: {type(backbone or module).__name__} cannot say how deep a parameter '
                    'lies (no get_layer_depth); leave out optim_wrapper.constructor and layer_decay_rate'
                )
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
