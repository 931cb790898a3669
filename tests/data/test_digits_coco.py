import json

import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from halvit_mm.data import split_digits, write_digits_coco, write_single_digits
from halvit_mm.data.digits_coco import box_of, draw_canvas

COUNTS = dict(train=12, val=6)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits_coco')
    write_digits_coco(root, **COUNTS)
    return root


@pytest.mark.parametrize('split', ['train', 'val'])
def test_pycocotools_reads_what_was_drawn(root, split):
    coco = COCO(root / 'annotations' / f'instances_{split}.json')
    assert len(coco.imgs) == COUNTS[split]
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == [*'0123456789']
    for image in coco.imgs.values():
        picture = np.asarray(Image.open(root / split / image['file_name'])).astype(int)
        assert picture.shape == (image['height'], image['width'])
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        assert 2 <= len(annotations) <= 6
        masks = [coco.annToMask(annotation).astype(bool) for annotation in annotations]
        # A pixel belongs to one digit: the one that is seen there.
        assert np.sum(masks, axis=0).max() == 1
        for annotation, mask in zip(annotations, masks):
            assert annotation['area'] == mask.sum() == coco_mask.area(annotation['segmentation'])
            assert tuple(annotation['bbox']) == box_of(mask)
            assert annotation['bbox'][3] <= 56
            # The masks are the ink.
            assert picture[mask].mean() > 140


def test_masks_and_boxes_are_the_glyphs_own():
    images, labels, _ = split_digits()['train']
    canvas = draw_canvas(np.random.default_rng(0), images[:1], labels[:1], (96, 96), 1)
    assert canvas.labels == [labels[0]]
    left, top, width, height = box_of(canvas.masks[0])
    outside = canvas.masks[0].copy()
    outside[top : top + height, left : left + width] = False
    assert not outside.any()
    glyph = Image.fromarray(canvas.masks[0][top : top + height, left : left + width].astype(np.uint8) * 255)
    ink = images[0][:, (images[0] > 0.5).any(0)] > 0.5
    shrunk = np.asarray(glyph.resize((ink.shape[1], 8), Image.BOX)) > 127
    assert (shrunk == ink).mean() > 0.85


def test_no_glyph_is_in_both_splits():
    splits = split_digits()
    assert not {*splits['train'][2]} & {*splits['val'][2]}
    assert len(splits['train'][2]) + len(splits['val'][2]) == 1797


def test_it_is_a_detection_task(tmp_path):
    write_digits_coco(tmp_path, train=60, val=1)
    coco = json.loads((tmp_path / 'annotations/instances_train.json').read_text())
    assert len({(image['height'], image['width']) for image in coco['images']}) == 4
    heights = [annotation['bbox'][3] for annotation in coco['annotations']]
    assert max(heights) > 1.8 * min(heights)
    numbers = np.bincount([annotation['image_id'] for annotation in coco['annotations']])[1:]
    assert {*numbers} == {2, 3, 4, 5, 6}

    def boxes_overlap(a, b):
        return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))

    by_image = {}
    for annotation in coco['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation['bbox'])
    assert any(boxes_overlap(a, b) for boxes in by_image.values() for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_same_every_time(root, tmp_path):
    write_digits_coco(tmp_path, **COUNTS)
    for name in ('annotations/instances_train.json', 'train/000003.png', 'val/000001.png'):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_single_digits_for_backbones(tmp_path):
    counts = write_single_digits(tmp_path, copies=(1, 1))
    assert counts == dict(train=1437, val=360)
    dataset = CustomDataset(data_root=str(tmp_path), data_prefix='val', pipeline=[])
    dataset.full_init()
    assert len(dataset) == 360
    assert dataset.CLASSES == tuple('0123456789')
    _, labels, numbers = split_digits()['val']
    files = sorted((tmp_path / 'val').rglob('*.png'))
    assert {(file.parent.name, int(file.name[:4])) for file in files} == {*zip(map(str, labels), numbers)}
    assert Image.open(files[0]).size == (64, 64)
