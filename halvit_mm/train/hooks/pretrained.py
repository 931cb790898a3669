import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Warn if a backbone starts from random weights, in a recipe for pretrained ones."""

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        init_cfg = model.backbone.init_cfg or []
        init_cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
        # mmdet's PVT has a checkpoint in an init_cfg without a type.
        if runner._load_from or runner._resume or any(cfg.get('checkpoint') for cfg in init_cfgs):
            return
        message = (
            f'The backbone ({type(model.backbone).__name__}) starts from random weights, and this recipe is one for '
            'pretrained weights. They are given by --cfg-options model.backbone.init_cfg.type=Pretrained '
            'model.backbone.init_cfg.checkpoint=FILE model.backbone.init_cfg.prefix=backbone.'
        )
        if getattr(model.backbone, 'frozen_stages', -1) >= 0:
            message += f' Its frozen stages (frozen_stages={model.backbone.frozen_stages}) stay as they were drawn.'
        print_log(message, logger='current', level=logging.WARNING)
