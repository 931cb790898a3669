"""The content of a COCO annotation file, held against what mmdet and pycocotools make of it."""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from halvit_mm.errors import UserError, warn
from halvit_mm.io.datasets import shown, type_name

from .image_sizes import OtherSize, find_other_sizes

# Fraction of the boxes or images whose loss a warning tells
MUCH = 0.1
# Pixels by which a box may reach beyond its image, counted from 1 or rounded
SLACK = 2
# A point as far away keeps pycocotools busy for seconds; one that is not finite, for ever.
FARTHEST = 1e6

KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}


class CocoFile:
    """An annotation file in COCO's format.

    Args:
        where (str): Beginning of all messages, such as ``'train_dataloader'``.
        path (Path): The file.
        annotated (bool): Whether it must have annotations.

    Attributes:
        where (str): ``where`` and the path.
        path (Path): The file.
        has_annotations (bool): Whether it has a list of annotations, which may be empty.
        categories (list[dict]): The entries.
        annotations (list[dict]): Those of images that the file has.
        images (dict): Entries by id.

    Raises:
        UserError: If the file is not JSON, or if an entry lacks a key, has the id of another entry, or has something
            else for a number.
    """

    def __init__(self, where: str, path: Path, annotated: bool = True) -> None:
        self.where = f'{where}: {path}'
        self.path = path
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f'{self.where} is not a JSON file: {error}') from None
        for key in KEYS:
            default = [] if key == 'annotations' and not annotated else None
            if not isinstance(content, dict) or not isinstance(content.get(key, default), list):
                raise UserError(f"{self.where} has no {key!r}; expected 'images', 'annotations' and 'categories'")
        self.has_annotations = 'annotations' in content
        for key, fields in KEYS.items():
            self._check_entries(key, content.get(key, []), fields)
        self.categories = content['categories']
        self.images = {image['id']: image for image in content['images']}
        every = content.get('annotations', [])
        for image in self.images.values():
            self._check_image(image)
        for annotation in every:
            self._check_box(annotation)
        self.annotations = [annotation for annotation in every if annotation['image_id'] in self.images]
        self._strays = [annotation for annotation in every if annotation['image_id'] not in self.images]

    def _error(self, message: str) -> UserError:
        return UserError(f'{self.where}: {message}')

    def _warn(self, message: str) -> None:
        warn(f'{self.where}: {message}')

    def _check_entries(self, key: str, entries: list, fields: Sequence[str]) -> None:
        known = set()
        for entry in entries:
            if not isinstance(entry, dict):
                raise self._error(f'an entry of {key!r} is not a dict: {str(entry)[:100]}')
            if missing := [field for field in fields if field not in entry]:
                hint = '; a panoptic file is for CocoPanopticDataset' if 'segments_info' in entry else ''
                raise self._error(f'an entry of {key!r} has no {missing[0]!r}: {str(entry)[:100]}{hint}')
            for field in ('id', 'image_id', 'category_id'):
                if not isinstance(entry.get(field, 0), (int, float, str)):
                    raise self._error(f'{field} {entry[field]!r} in {key!r} is not an id; expected a number')
            if not isinstance(entry.get('name', ''), (str, int, float)):
                raise self._error(f'name {entry["name"]!r} in {key!r} is not a name; expected a text')
            if entry['id'] in known:
                raise self._error(
                    f'two entries of {key!r} have the id {entry["id"]!r}; expected a different one for each'
                )
            known.add(entry['id'])

    def _check_image(self, image: Mapping) -> None:
        if not isinstance(image['file_name'], str):
            raise self._error(f'file_name {image["file_name"]!r} is not a name; expected a path')
        for side in ('width', 'height'):
            if not is_number(image[side]):
                raise self._error(
                    f'the {side} {image[side]!r} of image {image["file_name"]} is not a number; expected its pixels'
                )

    def _check_box(self, annotation: Mapping) -> None:
        box, area = annotation['bbox'], annotation['area']
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, (*box, area))):
            raise self._error(
                f'annotation {annotation["id"]} has the box {json.dumps(box)[:100]} and the area '
                f'{json.dumps(area)[:20]}; a box is [x, y, width, height], and all are finite numbers'
            )
        # A text is true, '0' too.
        if isinstance(annotation.get('iscrowd'), (str, list, dict)):
            raise self._error(f'annotation {annotation["id"]} has iscrowd={annotation["iscrowd"]!r}; expected 0 or 1')

    def check_order(self, classes: Sequence[str], advice: str = 'name them in metainfo=dict(classes=...)') -> set:
        """Refuse class names in another order than the file's, and warn of categories that are not trained.

        mmdet's ``CocoDataset`` takes the categories whose names are in ``classes``, and numbers them in the order in
        which the file has them. The number is a place in ``classes``.

        Args:
            classes (Sequence[str]): Names of the dataset's classes.
            advice (str): What to write if none of them is a category.

        Returns:
            set: Ids of the categories that are taken.

        Raises:
            UserError: If a category's number is the place of another name.
        """
        taken = [category for category in self.categories if category['name'] in classes]
        names = [category['name'] for category in taken]
        every = [category['name'] for category in self.categories]
        if not every and not self.annotations:  # Images of background only
            return set()
        if not names:
            raise self._error(
                f'none of its categories ({shown(every)}) is a class of the dataset ({shown(classes)}); {advice}'
            )
        if names != list(classes[: len(names)]):
            if len({*names}) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise self._error(f'several categories have the name {twice!r}; expected one of each name')
            place = next(i for i, name in enumerate(names) if name != classes[i])
            wanted = {str(name).casefold() for name in classes}
            expected = [name for name in every if str(name).casefold() in wanted]
            raise self._error(
                f'mmdet numbers its categories in the order of the file ({shown(names)}), and so calls '
                f'{names[place]!r} {classes[place]!r}, which is number {place} in metainfo.classes; expected '
                f'metainfo=dict(classes={written(expected)}), or the categories in the order of metainfo.classes'
            )
        return {category['id'] for category in taken}

    def missing(self, classes: Sequence[str]) -> list[str]:
        """The classes that the file has not as categories, each with the nearest category, if there is one."""
        names = [str(category['name']) for category in self.categories]
        lacking = []
        for name in classes:
            if str(name) not in names:
                near = [other for other in names if other.casefold() == str(name).casefold()]
                near = near or get_close_matches(str(name), names, 1)
                lacking.append(f'{name!r}' + (f' (did you mean {near[0]!r}?)' if near else ''))
        return lacking

    def check_categories(self, taken: Collection) -> None:
        """Refuse category ids that are off by one; warn of boxes whose category is not taken or not there."""
        ids = {category['id'] for category in self.categories}
        used = Counter(annotation['category_id'] for annotation in self.annotations)
        for shift in (-1, 1):
            if all(map(is_number, (*ids, *used))) and {*used} == {i + shift for i in ids}:
                raise self._error(
                    f'the annotations have category_id {min(used)} to {max(used)}, but the categories '
                    f'have id {min(ids)} to {max(ids)}; expected the same ids'
                )
        if unknown := [i for i in used if i not in ids]:
            number = sum(used[i] for i in unknown)
            self._warn(
                f'{number} of {used.total()} boxes have a category_id that no category has, such as '
                f'{unknown[0]!r}; mmdet drops them'
            )
        left = {category['name']: used[category['id']] for category in self.categories if category['id'] not in taken}
        if number := sum(left.values()):
            self._warn(
                f'{number} of {used.total()} boxes are not used: their categories ({shown([*left])}) are '
                'not in metainfo.classes'
            )
        if self._strays:
            self._warn(
                f'{len(self._strays)} annotations are of images that are not in its images, such as '
                f'image {self._strays[0]["image_id"]!r}; mmdet drops them'
            )

    def check_boxes(self) -> None:
        """Refuse boxes in fractions of the image and boxes by two corners; warn of boxes beyond the image."""
        boxes = [(annotation['bbox'], self.images[annotation['image_id']]) for annotation in self.annotations]
        if not boxes:
            return
        if all(-1 <= value <= 1 for box, _ in boxes for value in box):
            raise self._error(f'all numbers of all boxes lie between -1 and 1, as {boxes[0][0]} does; expected pixels')
        if not any(image['width'] > 0 and image['height'] > 0 for _, image in boxes):
            return
        beyond = [box for box, image in boxes if _reaches_beyond(box, image['width'], image['height'])]
        corners = all(
            x < right <= image['width'] + SLACK and y < bottom <= image['height'] + SLACK
            for (x, y, right, bottom), image in boxes
        )
        if corners and len(beyond) > len(boxes) / 2:
            raise self._error(
                f'{len(beyond)} of {len(boxes)} boxes reach beyond their images, as {beyond[0]} does, and '
                'all would fit as [left, top, right, bottom]; expected [x, y, width, height]'
            )
        if len(beyond) > MUCH * len(boxes):
            self._warn(f'{len(beyond)} of {len(boxes)} boxes reach beyond their images, such as {beyond[0]}')

    def count_trained(self, taken: Collection, steps: Sequence[Mapping]) -> int:
        """Count the boxes that mmdet trains with, refuse a file with boxes of which none is left, and warn of a loss.

        Args:
            taken (Collection): Ids of the categories that are taken.
            steps (Sequence[Mapping]): Configs of the dataset's ``LoadAnnotations``.

        Returns:
            int: Their number.
        """
        of_classes = [annotation for annotation in self.annotations if annotation['category_id'] in taken]
        dropped = Counter(self._why_dropped(annotation, steps) for annotation in of_classes)
        kept = dropped.pop(None, 0)
        reasons = ', '.join(f'{number} {reason}' for reason, number in dropped.most_common())
        if of_classes and not kept:
            raise self._error(
                f'mmdet trains with none of its {len(of_classes)} boxes: {reasons}; expected boxes of a '
                'pixel or more within the image, with an area and iscrowd=0'
            )
        if dropped.total() > MUCH * len(of_classes):
            self._warn(f'mmdet does not train with {dropped.total()} of {len(of_classes)} boxes: {reasons}')
        return kept

    def _why_dropped(self, annotation: Mapping, steps: Sequence[Mapping]) -> str | None:
        """Why mmdet does not train with a box; None if it does."""
        if reason := self._why_not_read(annotation):
            return reason
        if annotation.get('iscrowd'):
            return "marked 'iscrowd'"
        mask = annotation.get('segmentation')
        if not isinstance(mask, list) or not any(step.get('with_mask') for step in steps):
            return None
        whole = any(len(polygon) % 2 == 0 and len(polygon) >= 6 for polygon in mask)
        return None if whole else 'with polygons of fewer than 3 points or half a point'

    def _why_not_read(self, annotation: Mapping) -> str | None:
        """Why ``CocoDataset.parse_data_info`` drops a box of the classes."""
        image = self.images[annotation['image_id']]
        x, y, width, height = annotation['bbox']
        if annotation.get('ignore'):
            return "marked 'ignore'"
        if image['width'] <= 0 or image['height'] <= 0:
            return 'on an image without width or height in the file'
        if annotation['area'] <= 0:
            return 'without an area'
        if width < 1 or height < 1:
            return 'of less than a pixel'
        if min(x + width, image['width']) <= max(x, 0) or min(y + height, image['height']) <= max(y, 0):
            return 'outside the image'
        return None

    def check_masks(self, taken: Collection, steps: Sequence[Mapping]) -> None:
        """Refuse masks that are to be read and cannot be, or that mmdet ignores."""
        if not any(step.get('with_mask') for step in steps):
            return
        polygons_only = not all(step.get('poly2mask', True) for step in steps)
        for annotation in self.annotations:
            if annotation['category_id'] not in taken or self._why_not_read(annotation):
                continue
            mask = annotation.get('segmentation')
            if not mask:
                raise self._error(
                    f'annotation {annotation["id"]} of image {annotation["image_id"]} has no mask; leave '
                    'it out, or train a model without masks'
                )
            if polygons_only and isinstance(mask, dict):
                if annotation.get('iscrowd'):
                    continue
                raise self._error(
                    f'annotation {annotation["id"]} has a run-length mask, which mmdet ignores with '
                    'poly2mask=False; set poly2mask=True in LoadAnnotations'
                )
            self._check_mask(annotation)

    def _check_mask(self, annotation: Mapping) -> None:
        mask, image = annotation['segmentation'], self.images[annotation['image_id']]
        name = f'annotation {annotation["id"]!r}'
        if isinstance(mask, list):
            if not all(isinstance(polygon, list) for polygon in mask):
                raise self._error(
                    f'{name} has the mask {str(mask)[:60]}; expected a list of polygons: [[x, y, x, y, ...]]'
                )
            for value in (value for polygon in mask for value in polygon):
                if not is_number(value) or abs(value) > FARTHEST:
                    raise self._error(
                        f'{name} has {str(value)[:60]} in a polygon; expected pixels: [[x, y, x, y, ...]]'
                    )
            return
        if not isinstance(mask, dict) or not isinstance(mask.get('counts'), (list, str)) or 'size' not in mask:
            raise self._error(
                f'{name} has the mask {str(mask)[:60]}; expected polygons, or run lengths: dict(size=..., counts=...)'
            )
        size, counts = mask['size'], mask['counts']
        if size != [image['height'], image['width']]:
            raise self._error(
                f'{name} has a run-length mask of size {size}, but image {image["file_name"]} is '
                f'{image["width"]} wide and {image["height"]} high; expected size '
                f'[{image["height"]}, {image["width"]}]'
            )
        if isinstance(counts, list) and (not all(map(is_number, counts)) or sum(counts) != size[0] * size[1]):
            raise self._error(
                f'{name} has run lengths that do not sum up to the {size[0] * size[1]} pixels of their size {size}'
            )

    def check_images(self, folder: str, pipeline: Sequence[Mapping] | None, masks: bool) -> set[str]:
        """Refuse images that are missing or have another size than the boxes; warn of several entries for one image.

        Args:
            folder (str): Where the images are.
            pipeline (Sequence[Mapping], optional): Configs of the dataset's transforms. Defaults to None.
            masks (bool): Whether masks of the file are held against those of a model.

        Returns:
            set[str]: Paths of the images.
        """
        if not self.images:
            raise UserError(f"{self.where} has no image in 'images'; expected one at least")
        paths = [os.path.join(folder, image['file_name']) for image in self.images.values()]
        for path, image in zip(paths, self.images.values()):
            if not os.path.isfile(path):
                raise UserError(f'{self.where} names the image {image["file_name"]}, which is not in {folder}')
        if len({*paths}) < len(paths):
            name, number = Counter(image['file_name'] for image in self.images.values()).most_common(1)[0]
            self._warn(
                f"'images' has {number} entries for {name} ({len(paths) - len({*paths})} too many in all); "
                'mmdet reads it for each, and takes the objects of the other entries for background'
            )
        steps = [step for step in pipeline or () if type_name(step) == 'LoadImageFromFile']
        # What another step would read is not known.
        if steps or pipeline is None:
            self._check_sizes([*zip(paths, self.images.values())], dict(*steps[:1]), masks)
        return {*paths}

    def _check_sizes(self, images: list[tuple[str, Mapping]], step: Mapping, masks: bool) -> None:
        color_type = step.get('color_type', 'color')
        found, number = find_other_sizes(images, color_type, step.get('imdecode_backend', 'cv2'))
        if not found:
            return
        for one in found:
            if not one.is_turned:
                continue
            if one.read == one.stored:
                boxes, wanted = 'shown', f"color_type='color', not {color_type!r},"
            else:
                boxes, wanted = 'stored', "color_type='color_ignore_orientation'"
            raise self._error(
                f'{_sizes(one)}, for its EXIF orientation; expected {wanted} in LoadImageFromFile if the boxes '
                f'are of the image as it is {boxes}, else width {one.read[0]} and height {one.read[1]} in the file'
            )
        others = {one.image['id']: one for one in found}
        beyond = next(
            (
                annotation
                for annotation in self.annotations
                if (one := others.get(annotation['image_id']))
                and _reaches_beyond(annotation['bbox'], *one.read)
                and not _reaches_beyond(annotation['bbox'], *one.given)
            ),
            None,
        )
        one = others[beyond['image_id']] if beyond else found[0]
        what = f'{_sizes(one)} ({len(found)} of {number} images differ)'
        if len(found) > MUCH * number and (beyond or masks):
            reason = 'masks of another size match no detection'
            if beyond:
                reason = f'the box {beyond["bbox"]} reaches beyond it'
            raise self._error(f'{what}, and {reason}; expected boxes and masks in pixels of the image')
        self._warn(f'{what}; mmdet takes boxes and masks as pixels of the image')

    def check_filter(self, filter_cfg: Mapping | None, taken: Collection) -> None:
        """Refuse a ``filter_cfg`` that leaves no image, and warn of one that drops many."""
        if not filter_cfg:
            return
        least = filter_cfg.get('min_size', 0)
        with_boxes = {a['image_id'] for a in self.annotations if a['category_id'] in taken}
        left = [
            image
            for image in self.images.values()
            if min(image['width'], image['height']) >= least
            and (image['id'] in with_boxes or not filter_cfg.get('filter_empty_gt'))
        ]
        lost = len(self.images) - len(left)
        if not left and self.annotations:
            raise self._error(
                f'filter_cfg={dict(filter_cfg)} leaves none of its {lost} images; expected a min_size '
                'below their sizes, or annotations of the classes'
            )
        if lost > MUCH * len(self.images):
            self._warn(f'filter_cfg={dict(filter_cfg)} leaves out {lost} of {len(self.images)} images')

    def check_evaluation(self, taken: Collection, metrics: Sequence[str]) -> None:
        """Refuse what ends pycocotools' evaluation after an epoch, and warn of what it does not count.

        Args:
            taken (Collection): Ids of the categories that are evaluated.
            metrics (Sequence[str]): Of ``CocoMetric``.
        """
        evaluated = [annotation for annotation in self.annotations if annotation['category_id'] in taken]
        for annotation in evaluated:
            name = f'annotation {annotation["id"]!r}'
            if annotation.get('iscrowd') is None:
                raise self._error(
                    f"{name} has no 'iscrowd', which COCO's evaluation reads; expected 0, or 1 for a crowd"
                )
            if not _counts(annotation['id']):
                raise self._error(
                    f"{name} has no number for an id, which COCO's evaluation counts with; expected 1, 2, ..."
                )
            if 'segm' in metrics:
                mask = annotation.get('segmentation')
                if not mask:
                    raise self._error(
                        f"{name} has no mask, which metric 'segm' needs; leave it out, or evaluate 'bbox'"
                    )
                self._check_mask(annotation)
                if isinstance(mask, list) and len(mask[0]) <= 4:
                    raise self._error(
                        f'{name} has the polygon {mask[0]}; expected 3 points at least: [[x, y, x, y, x, y]]'
                    )
        if any(annotation['id'] == 0 and not annotation['iscrowd'] for annotation in evaluated):
            self._warn(
                "COCO's evaluation takes a detection of annotation 0 for a false one, because the id 0 "
                'stands for no match there; number annotations from 1'
            )
        if not any(not annotation['iscrowd'] for annotation in evaluated):
            self._warn('no box of the classes is to be detected, and each average precision will be -1')


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def _counts(number: object) -> bool:
    """Whether NumPy takes an id for a number, as it takes ``'5'``."""
    try:
        return math.isfinite(float(number))
    except (ValueError, OverflowError):
        return False


def written(names: Sequence) -> str:
    """A tuple as a config has it, in one line."""
    return str(tuple(names)) if len(names) <= 20 else f'the names of its {len(names)} categories, in their order'


def _reaches_beyond(box: Sequence[float], width: float, height: float) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK or x + w > width + SLACK or y + h > height + SLACK


def _sizes(one: OtherSize) -> str:
    (width, height), (given_width, given_height) = one.read, one.given
    return (
        f'mmdet reads image {one.image["file_name"]} as {width} x {height} pixels, not as the {given_width} x '
        f'{given_height} of the file'
    )
