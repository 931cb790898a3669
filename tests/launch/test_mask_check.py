"""Masks that do not fit the model; the digits of tests/data are the ones that do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from halvit_mm.errors import UserError
from halvit_mm.launch.mask_check import MOST_MASKS, check_masks
from tests.utils import run_tool

SIZE = 30, 20
LOADERS = 'train_dataloader', 'val_dataloader'


@pytest.fixture
def segmentor(tmp_path) -> Config:
    """Config of a segmentor of classes a, b and c, with three images for training and three others for validation."""
    head = dict(type='FCNHead', num_classes=3, in_channels=4, channels=4, ignore_index=255)
    cfg = dict(
        default_scope='mmseg',
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', seg_pad_val=255),
            decode_head=dict(head),
            auxiliary_head=[dict(head)],
        ),
    )
    for split in ('train', 'val'):
        for folder in ('images', 'masks'):
            (tmp_path / folder / split).mkdir(parents=True)
        for i in range(3):
            Image.new('RGB', SIZE).save(tmp_path / f'images/{split}/{i}.jpg')
            write_mask(tmp_path / f'masks/{split}/{i}.png', [0, 1, 2, 255])
        cfg[f'{split}_dataloader'] = dict(
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'masks/{split}'),
                metainfo=dict(classes=('a', 'b', 'c')),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations'),
                    dict(type='PackSegInputs'),
                ],
            )
        )
    cfg['val_evaluator'] = dict(type='IoUMetric')
    return Config(cfg)


def write_mask(path: Path, values: list[int], size: tuple[int, int] = SIZE, mode: str = 'L') -> None:
    mask = np.resize(np.array(values, np.uint8), size[::-1])
    Image.fromarray(mask).convert(mode).save(path)


@pytest.fixture
def refused(segmentor) -> Callable[..., str]:
    """The message with which the config is refused."""

    def refused(loaders: tuple[str, ...] = LOADERS) -> str:
        with pytest.raises(UserError) as error:
            check_masks(segmentor, loaders)
        assert '\n' not in str(error.value)
        return str(error.value)

    return refused


@pytest.fixture
def train(segmentor):
    """The config of the dataset for training."""
    return segmentor.train_dataloader.dataset


def test_what_fits_passes(segmentor, train):
    before = segmentor.to_dict()
    check_masks(segmentor, LOADERS)
    assert segmentor.to_dict() == before
    segmentor.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[train, train])
    check_masks(segmentor, LOADERS)


def test_palettes_and_lists_of_names(segmentor, train, tmp_path):
    image = Image.fromarray(np.resize(np.array([0, 1, 2], np.uint8), SIZE[::-1]), mode='P')
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / 'masks/train/1.png')
    (tmp_path / 'train.txt').write_text('1\n2\n')
    (tmp_path / 'masks/train/0.png').unlink()
    train.ann_file = 'train.txt'
    check_masks(segmentor, LOADERS)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_labels_beyond_the_classes(segmentor, refused, tmp_path, split):
    path = tmp_path / f'masks/{split}/2.png'
    write_mask(path, [0, 7])
    assert refused() == (
        f'{split}_dataloader.dataset: the mask {path} has the label 7; model.decode_head has 3 classes; expected 0 to '
        '2, or 255, which is ignored'
    )


class TestZeroLabel:
    def test_masks_from_1(self, segmentor, train, refused, tmp_path):
        for i in range(3):
            write_mask(tmp_path / f'masks/train/{i}.png', [1, 2, 3])
        advice = 'masks of the classes 1 to 3 need train_dataloader.dataset.reduce_zero_label=True'
        assert refused(LOADERS[:1]).endswith(advice)
        train.reduce_zero_label = True
        check_masks(segmentor, LOADERS[:1])

    def test_reduced_label(self, train, refused, tmp_path):
        train.reduce_zero_label = True
        write_mask(tmp_path / 'masks/train/0.png', [0, 4])
        assert 'has the label 3 after reduce_zero_label=True has taken 1 from it' in refused()

    def test_transform_that_contradicts(self, train, refused):
        train.pipeline[1].reduce_zero_label = True
        assert refused().endswith(
            'LoadAnnotations has reduce_zero_label=True, and the dataset False; expected '
            'train_dataloader.dataset.reduce_zero_label=True, and none in the transform'
        )


class TestIgnored:
    def test_ignored_label_that_the_head_learns(self, segmentor, refused):
        for head in (segmentor.model.decode_head, segmentor.model.auxiliary_head[0]):
            head.ignore_index = 254
        segmentor.model.data_preprocessor.seg_pad_val = 254
        segmentor.val_evaluator.ignore_index = 254
        message = refused()
        assert 'has the label 255; model.decode_head has 3 classes' in message
        assert message.endswith('expected ignore_index=255 in model.decode_head and model.auxiliary_head.0')

    def test_padding(self, segmentor, refused):
        segmentor.model.data_preprocessor.seg_pad_val = 200
        assert refused() == (
            'model.data_preprocessor.seg_pad_val=200 is neither a class nor what model.decode_head ignores '
            '(ignore_index=255); expected seg_pad_val=255'
        )
        segmentor.model.data_preprocessor.seg_pad_val = 0
        check_masks(segmentor, LOADERS)

    def test_metric(self, segmentor, refused):
        segmentor.val_evaluator = [dict(type='IoUMetric', ignore_index=0)]
        assert refused().startswith('val_evaluator.ignore_index=0 is not what model.decode_head ignores')

    def test_nothing_to_learn(self, refused, tmp_path):
        for i in range(3):
            write_mask(tmp_path / f'masks/train/{i}.png', [255])
        assert 'the 3 masks that were looked at hold nothing but 255, which is ignored' in refused()


def test_classes_of_the_heads(segmentor, refused):
    segmentor.model.auxiliary_head[0].num_classes = 150
    assert refused() == (
        'model.auxiliary_head.0.num_classes=150 is not the number of classes of train_dataloader.dataset, which has 3 '
        "('a', 'b', 'c'); expected num_classes=3 in model.decode_head and model.auxiliary_head.0"
    )


class TestFiles:
    def test_missing_mask(self, refused, tmp_path):
        (tmp_path / 'masks/val/1.png').unlink()
        message = refused()
        assert message.startswith(f'val_dataloader.dataset: the mask {tmp_path}/masks/val/1.png does not exist')
        assert message.endswith("with the name of each image, and seg_map_suffix='.png' in place of '.jpg'")

    def test_other_size(self, refused, tmp_path):
        write_mask(tmp_path / 'masks/train/1.png', [0, 1], (31, 20))
        assert refused() == (
            f'train_dataloader.dataset: the image {tmp_path}/images/train/1.jpg has 30 x 20 pixels, and its mask '
            f'{tmp_path}/masks/train/1.png 31 x 20; expected the same size (1 of 3 that were looked at differ)'
        )

    def test_color(self, refused, tmp_path):
        write_mask(tmp_path / 'masks/train/1.png', [0, 1], mode='RGB')
        assert 'is a color picture of shape (20, 30, 3); expected one channel' in refused()

    def test_no_mask(self, refused, tmp_path):
        (tmp_path / 'masks/train/1.png').write_text('no image')
        assert f'the mask {tmp_path}/masks/train/1.png cannot be read: ' in refused()

    def test_suffix(self, train, refused):
        train.img_suffix = '.jpeg'
        assert refused().endswith(
            "images/train holds no image that ends in '.jpeg'; expected some, or another img_suffix"
        )

    def test_a_sample_is_read(self, segmentor, refused, tmp_path):
        """One in ten masks of a thousand, and all of a hundred."""
        for i in range(10 * MOST_MASKS):
            for path in (f'images/train/{i:04d}.jpg', f'masks/train/{i:04d}.png'):
                (tmp_path / path).symlink_to(tmp_path / path.replace(f'{i:04d}', '0'))
        write_mask(tmp_path / 'masks/train/1.png', [9])
        (tmp_path / 'masks/train/0501.png').unlink()
        (tmp_path / 'masks/train/0501.png').symlink_to(tmp_path / 'masks/train/1.png')
        for name in ('1', '2'):
            (tmp_path / f'images/train/{name}.jpg').unlink()
        check_masks(segmentor, LOADERS)
        (tmp_path / 'masks/train/0777.png').unlink()
        assert '0777.png does not exist' in refused()


def test_datasets_of_others(segmentor, train):
    """mmseg is not imported for them. A class of mmseg may list its files as it likes."""
    segmentor.default_scope = 'mmpretrain'
    train.data_root = 'absent'
    check_masks(segmentor, LOADERS)


def test_told_before_a_run(segmentor, tmp_path):
    write_mask(tmp_path / 'masks/train/2.png', [0, 7])
    segmentor.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    segmentor.dump(tmp_path / 'mine.py')
    failed = run_tool('tools/train.py', tmp_path / 'mine.py', check=False, cwd=tmp_path)
    assert failed.returncode == 2
    [line] = [line for line in failed.stdout.splitlines() if 'Warning' not in line and line.strip()]
    assert line.startswith('error: train_dataloader.dataset: the mask ')
    assert not (tmp_path / 'work_dirs').exists()
