"""Detection by the tools as processes, on files in COCO's layout."""

import json

import pytest
from mmdet.datasets import CocoDataset

from halvit_mm.data import write_digits_coco
from tests.utils import ROOT, run, run_tool

CONFIG = ROOT / 'configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder from which data/coco is a tiny COCO: its layout and class names, digits on the images."""
    folder = tmp_path_factory.mktemp('coco')
    root = folder / 'data/coco'
    write_digits_coco(root, train=4, val=3)
    for split in ('train', 'val'):
        (root / split).rename(root / f'{split}2017')
        file = root / f'annotations/instances_{split}.json'
        content = json.loads(file.read_text())
        content['categories'] = [
            dict(id=number, name=name) for number, name in enumerate(CocoDataset.METAINFO['classes'], start=1)
        ]
        file.with_name(f'instances_{split}2017.json').write_text(json.dumps(content))
    return folder


def small(*splits: str) -> list[str]:
    """Options that make the 1x config fit two CPU ranks and nothing else."""
    options = [
        'model.backbone.arch=micro',
        'model.neck.0.in_channels=192',
        'model.neck.1.in_channels=[192,192,192,192]',
    ]
    for split in splits:
        resize = 2 if split == 'train' else 1
        options += [
            *(f'{split}_dataloader.dataset.pipeline.{resize}.scale=(160,128)', f'{split}_dataloader.num_workers=0'),
            f'{split}_dataloader.persistent_workers=False',
        ]
    return options


@pytest.mark.long
def test_1x_config_on_two_ranks(folder):
    trained = run_tool(
        *('tools/train.py', CONFIG, '--launcher', 'pytorch', '--auto-scale-lr', '--cfg-options'),
        *(*small('train', 'val'), 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=1'),
        'default_hooks.logger.interval=1',
        cwd=folder,
        ranks=2,
    ).stdout
    assert 'LR is set based on batch size of 16 and the current batch size is 2' in trained
    assert 'The backbone (HaLViT) starts from random weights' in trained
    losses = [line for line in trained.splitlines() if 'Epoch(train)' in line]
    assert len(losses) == 2
    for part in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'):
        assert part in losses[-1]
    assert 'coco/bbox_mAP_50' in trained
    assert 'coco/segm_mAP' in trained

    checkpoint = folder / f'work_dirs/{CONFIG.stem}/epoch_1.pth'
    tested = run_tool(
        *('tools/test.py', CONFIG, checkpoint, '--launcher', 'pytorch', '--show-dir', 'pictures'),
        *('--cfg-options', *small('test')),
        cwd=folder,
        ranks=2,
    ).stdout
    assert 'coco/bbox_mAP_50' in tested
    # Rank 0 draws what it has tested: every other image.
    assert {path.name for path in folder.glob('work_dirs/*/*/pictures/*')} == {'000001.png', '000003.png'}


def test_annotations_are_looked_through_before_anything_starts(folder, tmp_path):
    root = tmp_path / 'coco'
    root.symlink_to(folder / 'data/coco')
    broken = tmp_path / 'broken.json'
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    del content['annotations']
    broken.write_text(json.dumps(content))
    failed = run_tool(
        *('tools/train.py', CONFIG, '--cfg-options', f'train_dataloader.dataset.data_root={root}'),
        f'val_dataloader.dataset.data_root={root}',
        f'train_dataloader.dataset.ann_file={broken}',
        check=False,
    )
    assert failed.returncode == 2
    [line] = [line for line in failed.stdout.splitlines() if 'Warning' not in line and line.strip()]
    assert line.startswith(f"error: train_dataloader: {broken} has no 'annotations'")


def test_usage_of_the_digits(tmp_path):
    failed = run('tools/digits_coco.sh', check=False)
    assert failed.returncode == 2
    assert 'halvit|resnet50-pe|pvt WORK_DIR' in failed.stdout
