"""The datasets that a config names, found through wrappers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import list_from_file

from halvit_mm.errors import UserError

# Datasets of mmpretrain whose ``split`` is the folder of the images. That of the others chooses among annotations.
SPLIT_IS_FOLDER = ('ImageNet', 'ImageNet21k')
# mmpretrain downloads missing files of these.
DOWNLOADED = ('MNIST', 'FashionMNIST', 'CIFAR10', 'CIFAR100')

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def walk_datasets(cfg: Mapping | Sequence | None, key: str = '') -> Iterator[tuple[str, Mapping]]:
    """The datasets of a data loader; instead of a ``RepeatDataset``, ``ConcatDataset`` ... those within it.

    Args:
        cfg (Mapping or Sequence, optional): Config of a data loader or a dataset, or a list of such.
        key (str): Key of ``cfg`` in the whole config. Defaults to ``''``.

    Yields:
        tuple[str, Mapping]: Key, such as ``'train_dataloader.dataset.dataset'``, and config of each dataset that reads
        files itself.
    """
    if isinstance(cfg, (list, tuple)):
        for i, item in enumerate(cfg):
            yield from walk_datasets(item, f'{key}.{i}')
    elif isinstance(cfg, Mapping):
        inner = [name for name in ('dataset', 'datasets') if isinstance(cfg.get(name), (Mapping, list, tuple))]
        for name in inner:
            yield from walk_datasets(cfg[name], f'{key}.{name}')
        if not inner and 'type' in cfg:
            yield key, cfg


def walk_built_datasets(dataset: object) -> Iterator[object]:
    """The datasets that read files themselves, in a built dataset that may wrap others."""
    attributes = getattr(dataset, '__dict__', {})
    wrapped = [attributes['dataset']] if 'dataset' in attributes else attributes.get('datasets', ())
    for inner in wrapped:
        yield from walk_built_datasets(inner)
    if not wrapped:
        yield dataset


def type_name(cfg: Mapping) -> str:
    """Name, without its scope, of the class in ``cfg['type']``, which may be the class itself."""
    kind = cfg.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def local_files(dataset: Mapping) -> Iterator[Path]:
    """The local files and folders that the config of a dataset names, existing or not."""
    root = dataset.get('data_root') or ''
    if '://' in root or _is_remote(dataset) or type_name(dataset) in DOWNLOADED:
        return
    if root:
        yield Path(root)
    prefix = dataset.get('data_prefix') or (dataset.get('split') if type_name(dataset) in SPLIT_IS_FOLDER else '')
    parts = [*prefix.values()] if isinstance(prefix, Mapping) else [prefix]
    if any(_is_remote(transform) for transform in dataset.get('pipeline') or () if isinstance(transform, Mapping)):
        parts = []
    for part in (*parts, dataset.get('ann_file')):
        if part and isinstance(part, str) and '://' not in part:
            yield Path(root, os.path.expanduser(part))


def _is_remote(cfg: Mapping) -> bool:
    """Whether a dataset or a transform reads through another backend than the local disk."""
    return (cfg.get('backend_args') or {}).get('backend', 'local') not in ('local', 'disk')


def class_names(cfg: Config) -> Sequence[str] | None:
    """Names of the classes in the whole config's test dataset; None if only the dataset's type has them.

    Raises:
        UserError: If they are neither names nor a file of names.
    """
    return read_classes(_test_dataset(cfg).get('metainfo'))


def read_classes(metainfo: Mapping | None) -> Sequence[str] | None:
    """The ``classes`` of a dataset's ``metainfo``, which mmengine reads from a file if they are a string.

    Args:
        metainfo (Mapping, optional): The config's ``metainfo``. Defaults to None.

    Returns:
        Sequence[str] or None: The names; None if there are none.

    Raises:
        UserError: If ``classes`` are neither names nor a file of names.
    """
    classes = (metainfo or {}).get('classes')
    if isinstance(classes, str):
        try:
            return list_from_file(classes)
        except (OSError, ValueError):
            raise UserError(
                f'metainfo.classes={classes!r} is not a text file of names (looked from {Path.cwd()}); expected one, '
                f'or names in a tuple, in which a single name has a comma behind it: ({classes!r},)'
            ) from None
    if classes is not None and not isinstance(classes, (list, tuple)):
        raise UserError(f"metainfo.classes={classes!r} are not names in their order; expected a tuple: ('cat', 'dog')")
    return classes


def compare_classes(names: Sequence[str], expected: Sequence[str]) -> str | None:
    """Say how names of classes differ from those that are expected; None if they are the same in the same order."""
    if [*names] == [*expected]:
        return None
    extra, missing = [[one for one in a if one not in b] for a, b in ((names, expected), (expected, names))]
    parts = [f'{shown(extra)} {"is" if len(extra) == 1 else "are"} too many'] if extra else []
    parts += [f'{shown(missing)} {"is" if len(missing) == 1 else "are"} missing'] if missing else []
    return ', '.join(parts) or f'the order is {shown(names)} instead of {shown(expected)}'


def shown(names: Sequence) -> str:
    """The first names of a list, in one line."""
    return ', '.join(map(repr, names[:5])) + (', ...' if len(names) > 5 else '')


def test_pipeline(cfg: Config) -> list:
    """Configs of the transforms of the whole config's test dataset; an empty list if there is no such dataset."""
    return _test_dataset(cfg).get('pipeline', [])


def _test_dataset(cfg: Config) -> Mapping:
    """The first where there are several."""
    return next((dataset for _, dataset in walk_datasets(cfg.get('test_dataloader'))), {})
