import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from halvit_mm.train import LayerDecayOptimWrapperConstructor
from tests.utils import ROOT, groups_of

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def test_rates_by_depth_need_a_backbone_that_knows_depths():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    constructor = LayerDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)), dict(layer_decay_rate=0.7)
    )
    with pytest.raises(ValueError, match='Linear cannot say how deep a parameter lies'):
        constructor(model)


def test_depths_have_rates_of_their_own():
    cfg = Config.fromfile(ROOT / 'configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py')
    groups = groups_of(cfg, MODELS.build(cfg.model))
    rates = {name: group['lr'] / 2e-4 for name, group in groups.items()}
    assert rates['neck.1.lateral_convs.0.conv.weight'] == rates['roi_head.mask_head.convs.0.conv.weight'] == 1
    assert rates['backbone.layers.11.attn.q_weight'] == pytest.approx(0.7)
    assert rates['backbone.layers.0.ffn.weight'] == pytest.approx(0.7**12)
    assert rates['backbone.patch_embed.projection.weight'] == pytest.approx(0.7**13)
    still = {name for name, group in groups.items() if group['weight_decay'] == 0}
    assert {'backbone.pos_embed', 'backbone.layers.0.ffn.hidden_bias', 'backbone.layers.3.ln1.weight'} <= still
    assert not {name for name in still if name.endswith(('q_weight', 'kv_weight', 'ffn.weight'))}
