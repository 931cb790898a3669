"""Check a segmentor's datasets, a sample of their masks and its heads for faults that mmseg tells late or never."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope

from halvit_mm.errors import UserError
from halvit_mm.io.build import in_one_line
from halvit_mm.io.components import candidates, quiet
from halvit_mm.io.configs import scope_of
from halvit_mm.io.datasets import shown, type_name, walk_datasets

from .image_sizes import find_other_sizes

# Of a dataset: masks that are looked for, and those that are read; of more an even sample is taken.
MOST_FILES, MOST_MASKS = 20_000, 100
HEADS = ('decode_head', 'auxiliary_head')
# What mmseg ignores unless a config says otherwise
IGNORED = 255


def check_masks(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse datasets of mmseg whose masks do not fit the model, before a run.

    Looked through are mmseg's ``BaseSegDataset`` and classes that list their files as it does, on local disks.
    docs/checks.md lists the checks.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Keys of the data loaders that the run uses.

    Raises:
        UserError: If a dataset, one of its masks, a head of the model or a metric is at fault.
    """
    if scope_of(cfg) != 'mmseg':
        return
    heads = dict(_walk_heads(cfg.get('model') or {}))
    with DefaultScope.overwrite_default_scope('mmseg'), quiet():
        for loader in loaders:
            for key, dataset in walk_datasets(cfg.get(loader), loader):
                built = _build(key, dataset)
                if built is None:
                    continue
                classes = _check_classes(key, built, heads)
                if 'seg_map_path' in dataset.get('data_prefix', {}):
                    _check_ignored(cfg, loader, heads)
                    _check_files(key, dataset, built, classes, heads)


def _walk_heads(model: Mapping) -> Iterator[tuple[str, Mapping]]:
    for name in HEADS:
        part = model.get(name)
        for i, head in enumerate(part if isinstance(part, (list, tuple)) else [part] if part else []):
            yield f'model.{name}.{i}' if isinstance(part, (list, tuple)) else f'model.{name}', head


def _build(key: str, dataset: Mapping) -> object | None:
    """A dataset without its transforms and its list; None if it reads files in a way of its own, or from elsewhere."""
    from mmseg.datasets import BaseSegDataset

    kind = dataset['type']
    [kind] = [kind] if isinstance(kind, type) else candidates(kind, 'mmseg', 'DATASETS')[:1] or [object]
    if not issubclass(kind, BaseSegDataset) or dataset.get('backend_args'):
        return None
    if kind.load_data_list is not BaseSegDataset.load_data_list or '://' in (dataset.get('data_root') or ''):
        return None
    with in_one_line(key):
        return DATASETS.build({**copy.deepcopy(dataset), 'pipeline': [], 'lazy_init': True})


def _check_classes(key: str, dataset: object, heads: Mapping[str, Mapping]) -> int | None:
    """Refuse heads with another number of classes than a dataset names; the number of classes."""
    names = dataset.metainfo.get('classes')
    for name, head in heads.items() if names else ():
        number = head.get('num_classes')
        if isinstance(number, int) and number != len(names):
            raise UserError(
                f'{name}.num_classes={number} is not the number of classes of {key}, which has {len(names)} '
                f'({shown(names)}); expected num_classes={len(names)} in {" and ".join(heads)}'
            )
    return len(names) if names else next((head.get('num_classes') for head in heads.values()), None)


def _check_ignored(cfg: Config, loader: str, heads: Mapping[str, Mapping]) -> None:
    """Refuse a padding or a metric that does not ignore what the heads ignore."""
    ignored = {name: head.get('ignore_index', IGNORED) for name, head in heads.items()}
    for name, value in ignored.items():
        preprocessor = cfg.model.get('data_preprocessor') or {}
        padding = preprocessor.get('seg_pad_val', IGNORED)
        if loader == 'train_dataloader' and padding != value and not 0 <= padding < heads[name].get('num_classes', 0):
            raise UserError(
                f'model.data_preprocessor.seg_pad_val={padding} is neither a class nor what {name} ignores '
                f'(ignore_index={value}); expected seg_pad_val={value}'
            )
        evaluators = cfg.get(loader.replace('dataloader', 'evaluator')) or []
        for metric in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if loader == 'train_dataloader' or type_name(metric) != 'IoUMetric' or name != 'model.decode_head':
                continue
            if (other := metric.get('ignore_index', IGNORED)) != value:
                raise UserError(
                    f'{loader.replace("dataloader", "evaluator")}.ignore_index={other} is not what {name} ignores '
                    f'(ignore_index={value}); expected the same number'
                )


def _check_files(key: str, config: Mapping, dataset: object, classes: int | None, heads: Mapping[str, Mapping]) -> None:
    """Refuse missing masks, and what a sample of the masks holds that the heads cannot learn."""
    steps = [step for step in config.get('pipeline') or () if type_name(step) == 'LoadAnnotations']
    with in_one_line(key):
        files = dataset.load_data_list()
    if not files:
        raise UserError(
            f'{key}: {dataset.data_prefix["img_path"]} holds no image that ends in {dataset.img_suffix!r}; expected '
            'some, or another img_suffix'
        )
    if not steps:
        return
    for info in _sample(files, MOST_FILES):
        for kind, path in (('image', info['img_path']), ('mask', info['seg_map_path'])):
            if not Path(path).is_file():
                raise UserError(
                    f'{key}: the {kind} {path} does not exist; expected a file in data_prefix.seg_map_path with the '
                    f'name of each image, and seg_map_suffix={dataset.seg_map_suffix!r} in place of '
                    f'{dataset.img_suffix!r}'
                )
    _check_zero_label(key, steps[0], dataset)
    load = TRANSFORMS.build(steps[0])
    masks, found = _sample(files, MOST_MASKS), set()
    for info in masks:
        try:
            mask = load(copy.deepcopy(info))['gt_seg_map']
        except Exception as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
            raise UserError(f'{key}: the mask {info["seg_map_path"]} cannot be read: {reason}') from error
        if mask.ndim != 2:
            raise UserError(
                f'{key}: the mask {info["seg_map_path"]} is a color picture of shape {mask.shape}; expected one '
                'channel, whose values are the numbers of the classes'
            )
        info['size'] = mask.shape[::-1]
        values = np.flatnonzero(np.bincount(mask.ravel())).tolist()
        found.update(values)
        _check_values(key, info['seg_map_path'], values, classes, heads, dataset.reduce_zero_label)
    ignored = {head.get('ignore_index', IGNORED) for head in heads.values()}
    if heads and found <= ignored:
        raise UserError(
            f'{key}: the {len(masks)} masks that were looked at hold nothing but {shown(sorted(found))}, which is '
            'ignored; expected numbers of classes'
        )
    _check_sizes(key, masks)


def _sample(files: Sequence[dict], most: int) -> list[dict]:
    step = max(1, len(files) / most)
    return [files[int(i * step)] for i in range(min(len(files), most))]


def _check_zero_label(key: str, step: Mapping, dataset: object) -> None:
    """Refuse a transform that contradicts its dataset, which mmseg tells by an AssertionError in a loader's worker."""
    given = step.get('reduce_zero_label')
    if given not in (None, dataset.reduce_zero_label):
        raise UserError(
            f'{key}.pipeline: LoadAnnotations has reduce_zero_label={given}, and the dataset '
            f'{dataset.reduce_zero_label}; expected {key}.reduce_zero_label={given}, and none in the transform'
        )


def _check_values(
    key: str, path: str, values: list[int], classes: int | None, heads: Mapping[str, Mapping], reduced: bool
) -> None:
    for name, head in heads.items():
        number = head.get('num_classes', classes)
        ignored = head.get('ignore_index', IGNORED)
        beyond = [value for value in values if value != ignored and value >= (number or value + 1)]
        if not beyond:
            continue
        where = ' after reduce_zero_label=True has taken 1 from it' if reduced else ''
        advice = f'expected 0 to {number - 1}, or {ignored}, which is ignored'
        if beyond == [IGNORED]:
            advice = f'expected ignore_index={IGNORED} in {" and ".join(heads)}'
        elif beyond == [number] and not reduced:
            advice += f'; masks of the classes 1 to {number} need {key}.reduce_zero_label=True'
        raise UserError(
            f'{key}: the mask {path} has the label {beyond[0]}{where}; {name} has {number} classes; {advice}'
        )


def _check_sizes(key: str, masks: Sequence[dict]) -> None:
    images = [(info['img_path'], dict(zip(('width', 'height'), info['size']))) for info in masks]
    others, _ = find_other_sizes(images)
    if others:
        first = others[0]
        mask = next(info['seg_map_path'] for info in masks if info['img_path'] == first.path)
        raise UserError(
            f'{key}: the image {first.path} has {first.read[0]} x {first.read[1]} pixels, and its mask {mask} '
            f'{first.given[0]} x {first.given[1]}; expected the same size ({len(others)} of {len(masks)} that were '
            'looked at differ)'
        )
