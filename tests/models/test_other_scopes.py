"""HaLViT in the models of packages beyond mmpretrain and mmdet, built from their own configs in their own scopes."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

BACKBONE = dict(
    type='halvit_mm.HaLViT',
    arch=dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48),
    img_size=64,
    patch_size=8,
    out_type='featmap',
    with_cls_token=False,
)


def model_of(package: str, path: str, changes: dict) -> torch.nn.Module:
    """A model of a package's own config, with some parts of others."""
    cfg = Config.fromfile(Path(import_module(package).__file__).parent / '.mim/configs' / path)
    import_module(f'{package}.models')
    cfg.merge_from_dict(changes)
    with DefaultScope.overwrite_default_scope(package):
        return MODELS.build(cfg.model)


def assert_trains(model: torch.nn.Module, losses: dict) -> None:
    sum(part for loss in losses.values() for part in (loss if isinstance(loss, list) else [loss])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.backbone.layers.parameters())


@pytest.mark.skipif(find_spec('mmrotate') is None, reason='mmrotate is not installed; the tested set has it')
def test_rotated_boxes():
    from mmdet.structures import DetDataSample
    from mmrotate.structures import RotatedBoxes

    strides = [8, 16, 32]
    model = model_of(
        'mmrotate',
        'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py',
        {
            'model.backbone': dict(_delete_=True, **BACKBONE, out_indices=(0, 1, 2)),
            'model.neck': dict(
                _delete_=True, type='halvit_mm.ViTPyramid', in_channels=24, in_stride=8, out_strides=strides
            ),
            'model.bbox_head.in_channels': 24,
            'model.bbox_head.anchor_generator.strides': strides,
        },
    )
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64)))
    boxes = torch.tensor([[30.0, 30.0, 20.0, 10.0, 0.3]])  # centre, width, height, angle
    sample.gt_instances = InstanceData(bboxes=RotatedBoxes(boxes), labels=torch.tensor([2]))
    sample.ignored_instances = InstanceData(bboxes=RotatedBoxes(boxes[:0]), labels=torch.zeros(0, dtype=torch.int64))
    assert_trains(model, model.loss(torch.randn(1, 3, 64, 64), [sample]))


@pytest.mark.skipif(
    find_spec('mmpose') is None,
    reason='mmpose is not installed; its xtcocotools 1.14.3 needs NumPy 1, which the stack openmmlab has',
)
def test_pose():
    from mmpose.structures import PoseDataSample

    model = model_of(
        'mmpose',
        'body_2d_keypoint/topdown_heatmap/coco/td-hm_ViTPose-small_8xb64-210e_coco-256x192.py',
        {'model.backbone': dict(_delete_=True, **BACKBONE), 'model.head.in_channels': 24},
    )
    sample = PoseDataSample()
    sample.gt_fields = PixelData(heatmaps=torch.rand(17, 32, 32))
    sample.gt_instance_labels = InstanceData(keypoint_weights=torch.ones(1, 17))
    assert_trains(model, model.loss(torch.randn(1, 3, 64, 64), [sample]))
