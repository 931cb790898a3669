import os
import shlex
import sys
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from halvit_mm.io.configs import words_after
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class ResultHook(Hook):
    """Tell, after a training, its best checkpoint, or the last one, and the command that tests it.

    Without ``save_best`` of the ``CheckpointHook`` there is no best one. The command is that of the ``test.py``, or the
    ``dist_test.sh``, beside the tool that trains. Where there is none, or the config tests nothing, the checkpoint
    alone is told; where none is saved, nothing.
    """

    priority = 'LOWEST'

    @master_only
    def after_train(self, runner: Runner) -> None:
        told = self._best(runner) or self._last(runner)
        for line, _ in told:
            runner.logger.info(line)
        command = told and self._command(runner, told[0][1])
        if command:
            runner.logger.info(f'To test it:\n{command}')

    def _best(self, runner: Runner) -> list[tuple[str, str]]:
        """A line and the path of the best checkpoint by each of the scores that ``save_best`` names."""
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        scores, told = getattr(hook, 'key_indicators', None) or [], []
        info = runner.message_hub.runtime_info
        for score in scores:
            suffix = '' if len(scores) == 1 else f'_{score}'
            path, value = info.get(f'best_ckpt{suffix}'), info.get(f'best_score{suffix}')
            if path and value is not None:
                name = score if score != 'auto' else Path(path).stem
                told.append((f'Best {name}: {value:.4f}, of {_short(path)}', path))
        return told

    def _last(self, runner: Runner) -> list[tuple[str, str]]:
        path = runner.message_hub.runtime_info.get('last_ckpt')
        return [(f'Last checkpoint: {_short(path)}', path)] if path and Path(path).is_file() else []

    def _command(self, runner: Runner, checkpoint: str) -> str | None:
        tool, config = Path(sys.argv[0]), runner.cfg.filename
        test, on_ranks = tool.with_name('test.py'), tool.with_name('dist_test.sh')
        if tool.name != 'train.py' or not config or not runner.cfg.get('test_dataloader') or not test.is_file():
            return None
        given = next((word for word in sys.argv[1:] if Path(word).name == Path(config).name), config)
        words = ['python', str(test), given, _short(checkpoint)]
        ranks = os.environ.get('LOCAL_WORLD_SIZE', os.environ.get('WORLD_SIZE'))
        if 'RANK' in os.environ and ranks and on_ranks.is_file():
            words = ['bash', str(on_ranks), given, _short(checkpoint), ranks]
        options = [word for word in words_after(sys.argv[1:], '--cfg-options') if not word.startswith('runner_type=')]
        return shlex.join([*words, *(['--cfg-options', *options] if options else [])])


def _short(path: str) -> str:
    """A path from where the training was started, if it leads down."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
