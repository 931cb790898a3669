import json

import pytest

from halvit_mm.data import write_digits_coco
from halvit_mm.errors import UserError
from halvit_mm.launch.coco_check import LARGEST_FILE, check_coco


@pytest.fixture
def dataset(tmp_path):
    write_digits_coco(tmp_path, train=2, val=1)
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train'),
        metainfo=dict(classes=[*'0123456789']),
        pipeline=[dict(type='mmdet.LoadAnnotations', with_mask=True)],
    )


@pytest.fixture
def change(dataset, tmp_path):
    """Change the annotation file by a function of its content."""

    def change(edit) -> None:
        path = tmp_path / dataset['ann_file']
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def refused(dataset) -> str:
    with pytest.raises(UserError) as error:
        check_coco('train_dataloader', dataset)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_a_whole_file_passes(dataset):
    check_coco('train_dataloader', dataset)


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_lacks_a_key(dataset, change, key):
    change(lambda content: content.pop(key))
    assert f"has no '{key}'; expected 'images', 'annotations' and 'categories'" in refused(dataset)


def test_no_json(dataset, tmp_path):
    (tmp_path / dataset['ann_file']).write_text('{"images": [')
    assert 'instances_train.json is not a JSON file' in refused(dataset)
    (tmp_path / dataset['ann_file']).write_text('[]')
    assert "has no 'images'" in refused(dataset)


def test_missing_image(dataset, tmp_path):
    (tmp_path / 'train/000002.png').unlink()
    assert 'names the image 000002.png, which is not in' in refused(dataset)


@pytest.mark.parametrize('mask', [[], {}, None])
def test_empty_mask(dataset, change, mask):
    change(lambda content: content['annotations'][1].update(segmentation=mask))
    assert 'annotation 2 of image 1 has no mask' in refused(dataset)
    check_coco('train_dataloader', {**dataset, 'pipeline': [dict(type='LoadAnnotations', with_bbox=True)]})


def test_annotations_that_upstream_drops_need_no_mask(dataset, change):
    def edit(content):
        content['annotations'][0].update(segmentation=[], area=0)
        content['annotations'][1].update(segmentation=[], ignore=1)

    change(edit)
    check_coco('train_dataloader', dataset)


@pytest.mark.parametrize(
    ('list_of', 'key'),
    [('images', 'width'), ('annotations', 'bbox'), ('annotations', 'area'), ('categories', 'name')],
)
def test_an_entry_lacks_a_key(dataset, change, list_of, key):
    change(lambda content: content[list_of][1].pop(key))
    assert f"an entry of '{list_of}' has no '{key}'" in refused(dataset)


def test_annotation_of_no_image(dataset, change):
    change(lambda content: content['annotations'][0].update(image_id=77))
    assert "annotation 1 is of image 77, which is not in 'images'" in refused(dataset)


@pytest.mark.parametrize(
    ('values', 'named'),
    [
        (dict(bbox=[1, 2, 3]), 'annotation 1 has the box [1, 2, 3]'),
        (dict(bbox=[1, 2, None, 4]), 'annotation 1 has the box [1, 2, None, 4]'),
        (dict(bbox=[1, 2, float('nan'), 4]), 'annotation 1 has the box [1, 2, nan, 4]'),
        (dict(bbox='1 2 3 4'), 'annotation 1 has the box 1 2 3 4'),
        (dict(area=None), 'and the area None;'),
    ],
)
def test_boxes_and_areas_that_are_no_numbers(dataset, change, values, named):
    change(lambda content: content['annotations'][0].update(values))
    assert named in refused(dataset)


def test_images_to_detect_in_need_no_annotations(dataset, change):
    change(lambda content: content.pop('annotations'))
    check_coco('test_dataloader', {**dataset, 'test_mode': True})


def test_run_length_masks_that_would_be_ignored(dataset):
    dataset['pipeline'][0]['poly2mask'] = False
    assert 'annotation 1 has a run-length mask, which mmdet ignores with poly2mask=False' in refused(dataset)


def test_other_classes(dataset):
    del dataset['metainfo']
    assert 'none of its categories (0, 1, 2, 3, 4, ...) is a class of the dataset (person, ' in refused(dataset)


def test_large_and_remote_files_are_not_read(dataset, tmp_path):
    with open(tmp_path / dataset['ann_file'], 'r+b') as file:
        file.truncate(LARGEST_FILE + 1)
    check_coco('train_dataloader', dataset)
    check_coco('train_dataloader', {**dataset, 'data_root': 's3://bucket'})
