"""Our models and configs under upstream's own ways to find them by name."""

import sys
from pathlib import Path

import pytest
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import ImageClassificationInferencer, get_model, list_models

from halvit_mm import config_path
from halvit_mm.errors import UserError
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
    # Else mmdet's scope would stay behind.
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert isinstance(DetInferencer(name, device='cpu', show_progress=False).model.backbone, SharedStageResNet)
        listed = DetInferencer.list_models('mmdet', '.*halvit.*')
    assert 'mask-rcnn_halvit-medium_fpn_1x_coco' in listed
    assert len(listed) == len({*listed})


def test_inferencer_of_segmentors():
    from mmseg.apis import MMSegInferencer

    with DefaultScope.overwrite_default_scope('mmseg'):
        listed = MMSegInferencer.list_models('mmseg', '.*halvit.*')
        model = MMSegInferencer('segmenter_halvit-tiny_mask_8xb1-160k_ade20k-512x512', device='cpu').model
    assert isinstance(model.backbone, HaLViT)
    assert 'upernet_halvit-medium_8xb2-160k_ade20k-512x512' in listed
    assert len(listed) == len({*listed})


def test_order_of_imports_does_not_matter():
    for modules in ('mmpretrain, halvit_mm', 'halvit_mm, mmpretrain, mmdet.datasets, mmseg.datasets'):
        code = f'import {modules}; print(mmpretrain.list_models("halvit-tiny_8xb128_in1k"))'
        printed = run(sys.executable, '-c', code, cwd=ROOT.parent).stdout
        assert "['halvit-tiny_8xb128_in1k']" in printed
    assert 'OneDL' not in printed


def test_importing_us_imports_no_upstream_package():
    names = ('torch', 'mmengine', 'mmpretrain', 'mmdet', 'mmseg')
    code = f'import sys, halvit_mm; print([name for name in {names} if name in sys.modules])'
    assert run(sys.executable, '-c', code).stdout.strip() == '[]'


class TestConfigPath:
    def test_path(self):
        path = Path(config_path('digits/halvit_2xb64_digits.py'))
        assert path.is_absolute()
        assert path.samefile(ROOT / 'configs/digits/halvit_2xb64_digits.py')
        assert Path(config_path('resnet/resnet18_8xb32_in1k.py', 'mmpretrain')).is_file()

    @pytest.mark.parametrize('name', ['digits/halvit_2xb64_digit.py', 'halvit_2xb64_digits.py', 'digits/halvit_2xb64'])
    def test_the_nearest_are_named(self, name):
        with pytest.raises(
            UserError, match=f"'{name}' is not a config of halvit_mm; expected .*halvit_2xb64_digits.py"
        ):
            config_path(name)

    @pytest.mark.parametrize(
        'base',
        [
            "'halvit_mm::halvit/halvit-tiny_8xb128_in1k.py'",
            "[__import__('halvit_mm').config_path('halvit/halvit-tiny_8xb128_in1k.py')]",
        ],
    )
    def test_bases(self, base, tmp_path):
        (tmp_path / 'mine.py').write_text(f'_base_ = {base}\nmodel = dict(head=dict(num_classes=7))\n')
        model = get_model(Config.fromfile(tmp_path / 'mine.py'))
        assert isinstance(model.backbone, HaLViT)
        assert model.head.num_classes == 7
