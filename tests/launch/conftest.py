import json
from collections.abc import Callable

import pytest
from mmengine.config import Config
from PIL import Image

from halvit_mm.errors import UserError
from halvit_mm.launch.coco_check import check_coco

SIZE = 100, 80
# Left, top, width and height: two on each of two images
BOXES = (1, [10, 10, 40, 30]), (1, [5, 40, 20, 20]), (2, [50, 20, 30, 30]), (2, [0, 0, 100, 80])


def polygon(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture
def detector(tmp_path):
    """Config of a detector of classes a and b, with two images for training and two others for validation."""
    (tmp_path / 'annotations').mkdir()
    cfg = dict(
        default_scope='mmdet',
        model=dict(
            type='MaskRCNN',
            rpn_head=dict(type='RPNHead', num_classes=1),
            roi_head=dict(
                bbox_head=dict(type='Shared2FCBBoxHead', num_classes=2),
                mask_head=dict(type='FCNMaskHead', num_classes=2),
            ),
        ),
    )
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        images = [dict(id=i, file_name=f'{i}.jpg', width=SIZE[0], height=SIZE[1]) for i in (1, 2)]
        for image in images:
            Image.new('RGB', SIZE).save(tmp_path / split / image['file_name'])
        annotations = [
            dict(
                id=number,
                image_id=image,
                category_id=1 + number % 2,
                bbox=box,
                area=box[2] * box[3],
                iscrowd=0,
                segmentation=polygon(box),
            )
            for number, (image, box) in enumerate(BOXES, start=1)
        ]
        categories = [dict(id=1, name='a'), dict(id=2, name='b')]
        file = tmp_path / f'annotations/{split}.json'
        file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
        cfg[f'{split}_dataloader'] = dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(tmp_path),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=split),
                metainfo=dict(classes=('a', 'b')),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                ],
            )
        )
    cfg['val_evaluator'] = dict(
        type='CocoMetric', ann_file=str(tmp_path / 'annotations/val.json'), metric=['bbox', 'segm']
    )
    return Config(cfg)


@pytest.fixture
def change(tmp_path) -> Callable:
    """Change an annotation file by a function of its content."""

    def change(edit: Callable[[dict], object], split: str = 'train') -> None:
        path = tmp_path / f'annotations/{split}.json'
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


@pytest.fixture
def check(detector, capsys) -> Callable[..., list[str]]:
    """Check a config, or that of ``detector``; the warnings, one a line."""

    def check(cfg: Config = detector, loaders: tuple = ('train_dataloader', 'val_dataloader')) -> list[str]:
        capsys.readouterr()
        check_coco(cfg, loaders)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('warning: ')]
        return [line.removeprefix('warning: ') for line in lines]

    return check


@pytest.fixture
def refused(check) -> Callable[..., str]:
    """The message with which a config is refused."""

    def refused(*args, **kwargs) -> str:
        with pytest.raises(UserError) as error:
            check(*args, **kwargs)
        assert '\n' not in str(error.value)
        return str(error.value)

    return refused
