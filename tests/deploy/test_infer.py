"""tools/infer.py, and upstream's inferencers on our configs, with random weights."""

import runpy
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from halvit_mm.deploy.infer import find_images
from tests.tools.test_training import TINY_MODEL
from tests.utils import ROOT, TINY_ARCH, run_tool

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'
DETECTOR = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
classes = ('zero', 'one', 'two')
model = dict(
    backbone=dict(
        _delete_=True,
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=40),
        img_size=64,
        out_type='featmap',
        out_indices=(0, 1, 2, 3),
        window_size=3,
        global_attn_layers=(1, 3),
    ),
    neck=[
        dict(type='halvit_mm.ViTPyramid', in_channels=24),
        dict(type='FPN', in_channels=[24] * 4, out_channels=32, num_outs=5),
    ],
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=32, num_classes=3),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(in_channels=32, conv_out_channels=32, num_convs=1, num_classes=3),
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=10)),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(120, 72), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
test_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), pipeline=test_pipeline))
"""


def save_checkpoint(cfg: Config, path, **meta) -> str:
    """Write what mmengine's runner writes, without an optimizer."""
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build({'_scope_': cfg.default_scope, **cfg.model})
    hub = dict(log_scalars={}, runtime_info=dict(epoch=1), resumed_keys={})
    meta = dict(cfg=cfg.pretty_text, seed=0, epoch=1, iter=10, **meta)
    torch.save(dict(meta=meta, state_dict=model.state_dict(), message_hub=hub), path)
    return str(path)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory) -> tuple[str, str]:
    """A config file and its checkpoint, as trained on a folder of classes."""
    folder = tmp_path_factory.mktemp('classifier')
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({key: int(value) for key, value in (option.split('=') for option in TINY_MODEL)})
    cfg.dump(folder / 'tiny.py')
    classes = tuple(f'digit {i}' for i in range(10))
    return str(folder / 'tiny.py'), save_checkpoint(cfg, folder / 'tiny.pth', dataset_meta=dict(classes=classes))


@pytest.fixture(scope='module')
def detector(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp('detector')
    (folder / 'tiny.py').write_text(DETECTOR)
    cfg = Config.fromfile(folder / 'tiny.py')
    meta = dict(classes=('zero', 'one', 'two'), palette=[(220, 20, 60), (119, 11, 32), (0, 0, 142)])
    return str(folder / 'tiny.py'), save_checkpoint(cfg, folder / 'tiny.pth', dataset_meta=meta)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp('segmentor')
    cfg = Config.fromfile(ROOT / 'configs/digits/upernet_halvit_digits-seg.py')
    cfg.model.backbone.update(arch=dict(TINY_ARCH), out_indices=(0, 1, 2))
    cfg.model.neck.in_channels = 24
    cfg.model.decode_head.update(in_channels=[24] * 3, channels=8)
    cfg.dump(folder / 'tiny.py')
    return str(folder / 'tiny.py'), save_checkpoint(cfg, folder / 'tiny.pth', dataset_meta=dict(classes=None))


@pytest.fixture
def infer(monkeypatch, capsys):
    """Run the tool in this process: its exit status, output and errors."""

    def call(*args) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()  # what the test itself has made upstream print
        monkeypatch.setattr(sys, 'argv', ['infer.py', *map(str, args)])
        status = 0
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                runpy.run_path(str(ROOT / 'tools/infer.py'), run_name='__main__')
            except SystemExit as end:
                status = end.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return call


def assert_drawn(path, original) -> None:
    """That a picture is at least as large as the image, and not the image itself."""
    picture, image = cv2.imread(str(path)), cv2.imread(str(original))
    assert picture is not None, path
    assert min(picture.shape[:2]) >= min(image.shape[:2])
    if picture.shape == image.shape:
        assert not np.array_equal(picture, image)


SKIPPED = ['cut.jpg is cut: ', 'cut.png is cut: ', 'empty.jpeg is empty', 'text.jpg is not an image']


class TestClassifier:
    def test_folder(self, classifier, images, infer, tmp_path):
        status, lines, errors = infer(*classifier, images, '--out', tmp_path / 'drawn', '--device', 'cpu')
        assert status == 1
        assert [line.rsplit(' ', 3)[0] for line in lines] == [f'{images}/{name}:' for name in ('a.png', 'more/b.png')]
        for line in lines:
            _, digit, number, score = line.rsplit(' ', 3)
            assert digit == 'digit'
            assert int(number) in range(10)
            assert 0.1 <= float(score) <= 1
        told = [line for line in errors if line.startswith('skipped')]
        for line, expected in zip(told, SKIPPED, strict=True):
            assert line.startswith(f'skipped: {images}/{expected}')
        drawn = sorted(str(path.relative_to(tmp_path / 'drawn')) for path in (tmp_path / 'drawn').rglob('*.*'))
        assert drawn == ['a.png', 'more/b.png']
        for name in drawn:
            assert_drawn(tmp_path / 'drawn' / name, images / name)
        assert (
            DefaultScope.get_current_instance() is None or DefaultScope.get_current_instance().scope_name != 'overwrite'
        )

    def test_one_image_is_what_the_model_says(self, classifier, images, infer):
        from mmpretrain import ImageClassificationInferencer

        status, [line], _ = infer(*classifier, images / 'more/b.png')
        assert status == 0
        # Unchanged, as a user calls it
        [result] = ImageClassificationInferencer(model=classifier[0], pretrained=classifier[1])(
            str(images / 'more/b.png')
        )
        assert result['pred_class'].startswith('digit ')
        assert line == f'{images}/more/b.png: {result["pred_class"]} {result["pred_score"]:.3f}'

    def test_names_of_classes(self, classifier, images, infer, tmp_path):
        content = torch.load(classifier[1], weights_only=False)
        del content['meta']['dataset_meta']
        torch.save(content, tmp_path / 'nameless.pth')
        image = images / 'a.png'
        _, [line], _ = infer(classifier[0], tmp_path / 'nameless.pth', image, '--out', tmp_path / 'drawn')
        assert line.startswith(f'{image}: class ')
        assert_drawn(tmp_path / 'drawn/a.png', image)
        names = ','.join(f'name{i}' for i in range(10))
        option = f'test_dataloader.dataset.metainfo.classes={names}'
        _, [line], _ = infer(classifier[0], tmp_path / 'nameless.pth', image, '--cfg-options', option)
        assert line.split(': ')[1].split()[0] in names.split(',')

    def test_grey_images(self, images, infer, tmp_path):
        """A model of one channel reads images as its test pipeline does."""
        (tmp_path / 'grey.py').write_text(f"""
_base_ = {str(CONFIG)!r}
data_preprocessor = dict(mean=[33.0], std=[78.6], to_rgb=False)
model = dict(
    backbone=dict(in_channels=1, arch=dict(embed_dims=24, num_layers=2, feedforward_channels=40)),
    head=dict(in_channels=24),
)
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='Resize', scale=32),
    dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
""")
        checkpoint = save_checkpoint(Config.fromfile(tmp_path / 'grey.py'), tmp_path / 'grey.pth')
        status, [line], _ = infer(tmp_path / 'grey.py', checkpoint, images / 'a.png', '--out', tmp_path / 'drawn')
        assert (status, line.rsplit(' ', 2)[0]) == (0, f'{images}/a.png: class')
        assert_drawn(tmp_path / 'drawn/a.png', images / 'a.png')

    def test_several_labels_or_none(self, classifier, images, infer, tmp_path):
        cfg = Config.fromfile(classifier[0])
        cfg.model.head = dict(type='MultiLabelLinearClsHead', in_channels=24, num_classes=10, thr=0.0)
        cfg.dump(tmp_path / 'several.py')
        checkpoint = save_checkpoint(cfg, tmp_path / 'several.pth')
        args = (tmp_path / 'several.py', checkpoint, images / 'a.png', '--out', tmp_path / 'drawn')
        _, [line], _ = infer(*args)
        assert [word.rsplit(' ', 1)[0] for word in line.split(': ')[1].split(', ')] == [f'class {i}' for i in range(10)]
        _, [line], _ = infer(*args, '--cfg-options', 'model.head.thr=1.1')
        assert line == f'{images}/a.png: no class'


class TestDetector:
    def test_folder(self, detector, images, infer, tmp_path):
        # Scores of three classes and the background that know nothing are near 1/4.
        status, lines, errors = infer(*detector, images, '--out', tmp_path / 'drawn', '--score-thr', '0.2')
        assert status == 1
        assert [line.split(': ')[0] for line in lines] == [f'{images}/a.png', f'{images}/more/b.png']
        assert all(line.endswith(' above 0.2') for line in lines)
        assert int(lines[1].split(': ')[1].split()[0]) > 0
        assert len([line for line in errors if line.startswith('skipped')]) == 4
        for name in ('a.png', 'more/b.png'):
            assert cv2.imread(str(tmp_path / 'drawn' / name)) is not None
        assert_drawn(tmp_path / 'drawn/more/b.png', images / 'more/b.png')
        status, [line], _ = infer(*detector, images / 'more/b.png', '--score-thr', '0.999')
        assert (status, line) == (0, f'{images}/more/b.png: 0 detections above 0.999')

    def test_count_is_what_the_model_says(self, detector, images, infer):
        from mmdet.apis import DetInferencer

        image = str(images / 'more/b.png')
        with DefaultScope.overwrite_default_scope('mmdet'):
            inferencer = DetInferencer(model=detector[0], weights=detector[1], show_progress=False)
            [result] = inferencer(image)['predictions']
        assert inferencer.visualizer.dataset_meta['classes'] == ('zero', 'one', 'two')
        assert {*result} == {'labels', 'scores', 'bboxes', 'masks'}
        middle = sorted(result['scores'])[len(result['scores']) // 2] - 1e-4
        count = sum(score > middle for score in result['scores'])
        _, [line], _ = infer(*detector, image, '--score-thr', f'{middle:.9f}')
        assert line.startswith(f'{image}: {count} detection')

    def test_names_of_the_config_where_the_checkpoint_has_none(self, detector, images, tmp_path):
        from halvit_mm.deploy.infer import Detector

        content = torch.load(detector[1], weights_only=False)
        torch.save(content['state_dict'], tmp_path / 'weights.pth')
        with DefaultScope.overwrite_default_scope('mmdet'), pytest.warns(UserWarning, match='COCO classes by default'):
            made = Detector(Config.fromfile(detector[0]), str(tmp_path / 'weights.pth'), 'cpu', 0.3)
        assert made.visualizer.dataset_meta['classes'] == ('zero', 'one', 'two')
        assert 'palette' in made.visualizer.dataset_meta

    def test_an_image_that_the_pipeline_does_not_take(self, detector, images, infer, tmp_path):
        for name in ('cut.jpg', 'cut.png', 'text.jpg', 'empty.jpeg'):
            (images / name).unlink()
        Image.new('RGB', (4000, 1)).save(images / 'line.png')
        status, lines, errors = infer(*detector, images)
        assert status == 1
        assert [line.split(': ')[0] for line in lines] == [f'{images}/a.png', f'{images}/more/b.png']
        [told] = [line for line in errors if line.startswith('skipped')]
        assert told.startswith(f'skipped: {images}/line.png, 4000 x 1 pixels: error: OpenCV')


class TestSegmentor:
    def test_folder(self, segmentor, images, infer, tmp_path):
        status, lines, errors = infer(*segmentor, images, '--out', tmp_path / 'drawn')
        assert status == 1
        assert [line.split(': ')[0] for line in lines] == [f'{images}/a.png', f'{images}/more/b.png']
        assert len([line for line in errors if line.startswith('skipped')]) == 4
        for name in ('a', 'more/b'):
            assert_drawn(tmp_path / f'drawn/{name}.png', images / f'{name}.png')
            mask = cv2.imread(str(tmp_path / f'drawn/{name}_mask.png'), cv2.IMREAD_UNCHANGED)
            assert mask.shape == cv2.imread(str(images / f'{name}.png')).shape[:2]

    def test_classes_are_what_the_model_says(self, segmentor, images, infer, tmp_path):
        from mmseg.apis import MMSegInferencer

        image = str(images / 'more/b.png')
        with DefaultScope.overwrite_default_scope('mmseg'):
            inferencer = MMSegInferencer(segmentor[0], segmentor[1], show_progress=False)
            mask = inferencer(image)['predictions']
        _, [line], _ = infer(*segmentor, image, '--out', tmp_path / 'drawn')
        assert np.array_equal(cv2.imread(str(tmp_path / 'drawn/b_mask.png'), cv2.IMREAD_UNCHANGED), mask)
        number, pixels = np.unique(mask, return_counts=True)
        largest = number[pixels.argmax()]
        name = 'background' if not largest else str(largest - 1)
        assert line.startswith(f'{image}: {name} {100 * pixels.max() / mask.size:.1f} %')

    def test_names_where_the_checkpoint_has_none(self, segmentor, images, infer, tmp_path):
        content = torch.load(segmentor[1], weights_only=False)
        torch.save(content['state_dict'], tmp_path / 'weights.pth')
        cfg = Config.fromfile(segmentor[0])
        del cfg.test_dataloader.dataset['metainfo']
        cfg.dump(tmp_path / 'nameless.py')
        _, [line], _ = infer(tmp_path / 'nameless.py', tmp_path / 'weights.pth', images / 'a.png')
        assert line.startswith(f'{images}/a.png: class ')


class TestErrors:
    def told(self, infer, *args, loading: bool = False) -> str:
        status, lines, errors = infer(*args)
        assert status == 2
        assert lines == []
        # While it loads weights mmengine reports.
        assert loading or len(errors) == 1, errors
        return errors[-1]

    def test_missing(self, classifier, images, infer, tmp_path):
        config, checkpoint = classifier
        assert self.told(infer, 'absent.py', checkpoint, images) == 'error: config absent.py does not exist'
        assert self.told(infer, config, 'absent.pth', images) == 'error: checkpoint absent.pth does not exist'
        line = self.told(infer, config, checkpoint, 'absent')
        assert line == 'error: image or folder absent does not exist'
        (tmp_path / 'bare').mkdir()
        (tmp_path / 'bare/notes.txt').touch()
        line = self.told(infer, config, checkpoint, tmp_path / 'bare')
        assert line.startswith(f'error: folder {tmp_path}/bare holds no image; looked for .jpg, ')

    def test_drawing_over_the_images(self, classifier, images, infer):
        for source in (images, images / 'a.png'):
            line = self.told(infer, *classifier, source, '--out', images / 'more/..')
            assert line.endswith('which would be drawn over; name another folder')

    def test_weights(self, classifier, images, infer, tmp_path):
        line = self.told(infer, classifier[0], images / 'text.jpg', images, loading=True)
        assert line.startswith(f'error: checkpoint {images}/text.jpg cannot be read')
        options = ['--cfg-options', 'model.backbone.tie=none']
        line = self.told(infer, *classifier, images, *options, loading=True)
        assert "The weights are a tied model's. Build the model with the tie that it was trained with." in line
        # A map of another size without a class token, over which mmpretrain fails
        content = torch.load(classifier[1], weights_only=False)
        content['state_dict']['backbone.pos_embed'] = torch.zeros(1, 64, 24)
        torch.save(content, tmp_path / 'other.pth')
        line = self.told(infer, classifier[0], tmp_path / 'other.pth', images, loading=True)
        assert 'AssertionError: The length of `pos_embed`' in line

    def test_weights_that_do_not_fill_the_model(self, classifier, detector, images, infer):
        line = self.told(infer, detector[0], classifier[1], images, loading=True)
        assert 'entries would stay as they were drawn' in line
        options = ['--cfg-options', 'model.head.num_classes=3']
        line = self.told(infer, *classifier, images, *options, loading=True)
        assert '2 of its ' in line
        assert 'head.layers.head.weight (10, 24) instead of (3, 24)' in line

    def test_another_host(self, classifier, images, infer):
        line = self.told(infer, *classifier, images, '--cfg-options', 'default_scope=mmpose')
        assert (
            line
            == "error: default_scope='mmpose' is not a package that infers; expected 'mmpretrain' or 'mmdet' or 'mmseg'"
        )


def test_find_images(images, tmp_path):
    names = [str(path.relative_to(images)) for path in find_images(str(images))]
    assert names == ['a.png', 'cut.jpg', 'cut.png', 'empty.jpeg', 'more/b.png', 'text.jpg']
    (images / 'B.JPG').touch()
    assert images / 'B.JPG' in find_images(str(images))
    assert find_images(str(images / 'notes.txt')) == [images / 'notes.txt']


@pytest.mark.long
def test_as_a_process(classifier, detector, images, tmp_path):
    for config, checkpoint, expected in ((*classifier, ': digit '), (*detector, ' above 0.3')):
        command = ('tools/infer.py', config, checkpoint, images, '--out', tmp_path / 'drawn')
        done = run_tool(*command, cwd=tmp_path, check=False)
        assert done.returncode == 1, done.stdout
        lines = [line for line in done.stdout.splitlines() if 'Warning' not in line and line.strip()]
        assert sum(expected in line for line in lines) == 2, done.stdout
        assert 'Traceback' not in done.stdout
        assert sum(line.startswith('skipped: ') for line in lines) == 4
