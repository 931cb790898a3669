"""Checkpoints as data: what is read may hold tensors, numbers and text, and no code.

A pickle can call any function of any module. torch reads one with ``weights_only=True`` by a list of types; but
mmengine 0.10.12 reads the file again without that list where it meets another type, and puts ``getattr`` on the list,
by which a file reaches the rest. :func:`read_only_data` ends both for the whole process.
"""

import argparse
import logging
import lzma
import os
import pickle
import re
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from halvit_mm._torch import add_safe_globals, opens_as_program
from halvit_mm.errors import UserError

from .disk import sync_folder

DTYPES = (
    *('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64'),
    *('float16', 'float32', 'float64'),
)
STATISTICS = ('min', 'max', 'mean', 'current')
_NAME = re.compile(r'(?P<kind>epoch|iter)_(?P<step>\d+)\.pth')

# None until :func:`read_only_data` has been called
_trusted: bool | None = None


class DamagedCheckpoint(UserError):
    """A file that is not a whole checkpoint."""


def _statistic_of(owner: type, name: str) -> Callable:
    """Stands for ``getattr``, by which a ``HistoryBuffer`` names its own methods in a pickle."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError('Unsupported global: GLOBAL getattr of something else')
    return getattr(owner, name)


def allowed_types() -> list:
    """The types besides torch's own that a checkpoint may hold, for ``add_safe_globals`` of :mod:`torch.serialization`.

    They are NumPy's numbers and arrays, mmengine's log values, and the arguments that timm's and DeiT's trainings keep.
    The names of NumPy 1 and of NumPy 2 both stand for what is installed, so that old checkpoints of upstream load.
    """
    # NumPy 1.26 has an empty np._core; np.core of NumPy 2 warns.
    multiarray = (np.core if np.__version__.startswith('1.') else np._core).multiarray
    functions = [(multiarray._reconstruct, '_reconstruct'), (multiarray.scalar, 'scalar')]
    return [
        HistoryBuffer,
        argparse.Namespace,
        slice,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(name)) for name in DTYPES},
        *((function, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core') for function, name in functions),
        (_statistic_of, 'builtins.getattr'),
        (_statistic_of, '__builtin__.getattr'),
    ]


def read_only_data(trust: bool = False) -> None:
    """Let this process and those that it starts read checkpoints as data only from here on, by any call.

    :func:`load_file` replaces mmengine's loaders of files and of downloads. ``TORCH_FORCE_WEIGHTS_ONLY_LOAD`` holds
    every other call of ``torch.load`` to the same list of types.

    Args:
        trust (bool): Whether Python's pickle reads everything, and so executes what a file asks for. Defaults to False.
    """
    global _trusted
    _trusted = trust
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    if trust:
        os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
        return
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    add_safe_globals(allowed_types())
    # mmengine adds its list for the time of a call and then removes all of it, our types among them.
    mmengine_checkpoint.get_torch_safe_globals = list


def read_only_data_by_default() -> None:
    """Call :func:`read_only_data`, unless this process has called it already."""
    if _trusted is None:
        read_only_data()


def load_file(path: str | os.PathLike, map_location: str | Callable | None = 'cpu', mmap: bool | None = None) -> dict:
    """Read a checkpoint from a file, as data.

    Args:
        path (str or PathLike): A file of ``torch.save`` or, with the suffix ``.safetensors``, of safetensors.
        map_location (str or Callable, optional): As in ``torch.load``. Defaults to ``'cpu'``.
        mmap (bool, optional): Leave the tensors on the disk until they are used. Defaults to None, which means no.

    Returns:
        dict: Its content. The text of a config, ``meta['config']``, is left out: mmengine would execute it on resuming.

    Raises:
        UserError: If the file does not exist, or if it holds anything but data in a dict.
        DamagedCheckpoint: If the file cannot be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f'checkpoint {path} does not exist')
    if path.suffix == '.safetensors':
        return _load_safetensors(path)
    if not _trusted:
        if opens_as_program(path):
            raise UserError(_refusal(path, 'a TorchScript program'))
        add_safe_globals(allowed_types())
    try:
        content = torch.load(str(path), map_location=map_location, weights_only=not _trusted, mmap=mmap)
    except Exception as error:
        if user_error := _user_error(path, error):
            raise user_error from error
        raise
    return _check_content(path, content)


def trained_classes(path: str | None) -> list[str] | None:
    """Names of the classes that a checkpoint of mmengine was trained on; None if it names none."""
    meta = load_file(path).get('meta') if path else None
    classes = ((meta or {}).get('dataset_meta') or {}).get('classes')
    return None if classes is None else [*classes]


# What zipfile raises at a wrong byte: NotImplementedError if the byte names a method of compression, RuntimeError if it
# says that a part is encrypted, EOFError if it is part of a length, the last two if it is within compressed data.
UNREADABLE_ZIP = (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, lzma.LZMAError)


def load_from_local(filename: str, map_location: str | Callable | None) -> dict:
    return load_file(filename, map_location)


def load_from_http(filename: str, map_location: str | Callable | None) -> dict:
    try:
        return _check_content(filename, mmengine_checkpoint.load_from_http(filename, map_location))
    except pickle.UnpicklingError as error:
        raise _user_error(filename, error) from error


def find_damage(path: str | os.PathLike) -> str | None:
    """Say what is wrong with a file of ``torch.save``; None if every part has the checksum written with it."""
    try:
        if not Path(path).stat().st_size:
            return 'it is empty'
        # A zip file's table of contents is at its end: a file that was cut has none.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except UNREADABLE_ZIP as error:
        return f'{type(error).__name__}: {error}'
    return damaged and f'{damaged} in it is not what was written'


def _load_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_tensors

    try:
        return load_tensors(path)
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpoint(f'checkpoint {path} is not a whole safetensors file: {error}') from error


def _check_content(path: str | os.PathLike, content: object) -> dict:
    if not isinstance(content, dict):
        raise UserError(f'checkpoint {path} holds a {type(content).__name__}; expected a dict of weights')
    if isinstance(content.get('meta'), dict) and not _trusted:
        content['meta'].pop('config', None)
    return content


def _user_error(path: str | os.PathLike, error: Exception) -> UserError | None:
    """The error to raise for a file that torch did not read; None if the file is not the reason."""
    cause = ' '.join(str(error).split())
    for mark in ('Unsupported global: GLOBAL ', 'Trying to load unsupported GLOBAL '):
        if mark in cause:
            return UserError(_refusal(path, cause.partition(mark)[2].split(' ')[0].removeprefix('builtins.')))
    if 'Trying to call reduce' in cause or 'Can only create new object' in cause or 'Can only build' in cause:
        return UserError(_refusal(path, 'a function'))
    if 'TorchScript' in cause:
        return UserError(_refusal(path, 'a TorchScript program'))
    # torch puts a page of advice around the reason.
    cause = cause.rpartition('WeightsUnpickler error: ')[2].partition(' Check the documentation')[0]
    message = f'checkpoint {path} cannot be read ({type(error).__name__}: {cause[:200]})'
    if _is_of_the_file(path, error):
        return DamagedCheckpoint(message)
    return UserError(message) if _trusted else None


def _is_of_the_file(path: str | os.PathLike, error: Exception) -> bool:
    """Whether a file's content made torch fail: the unpickling, or a zip archive that cannot be read.

    The call is the cause of any other error. If such an error passed for damage, a training would resume from an older
    file.
    """
    modules = (frame.f_globals.get('__name__') for frame, _ in traceback.walk_tb(error.__traceback__))
    unpickling = {'pickle', 'torch._weights_only_unpickler'} & {*modules}
    if unpickling or isinstance(error, (pickle.UnpicklingError, EOFError)):
        return True
    # torch's reader of archives, which names itself or its source file
    if isinstance(error, RuntimeError) and ('PytorchStreamReader' in str(error) or 'inline_container' in str(error)):
        return True
    return isinstance(error, UNREADABLE_ZIP) and find_damage(path) is not None


def _refusal(path: str | os.PathLike, what: str) -> str:
    return (
        f'checkpoint {path} carries code ({what}) and was not loaded; nothing of it was executed. If you trust its '
        "author, halvit_mm's tools load and execute it with --trust-checkpoint"
    )


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a temporary name and rename it once it is whole and on the disk.

    Args:
        path (str or PathLike): The file's final name.

    Yields:
        Path: The temporary name to write to.

    Raises:
        UserError: If the file cannot be written, such as on a full disk; a file that has the final name is kept.
    """
    path = Path(path)
    part = path.with_name(path.name + '.part')
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was written before is whole, and --resume '
            'goes on from there'
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike, option: str = '--work-dir') -> None:
    """Make a folder where there is none; raise a :class:`UserError` if it cannot be made or written to.

    Args:
        folder (str or PathLike): The folder.
        option (str): What names it on the command line, for the message. Defaults to ``'--work-dir'``.
    """
    probe = Path(folder, f'.halvit_mm-{os.getpid()}')
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'{option} {folder} is not a folder that can be written to ({error.strerror}); expected another {option}'
        ) from None


def find_latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the checkpoint to resume from: the last one that is whole.

    mmengine trusts the file ``last_checkpoint``. A kill can leave that file empty, or with the path of a checkpoint
    that was cut while it was written.

    Args:
        work_dir (str or PathLike): Folder of a training.

    Returns:
        str or None: Path of ``epoch_N.pth`` or ``iter_N.pth``; None if none is whole.

    Raises:
        UserError: If the last whole one carries code.
    """
    folders = {Path(work_dir)}
    pointer = Path(work_dir, 'last_checkpoint')
    if pointer.is_file() and (pointed := pointer.read_text(errors='replace').strip()):
        # CheckpointHook's out_dir may be elsewhere.
        folders.add(Path(pointed).parent)
    files = [file for folder in folders if folder.is_dir() for file in folder.iterdir() if _NAME.fullmatch(file.name)]
    if not files:
        return None
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    kind = _NAME.fullmatch(newest.name)['kind']
    steps = {file: int(match['step']) for file in files if (match := _NAME.fullmatch(file.name))['kind'] == kind}
    for file in sorted(steps, key=steps.get, reverse=True):
        damage = find_damage(file) or _find_gap(file)
        if damage is None:
            return str(file)
        print_log(f'{file} is not a whole checkpoint and is skipped: {damage}', 'current', logging.WARNING)
    return None


def _find_gap(file: Path) -> str | None:
    try:
        content = load_file(file, mmap=True)
    except DamagedCheckpoint as error:
        return str(error)
    missing = [key for key in ('meta', 'state_dict', 'message_hub') if not isinstance(content.get(key), dict)]
    return f'it holds no {missing[0]}' if missing else None


def read_seed(checkpoint: str | os.PathLike) -> int | None:
    """The seed of the training that wrote a checkpoint, read without the weights; None if the checkpoint has none."""
    return load_file(checkpoint, mmap=find_damage(checkpoint) is None).get('meta', {}).get('seed')
