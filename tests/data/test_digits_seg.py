import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset
from PIL import Image

from halvit_mm.data import write_digits_seg
from halvit_mm.data.digits_seg import SIZE

COUNTS = dict(train=12, val=6)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits_seg')
    counts = write_digits_seg(root, **COUNTS)
    assert all(COUNTS[split] <= counts[split] <= 2 * COUNTS[split] for split in COUNTS)
    return root


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmseg_reads_what_was_drawn(root, split):
    dataset = BaseSegDataset(
        data_root=str(root),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        img_suffix='.png',
        pipeline=[dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')],
    )
    assert len(dataset) == COUNTS[split]
    classes = set()
    for sample in dataset:
        picture, mask = sample['img'][..., 0].astype(int), sample['gt_seg_map']
        assert picture.shape == mask.shape == SIZE
        digits = {*np.unique(mask)} - {0}
        assert 1 <= len(digits) <= 2
        classes |= digits
        # The masks are the ink.
        assert picture[mask > 0].mean() > 140
    assert classes <= {*range(1, 11)}
    assert len(classes) > 4


def test_the_same_every_time(root, tmp_path):
    write_digits_seg(tmp_path, **COUNTS)
    for name in ('images/train/000003.png', 'annotations/train/000003.png', 'annotations/val/000001.png'):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    assert Image.open(root / 'annotations/val/000001.png').mode == 'L'
