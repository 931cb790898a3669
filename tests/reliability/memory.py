"""Train on two ranks with a checkpoint every 30 seconds and watch the memory of each.

    python -m tests.reliability.memory [--minutes 60] [--write]

Prints the most that each rank held in each twelfth of the time, and how much more it was in the worst of them than in
the second: the first is for the first steps. --write puts the table into docs/reliability.md.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from mmengine.registry import HOOKS

from halvit_mm.cost.report import markdown_table
from halvit_mm.data import write_digits
from halvit_mm.train import WholeCheckpointHook
from tests.reliability.kills import config
from tests.utils import ROOT, environment, kill_tree, put_between_marks

WINDOWS = 12
BOUND = 0.02


@HOOKS.register_module()
class TimedCheckpointHook(WholeCheckpointHook):
    """Writes a checkpoint every N seconds.

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
    write_digits(folder / 'digits')
    cfg = config(folder / 'run', folder / 'digits', 10**9)
    cfg.train_dataloader.batch_size = 64
    cfg.default_hooks.checkpoint = dict(type='TimedCheckpointHook', seconds=seconds, max_keep_ckpts=2)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.01)]
    cfg.custom_imports = dict(imports=['tests.reliability.memory'])
    cfg.dump(folder / 'config.py')
    with (folder / 'log').open('w') as log:
        command = [ROOT / 'tools/dist_train.sh', folder / 'config.py', '2']
        job = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(OMP_NUM_THREADS='1'), start_new_session=True
        )
    most, start = {}, None
    try:
        while start is None or time.monotonic() - start < 60 * minutes:
            if job.poll() is not None:
                raise RuntimeError(f'the training ended; see {folder}/log')
            time.sleep(min(0.2, minutes))
            ranks = ranks_of(psutil.Process(job.pid))
            # From the first checkpoint on: on a busy machine the start takes longer than a short watch.
            if start is None and len(ranks) == 2 and any((folder / 'run').glob('iter_*.pth')):
                start, most = time.monotonic(), {rank: [0.0] * WINDOWS for rank in ranks}
            window = start and min(int((time.monotonic() - start) / (60 * minutes) * WINDOWS), WINDOWS - 1)
            for rank, row in most.items():
                row[window] = max(row[window], ranks[rank].memory_full_info().uss / 1e6)
    finally:
        kill_tree(job)
    return [most[rank] for rank in sorted(most)]


def ranks_of(job: psutil.Process) -> dict[str, psutil.Process]:
    """The ranks among a job's processes by number: those whose parent is not a rank; a loader's parent is one."""
    places = {}
    for process in job.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            places[process] = process.environ().get('RANK')
    ranks = {process.pid for process, rank in places.items() if rank is not None}
    return {rank: process for process, rank in places.items() if rank is not None and process.ppid() not in ranks}


def growth(row: list[float]) -> float:
    return max(row[2:]) / row[1] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60, help='(default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=30, help='between two checkpoints (default: %(default)s)')
    parser.add_argument('--write', action='store_true', help='put the table into docs/reliability.md')
    args = parser.parse_args()
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
