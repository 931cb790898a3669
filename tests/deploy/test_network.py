import pytest
import torch
from mmengine.registry import MODELS

from halvit_mm.data import write_digits_coco, write_digits_seg
from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import (
    AdaptivePool,
    FlatLinear,
    Network,
    description,
    input_shape,
    load_network,
    make_exportable,
    read_images,
)
from halvit_mm.errors import UserError
from tests.deploy.conftest import DETECTOR, HALVIT, SEGMENTOR, read, read_small
from tests.utils import TINY_ARCH

BACKBONE = dict(
    type='halvit_mm.HaLViT',
    arch=TINY_ARCH,
    img_size=32,
    patch_size=8,
    out_type='featmap',
    out_indices=(0, 1, 2),
    with_cls_token=False,
)


def test_shapes_of_test_pipelines():
    assert input_shape(read('configs/halvit/halvit-tiny_8xb128_in1k.py')) == (224, 224)
    assert input_shape(read(HALVIT)) == (32, 32)
    assert input_shape(read('configs/mask_rcnn/mask-rcnn_halvit-medium_fpn_1x_coco.py')) == (800, 1344)
    assert input_shape(read('configs/upernet/upernet_halvit-tiny_8xb2-160k_ade20k-512x512.py')) == (512, 512)


def test_size_that_no_pipeline_names(tmp_path):
    with pytest.raises(UserError, match='has no size for its test images; name one with --shape'):
        export(read(DETECTOR), None, tmp_path / 'model.onnx')


@pytest.mark.parametrize(
    ('neck', 'names'),
    [
        (dict(type='halvit_mm.ViTPyramid', in_channels=24, in_stride=8, out_strides=(4, 8, 16)), 3),
        (dict(type='ChannelMapper', in_channels=[24] * 3, out_channels=16, num_outs=4), 4),
        (None, 3),
    ],
)
def test_outputs_of_a_detector_are_counted(neck, names, mmdet_scope):
    head = dict(type='RetinaHead', num_classes=3, in_channels=24)
    network = Network(MODELS.build(dict(type='RetinaNet', backbone=BACKBONE, neck=neck, bbox_head=head)))
    assert network.output_names(torch.rand(1, 3, 40, 48)) == [f'map{i}' for i in range(names)]
    assert network.task is None


def test_tasks_of_classifiers():
    images = torch.rand(1, 3, 32, 32)
    cfg = read_small(HALVIT)
    assert (load_network(cfg).task, load_network(cfg).output_names(images)) == ('classes', ['logits'])
    cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=96)
    assert (load_network(cfg).task, load_network(cfg).output_names(images)) == ('labels', ['logits'])
    linear = dict(type='LinearClsHead', num_classes=4)
    cfg.model.head = dict(type='MultiTaskHead', in_channels=96, task_heads=dict(color=linear, size=linear))
    assert (load_network(cfg).task, load_network(cfg).output_names(images)) == (None, ['color', 'size'])
    del cfg.model.head
    assert (load_network(cfg).task, load_network(cfg).output_names(images)) == (None, ['output0'])


def test_description_of_other_images_and_of_trained_classes(tmp_path):
    grey = {'model.backbone.in_channels': 1, 'data_preprocessor': dict(mean=[33.0], std=[78.6], to_rgb=False)}
    cfg = read_small(HALVIT, **grey)
    facts = description(cfg, load_network(cfg))
    assert (facts['channels'], facts['mean']) == ('grey', [33.0])
    assert 'classes' not in facts
    cfg = read_small(HALVIT, **{'data_preprocessor.to_rgb': False})
    saved = dict(meta=dict(dataset_meta=dict(classes=('a', 'b'))), state_dict=load_network(cfg).model.state_dict())
    torch.save(saved, tmp_path / 'weights.pth')
    facts = description(cfg, load_network(cfg), str(tmp_path / 'weights.pth'))
    assert (facts['channels'], facts['classes']) == ('BGR', ['a', 'b'])
    cfg.test_dataloader.dataset.metainfo = dict(classes=('c', 'd'))
    assert description(cfg, load_network(cfg), str(tmp_path / 'weights.pth'))['classes'] == ['c', 'd']
    cfg = read_small(DETECTOR)
    facts = description(cfg, load_network(cfg))
    assert (facts['task'], facts['channels']) == (None, 'RGB')


def test_logits_of_a_segmentor_are_those_that_mmseg_compares(tmp_path):
    write_digits_seg(tmp_path, train=1, val=2)
    cfg = read_small(SEGMENTOR, tmp_path)
    network = load_network(cfg)
    images = read_images(cfg, network.model, 'test_dataloader', 2, (64, 64))
    assert images.shape == (2, 3, 64, 64)
    assert (network.task, network.output_names(images)) == ('pixels', ['logits'])
    with torch.no_grad():
        [logits] = network(images)
        samples = network.model(images, mode='predict')
    assert logits.shape == (2, 11, 64, 64)
    for ours, sample in zip(logits, samples, strict=True):
        assert torch.equal(ours, sample.seg_logits.data)
        assert torch.equal(ours.argmax(0), sample.pred_sem_seg.data[0])


@pytest.mark.parametrize('tie', ['both', 'none'])
def test_stand_ins_compute_the_same(tie):
    network = load_network(read_small(HALVIT, **{'model.backbone.tie': tie}))
    images = torch.rand(2, 3, 37, 45)
    with torch.no_grad():
        expected = network(images)[0]
        make_exportable(network, flat=True, open_size=True)
        assert torch.allclose(network(images)[0], expected, atol=1e-6)
    assert sum(isinstance(module, FlatLinear) for module in network.modules()) == (1 if tie == 'both' else 9)


@pytest.mark.parametrize('bins', [(1, 2), 3, 6, 20])
def test_adaptive_pool(bins):
    """With bins that overlap, and more bins than places."""
    x = torch.rand(2, 3, 13, 7, dtype=torch.float64)
    pool = torch.nn.AdaptiveAvgPool2d(bins)
    torch.testing.assert_close(AdaptivePool(pool)(x), pool(x), rtol=0, atol=1e-12)


def test_a_detectors_images_are_padded(tmp_path):
    """Boxes and calibration see the proportions that the model sees."""
    write_digits_coco(tmp_path, train=2, val=2)
    cfg = read_small(DETECTOR, tmp_path)
    network = load_network(cfg)
    images = read_images(cfg, network.model, 'test_dataloader', 2, (256, 320))
    assert images.shape == (2, 3, 256, 320)
    assert images[:, :, -1].abs().max() == 0
    half = read_images(cfg, network.model, 'test_dataloader', 2, (64, 320))
    assert half[:, :, :, 200:].abs().max() == 0
    assert half[:, :, -8:].abs().max() > 0
