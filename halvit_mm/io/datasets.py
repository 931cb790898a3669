"""The datasets that a config names."""

from collections.abc import Iterator
from pathlib import Path


def local_data(cfg: dict) -> Iterator[Path]:
    """Files and folders that the datasets in a config read, as far as they are local.

    Args:
        cfg (dict): Config of a data loader or a dataset, or a list of such.

    Yields:
        Path: Each of them, whether it is there or not.
    """
    if isinstance(cfg, (list, tuple)):
        for item in cfg:
            yield from local_data(item)
    elif isinstance(cfg, dict):
        root = cfg.get('data_root')
        if root and '://' not in root:
            yield Path(root)
            prefix = cfg.get('data_prefix') or cfg.get('split') or ''
            parts = [*prefix.values()] if isinstance(prefix, dict) else [prefix]
            yield from (Path(root, part) for part in (*parts, cfg.get('ann_file') or '') if isinstance(part, str))
        for key in ('dataset', 'datasets'):
            yield from local_data(cfg.get(key) or ())
