"""Checkpoints that are either whole or not there."""

import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log

from halvit_mm.errors import UserError

_NAME = re.compile(r'(?P<kind>epoch|iter)_(?P<step>\d+)\.pth')


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a passing name and give it its own once it is whole and on the disk.

    Args:
        path (str or PathLike): The file's name in the end.

    Yields:
        Path: The name to write to.
    """
    path = Path(path)
    part = path.with_name(path.name + '.part')
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def find_latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the checkpoint to resume from: the last one that is whole.

    mmengine trusts the file ``last_checkpoint``, which a kill can leave empty, or pointing at a checkpoint that
    was cut while it was written.

    Args:
        work_dir (str or PathLike): Folder of a training.

    Returns:
        str or None: Path of ``epoch_N.pth`` or ``iter_N.pth``; None where there is no whole one.
    """
    folders = {Path(work_dir)}
    pointer = Path(work_dir, 'last_checkpoint')
    if pointer.is_file() and (pointed := pointer.read_text().strip()):
        # CheckpointHook's out_dir may be elsewhere.
        folders.add(Path(pointed).parent)
    files = [file for folder in folders if folder.is_dir() for file in folder.iterdir() if _NAME.fullmatch(file.name)]
    if not files:
        return None
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    kind = _NAME.fullmatch(newest.name)['kind']
    steps = {file: int(match['step']) for file in files if (match := _NAME.fullmatch(file.name))['kind'] == kind}
    for file in sorted(steps, key=steps.get, reverse=True):
        # A zip file's table of contents is at its end: a file that was cut has none.
        if zipfile.is_zipfile(file):
            return str(file)
        print_log(f'{file} is not a whole checkpoint and is passed over.', logger='current', level=logging.WARNING)
    return None


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file of weights without running what code it may carry.

    Args:
        path (str or PathLike): A checkpoint of torch's, or ``.safetensors``.

    Returns:
        dict[str, Any]: What the file holds, its tensors on the CPU and mapped from the file as they are read.

    Raises:
        UserError: If there is no such file, or if it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'checkpoint {path} does not exist')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            return load_file(path)
        from mmengine.runner.checkpoint import get_torch_safe_globals

        with torch.serialization.safe_globals(get_torch_safe_globals()):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception as error:
        raise UserError(f'{path} cannot be read as a checkpoint: {type(error).__name__}: {error}') from error


def read_seed(checkpoint: str | os.PathLike) -> int | None:
    """Read from a checkpoint the seed of the training that wrote it, without reading its weights.

    Args:
        checkpoint (str or PathLike): A checkpoint of mmengine.

    Returns:
        int or None: The seed, if the checkpoint holds one.
    """
    return read_checkpoint(checkpoint).get('meta', {}).get('seed')
