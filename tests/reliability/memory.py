"""Train on two ranks with a checkpoint every 30 seconds and watch the memory of each.

    python -m tests.reliability.memory [--minutes 60] [--write]

Prints the most that each rank held in each twelfth of the time, and how much more it was in the worst of them than in
the second: the first is for the start. --write puts the table into docs/reliability.md.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import mmengine.runner.runner
import psutil
import torch
from mmengine.registry import HOOKS

from halvit_mm.cost.report import markdown_table
from halvit_mm.data import write_digits
from halvit_mm.engine import WholeCheckpointHook, read_only_data
from tests.reliability.kills import Training, config
from tests.utils import ROOT, put_between_marks

WINDOWS = 12
BOUND = 0.02


@HOOKS.register_module()
class TimedCheckpointHook(WholeCheckpointHook):
    """Writes a checkpoint every so many seconds.

    Args:
        seconds (float): How many.
    """

    def __init__(self, seconds: float, **kwargs) -> None:
        super().__init__(by_epoch=False, interval=1, **kwargs)
        self.seconds = seconds
        self._last = time.monotonic()

    def every_n_train_iters(self, *args, **kwargs) -> bool:
        due = time.monotonic() - self._last >= self.seconds
        if due:
            self._last = time.monotonic()
        return due


def watch(folder: Path, minutes: float, seconds: float) -> list[list[float]]:
    """Train for a time.

    Args:
        folder (Path): Folder to work in.
        minutes (float): How long.
        seconds (float): Time between two checkpoints.

    Returns:
        list[list[float]]: For each rank the most memory in each window, in MB.
    """
    import mmpretrain.datasets
    import mmpretrain.models  # noqa: F401

    mmengine.runner.runner.collect_env = dict
    read_only_data()
    write_digits(folder / 'digits')
    cfg = config(folder / 'run', folder / 'digits', 10**9)
    cfg.train_dataloader.batch_size = 64
    cfg.default_hooks.checkpoint = dict(type=TimedCheckpointHook, seconds=seconds, max_keep_ckpts=2)
    training = Training(cfg, folder / 'log')
    most = [[0.0] * WINDOWS for _ in training.ranks]
    processes = [psutil.Process(rank) for rank in training.ranks]
    start = time.monotonic()
    try:
        while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
            if training.ended():
                raise RuntimeError(f'the training ended; see {folder}/log')
            for process, row in zip(processes, most):
                window = int(share * WINDOWS)
                row[window] = max(row[window], process.memory_full_info().uss / 1e6)
            time.sleep(min(0.2, minutes))
    finally:
        training.kill()
    assert [*(folder / 'run').glob('iter_*.pth')], f'no checkpoint was written; see {folder}/log'
    return most


def growth(row: list[float]) -> float:
    return max(row[2:]) / row[1] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60, help='(default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=30, help='between two checkpoints (default: %(default)s)')
    parser.add_argument('--write', action='store_true', help='put the table into docs/reliability.md')
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'
    folder = Path(tempfile.mkdtemp(prefix='memory'))
    most = watch(folder, args.minutes, seconds=args.seconds)
    header = ['most memory, MB', *(f'{args.minutes * (i + 1) / WINDOWS:g} min' for i in range(WINDOWS)), 'growth']
    rows = [
        [f'rank {i}', *(f'{value:.1f}' for value in row), f'{100 * growth(row):+.2f} %'] for i, row in enumerate(most)
    ]
    table = markdown_table(header, rows)
    print(table)
    if args.write:
        put_between_marks(ROOT / 'docs/reliability.md', 'memory', table)
    shutil.rmtree(folder)
    if any(growth(row) > BOUND for row in most):
        print(f'A rank grew by more than {100 * BOUND:g} %.')
        sys.exit(1)


if __name__ == '__main__':
    main()
