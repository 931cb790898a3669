import json

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from PIL import Image

from halvit_mm.launch.coco_file import CocoFile

CROWD = dict(counts=[0, 8000], size=[80, 100])


def each(**values):
    """An edit of all annotations."""
    return lambda content: [annotation.update(values) for annotation in content['annotations']]


def first(**values):
    """An edit of the first annotation."""
    return lambda content: content['annotations'][0].update(values)


def without(key, of='annotations', place=0):
    return lambda content: content[of][place].pop(key)


class TestFormat:
    def test_a_whole_file_passes(self, check):
        assert check() == []

    @pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
    def test_lacks_a_list(self, change, refused, key):
        change(lambda content: content.update({key: None}))
        assert f"has no '{key}'; expected 'images', 'annotations' and 'categories'" in refused()
        change(lambda content: content.pop(key))
        assert f"has no '{key}'; expected 'images', 'annotations' and 'categories'" in refused()

    def test_no_json(self, tmp_path, refused):
        (tmp_path / 'annotations/train.json').write_text('{"images": [')
        assert 'train.json is not a JSON file' in refused()
        (tmp_path / 'annotations/train.json').write_text('[]')
        assert "has no 'images'" in refused()

    @pytest.mark.parametrize(
        ('list_of', 'key'),
        [('images', 'width'), ('annotations', 'bbox'), ('annotations', 'area'), ('categories', 'name')],
    )
    def test_an_entry_lacks_a_key(self, change, refused, list_of, key):
        change(without(key, list_of, 1))
        assert f"an entry of '{list_of}' has no '{key}'" in refused()

    def test_panoptic_file(self, change, refused):
        segments = dict(image_id=1, file_name='1.png', segments_info=[dict(id=1, category_id=1)])
        change(lambda content: content.update(annotations=[segments]))
        assert 'a panoptic file is for CocoPanopticDataset' in refused()

    @pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
    def test_one_id_twice(self, change, refused, key):
        change(lambda content: content[key][1].update(id=1))
        assert f"two entries of '{key}' have the id 1; expected a different one for each" in refused()

    @pytest.mark.parametrize(
        ('values', 'named'),
        [
            (dict(bbox=[1, 2, 3]), 'annotation 1 has the box [1, 2, 3]'),
            (dict(bbox=[1, 2, None, 4]), 'annotation 1 has the box [1, 2, null, 4]'),
            (dict(bbox=[1, 2, float('nan'), 4]), 'annotation 1 has the box [1, 2, NaN, 4]'),
            (dict(bbox='1 2 3 4'), 'annotation 1 has the box "1 2 3 4"'),
            (dict(bbox=['1', '2', '3', '4']), 'annotation 1 has the box ["1", "2", "3", "4"]'),
            (dict(area=None), 'and the area null;'),
            (dict(area='12'), 'and the area "12";'),
            (dict(iscrowd='0'), "annotation 1 has iscrowd='0'; expected 0 or 1"),
            (dict(image_id=[1]), "image_id [1] in 'annotations' is not an id; expected a number"),
            (dict(area=10**400), 'annotation 1 has the box [10, 10, 40, 30] and the area 1000000'),
        ],
    )
    def test_what_is_no_number(self, change, refused, values, named):
        change(first(**values))
        assert named in refused()

    @pytest.mark.parametrize(
        ('values', 'named'),
        [
            (dict(width='100'), "the width '100' of image 1.jpg is not a number; expected its pixels"),
            (dict(height=None), 'the height None of image 1.jpg is not a number'),
            (dict(file_name=5), 'file_name 5 is not a name; expected a path'),
        ],
    )
    def test_entries_of_images(self, change, refused, values, named):
        change(lambda content: content['images'][0].update(values))
        assert named in refused()


class TestClasses:
    """Category a has id 1 and b has id 2."""

    @pytest.mark.parametrize(
        ('classes', 'category', 'number'),
        [(('b', 'a'), 'a', 0), (('A', 'b'), 'b', 0), (('x', 'a', 'b'), 'a', 0), (('a', 'x', 'b'), 'b', 1)],
    )
    def test_shifted_names(self, detector, refused, classes, category, number):
        dataset = detector.train_dataloader.dataset
        dataset.metainfo.classes = classes
        assert (
            f'and so calls {category!r} {classes[number]!r}, which is number {number} in metainfo.classes; '
            "expected metainfo=dict(classes=('a', 'b')), or the categories in the order of metainfo.classes"
        ) in refused()
        # Upstream counts so.
        built = CocoDataset(**{key: dataset[key] for key in ('data_root', 'ann_file', 'data_prefix', 'metainfo')})
        assert built.cat2label['ab'.index(category) + 1] == number

    def test_order_of_another_file(self, detector, change, refused):
        change(lambda content: content['categories'].reverse(), 'val')
        message = refused()
        assert message.startswith('val_dataloader: ')
        assert "in the order of the file ('b', 'a'), and so calls 'b' 'a', which is number 0" in message

    def test_a_subset_is_told(self, detector, check):
        for loader in ('train_dataloader', 'val_dataloader'):
            detector[loader].dataset.metainfo.classes = ('b',)
        for head in detector.model.roi_head.values():
            head.num_classes = 1
        train, val = check()
        assert train.endswith("2 of 4 boxes are not used: their categories ('a') are not in metainfo.classes")
        assert val.startswith('val_dataloader')

    def test_a_class_without_category(self, detector, change, check, refused):
        for loader in ('train_dataloader', 'val_dataloader'):
            detector[loader].dataset.metainfo.classes = ('a', 'b', 'bat')
        for head in detector.model.roi_head.values():
            head.num_classes = 3
        message = refused()
        assert message.startswith('val_dataloader: ')
        assert "has no category 'bat', and CocoMetric fails at a detection of that class; expected all names" in message
        change(lambda content: content['categories'].append(dict(id=3, name='bat')), 'val')
        [told] = check()
        assert told.endswith("train.json has no category 'bat', which metainfo.classes names")

    def test_two_categories_of_one_name(self, change, refused):
        change(lambda content: content['categories'].append(dict(id=3, name='a')))
        assert "several categories have the name 'a'; expected one of each name" in refused()

    def test_category_ids_from_zero(self, change, refused):
        change(lambda content: [a.update(category_id=a['category_id'] - 1) for a in content['annotations']])
        assert 'have category_id 0 to 1, but the categories have id 1 to 2; expected the same ids' in refused()

    def test_strays_are_told(self, change, check):
        change(first(category_id=9))
        [told] = check()
        assert told.endswith('1 of 4 boxes have a category_id that no category has, such as 9; mmdet drops them')
        change(first(category_id=1, image_id='1'))
        [told] = check()
        assert told.endswith(
            "1 annotations are of images that are not in its images, such as image '1'; mmdet drops them"
        )


class TestBoxes:
    @pytest.mark.parametrize(
        ('edit', 'reason'),
        [
            (each(area=0), '4 without an area'),
            (each(iscrowd=1, segmentation=CROWD), "4 marked 'iscrowd'"),
            (each(ignore=1), "4 marked 'ignore'"),
            (each(bbox=[30, 20, -10, 5]), '4 of less than a pixel'),
            (each(bbox=[100, 20, 2, 5]), '4 outside the image'),
            (each(segmentation=[[1, 2, 3, 4]]), '4 with polygons of fewer than 3 points or half a point'),
            (each(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), '4 with polygons of fewer than 3 points or half a point'),
        ],
    )
    def test_nothing_to_train_with(self, change, refused, edit, reason):
        change(edit)
        assert f'mmdet trains with none of its 4 boxes: {reason}; expected boxes of a pixel or more' in refused()

    def test_images_without_size(self, detector, change, refused):
        change(lambda content: [image.update(width=0, height=0) for image in content['images']])
        assert 'trains with none of its 4 boxes: 4 on an image without width or height in the file' in refused()

    def test_a_loss_is_told(self, change, check):
        change(first(area=0))
        [told] = check()
        assert told.endswith('train.json: mmdet does not train with 1 of 4 boxes: 1 without an area')

    def test_counts_as_mmdet_does(self, detector, tmp_path, change):
        """Of a file with each fault once, mmdet and LoadAnnotations leave as many boxes."""

        def edit(content):
            whole = content['annotations'][0]
            faults = [
                dict(),
                dict(area=-1),
                dict(ignore=1),
                dict(bbox=[5, 5, 0.5, 9]),
                dict(bbox=[-9, 5, 9, 9]),
                dict(bbox=[99.5, 5, 9, 9]),
                dict(bbox=[5, 80, 9, 9]),
                dict(iscrowd=1),
                dict(segmentation=[[1, 2, 3, 4]]),
                dict(segmentation=[[1, 2, 3, 4], [1, 2, 3, 2, 3, 4]]),
                dict(category_id=7),
                dict(image_id=7),
            ]
            content['annotations'] = [{**whole, **fault, 'id': i} for i, fault in enumerate(faults)]

        change(edit)
        cfg = detector.train_dataloader.dataset
        load = LoadAnnotations(with_bbox=True, with_mask=True)
        dataset = CocoDataset(**{key: value for key, value in cfg.items() if key not in ('type', 'pipeline')})
        kept = 0
        for i in range(len(dataset)):
            loaded = load({**dataset.get_data_info(i), 'ori_shape': (80, 100)})
            kept += int((~loaded['gt_ignore_flags']).sum())
        file = CocoFile('train_dataloader', tmp_path / 'annotations/train.json')
        assert file.count_trained({1, 2}, [dict(with_mask=True)]) == kept == 3

    def test_fractions_of_the_image(self, change, refused):
        for split in ('train', 'val'):
            change(each(bbox=[0.1, 0.2, 0.5, 1.0]), split)
            assert f'{split}_dataloader' in refused()
            assert (
                'all numbers of all boxes lie between -1 and 1, as [0.1, 0.2, 0.5, 1.0] does; expected pixels'
                in refused()
            )
            change(each(bbox=[10, 20, 50, 60]), split)

    def test_two_corners(self, change, refused, check):
        change(each(bbox=[60, 40, 90, 70]))
        message = '4 of 4 boxes reach beyond their images, as [60, 40, 90, 70] does, and all would fit as [left, top,'
        assert message in refused()
        # Whole people in a cut picture
        change(each(bbox=[60, -20, 30, 120]))
        [told] = check()
        assert told.endswith('4 of 4 boxes reach beyond their images, such as [60, -20, 30, 120]')

    def test_filter(self, detector, change, check, refused):
        detector.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
        assert check() == []
        change(lambda content: [a.update(image_id=1) for a in content['annotations']])
        [told] = check()
        assert told.endswith("filter_cfg={'filter_empty_gt': True, 'min_size': 32} leaves out 1 of 2 images")
        detector.train_dataloader.dataset.filter_cfg = dict(min_size=320)
        assert "filter_cfg={'min_size': 320} leaves none of its 2 images; expected a min_size below" in refused()


class TestMasks:
    @pytest.mark.parametrize('mask', [[], {}, None])
    def test_empty(self, detector, change, refused, check, mask):
        change(first(segmentation=mask))
        assert 'annotation 1 of image 1 has no mask' in refused()
        detector.train_dataloader.dataset.pipeline[1].with_mask = False
        assert check() == []

    def test_dropped_annotations_need_none(self, change, check):
        change(first(segmentation=[], area=0))
        assert len(check()) == 1

    @pytest.mark.parametrize(
        ('mask', 'named'),
        [
            ([1, 2, 3, 4, 5, 6], 'has the mask [1, 2, 3, 4, 5, 6]; expected a list of polygons: [[x, y, x, y, ...]]'),
            ([[[1, 2], [3, 4], [5, 6]]], 'has [1, 2] in a polygon; expected pixels: [[x, y, x, y, ...]]'),
            ([['1', '2', '3', '4', '5', '6']], 'has 1 in a polygon; expected pixels'),
            ([[1, 2, float('nan'), 4, 5, 6]], 'has nan in a polygon; expected pixels'),
            ([[1, 2, 1e12, 4, 5, 6]], 'has 1000000000000.0 in a polygon; expected pixels'),
            ('1 2 3', 'has the mask 1 2 3; expected polygons, or run lengths: dict(size=..., counts=...)'),
            (dict(counts=[8000]), "has the mask {'counts': [8000]}; expected polygons, or run lengths"),
            (dict(counts=[8000], size=[100, 80]), 'mask of size [100, 80], but image 1.jpg is 100 wide and 80 high'),
            (dict(counts=[4000], size=[40, 100]), 'mask of size [40, 100], but image 1.jpg is 100 wide and 80 high'),
            (dict(counts=[5, 20], size=[80, 100]), 'run lengths that do not sum up to the 8000 pixels of their size'),
        ],
    )
    def test_what_is_no_mask(self, change, refused, mask, named):
        for split in ('train', 'val'):
            change(first(segmentation=mask), split)
            assert f'{split}.json: annotation 1 has ' in refused()
            assert named in refused()
            change(first(segmentation=[[10, 10, 50, 10, 50, 40]]), split)

    def test_run_lengths_that_would_be_ignored(self, detector, change, refused):
        change(first(segmentation=CROWD))
        detector.train_dataloader.dataset.pipeline[1].poly2mask = False
        assert 'annotation 1 has a run-length mask, which mmdet ignores with poly2mask=False' in refused()


class TestImages:
    def test_missing(self, tmp_path, refused):
        (tmp_path / 'train/2.jpg').unlink()
        assert 'names the image 2.jpg, which is not in' in refused()

    def test_none(self, change, refused):
        change(lambda content: content.update(images=[]))
        assert "has no image in 'images'; expected one at least" in refused()

    def test_several_entries_for_one(self, change, check):
        change(lambda content: content['images'].append({**content['images'][0], 'id': 3}))
        [told] = check()
        assert "'images' has 2 entries for 1.jpg (1 too many in all); mmdet reads it for each" in told

    def test_turned_photograph(self, detector, tmp_path, change, check, refused):
        """Stored with 100 x 80 pixels, shown with 80 x 100."""
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new('RGB', (100, 80)).save(tmp_path / 'train/2.jpg', exif=exif)
        message = refused()
        assert 'mmdet reads image 2.jpg as 80 x 100 pixels, not as the 100 x 80 of the file, for its EXIF' in message
        assert "expected color_type='color_ignore_orientation' in LoadImageFromFile if the boxes are" in message
        assert 'stored, else width 80 and height 100 in the file' in message
        load = detector.train_dataloader.dataset.pipeline[0]
        load.color_type = 'color_ignore_orientation'
        assert check() == []
        change(lambda content: content['images'][1].update(width=80, height=100))
        change(lambda content: content['annotations'].pop())
        message = refused()
        assert (
            "expected color_type='color', not 'color_ignore_orientation', in LoadImageFromFile if the boxes" in message
        )
        del load['color_type']
        assert check() == []

    def test_another_size(self, tmp_path, change, check, refused):
        """Images that were scaled after they were annotated, and a file that is wrong about sizes only."""
        Image.new('RGB', (120, 90)).save(tmp_path / 'train/1.jpg')
        [told] = check()
        message = 'mmdet reads image 1.jpg as 120 x 90 pixels, not as the 100 x 80 of the file (1 of 2 images differ)'
        assert told.endswith(f'{message}; mmdet takes boxes and masks as pixels of the image')
        Image.new('RGB', (50, 40)).save(tmp_path / 'train/1.jpg')
        assert 'and the box [5, 40, 20, 20] reaches beyond it; expected boxes' in refused()
        Image.new('RGB', (100, 80)).save(tmp_path / 'train/1.jpg')
        Image.new('RGB', (120, 90)).save(tmp_path / 'val/1.jpg')
        assert '(1 of 2 images differ), and masks of another size match no detection' in refused()


class TestEvaluation:
    @pytest.mark.parametrize(
        ('edit', 'named'),
        [
            (without('iscrowd'), "annotation 1 has no 'iscrowd', which COCO's evaluation reads; expected 0, or 1 for"),
            (first(iscrowd=None), "annotation 1 has no 'iscrowd'"),
            (first(id='first'), "annotation 'first' has no number for an id, which COCO's evaluation counts with"),
            (
                first(segmentation=[[1, 2, 3, 4]]),
                'annotation 1 has the polygon [1, 2, 3, 4]; expected 3 points at least',
            ),
            (first(area=0, segmentation=[]), "annotation 1 has no mask, which metric 'segm' needs; leave it out, or"),
        ],
    )
    def test_ends_after_an_epoch(self, change, refused, check, edit, named):
        change(edit, 'val')
        assert f'val.json: {named}' in refused()

    def test_training_needs_less(self, change, check):
        change(without('iscrowd'))
        change(lambda content: content['annotations'][0].update(id='first'))
        assert check() == []

    def test_masks_that_are_not_evaluated(self, detector, change, check):
        detector.val_evaluator.metric = 'bbox'
        detector.val_dataloader.dataset.pipeline[1].with_mask = False
        change(each(segmentation=[[1, 2, 3, 4]]), 'val')
        assert check() == []

    def test_id_zero(self, change, check):
        change(first(id=0), 'val')
        [told] = check()
        assert (
            "COCO's evaluation takes a detection of annotation 0 for a false one, because the id 0 stands for" in told
        )
        change(first(id=1), 'val')
        change(first(id=0))
        assert check() == []

    def test_nothing_to_detect(self, change, check):
        change(each(iscrowd=1, segmentation=CROWD), 'val')
        [told] = check()
        assert told.endswith('no box of the classes is to be detected, and each average precision will be -1')


def test_id_zero_is_no_match_to_pycocotools(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = []
    for number in (0, 1):
        box = dict(id=number, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
        content = dict(images=[dict(id=1)], categories=[dict(id=1)], annotations=[box])
        (tmp_path / 'a.json').write_text(json.dumps(content))
        truth = COCO(tmp_path / 'a.json')
        evaluation = COCOeval(truth, truth.loadRes([{**box, 'score': 1.0}]), 'bbox')
        for step in ('evaluate', 'accumulate', 'summarize'):
            getattr(evaluation, step)()
        found.append(evaluation.stats[0])
    assert np.allclose(found, [0, 1])
