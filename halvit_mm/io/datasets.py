"""The datasets that a config names: found through wrappers, looked up on the disk, read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

# Of these datasets of mmpretrain ``split`` is the folder of the images. Of the others it chooses among annotations.
SPLIT_IS_FOLDER = ('ImageNet', 'ImageNet21k')
# mmpretrain fetches what is missing of these.
DOWNLOADED = ('MNIST', 'FashionMNIST', 'CIFAR10', 'CIFAR100')


def walk_datasets(cfg: Mapping | Sequence | None, key: str = '') -> Iterator[tuple[str, Mapping]]:
    """The datasets of a data loader, those within wrappers (``RepeatDataset``, ``ConcatDataset`` ...) in their place.

    Args:
        cfg (Mapping or Sequence, optional): Config of a data loader or a dataset, or a list of such.
        key (str): Where it stands in the whole config. Defaults to ``''``.

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


def type_name(cfg: Mapping) -> str:
    """Name of the class that a config asks for, without its scope; ``type`` may be the class itself."""
    kind = cfg.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def local_files(dataset: Mapping) -> Iterator[Path]:
    """Files and folders that a dataset reads, as far as its config says so and they are local.

    Args:
        dataset (Mapping): Config of a dataset, from :func:`walk_datasets`.

    Yields:
        Path: Each of them, whether it is there or not.
    """
    root = dataset.get('data_root')
    if not root or '://' in root or dataset.get('backend_args') or type_name(dataset) in DOWNLOADED:
        return
    yield Path(root)
    prefix = dataset.get('data_prefix') or (dataset.get('split') if type_name(dataset) in SPLIT_IS_FOLDER else '')
    parts = [*prefix.values()] if isinstance(prefix, Mapping) else [prefix]
    yield from (Path(root, part) for part in (*parts, dataset.get('ann_file')) if part and isinstance(part, str))


def class_names(cfg: Config) -> Sequence[str] | None:
    """Names of the classes that the test dataset's config gives.

    Args:
        cfg (Config): The whole config.

    Returns:
        Sequence[str] or None: The names; None where the config leaves them to the dataset's type.
    """
    for _, dataset in walk_datasets(cfg.get('test_dataloader')):
        return (dataset.get('metainfo') or {}).get('classes')
    return None


def with_pipeline(dataset: Mapping, pipeline: list) -> dict:
    """A dataset's config with another pipeline, which is put into the datasets within wrappers.

    Args:
        dataset (Mapping): Config of a dataset or a wrapper; it is left as it is.
        pipeline (list): Configs of the transforms.

    Returns:
        dict: The new config.
    """
    if isinstance(dataset.get('dataset'), Mapping):
        return {**dataset, 'dataset': with_pipeline(dataset['dataset'], pipeline)}
    if isinstance(dataset.get('datasets'), (list, tuple)):
        return {**dataset, 'datasets': [with_pipeline(one, pipeline) for one in dataset['datasets']]}
    return {**dataset, 'pipeline': pipeline}
