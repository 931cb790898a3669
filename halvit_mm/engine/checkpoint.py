"""Checkpoints that are either whole or not there."""

import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from halvit_mm.errors import UserError
from halvit_mm.registry import HOOKS

from .loading import DamagedCheckpoint, find_damage, load_file

_NAME = re.compile(r'(?P<kind>epoch|iter)_(?P<step>\d+)\.pth')


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file under a passing name and give it its own once it is whole and on the disk.

    Args:
        path (str or PathLike): The file's name in the end.

    Yields:
        Path: The name to write to.

    Raises:
        UserError: If it cannot be written, such as on a full disk; what had the name before is left as it was.
    """
    path = Path(path)
    part = path.with_name(path.name + '.part')
    try:
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}); what was written before is whole, and --resume '
            'goes on from there'
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike) -> None:
    """Refuse a folder that nothing can be written to.

    Args:
        folder (str or PathLike): The folder; it is made where there is none.

    Raises:
        UserError: If it cannot be made or written to.
    """
    probe = Path(folder, f'.halvit_mm-{os.getpid()}')
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'work_dir {folder} cannot be written to ({error.strerror}); name another with --work-dir'
        ) from None


def find_latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the checkpoint to resume from: the last one that is whole.

    mmengine trusts the file ``last_checkpoint``, which a kill can leave empty, or pointing at a checkpoint that
    was cut while it was written.

    Args:
        work_dir (str or PathLike): Folder of a training.

    Returns:
        str or None: Path of ``epoch_N.pth`` or ``iter_N.pth``; None where there is no whole one.

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
        print_log(
            f'{file} is not a whole checkpoint and is passed over: {damage}', logger='current', level=logging.WARNING
        )
    return None


def _find_gap(file: Path) -> str | None:
    try:
        content = load_file(file, mmap=True)
    except DamagedCheckpoint as error:
        return str(error)
    missing = [key for key in ('meta', 'state_dict', 'message_hub') if not isinstance(content.get(key), dict)]
    return f'it holds no {missing[0]}' if missing else None


def read_seed(checkpoint: str | os.PathLike) -> int | None:
    """Read from a checkpoint the seed of the training that wrote it, without reading its weights.

    Args:
        checkpoint (str or PathLike): A checkpoint of mmengine.

    Returns:
        int or None: The seed, if the checkpoint holds one.
    """
    return load_file(checkpoint, mmap=find_damage(checkpoint) is None).get('meta', {}).get('seed')


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which deletes nothing before what takes its place is whole.

    Its arguments are the same. It differs in three points: the oldest checkpoint goes after the new one is written, and
    so does the best one; ``last_checkpoint`` is never half written; and of the paths in a checkpoint that is resumed
    only those of its own folder are ever deleted.
    """

    def before_train(self, runner: Runner) -> None:
        kept = runner.message_hub.runtime_info.get('keep_ckpt_ids', [])
        # The host makes names of files to delete from them.
        runner.message_hub.update_info('keep_ckpt_ids', [step for step in kept if isinstance(step, int)])
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # The host's drops the first one where it is full.
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            self.keep_ckpt_ids.append(step)
            # With the one that is to go: if the run is cut before, the next one deletes it.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            with written_whole(Path(runner.work_dir, 'last_checkpoint')) as part:
                part.write_text(self.last_ckpt)
        while 0 < self.max_keep_ckpts < len(self.keep_ckpt_ids):
            self._remove(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        before = self._best_paths()
        # The host removes what it knows of before it writes the next one.
        self._set_best_paths([None] * len(before))
        super()._save_best_checkpoint(runner, metrics)
        after = self._best_paths()
        self._set_best_paths([new or old for old, new in zip(before, after)])
        for old, new in zip(before, after):
            if old and new and old != new:
                self._remove(Path(old).name)

    def _best_paths(self) -> list[str | None]:
        if len(self.key_indicators) == 1:
            return [self.best_ckpt_path]
        return [self.best_ckpt_path_dict[key] for key in self.key_indicators]

    def _set_best_paths(self, paths: list[str | None]) -> None:
        if len(self.key_indicators) == 1:
            [self.best_ckpt_path] = paths
        else:
            self.best_ckpt_path_dict = dict(zip(self.key_indicators, paths))

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)
