import json
from pathlib import Path

import mmdet
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope

from halvit_mm.data import write_digits_coco
from halvit_mm.launch.coco_check import LARGEST_FILE
from halvit_mm.train.hooks.bad_images import CheckedDataset
from tests.utils import ROOT, run_tool

DIGITS = ROOT / 'configs/digits/mask-rcnn_halvit_digits-coco.py'
LOADERS = ('train_dataloader', 'val_dataloader')


@pytest.fixture
def train(detector):
    """The config of the dataset for training."""
    return detector.train_dataloader.dataset


class TestDatasets:
    @pytest.mark.parametrize(
        ('values', 'named'),
        [
            (dict(ann_file='absent.json'), 'absent.json is not a file (looked from'),
            (dict(ann_file=None), 'train_dataloader.dataset.ann_file=None is not a file'),
            (dict(data_prefix='train'), "data_prefix='train' has no folder of images; expected dict(img='...')"),
            (dict(data_prefix=dict(img_path='train')), "data_prefix={'img_path': 'train'} has no folder of images"),
            (dict(data_prefix=None), 'data_prefix=None has no folder of images'),
            (
                dict(classes=('a', 'b')),
                'dataset.classes is not an argument; expected train_dataloader.dataset.metainfo=',
            ),
            (
                dict(metainfo=dict(CLASSES=('a',))),
                'metainfo.CLASSES is not a key that mmdet reads; expected metainfo=dict(',
            ),
            (dict(metainfo=dict(classes='cat')), "metainfo.classes='cat' is not a text file of names (looked from"),
            (dict(metainfo=dict(classes='cat')), "in which a single name has a comma behind it: ('cat',)"),
            (dict(metainfo=dict(classes={'a', 'b'})), 'are not names in their order; expected a tuple'),
            (dict(metainfo=dict(classes=('a', 'b', 'a'))), "metainfo.classes has 'a' more than once"),
        ],
    )
    def test_arguments_that_mmdet_does_not_take(self, train, refused, values, named):
        for key, value in values.items():
            train[key] = value
        message = refused()
        assert message.startswith('train_dataloader.dataset.')
        assert named in message

    def test_legal_arguments(self, detector, train, check, tmp_path):
        names = tmp_path / 'names.txt'
        names.write_text('a\nb\n')
        train.ann_file = str(tmp_path / train.ann_file)
        train.data_prefix.img = str(tmp_path / 'train')
        del train['data_root']
        train.metainfo.classes = str(names)
        train.filter_cfg = None
        detector.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=train)
        assert check() == []

    def test_lines_to_write_for_other_data(self, detector, train, refused):
        del train['metainfo']
        for head in detector.model.roi_head.values():
            head.num_classes = 80
        assert refused().endswith(
            "none of its categories ('a', 'b') is a class of the dataset ('person', 'bicycle', 'car', 'motorcycle', "
            "'airplane', ...); expected metainfo=dict(classes=('a', 'b')) in all datasets, and num_classes=2 in "
            'model.roi_head.bbox_head and model.roi_head.mask_head'
        )

    def test_classes_of_validation(self, detector, refused, change):
        change(lambda content: content['categories'].reverse(), 'val')
        detector.val_dataloader.dataset.metainfo.classes = ('b', 'a')
        assert (
            "the classes of val_dataloader.dataset ('b', 'a') are not those of train_dataloader.dataset ('a', 'b'); "
            'expected the same names in the same order in metainfo=dict(classes=...) of both'
        ) in refused()

    def test_names_that_are_read(self, detector, check):
        """A model with a language model has as many outputs as words, and is tested on names it was not trained on."""
        detector.model = dict(type='GroundingDINO', language_model=dict(), bbox_head=dict(type='Head', num_classes=256))
        detector.val_dataloader.dataset.metainfo.classes = ('a',)
        [told] = check()
        assert "2 of 4 boxes are not used: their categories ('b')" in told

    def test_images_without_boxes(self, detector, train, change, check, refused, tmp_path):
        """As a dataset of background beside another they are legal; alone they train nothing."""
        content = json.loads((tmp_path / train.ann_file).read_text())
        content['images'][0]['file_name'] = '../val/1.jpg'
        del content['annotations']
        del content['images'][1]
        (tmp_path / 'annotations/background.json').write_text(json.dumps(content))
        background = {**train, 'ann_file': 'annotations/background.json'}
        detector.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[train, background])
        assert check(loaders=LOADERS[:1]) == []
        background['filter_cfg'] = dict(filter_empty_gt=True)
        detector.train_dataloader.dataset.datasets[1] = background
        [told] = check(loaders=LOADERS[:1])
        assert told.endswith("background.json: filter_cfg={'filter_empty_gt': True} leaves out 1 of 1 images")
        detector.train_dataloader.dataset = background
        assert "background.json has no 'annotations'; expected 'images', 'annotations' and 'categories'" in refused()
        content['annotations'] = []
        (tmp_path / 'annotations/background.json').write_text(json.dumps(content))
        assert 'background.json has no box of its classes' in refused()

    def test_images_for_training_and_validation(self, detector, train, check, tmp_path):
        detector.val_dataloader.dataset = train
        detector.val_evaluator.ann_file = str(tmp_path / train.ann_file)
        [told] = check()
        assert told == (
            'val_dataloader: 2 of its 2 images are in train_dataloader too, such as ' + str(tmp_path / 'train/1.jpg')
        )

    def test_classes_that_read_as_coco_does(self, detector, train, refused, check):
        @DATASETS.register_module()
        class DigitsCoco(CocoDataset):
            METAINFO = dict(classes=('b', 'a'))

        @DATASETS.register_module()
        class OwnReader(CocoDataset):
            METAINFO = dict(classes=('b', 'a'))

            def parse_data_info(self, raw_data_info):
                return super().parse_data_info(raw_data_info)

        try:
            for kind in ('DigitsCoco', 'mmdet.DigitsCoco', DigitsCoco):
                train.pop('metainfo', None)
                train.type = kind
                assert "calls 'a' 'b'" in refused(loaders=LOADERS[:1])
            train.type = 'OwnReader'
            assert check(loaders=LOADERS[:1]) == []
        finally:
            for name in ('DigitsCoco', 'OwnReader'):
                DATASETS.module_dict.pop(name)

    @pytest.mark.parametrize('kind', ['CocoPanopticDataset', 'LVISV1Dataset', 'Objects365V1Dataset'])
    def test_files_that_are_read_otherwise(self, detector, train, check, kind):
        train.type = kind
        assert check(loaders=LOADERS[:1]) == []

    def test_other_libraries(self, check):
        dataset = dict(type='CustomDataset', data_root='absent')
        assert check(dict(default_scope='mmpretrain', model=dict(), train_dataloader=dict(dataset=dataset))) == []

    def test_large_and_remote_files_are_not_read(self, train, check, tmp_path):
        with open(tmp_path / train.ann_file, 'r+b') as file:
            file.truncate(LARGEST_FILE + 1)
        assert check() == []
        for values in (dict(data_root='s3://bucket'), dict(backend_args=dict(backend='petrel'))):
            assert check(Config(dict(train_dataloader=dict(dataset={**train, **values})))) == []


class TestHeads:
    @pytest.mark.parametrize('number', [1, 3, 80])
    def test_another_number(self, detector, refused, number):
        detector.model.roi_head.bbox_head.num_classes = number
        assert refused() == (
            f'model.roi_head.bbox_head.num_classes={number} is not the number of classes of train_dataloader.dataset, '
            "which has 2 ('a', 'b'); expected num_classes=2 in model.roi_head.bbox_head"
        )

    @pytest.mark.parametrize(
        ('model', 'key'),
        [
            (dict(bbox_head=dict(type='RetinaHead', num_classes=80)), 'model.bbox_head'),
            (dict(bbox_head=[dict(type='A', num_classes=2), dict(type='A', num_classes=3)]), 'model.bbox_head.1'),
            (dict(detector=dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=0))), 'panoptic_head'),
        ],
    )
    def test_wherever_they_are(self, detector, refused, model, key):
        detector.model = model
        assert refused().endswith(key)

    @pytest.mark.parametrize(
        'model',
        [
            dict(panoptic_head=dict(num_things_classes=2, num_stuff_classes=0)),
            dict(roi_head=dict(semantic_head=dict(type='FusedSemanticHead', num_classes=183))),
            dict(backbone=dict(type='SSDVGG', num_classes=1000)),
        ],
    )
    def test_heads_of_other_classes(self, detector, check, model):
        detector.model = model
        assert check() == []

    def test_configs_of_mmdet_pass(self, check):
        """Of each kind of model one config; the files are not there to be read."""
        for name in (
            *('htc/htc_r50_fpn_1x_coco', 'ssd/ssd300_coco', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco'),
            *('mask2former/mask2former_r50_8xb2-lsj-50e_coco', 'lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1'),
            *('faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco', 'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712'),
            *(
                'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco',
                'dino/dino-4scale_r50_8xb2-12e_coco',
            ),
        ):
            cfg = Config.fromfile(Path(mmdet.__file__).parent / f'.mim/configs/{name}.py')
            for loader in LOADERS:
                for dataset in datasets_of(cfg[loader]):
                    dataset.data_root = 's3://bucket'
            assert check(cfg) == []


def datasets_of(cfg) -> list:
    if 'datasets' in cfg:
        return [dataset for one in cfg.datasets for dataset in datasets_of(one)]
    return datasets_of(cfg.dataset) if 'dataset' in cfg else [cfg]


class TestEvaluators:
    def test_another_file(self, detector, refused, change, tmp_path):
        detector.val_evaluator.ann_file = 'absent.json'
        assert 'val_evaluator.ann_file: absent.json is not a file (looked from' in refused()
        detector.val_evaluator.ann_file = str(tmp_path / 'annotations/train.json')
        change(lambda content: content.update(images=content['images'][:1]))
        message = refused()
        assert message.startswith('val_evaluator.ann_file: ')
        assert 'train.json has not the images of' in message
        assert 'val.json, such as 2.jpg; expected the same file' in message

    def test_test_without_annotations(self, detector, change, check):
        """Images of an evaluation server: the results are written, or nothing is evaluated."""
        change(lambda content: content.pop('annotations'), 'val')
        detector.test_dataloader = detector.val_dataloader
        detector.test_evaluator = {**detector.val_evaluator, 'format_only': True, 'outfile_prefix': 'x'}
        assert check(loaders=['test_dataloader']) == []
        detector.test_evaluator.format_only = False
        [told] = check(loaders=['test_dataloader'])
        assert told.endswith('no box of the classes is to be detected, and each average precision will be -1')


@pytest.fixture
def digits(tmp_path):
    write_digits_coco(tmp_path / 'data/digits_coco', train=2, val=1)
    return tmp_path


def test_upstreams_check_of_heads_sees_through_wrappers(digits, monkeypatch, tmp_path):
    """Under mmdet's own tool there is no check of the config."""
    monkeypatch.chdir(digits)
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict({'work_dir': str(tmp_path / 'work'), 'model.roi_head.mask_head.num_classes': 9})
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    with DefaultScope.overwrite_default_scope('mmdet'):  # which a runner leaves behind
        runner = RUNNERS.build(cfg)
        with pytest.raises(
            AssertionError, match=r'`num_classes` \(9\) in FCNMaskHead of MaskRCNN does not matches .*10'
        ):
            runner.train()
    assert isinstance(runner.train_dataloader.dataset.dataset, CheckedDataset)


def test_training_of_a_file_that_is_not_perfect(digits):
    """What is told and not refused trains and evaluates; each line is printed once."""
    for split in ('train', 'val'):
        file = digits / f'data/digits_coco/annotations/instances_{split}.json'
        content = json.loads(file.read_text())
        content['annotations'][0].update(id=0, area=0)
        file.write_text(json.dumps(content))
    trained = run_tool(
        *('tools/train.py', DIGITS, '--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler=None'), cwd=digits
    ).stdout
    told = [line for line in trained.splitlines() if line.startswith('warning: ')]
    assert len(told) == 2
    assert 'mmdet does not train with 1 of ' in told[0]
    assert 'takes a detection of annotation 0 for a false one' in told[1]
    assert 'coco/segm_mAP' in trained
