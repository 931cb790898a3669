"""mmpretrain's, mmdet's and mmseg's own tools on our configs; docs/upstream_tools.md has all that were tried."""

from pathlib import Path

import mmdet
import mmpretrain
import mmseg
import pytest

from halvit_mm.data import write_digits, write_digits_coco
from tests.utils import ROOT, run_tool

CLASSIFIER = 'configs/digits/halvit_2xb64_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_halvit_digits-coco.py'
MMPRETRAIN, MMDET, MMSEG = (Path(package.__file__).parent / '.mim/tools' for package in (mmpretrain, mmdet, mmseg))


@pytest.mark.parametrize('tool', [MMPRETRAIN / 'misc/print_config.py', MMDET / 'misc/print_config.py'])
def test_print_config(tool):
    config = CLASSIFIER if MMPRETRAIN in tool.parents else DETECTOR
    shown = run_tool(tool, config, '--cfg-options', 'model.backbone.tie=none').stdout
    assert "type='halvit_mm.HaLViT'" in shown
    assert "tie='none'" in shown


@pytest.mark.parametrize(
    'config',
    [
        'digits/upernet_halvit_digits-seg.py',
        'upernet/upernet_halvit-tiny_8xb2-160k_ade20k-512x512.py',
        'upernet/upernet_resnet50-pe1_4xb4-160k_ade20k-512x512.py',
        'segmenter/segmenter_halvit-tiny_mask_8xb1-160k_ade20k-512x512.py',
    ],
)
def test_print_config_of_a_segmentor(config, tmp_path):
    """The bases of mmseg are found, which OneDL's mmengine looks for under OpenMMLab's name of the package.

    The tool writes ``example.py`` where it is called.
    """
    shown = run_tool(MMSEG / 'misc/print_config.py', ROOT / 'configs' / config, cwd=tmp_path).stdout
    assert "type='halvit_mm." in shown
    assert "default_scope = 'mmseg'" in shown


def test_browse_a_classifiers_images(tmp_path):
    write_digits(tmp_path / 'digits')
    # A config of ours, and one of a user's that inherits it
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = __import__('halvit_mm').config_path('digits/halvit_2xb64_digits.py')\n")
    for config in (ROOT / CLASSIFIER, mine):
        out = tmp_path / config.stem
        run_tool(
            *(MMPRETRAIN / 'visualization/browse_dataset.py', config, '--not-show', '-n', '2', '-m', 'original'),
            *('-o', out, '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path / "digits"}'),
        )
        assert len([*out.iterdir()]) == 2


def test_browse_a_detectors_images(tmp_path):
    write_digits_coco(tmp_path / 'data/digits_coco', train=3, val=1)
    run_tool(
        *(MMDET / 'analysis_tools/browse_dataset.py', ROOT / DETECTOR, '--not-show', '--output-dir', 'out'),
        *('--show-interval', '0'),
        cwd=tmp_path,
    )
    assert len([*(tmp_path / 'out').iterdir()]) == 3


def test_get_flops():
    counted = run_tool(MMPRETRAIN / 'analysis_tools/get_flops.py', CLASSIFIER, '--shape', '32').stdout
    assert 'Params: 0.361M' in counted
