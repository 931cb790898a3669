import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from halvit_mm.data import write_digits_coco
from halvit_mm.errors import UserError
from halvit_mm.train.hooks.bad_images import BadImageError, CheckedDataset


@pytest.fixture
def damaged(digits_root, tmp_path):
    """The digits, of which two of the first 40 and one for validation are damaged."""
    root = tmp_path / 'digits'
    shutil.copytree(digits_root, root)
    first = sorted((root / 'train' / '0').iterdir())
    first[1].write_bytes(b'')
    first[2].write_bytes(first[2].read_bytes()[:60])
    return root, first


def test_stop_names_the_image(build_runner, damaged):
    root, first = damaged
    for workers in (0, 1):
        options = {'train_dataloader.dataset.data_root': str(root), 'train_dataloader.num_workers': workers}
        runner = build_runner(f'run{workers}', **options)
        with pytest.raises(BadImageError) as error:
            runner.train()
        assert str(error.value) in (f'{first[1]} is empty', f'{first[2]} is cut: its end is missing')


def test_skip_counts(build_runner, damaged):
    root, first = damaged
    options = {'train_dataloader.dataset.data_root': str(root), 'reliability.bad_images': 'skip'}
    runner = build_runner(**options)
    runner.train()
    assert runner.iter == 10
    assert runner.message_hub.get_scalar('train/bad_images').current() == 2
    assert runner.message_hub.get_info('bad_images') == [
        f'{first[1]} is empty',
        f'{first[2]} is cut: its end is missing',
    ]
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert f'{first[1]} is empty, and is skipped' in log
    assert '"bad_images": 2' in Path(runner.log_dir, 'vis_data/scalars.json').read_text()
    # Resumed, the same ones are not told again.
    runner = build_runner(loop=dict(by_epoch=True, max_epochs=3), resume=True, **options)
    runner.train()
    assert runner.message_hub.get_info('bad_images') == [
        f'{first[1]} is empty',
        f'{first[2]} is cut: its end is missing',
    ]


def test_validation_is_never_of_other_images(build_runner, digits_root, tmp_path):
    root = tmp_path / 'digits'
    shutil.copytree(digits_root, root)
    bad = sorted((root / 'val' / '0').iterdir())[0]
    bad.write_text('no image')
    options = {'val_dataloader.dataset.data_root': str(root), 'reliability.bad_images': 'skip'}
    with pytest.raises(BadImageError, match=f'{bad} is not an image'):
        build_runner(loop=dict(by_epoch=True, max_epochs=1), **options).train()


def test_faults_of_the_pipeline_are_no_bad_images(build_runner, tmp_path):
    runner = build_runner(**{'train_dataloader.dataset.pipeline': [dict(type='PackInputs')]})
    with pytest.raises(KeyError) as error:
        runner.train()
    assert not isinstance(error.value, UserError)


def test_nothing_can_be_read(tmp_path):
    for i in range(3):
        (tmp_path / f'{i}.jpg').touch()
    (tmp_path / 'list.txt').write_text('0.jpg 0\n1.jpg 0\n2.jpg 0\n')
    cfg = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), ann_file='list.txt')
    cfg['pipeline'] = [dict(type='mmpretrain.LoadImageFromFile')]
    with pytest.raises(BadImageError, match=r'none of 3 images in a row can be read; the first: .*1\.jpg is empty'):
        CheckedDataset(cfg, 'skip')[1]
    with pytest.raises(ValueError, match="bad_images='ignore' is not an action"):
        CheckedDataset(cfg, 'ignore')


def test_a_training_opens_each_image_once(build_runner, digits_root):
    opened, counting = [], True
    sys.addaudithook(lambda event, args: counting and event == 'open' and opened.append(str(args[0])))
    build_runner(loop=dict(by_epoch=True, max_epochs=1)).train()
    counting = False
    images = [path for path in opened if path.startswith(str(digits_root / 'train')) and path.endswith('.png')]
    assert len(images) == len({*images}) == 40


def test_an_image_that_is_loaded_in_another_way_is_checked_too(tmp_path):
    (tmp_path / '0.jpg').touch()
    (tmp_path / 'list.txt').write_text('0.jpg 0\n')
    cfg = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), ann_file='list.txt')
    with pytest.raises(BadImageError, match=r'0\.jpg is empty'):
        CheckedDataset({**cfg, 'pipeline': [dict(type='mmpretrain.PackInputs')]})[0]


@pytest.fixture
def with_a_line(tmp_path):
    """Config of COCO images of which one is 4000 x 1 pixels, too flat for its height to survive a resize."""
    write_digits_coco(tmp_path, train=4, val=1)
    path = tmp_path / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    line = content['images'][1]
    Image.new('RGB', (4000, 1)).save(tmp_path / 'train' / line['file_name'])
    line.update(width=4000, height=1)
    path.write_text(json.dumps(content))
    return line['file_name'], dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='mmdet.CocoDataset',
            data_root=str(tmp_path),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train'),
            metainfo=dict(classes=[*'0123456789']),
            pipeline=[
                dict(type='mmdet.LoadImageFromFile'),
                dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
                dict(type='mmdet.PackDetInputs'),
            ],
        ),
    )


def test_an_image_that_the_pipeline_does_not_take(with_a_line):
    name, cfg = with_a_line
    with pytest.raises(BadImageError, match=rf'{name}, 4000 x 1 pixels, is not an image that .* takes; error: OpenCV'):
        CheckedDataset(cfg)[1]
    dataset = CheckedDataset(cfg, 'skip')
    assert dataset[1]['data_samples'].img_path == dataset[2]['data_samples'].img_path
    [skipped] = dataset[1]['data_samples'].skipped_images
    assert name in skipped
    assert '\n' not in skipped


def test_coco_boxes_are_as_mmdet_documents(tmp_path):
    """Crowds are to be ignored; boxes that are empty, without area or outside of the image are left out."""
    write_digits_coco(tmp_path, train=1, val=1)
    path = tmp_path / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    [image] = content['images']
    whole = content['annotations'][0]
    boxes = dict(crowd=[2, 2, 9, 9], empty=[5, 5, 0, 0], line=[5, 5, 9, 0], outside=[image['width'] + 5, 0, 9, 9])
    content['annotations'] = [
        {**whole, 'id': i, 'bbox': box, 'area': box[2] * box[3], 'iscrowd': int(name == 'crowd')}
        for i, (name, box) in enumerate(boxes.items())
    ] + [{**whole, 'id': 9}]
    path.write_text(json.dumps(content))
    dataset = CocoDataset(
        data_root=str(tmp_path),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train'),
        metainfo=dict(classes=[*'0123456789']),
    )
    instances = dataset.get_data_info(0)['instances']
    assert [instance['ignore_flag'] for instance in instances] == [1, 0]
    x, y, w, h = whole['bbox']
    np.testing.assert_allclose([instance['bbox'] for instance in instances], [[2, 2, 11, 11], [x, y, x + w, y + h]])
    assert Image.open(tmp_path / 'train' / image['file_name']).size == (image['width'], image['height'])
