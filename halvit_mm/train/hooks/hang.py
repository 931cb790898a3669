"""Ending a job with a rank that hangs."""

import faulthandler
import os
import sys
import threading
import time
from datetime import timedelta

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed as dist

from halvit_mm.arguments import refuse_unknown_arguments
from halvit_mm.io.configs import check_limit
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class HangHook(Hook):
    """End this rank, and so the job, if an iteration takes longer than a limit.

    A thread of each rank reports its progress to the job's store. The rank that reaches the limit names the ranks that
    have not reported or are behind, and prints its stack.

    Args:
        limit (float, optional): The longest time in seconds from one iteration to the next, with the reading of data
            and the writing of checkpoints; also the longest time of the start. Defaults to None, which means no limit.

    Raises:
        ValueError: If ``limit`` is not above 0.
    """

    priority = 'VERY_HIGH'

    @refuse_unknown_arguments
    def __init__(self, limit: float | None = None) -> None:
        check_limit('limit', limit)
        self.limit = limit
        self._beats = 0
        self._last = time.monotonic()
        self._ended = threading.Event()

    def before_run(self, runner: Runner) -> None:
        if self.limit is None:
            return
        self._beat()
        threading.Thread(target=self._watch, args=get_dist_info(), daemon=True).start()

    def _before_iter(self, *args, **kwargs) -> None:
        self._beat()

    def _after_iter(self, *args, **kwargs) -> None:
        self._beat()

    def after_run(self, runner: Runner) -> None:
        self._ended.set()

    def _beat(self) -> None:
        self._beats += 1
        self._last = time.monotonic()

    def _watch(self, rank: int, world_size: int) -> None:
        interval = min(1.0, self.limit / 4)
        store = _connect() if world_size > 1 else None
        ticks = 0
        while not self._ended.wait(interval):
            ticks += 1
            try:
                if store is not None:
                    store.set(str(rank), f'{ticks} {self._beats}')
                if time.monotonic() - self._last <= self.limit:
                    continue
                cause = '' if store is None else _name_those_behind(store, rank, world_size, 3 * interval)
            except RuntimeError:
                # The store belongs to rank 0, or to the process that started it.
                cause = '; the first machine does not answer'
                if time.monotonic() - self._last <= self.limit:
                    continue
            message = f'rank {rank}: nothing has moved for {self.limit:g} s (hang_limit){cause}. Where it stands:'
            print(f'error: {message}', file=sys.stderr, flush=True)
            faulthandler.dump_traceback()
            os._exit(2)


def _connect() -> dist.Store:
    # A connection for this thread: the process group's is blocked while the rank waits for others.
    store = dist.TCPStore(
        os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False, timeout=timedelta(seconds=10)
    )
    return dist.PrefixStore(f'halvit_mm/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}', store)


def _name_those_behind(store: dist.Store, rank: int, world_size: int, wait: float) -> str:
    ranks = [str(other) for other in range(world_size) if other != rank]
    before = {other: store.get(other).split() for other in ranks if store.check([other])}
    beats = int(store.get(str(rank)).split()[1])
    time.sleep(wait)
    after = {other: store.get(other).split() for other in before}
    silent = [other for other in ranks if other not in before or before[other][0] == after[other][0]]
    behind = [other for other in ranks if other not in silent and int(after[other][1]) < beats]
    states = {'gives no sign of life': silent, 'is behind': behind}
    return ''.join(f'; rank {", ".join(others)} {state}' for state, others in states.items() if others)
