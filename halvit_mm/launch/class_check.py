"""Compare the classes that a classifier's config names in several places with its data, before a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine import fileio
from mmengine.config import Config
from torch import nn

from halvit_mm.cost import input_channels
from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.components import quiet
from halvit_mm.io.datasets import compare_classes, local_files, shown, type_name, walk_datasets

# mmpretrain's datasets that take folders for classes where they have no annotation file, and the classes of their type
FOLDER_DATASETS = dict(CustomDataset=None, ImageNet=1000, ImageNet21k=None)
# A longer list is checked by the training itself.
LONGEST_LIST = 64 * 2**20
# More of its images are not looked for.
MOST_IMAGES = 20_000


def check_classes(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse a classifier's config that does not fit its local data.

    All that does not fit is told in one message, with the lines to write. ``default_hooks.labels=None`` skips the
    check, as it does that of :class:`~halvit_mm.train.LabelHook`.

    Args:
        cfg (Config): The whole config.
        loaders (Sequence[str]): Names of the data loaders that the run uses.

    Raises:
        UserError: If there is a fault.
    """
    model = cfg.get('model') or {}
    head = model.get('head')
    number = head.get('num_classes') if isinstance(head, Mapping) else None
    # The classes of a retrieval's images are not those that it is trained on.
    if not isinstance(number, int) or type_name(model).endswith('Retriever'):
        return
    if (cfg.get('default_hooks') or {}).get('labels', True) is None:
        return
    faults, first_names, first_folders = [], None, None
    for loader in loaders:
        for key, dataset in walk_datasets(cfg.get(loader), loader):
            found, names, folders = _check_dataset(key, dataset, number)
            faults += found
            first_names = first_names or names
            if folders is not None:
                first_folders = first_folders or (key, folders)
                if difference := compare_classes(folders, first_folders[1]):
                    faults.append(
                        f'{key}: its folders are not those of {first_folders[0]}: {difference}; expected the same '
                        'folders, of which some may be empty'
                    )
    faults += _check_settings(cfg, loaders, first_folders[1] if first_folders else first_names)
    if faults:
        faults += _build_and_compare_head(cfg)
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        raise UserError('\n  '.join((f'{len(faults)} settings of {cfg.filename} do not fit:', *faults)))


def _check_dataset(
    key: str, dataset: Mapping, head_classes: int
) -> tuple[list[str], list[str] | None, list[str] | None]:
    """The faults of one dataset, the classes that its config names, and the folders of its images."""
    kind = type_name(dataset)
    if kind not in FOLDER_DATASETS or dataset.get('with_label') is False:
        return [], None, None
    faults = []
    if kind == 'CustomDataset' and 'split' in dataset:
        faults.append(
            f'{key}.split is not an argument of CustomDataset; expected {_line(key, type="ImageNet")}, or '
            f'_delete_=True and data_prefix={dataset["split"]!r}'
        )
    names = _given_classes(dataset)
    *_, folder = (None, *local_files({**dataset, 'ann_file': None}))
    if folder is None or not folder.is_dir():
        return faults, names, None
    if ann_file := _annotation_file(dataset, kind):
        return faults + _check_list(key, ann_file, folder, head_classes), names, None
    folders = sorted(fileio.list_dir_or_file(str(folder), list_file=False))
    hidden = [name for name in folders if name.startswith('.')]
    if hidden:
        return [*faults, f'{key}: {folder} holds {shown(hidden)}, which would be a class; remove it'], names, None
    if not folders:
        return [*faults, f'{key}: {folder} holds no folders; expected one for each class, or an ann_file'], names, None
    expected = len(names) if names is not None else FOLDER_DATASETS[kind]
    if expected not in (None, len(folders)):
        what = f'metainfo names {expected} classes' if names is not None else f'{kind} has {expected} classes'
        line = _line(key, metainfo=dict(classes=folders))
        faults.append(f'{key}: {folder} holds {len(folders)} folders, and {what}; expected {line}')
    elif names is not None and names != folders and {*names} == {*folders}:
        faults.append(
            f'{key}: its classes are named {shown(names)}; labels follow the order of the folders; expected '
            f'{_line(key, metainfo=dict(classes=folders))}'
        )
    return faults, names, folders


def _given_classes(dataset: Mapping) -> list[str] | None:
    names = (dataset.get('metainfo') or {}).get('classes', dataset.get('classes'))
    return [*names] if isinstance(names, (list, tuple)) else None


def _annotation_file(dataset: Mapping, kind: str) -> Path | None:
    """The list of images that a dataset reads, if it has one; ImageNet looks for it itself."""
    root = Path(dataset.get('data_root') or '')
    if dataset.get('ann_file'):
        return root / dataset['ann_file']
    path = root / 'meta' / f'{dataset.get("split")}.txt'
    return path if kind != 'CustomDataset' and dataset.get('split') and path.is_file() else None


def _check_list(key: str, path: Path, folder: Path, head_classes: int) -> list[str]:
    """Faults of a list with lines ``image label``."""
    if not path.is_file() or path.stat().st_size > LONGEST_LIST:
        return []
    lines = path.read_text(errors='replace').splitlines()
    if not lines:
        return [f'{key}: {path} is empty; expected lines such as "cats/1.jpg 0"']
    for number, line in enumerate(lines, 1):
        _, space, label = line.strip().rpartition(' ')
        if not space or not label.isdecimal():
            return [
                f'{key}: line {number} of {path} is {line[:100]!r}; expected an image and its label, "cats/1.jpg 0"'
            ]
        if int(label) >= head_classes:
            return [
                f'{key}: line {number} of {path} has the label {label}; model.head has {head_classes} classes, 0 to '
                f'{head_classes - 1}'
            ]
    for line in lines[:: -(-len(lines) // MOST_IMAGES)]:
        if not (folder / line.strip().rpartition(' ')[0]).is_file():
            return [f'{key}: {path} names the image {line.strip().rpartition(" ")[0]}, which is not in {folder}']
    return []


def _check_settings(cfg: Config, loaders: Sequence[str], classes: Sequence[str] | None) -> Iterator[str]:
    """Numbers of classes that differ, and metrics that need more of them."""
    number = cfg.model.head.num_classes
    if classes is not None and number != len(classes):
        yield (
            f'model.head.num_classes={number} is not the number of classes; the data have {len(classes)} '
            f'({shown(classes)}); expected {_line("model.head", num_classes=len(classes))}'
        )
        number = len(classes)
    for key, part in (
        ('data_preprocessor', cfg.get('data_preprocessor')),
        ('model.data_preprocessor', cfg.model.get('data_preprocessor')),
        ('model.head.loss', cfg.model.head.get('loss')),
    ):
        other = part.get('num_classes') if isinstance(part, Mapping) else None
        if other not in (None, number):
            yield f'{key}.num_classes={other} is not the number of classes; expected {_line(key, num_classes=number)}'
    for loader in loaders:
        key = loader.replace('_dataloader', '_evaluator')
        metrics = cfg.get(key)
        for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
            if not isinstance(metric, Mapping) or type_name(metric) != 'Accuracy' or key == 'train_evaluator':
                continue
            topk = metric.get('topk', 1)
            topk = (topk,) if isinstance(topk, int) else (*topk,)
            if max(topk) > number:
                fitting = tuple(k for k in topk if k <= number) or (1,)
                line = _line(key, topk=fitting) if isinstance(metrics, Mapping) else f'topk={fitting}'
                yield f'{key}: top-{max(topk)} is not an accuracy of {number} classes; expected {line}'


def check_head(cfg: Config, model: nn.Module) -> None:
    """Refuse a classifier whose head does not take what the model gives to it.

    Raises:
        UserError: If ``model.head.in_channels`` is of another width.
    """
    if fault := _compare_head(cfg, model):
        raise UserError(fault)


def _compare_head(cfg: Config, model: nn.Module) -> str | None:
    """What :func:`check_head` refuses, tried on an image of zeros; what else fails is told by the run itself."""
    from halvit_mm.deploy.network import input_shape  # which imports exporters

    head = cfg.model.get('head')
    width = head.get('in_channels') if isinstance(head, Mapping) else None
    if not isinstance(width, int):
        return None
    found = []
    try:
        model.eval()
        layer = next(part for part in model.head.modules() if isinstance(part, nn.Linear))
        layer.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0].shape[-1]))
        with torch.no_grad():
            model(torch.zeros(1, input_channels(model), *input_shape(cfg)))
    except Exception:
        pass
    if not found or found[0] == layer.in_features or layer.in_features != width:
        return None
    return (
        f'model.head.in_channels={width} is not the width of the features, which have {found[0]}; expected '
        f'{_line("model.head", in_channels=found[0])}'
    )


def _build_and_compare_head(cfg: Config) -> list[str]:
    with quiet(), suppress(Exception):
        fault = _compare_head(cfg, build_model(cfg))
        return [fault] if fault else []
    return []


def _line(key: str, **values: Any) -> str:
    """The line of a config that sets values under a dotted key."""
    first, *others = key.split('.')
    if any(part.isdecimal() for part in others):
        return ', '.join(f'{key}.{name} = {value!r}' for name, value in values.items())
    text = ', '.join(f'{name}={value!r}' for name, value in values.items())
    for name in reversed(others):
        text = f'{name}=dict({text})'
    return f'{first} = dict({text})'
