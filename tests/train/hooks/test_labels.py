import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from halvit_mm.errors import UserError
from halvit_mm.train import LabelHook


@pytest.fixture
def animals(tmp_path):
    """A folder of images a class, for training and validation."""
    for split in ('train', 'val'):
        for name in ('bee', 'cat', 'dog'):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new('RGB', (8, 8), (i, 0, 0)).save(tmp_path / split / name / f'{i}.png')
    data = {f'{loader}_dataloader.dataset.data_root': str(tmp_path) for loader in ('train', 'val', 'test')}
    return tmp_path, {**data, 'model.head.num_classes': 3, 'train_dataloader.dataset.indices': None}


def test_label_outside_the_classes(build_runner):
    runner = build_runner(**{'model.head.num_classes': 3, 'train_dataloader.dataset.indices': -40})
    with pytest.raises(
        UserError, match=r'train_dataloader: image .*9.* has the label 9; the head has 3 classes, 0 to 2'
    ):
        runner.train()


def test_label_of_validation_outside_the_classes(build_runner, animals):
    root, options = animals
    (root / 'list.txt').write_text('bee/0.png 0\ncat/1.png 3\n')
    listed = dict(ann_file='list.txt', data_prefix='val', indices=None)
    options = {**options, **{f'val_dataloader.dataset.{key}': value for key, value in listed.items()}}
    with pytest.raises(UserError, match=r'val_dataloader: image .*cat/1\.png has the label 3; the head has 3 classes'):
        build_runner(**options).train()


def test_several_labels_or_none(build_runner, animals):
    root, options = animals
    images = [dict(img_path=f'bee/{i}.png', gt_label=label) for i, label in enumerate(([0, 2], [1], []))]
    (root / 'list.json').write_text(json.dumps(dict(metainfo=dict(classes=['bee', 'cat', 'dog']), data_list=images)))
    listed = dict(type='MultiLabelDataset', ann_file='list.json', data_prefix='train')
    options = {
        **options,
        'model.head.type': 'MultiLabelLinearClsHead',
        'model.head.loss': dict(_delete_=True, type='AsymmetricLoss'),
    }
    options |= {f'train_dataloader.dataset.{key}': value for key, value in listed.items()}
    options |= {'train_dataloader.batch_size': 3, 'model.train_cfg': None, 'model.head.init_cfg': None}
    runner = build_runner(loop=dict(by_epoch=True, max_epochs=1, val_begin=9), **options)
    runner.train()
    images[1]['gt_label'] = [1, 3]
    (root / 'list.json').write_text(json.dumps(dict(metainfo=dict(classes=['bee', 'cat', 'dog']), data_list=images)))
    with pytest.raises(UserError, match=r'train_dataloader: image .*bee/1\.png has the label 3'):
        build_runner(**options).train()


@pytest.mark.parametrize(
    ('change', 'difference'),
    [
        (lambda val: shutil.rmtree(val / 'cat'), "'cat' is missing"),
        (lambda val: (val / '.ipynb_checkpoints').mkdir(), "'.ipynb_checkpoints' is too many"),
        (lambda val: (val / 'cat').rename(val / 'Cat'), "'Cat' is too many, 'cat' is missing"),
    ],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_validation_of_other_classes(build_runner, animals, change, difference, wrapped):
    root, options = animals
    change(root / 'val')
    runner = build_runner(**options)
    if wrapped:
        dataset = runner._val_dataloader.dataset
        runner._val_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=dataset)
    with pytest.raises(UserError, match=f'val_dataloader: its classes are not those of train_dataloader: {difference}'):
        runner.train()


def test_classes_of_a_checkpoint(build_runner, animals):
    root, options = animals
    loop = dict(by_epoch=True, max_epochs=1, val_begin=9)
    build_runner(loop=loop, **options).train()
    options['load_from'] = str(next(root.glob('run/epoch_1.pth')))
    build_runner('test', **options).test()
    options['test_dataloader.dataset.metainfo'] = dict(classes=['bee', 'dog', 'cat'])
    message = "test_dataloader: its classes are not those of the checkpoint: the order is 'bee', 'dog', 'cat' instead"
    with pytest.raises(UserError, match=message):
        build_runner('test', **options).test()
    build_runner('test', **{**options, 'default_hooks.labels': None}).test()
    # A training may start from a checkpoint of other data, and not go on with it.
    for loader in ('train', 'val'):
        options[f'{loader}_dataloader.dataset.metainfo'] = dict(classes=['bee', 'dog', 'cat'])
    build_runner('again', loop=loop, **options).train()
    with pytest.raises(UserError, match='train_dataloader: its classes are not those of the checkpoint'):
        build_runner(loop=dict(by_epoch=True, max_epochs=2), **{**options, 'load_from': None, 'resume': True}).train()


def test_head_with_more_classes(build_runner, animals):
    _, options = animals
    runner = build_runner(
        loop=dict(by_epoch=True, max_epochs=1, val_begin=9), **{**options, 'model.head.num_classes': 9}
    )
    runner.train()
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert 'The head has 9 classes, and train_dataloader has 3.' in log


def test_images_without_labels_are_taken(build_runner):
    runner = build_runner()
    runner.train_loop.dataloader = torch.utils.data.DataLoader([1, 2])
    LabelHook().before_run(runner)
