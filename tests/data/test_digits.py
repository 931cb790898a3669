import re
import runpy
import sys

import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from PIL import Image
from sklearn.datasets import load_digits

from halvit_mm.data import write_digits
from tests.utils import ROOT


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    assert write_digits(root) == dict(train=1437, val=360)
    return root


def test_images_are_the_originals(root):
    digits = load_digits()
    files = sorted(root.rglob('*.png'), key=lambda file: file.stem)
    assert [int(file.stem) for file in files] == [*range(1797)]
    for file in files[::50]:
        image = np.asarray(Image.open(file))
        assert image.shape == (8, 8)
        np.testing.assert_array_equal(np.round(image * (16 / 255)), digits.images[int(file.stem)])
        assert int(file.parent.name) == digits.target[int(file.stem)]


def test_split_is_stratified_and_fixed(root, tmp_path):
    names = {split: {file.name for file in (root / split).rglob('*.png')} for split in ('train', 'val')}
    assert not names['train'] & names['val']
    for digit in range(10):
        count = len([*(root / 'val' / str(digit)).iterdir()])
        assert count == pytest.approx(0.2 * (load_digits().target == digit).sum(), abs=1)
    write_digits(tmp_path)
    assert {file.name for file in (tmp_path / 'val').rglob('*.png')} == names['val']


def test_upstream_reads_it(root):
    dataset = CustomDataset(data_root=str(root), data_prefix='val', pipeline=[])
    dataset.full_init()
    assert len(dataset) == 360
    assert dataset.CLASSES == tuple('0123456789')


@pytest.mark.parametrize('name', ['prepare_digits', 'prepare_digits_coco', 'prepare_digits_seg'])
def test_without_scikit_learn(name, monkeypatch, tmp_path, capsys):
    """As with OneDL's packages, which do not bring it."""
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    monkeypatch.setattr(sys, 'argv', [name, '--root', str(tmp_path / 'digits')])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
    assert end.value.code == 2
    assert re.fullmatch(
        'error: the digits come with scikit-learn .*: pip install scikit-learn\n', capsys.readouterr().err
    )
    assert not (tmp_path / 'digits').exists()
