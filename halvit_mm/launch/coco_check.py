"""Check a COCO annotation file before a run for faults that upstream raises late or ignores."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from halvit_mm.errors import UserError

# The file of COCO's training set has 450 MB, takes many seconds to read, and is known to be whole.
LARGEST_FILE = 64 * 2**20

KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}


def check_coco(loader: str, dataset: Mapping) -> None:
    """Refuse a local annotation file of up to 64 MB that would fail later, or train on nothing.

    Args:
        loader (str): Name of the dataloader, for the message.
        dataset (Mapping): Config of a ``CocoDataset``.

    Raises:
        UserError: If the file is not JSON or lacks a key; if it names an image that is not there; if none of its
            categories is a class of the dataset; if an annotation belongs to no image, or its box or area has a number
            that is not finite; if masks are to be read and an annotation that mmdet keeps has none; if its masks are
            run-length coded and to be read with ``poly2mask=False``, with which mmdet ignores them.
    """
    root = dataset.get('data_root') or ''
    path = Path(root, dataset.get('ann_file') or '')
    if '://' in root or not path.is_file() or path.stat().st_size > LARGEST_FILE:
        return
    where = f'{loader}: {path}'
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f'{where} is not a JSON file: {error}') from None
    # The images of an evaluation server (image_info_test-dev2017.json) have no annotations.
    keys = ('images', 'categories') if loader == 'test_dataloader' else KEYS
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{where} has no {key!r}; expected 'images', 'annotations' and 'categories'")
        for entry in content[key]:
            if missing := [field for field in KEYS[key] if field not in entry]:
                raise UserError(f'{where}: an entry of {key!r} has no {missing[0]!r}: {str(entry)[:100]}')
    _check_classes(where, dataset, [category['name'] for category in content['categories']])
    folder = Path(root, dataset.get('data_prefix', {}).get('img', ''))
    for image in content['images']:
        if not (folder / image['file_name']).is_file():
            raise UserError(f'{where} names the image {image["file_name"]}, which is not in {folder}')
    images = {image['id'] for image in content['images']}
    steps = [step for step in dataset.get('pipeline') or () if str(step['type']).endswith('LoadAnnotations')]
    with_mask = any(step.get('with_mask') for step in steps)
    for annotation in content.get('annotations', []):
        if annotation['image_id'] not in images:
            raise UserError(
                f"{where}: annotation {annotation['id']} is of image {annotation['image_id']}, which is not in 'images'"
            )
        box, area = annotation['bbox'], annotation['area']
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, (*box, area))):
            raise UserError(
                f'{where}: annotation {annotation["id"]} has the box {str(box)[:100]} and the area {str(area)[:20]}; '
                'a box is [x, y, width, height], and all are finite numbers'
            )
        if not with_mask or annotation.get('ignore') or annotation['area'] <= 0:
            continue
        mask = annotation.get('segmentation')
        if not mask:
            raise UserError(
                f'{where}: annotation {annotation["id"]} of image {annotation["image_id"]} has no mask; leave it out, '
                'or train a model without masks'
            )
        if (
            isinstance(mask, dict)
            and not annotation.get('iscrowd')
            and not all(s.get('poly2mask', True) for s in steps)
        ):
            raise UserError(
                f'{where}: annotation {annotation["id"]} has a run-length mask, which mmdet ignores with '
                'poly2mask=False; set poly2mask=True in LoadAnnotations'
            )


def _is_finite(number: object) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number)


def _check_classes(where: str, dataset: Mapping, categories: list[str]) -> None:
    classes = dataset.get('metainfo', {}).get('classes')
    if classes is None:
        from mmdet.datasets import CocoDataset

        classes = CocoDataset.METAINFO['classes']
    if not {*classes} & {*categories}:
        raise UserError(
            f'{where}: none of its categories ({", ".join(map(str, categories[:5]))}, ...) is a class of the dataset '
            f'({", ".join(classes[:5])}, ...); name them in metainfo=dict(classes=...)'
        )
