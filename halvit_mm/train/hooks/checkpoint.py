"""Checkpoints that are whole or absent."""

from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from halvit_mm.io.checkpoints import written_whole
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which deletes a checkpoint only after its successor is whole.

    Its arguments are the same. It differs in three points: the oldest and the former best checkpoint are deleted after
    the new one is written; ``last_checkpoint`` is never half written; and of the paths in a resumed checkpoint only
    those in the hook's folder are ever deleted.
    """

    def before_train(self, runner: Runner) -> None:
        kept = runner.message_hub.runtime_info.get('keep_ckpt_ids', [])
        # mmengine makes names of files to delete from them.
        runner.message_hub.update_info('keep_ckpt_ids', [step for step in kept if isinstance(step, int)])
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # mmengine's deque has a maximum length and drops the first one.
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            self.keep_ckpt_ids.append(step)
            # With the checkpoint to delete: if this run is cut before, the next one deletes it.
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
        # mmengine removes the files that it knows before it writes the next one.
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
