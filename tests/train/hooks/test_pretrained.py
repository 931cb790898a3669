import logging

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from halvit_mm.models import HaLViT
from halvit_mm.train import PretrainedBackboneHook
from tests.utils import ROOT

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def load(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/mask_rcnn/{name}.py')


class TestPretrainedBackboneHook:
    def said(self, caplog, backbone: nn.Module, load_from: str | None = None, resume: bool = False) -> str:
        class Runner:
            model = nn.Module()
            _load_from = load_from
            _resume = resume

        Runner.model.backbone = backbone
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        with caplog.at_level(logging.WARNING):
            PretrainedBackboneHook().before_train(Runner())
        logger.removeHandler(caplog.handler)
        return caplog.text

    def test_says_what_gives_weights(self, caplog):
        text = self.said(caplog, HaLViT('micro'))
        assert 'The backbone (HaLViT) starts from random weights' in text
        assert 'model.backbone.init_cfg.checkpoint=FILE' in text
        assert 'frozen' not in text

    def test_says_that_frozen_stages_stay(self, caplog):
        cfg = load('mask-rcnn_resnet50-pe2_fpn_1x_coco')
        assert '(frozen_stages=1) stay as they were drawn' in self.said(caplog, MODELS.build(cfg.model.backbone))

    def test_is_silent_with_weights(self, caplog):
        assert self.said(caplog, HaLViT('micro'), load_from='x.pth') == ''
        assert self.said(caplog, HaLViT('micro'), resume=True) == ''
        assert self.said(caplog, HaLViT('micro', init_cfg=dict(type='Pretrained', checkpoint='x.pth'))) == ''
        assert self.said(caplog, MODELS.build(load('mask-rcnn_pvt-t_fpn_1x_coco').model.backbone)) == ''
