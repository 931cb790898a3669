from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CustomDataset

from halvit_mm.errors import UserError
from halvit_mm.io.datasets import class_names, local_files, read_classes, type_name, walk_datasets

A, B = (dict(type='CustomDataset', data_root=root, data_prefix='images') for root in 'ab')


@pytest.mark.parametrize(
    ('wrapped', 'keys'),
    [
        (A, ['x.dataset']),
        (dict(type='RepeatDataset', times=2, dataset=A), ['x.dataset.dataset']),
        (dict(type='mmpretrain.KFoldDataset', dataset=A, fold=0), ['x.dataset.dataset']),
        (dict(type='ConcatDataset', datasets=[A, B]), ['x.dataset.datasets.0', 'x.dataset.datasets.1']),
        (
            dict(type='ClassBalancedDataset', oversample_thr=1, dataset=dict(type='ConcatDataset', datasets=[A, B])),
            ['x.dataset.dataset.datasets.0', 'x.dataset.dataset.datasets.1'],
        ),
    ],
)
def test_wrappers_are_seen_through(wrapped, keys):
    found = [*walk_datasets(dict(batch_size=2, dataset=wrapped, sampler=dict(type='DefaultSampler')), 'x')]
    assert [key for key, _ in found] == keys
    assert [dataset for _, dataset in found] == [A, B][: len(keys)]


def test_nothing_to_walk():
    assert [*walk_datasets(None)] == [*walk_datasets({})] == []


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (dict(type='CustomDataset', data_root='r', data_prefix='train'), ['r', 'r/train']),
        (
            dict(type='Coco', data_root='r', data_prefix=dict(img='i/'), ann_file='a.json'),
            ['r', 'r/i', 'r/a.json'],
        ),
        (dict(type='mmpretrain.ImageNet', data_root='r', split='val'), ['r', 'r/val']),
        (dict(type='ImageNet', data_root='r', split='val', data_prefix='other'), ['r', 'r/other']),
        # The split of these is not a folder
        (dict(type='CUB', data_root='r', split='test'), ['r']),
        (dict(type='VOC', data_root='r', split='trainval'), ['r']),
        # What mmpretrain would download, or what lies elsewhere
        (dict(type='CIFAR10', data_root='r', split='train'), []),
        (dict(type='CustomDataset', data_root='s3://r'), []),
        (dict(type='CustomDataset', data_root='r', backend_args=dict(backend='petrel')), []),
        (dict(type='CustomDataset', data_root='r', backend_args=dict(backend='local')), ['r']),
        (dict(type='CustomDataset'), []),
        # Without a root
        (dict(type='CustomDataset', data_prefix='d/train', ann_file='a.txt'), ['d/train', 'a.txt']),
        (dict(type='CustomDataset', data_prefix='~/d'), [Path('~/d').expanduser()]),
        (dict(type='CustomDataset', data_prefix='s3://d', ann_file='a.txt'), ['a.txt']),
        # Annotations here, images elsewhere
        (
            dict(
                type='CocoDataset',
                data_root='r',
                data_prefix=dict(img='i'),
                ann_file='a.json',
                pipeline=[dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))],
            ),
            ['r', 'r/a.json'],
        ),
    ],
)
def test_files_on_this_machine(dataset, expected):
    assert [*local_files(dataset)] == [Path(path) for path in expected]


def test_names_of_classes_and_types():
    cfg = Config(
        dict(test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset={**A, 'metainfo': dict(classes=['x'])})))
    )
    assert class_names(cfg) == ['x']
    assert class_names(Config(dict(test_dataloader=dict(dataset=A)))) is None
    assert class_names(Config({})) is None
    assert type_name(dict(type=CustomDataset)) == type_name(A) == 'CustomDataset'


def test_names_in_a_file(tmp_path):
    """As mmengine reads them."""
    path = tmp_path / 'names.txt'
    path.write_text('cat\nhot dog\n')
    given = dict(classes=str(path))
    assert read_classes(given) == BaseDataset._load_metainfo(given)['classes'] == ['cat', 'hot dog']
    for classes in ('cat', str(tmp_path)):
        with pytest.raises(UserError, match=rf"classes='{classes}' is not a text file of names .* \('{classes}',\)"):
            read_classes(dict(classes=classes))
    with pytest.raises(UserError, match=r"classes=\{'cat'\} are not names in their order; expected a tuple"):
        read_classes(dict(classes={'cat'}))
