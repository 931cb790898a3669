"""Kill a training of two ranks again and again, half of the times while it writes a checkpoint, and resume it.

    python -m tests.reliability.kills [--kills 200] [--write]

Prints how each resumption went, and whether the last weights, moments and averages are those of a training that was not
killed, bit for bit. --write puts the summary into docs/reliability.md.

The ranks are forked from a process that has imported everything, so that a kill costs seconds and not half a minute.
Each is a process of its own and runs what tools/train.py runs; the kill is SIGKILL to both at once.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mmengine.runner.runner
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from halvit_mm.data import write_digits
from halvit_mm.io.checkpoints import find_latest_checkpoint, load_file, read_only_data
from halvit_mm.train import ResumableRunner
from tests.utils import ROOT, assert_identical, free_port, put_between_marks

INTERVAL = 3  # iterations between checkpoints
KEPT = 2


@HOOKS.register_module()
class Progress(Hook):
    """Keeps the number of iterations that are done in a file."""

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if runner.rank == 0:
            new = Path(runner.work_dir, 'done.new')
            new.write_text(str(runner.iter + 1))
            new.replace(new.with_suffix(''))  # a kill never finds it empty


def config(work_dir: Path, data_root: Path, iterations: int) -> Config:
    """A small HaLViT on the digits, with augmentation, stochastic depth and averaged weights."""
    cfg = Config.fromfile(ROOT / 'configs/digits/halvit_2xb64_digits.py')
    cfg.merge_from_dict(
        {
            'model.backbone.arch': dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
            'model.backbone.drop_path_rate': 0.2,
            'model.head.in_channels': 24,
            'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=0.8)]),
            'train_dataloader.batch_size': 8,
            'train_dataloader.dataset.data_root': str(data_root),
            'default_hooks.checkpoint': dict(
                type='CheckpointHook', by_epoch=False, interval=INTERVAL, max_keep_ckpts=KEPT
            ),
            'default_hooks.logger.interval': 1000,
            'custom_hooks': [dict(type='EMAHook', momentum=0.01), dict(type=Progress)],
            'param_scheduler': [dict(type='CosineAnnealingLR', by_epoch=False, T_max=iterations)],
            'env_cfg.dist_cfg': dict(backend='gloo', timeout=60),
            'launcher': 'pytorch',
            'work_dir': str(work_dir),
            'resume': True,
            'log_level': 'WARNING',
        }
    )
    cfg.train_cfg = dict(by_epoch=False, max_iters=iterations, val_interval=10 * iterations)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    return cfg


class Training:
    """The two ranks of a training, as forks of this process."""

    def __init__(self, cfg: Config, log: Path) -> None:
        self.ranks = []
        port = str(free_port())
        for rank in range(2):
            child = os.fork()
            if child == 0:
                self._run(cfg, rank, port, log)
            self.ranks.append(child)

    @staticmethod
    def _run(cfg: Config, rank: int, port: str, log: Path) -> None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port
        )
        code = 1
        try:
            ResumableRunner.from_cfg(cfg).train()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    def ended(self) -> bool:
        """Whether a rank has ended by itself; an error raises."""
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            self._ended(pid, status)
        return bool(pid)

    def _ended(self, rank: int, status: int) -> None:
        self.ranks.remove(rank)
        if os.waitstatus_to_exitcode(status):
            self.kill()
            raise RuntimeError(f'a rank ended with status {os.waitstatus_to_exitcode(status)}')

    def stop(self) -> None:
        """Hold the ranks where they are; return once they stand still."""
        for rank in self.ranks:
            os.kill(rank, signal.SIGSTOP)
        for rank in tuple(self.ranks):
            _, status = os.waitpid(rank, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                self._ended(rank, status)

    def go_on(self) -> None:
        for rank in self.ranks:
            os.kill(rank, signal.SIGCONT)

    def kill(self) -> None:
        for rank in self.ranks:
            os.kill(rank, signal.SIGKILL)
        self.wait()

    def wait(self) -> list[int]:
        return [os.waitstatus_to_exitcode(os.waitpid(self.ranks.pop(), 0)[1]) for _ in range(len(self.ranks))]


@dataclass
class Summary:
    """What came of the kills."""

    kills: int = 0
    in_writing: int = 0  # a file of a checkpoint was half written as the kill came
    resumed: int = 0  # with a checkpoint more than the time before
    most_lost: int = 0  # iterations
    seconds: float = 0.0
    same: bool = False

    def __str__(self) -> str:
        return (
            f'{self.kills} kills, {self.in_writing} of them while a checkpoint was being written; {self.resumed} '
            f'resumed. At most {self.most_lost} iterations were lost, of {INTERVAL} between two checkpoints. The last '
            f'weights, moments and averages are {"" if self.same else "NOT "}those of the training that was not '
            f'killed, bit for bit. {self.seconds / 60:.0f} minutes.'
        )


def step_of(path: str | None) -> int:
    return 0 if path is None else int(Path(path).stem.removeprefix('iter_'))


def iterations_done(work_dir: Path) -> int:
    path = work_dir / 'done'
    return int(path.read_text()) if path.exists() else 0


def parts_of(work_dir: Path) -> set[tuple[str, int]]:
    """Files that are being written, or that a kill has left so."""
    parts = set()
    for path in work_dir.glob('*.part'):
        with suppress(FileNotFoundError):
            parts.add((path.name, path.stat().st_mtime_ns))
    return parts


def wait_for(condition: Callable[[], object], training: Training, limit: float = 120) -> bool:
    """Wait until a condition holds; False where the training is over before."""
    end = time.monotonic() + limit
    while not condition():
        if training.ended():
            return False
        if time.monotonic() > end:
            training.kill()
            raise TimeoutError(f'no checkpoint in {limit} s')
        time.sleep(0.0002)
    return True


def stop_while_writing(training: Training, work_dir: Path, moments: random.Random) -> bool:
    """Hold the ranks at a random moment of the writing of a checkpoint; False where the training is over before."""
    old = parts_of(work_dir)
    while wait_for(lambda: parts_of(work_dir) - old, training):
        time.sleep(moments.uniform(0, 0.002))
        training.stop()
        if parts_of(work_dir) - old:
            return True
        training.go_on()
    return False


def run_kills(folder: Path, kills: int, seed: int = 0) -> Summary:
    """Train with and without kills and compare.

    Args:
        folder (Path): Folder to work in.
        kills (int): How many.
        seed (int): Seed of the moments. Defaults to 0.

    Returns:
        Summary: What came of it.
    """
    # Imports, once for all ranks; and no compiler asked for its version in each
    import mmpretrain.datasets
    import mmpretrain.models  # noqa: F401

    mmengine.runner.runner.collect_env = dict

    moments, summary, start = random.Random(seed), Summary(), time.monotonic()
    read_only_data()
    data_root, killed, whole = folder / 'digits', folder / 'killed', folder / 'whole'
    write_digits(data_root)
    # Between two kills there is at least a new checkpoint, and seldom more than five.
    iterations = INTERVAL * (5 * kills + 10)
    log = folder / 'log'
    while summary.kills < kills:
        before = step_of(find_latest_checkpoint(killed))
        old_parts = parts_of(killed)
        training = Training(config(killed, data_root, iterations), log)
        if not wait_for(lambda path=killed / f'iter_{before + INTERVAL}.pth': path.exists(), training):
            break
        if summary.in_writing <= summary.kills / 2:
            stop_while_writing(training, killed, moments)
        else:
            time.sleep(moments.uniform(0, 0.3))
        training.kill()
        summary.kills += 1
        summary.in_writing += bool(parts_of(killed) - old_parts)
        latest, done = step_of(find_latest_checkpoint(killed)), iterations_done(killed)
        summary.resumed += latest > before
        summary.most_lost = max(summary.most_lost, done - latest)
        print(f'kill {summary.kills}: after {done} iterations; {latest} are kept', flush=True)
    for work_dir in (killed, whole):
        codes = Training(config(work_dir, data_root, iterations), log).wait()
        assert codes == [0, 0], f'{work_dir.name}: {codes}; see {log}'
    summary.same = same(*(work_dir / f'iter_{iterations}.pth' for work_dir in (killed, whole)))
    summary.seconds = time.monotonic() - start
    return summary


def same(a: Path, b: Path) -> bool:
    contents = [load_file(path) for path in (a, b)]
    try:
        for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
            assert_identical(*(content[part] for content in contents), place=part)
    except AssertionError as error:
        print(f'not the same: {error}')
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=200, help='(default: %(default)s)')
    parser.add_argument('--write', action='store_true', help='put the summary into docs/reliability.md')
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix='kills'))
    summary = run_kills(folder, args.kills)
    print(summary)
    if args.write:
        put_between_marks(ROOT / 'docs/reliability.md', 'kills', str(summary))
    if not summary.same:
        print(f'The two trainings are in {folder}.')
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == '__main__':
    main()
