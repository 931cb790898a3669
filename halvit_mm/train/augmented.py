"""What the augmented images of a training follow from, in a form that is kept and compared."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmpretrain.models.utils import ClsDataPreprocessor
from torch import nn
from torch.utils.data import DataLoader

from halvit_mm.io.datasets import type_name, walk_built_datasets

# Of a config: where files lie and how they are read. The list of the images tells what lies there.
PLACES = (
    *('_scope_', 'data_root', 'ann_file', 'data_prefix', 'split', 'metainfo'),
    *('backend_args', 'file_client_args', 'lazy_init', 'serialize_data'),
)


def describe_images(cfg: Config, dataloader: DataLoader, preprocessor: nn.Module, seed: int, bad_images: str) -> dict:
    """Describe the augmented images of a training.

    Args:
        cfg (Config): Its config.
        dataloader (DataLoader): Its loader, from :func:`~halvit_mm.train.seeds.seed_by_place`.
        preprocessor (nn.Module): Its data preprocessor.
        seed (int): Its seed.
        bad_images (str): What it does with an image that cannot be read.

    Returns:
        dict: ``ranks``, ``batch_size`` and ``rows`` (images that a rank reads in an epoch), and ``training``, from
        which the images follow: ``seed``, ``images``, ``list`` (a checksum of paths and labels), ``by_batch``
        (whether images of a batch are mixed), and parts of the config by key.
    """
    loader, model = cfg.get('train_dataloader') or {}, cfg.get('model') or {}
    batch = dataloader.batch_size or dataloader.batch_sampler.batch_size
    # As mmpretrain's classifier completes it, at times in the config itself
    completed = dict(type='ClsDataPreprocessor', batch_augments=model.get('train_cfg'))
    config = {
        'train_dataloader.dataset': loader.get('dataset'),
        'train_dataloader.sampler': loader.get('sampler'),
        'train_dataloader.batch_sampler': loader.get('batch_sampler'),
        'data_preprocessor': {**completed, **(model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})},
        'bad_images': bad_images,
    }
    # Of a preprocessor of another kind nobody knows what it mixes.
    known = type(preprocessor) is ClsDataPreprocessor
    return dict(
        ranks=get_world_size(),
        batch_size=batch,
        rows=min(len(dataloader.sampler), len(dataloader) * batch),
        training=dict(
            seed=seed,
            images=len(dataloader.dataset),
            list=_checksum(dataloader.dataset),
            by_batch=not known or preprocessor.batch_augments is not None,
            config=_plain(config),
        ),
    )


def describe_teacher(cfg: Config, checkpoint: str) -> dict:
    """Describe a teacher: the config of its model, and name and checksum of its weights' file."""
    path = Path(checkpoint).expanduser()
    checksum = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return dict(model=_plain(cfg.model), checkpoint=path.name, checksum=checksum)


def difference(stored: object, now: object, key: str = '') -> str | None:
    """Say where two descriptions differ first, by the dotted key; None if they do not."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        parts = ((name, stored.get(name), now.get(name)) for name in {**stored, **now})
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        parts = ((str(i), *pair) for i, pair in enumerate(zip(stored, now)))
    else:
        return None if stored == now else f'{key} was {_short(stored)} and is {_short(now)}'
    inner = (difference(old, new, f'{key}.{name}' if key else name) for name, old, new in parts)
    return next(filter(None, inner), None)


def _short(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 100 else f'{words[:97]}...'


def _plain(value: object) -> Any:
    """A part of a config as JSON holds it, without what names places."""
    if isinstance(value, Mapping):
        inner = {str(name): _plain(one) for name, one in value.items() if name not in PLACES}
        return {**inner, 'type': type_name(value)} if 'type' in value else inner
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float, type(None))) else repr(value)


def _checksum(dataset: object) -> str:
    """A checksum of the paths and labels of a dataset's images in their order; a path begins below ``data_root``."""
    total = hashlib.sha256()
    for words in _entries(dataset):
        total.update(words)
    return total.hexdigest()


def _entries(dataset: object) -> Iterator[bytes]:
    for part in walk_built_datasets(dataset):
        root = str(getattr(part, 'data_root', None) or '')
        for i in range(len(part)):
            info = part.get_data_info(i) if hasattr(part, 'get_data_info') else {}
            path = str(info.get('img_path', '')).removeprefix(root).lstrip('/')
            yield f'{path} {np.ravel(info.get("gt_label", ())).tolist()}\n'.encode()
            if 'img' in info:
                yield np.ascontiguousarray(info['img']).tobytes()
