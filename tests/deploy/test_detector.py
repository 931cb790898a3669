import numpy as np
import onnx
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from onnx import numpy_helper

from halvit_mm.cost import count_parameters
from halvit_mm.deploy.detector import DetectorNetwork
from halvit_mm.deploy.export import export
from halvit_mm.deploy.session import create_session
from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from tests.deploy.conftest import DETECTOR, read_small
from tests.deploy.test_network import BACKBONE

SHAPE = (64, 96)


def retina_net(score_thr: float) -> ConfigDict:
    neck = dict(type='halvit_mm.ViTPyramid', in_channels=24, in_stride=8, out_strides=(8, 16, 32))
    head = dict(
        type='RetinaHead',
        num_classes=3,
        in_channels=24,
        feat_channels=16,
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=[8, 16, 32]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    )
    test = dict(
        nms_pre=40, min_bbox_size=0, score_thr=score_thr, nms=dict(type='nms', iou_threshold=0.5), max_per_img=9
    )
    return ConfigDict(type='RetinaNet', backbone=BACKBONE, neck=neck, bbox_head=head, test_cfg=test)


@pytest.mark.parametrize(('score_thr', 'least', 'most'), [(0.0, 9, 9), (0.585, 1, 8), (0.9, 0, 0)])
def test_a_single_stage_as_upstream_computes_it(score_thr, least, most, mmdet_scope):
    network = DetectorNetwork(MODELS.build(retina_net(score_thr)), SHAPE)
    for parameter in network.head.parameters():  # which start with equal scores
        torch.nn.init.normal_(parameter, std=0.03)
    images = torch.randn(1, 3, *SHAPE)
    with torch.no_grad():
        for ours, theirs in zip(network(images), network.detect(images), strict=True):
            torch.testing.assert_close(ours, theirs)
            assert least <= len(ours) <= most


@pytest.mark.parametrize('per_class', [True, False])
def test_two_stages_as_upstream_computes_them(per_class):
    cfg = read_small(DETECTOR)
    cfg.model.roi_head.bbox_head.reg_class_agnostic = not per_class
    # As many regions as the image has room for, which makes fewer than the most
    cfg.model.test_cfg.rpn.max_per_img = 300
    network = DetectorNetwork(build_model(cfg), SHAPE)
    images = torch.randn(1, 3, *SHAPE)
    with torch.no_grad():
        for ours, theirs in zip(network(images), network.detect(images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    assert ours.shape[1:] == (14, 14)
    assert len(ours) > 5


def test_file_with_boxes(checkpoint, tmp_path, capfd):
    """Compared with mmdet's own boxes in ``export``."""
    cfg, said = read_small(DETECTOR), []
    path = tmp_path / 'model.onnx'
    export(cfg, checkpoint(cfg), path, shape=SHAPE, verify=3, boxes=True, say=said.append)
    assert said[0].endswith('same box 100.0 %')
    assert 'no box was compared' not in capfd.readouterr().err
    assert path.stat().st_size < 1.05 * 4 * count_parameters(build_model(cfg)) + 2**19  # anchors and the graph
    assert [output.name for output in create_session(path).get_outputs()] == ['boxes', 'scores', 'labels', 'masks']
    # No score reaches 2.
    model = onnx.load(path)
    last = [node for node in model.graph.node if node.op_type == 'NonMaxSuppression'][-1]
    for tensor in model.graph.initializer:
        if tensor.name == last.input[4]:
            tensor.CopyFrom(numpy_helper.from_array(np.float32([2]), tensor.name))
    onnx.save(model, path)
    images = np.zeros((1, 3, *SHAPE), np.float32)
    assert [len(output) for output in create_session(path).run(None, {'images': images})] == [0, 0, 0, 0]


def test_file_with_boxes_of_mmdets_own_backbone(tmp_path):
    """PVT, which torch exports only where nothing is compiled."""
    cfg, said = read_small(DETECTOR), []
    pvt = dict(embed_dims=16, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], out_indices=(0, 1, 2))
    cfg.model.backbone = dict(type='mmdet.PyramidVisionTransformer', **pvt, init_cfg=None)
    cfg.model.neck = dict(type='mmdet.FPN', in_channels=[16, 16, 16], out_channels=64, num_outs=3)
    cfg.model.roi_head.pop('mask_head')
    export(cfg, None, tmp_path / 'model.onnx', shape=SHAPE, verify=1, boxes=True, say=said.append)
    assert said[0].endswith('same box 100.0 %')


def test_another_mask_head_is_left_out_with_a_warning(capfd):
    cfg = read_small(DETECTOR)
    cfg.model.roi_head.mask_head.type = 'HTCMaskHead'
    network = DetectorNetwork(build_model(cfg), SHAPE)
    assert network.output_names(None) == ['boxes', 'scores', 'labels']
    assert (
        'the file has boxes, scores and labels, and no masks: its mask head is HTCMaskHead; expected FCNMaskHead'
        in capfd.readouterr().err
    )
    assert len(network(torch.randn(1, 3, *SHAPE))) == 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(dynamic_batch=True), '--boxes writes a file for one image of one size; expected .onnx and fp32'),
        (dict(precision='int8'), '--boxes writes a file for one image of one size; expected .onnx and fp32'),
    ],
)
def test_options_that_boxes_exclude(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export(read_small(DETECTOR), None, tmp_path / 'model.onnx', boxes=True, **options)


def test_detectors_that_are_refused(mmdet_scope):
    model = retina_net(0.0)
    model['test_cfg']['nms']['type'] = 'soft_nms'
    with pytest.raises(
        UserError, match='RetinaNet is not a detector whose boxes can be exported: it has test_cfg.nms='
    ):
        DetectorNetwork(MODELS.build(model), SHAPE)
    model = retina_net(0.0)
    model['bbox_head']['bbox_coder']['type'] = 'TBLRBBoxCoder'
    with pytest.raises(UserError, match='its boxes are coded by TBLRBBoxCoder; expected Mask R-CNN'):
        DetectorNetwork(MODELS.build(model), SHAPE)
    model = retina_net(0.0)
    model['type'], model['bbox_head'] = 'FCOS', dict(type='FCOSHead', num_classes=3, in_channels=24)
    with pytest.raises(UserError, match='FCOS is not a detector .*: its head is FCOSHead'):
        DetectorNetwork(MODELS.build(model), SHAPE)
