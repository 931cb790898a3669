"""Our models under the hosts' own ways to find a model by its name."""

import sys

import pytest
from mmdet.apis import DetInferencer
from mmengine.registry import DefaultScope
from mmpretrain import ImageClassificationInferencer, get_model, list_models

import halvit_mm  # noqa: F401 - makes our models known
from halvit_mm.models.backbones import HaLViT, SharedStageResNet
from tests.utils import ROOT, run


def test_get_model():
    model = get_model('halvit-tiny_8xb128_in1k', backbone=dict(drop_path_rate=0.3))
    assert isinstance(model.backbone, HaLViT)
    assert sum(p.numel() for p in model.parameters()) == 11_433_832


def test_list_models():
    ours = list_models('*halvit*')
    assert {'halvit-micro_8xb128_in1k', 'halvit-tiny_8xb128_in1k', 'halvit-medium_8xb128_in1k'} <= {*ours}
    assert not [name for name in ours if 'rcnn' in name]
    assert 'resnet50-pe1_8xb32_in1k' in list_models('*pe1*')
    assert 'resnet50_8xb32_in1k' in list_models('resnet50*')


def test_inferencer_of_classifiers():
    inferencer = ImageClassificationInferencer('halvit-micro_8xb128_in1k', pretrained=False, device='cpu')
    assert isinstance(inferencer.model.backbone, HaLViT)


@pytest.mark.parametrize('name', ['mask-rcnn_resnet50-pe1_fpn_1x_coco'])
def test_inferencer_of_detectors(name):
    # Else the host's scope would stay behind.
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert isinstance(DetInferencer(name, device='cpu', show_progress=False).model.backbone, SharedStageResNet)
        listed = DetInferencer.list_models('mmdet', '.*halvit.*')
    assert 'mask-rcnn_halvit-medium_fpn_1x_coco' in listed
    assert len(listed) == len({*listed})


def test_order_of_imports_does_not_matter():
    for first, second in (('mmpretrain', 'halvit_mm'), ('halvit_mm', 'mmpretrain')):
        listed = 'mmpretrain.list_models("halvit-tiny_8xb128_in1k")'
        code = f'import {first}, {second}, mmpretrain; print({listed})'
        assert "['halvit-tiny_8xb128_in1k']" in run(sys.executable, '-c', code, cwd=ROOT.parent).stdout


def test_importing_us_imports_no_host():
    code = 'import sys, halvit_mm; print([m for m in ("torch", "mmengine", "mmpretrain", "mmdet") if m in sys.modules])'
    assert run(sys.executable, '-c', code).stdout.strip() == '[]'
