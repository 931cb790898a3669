"""Hooks for runs in tests: what goes wrong at an iteration, on one rank or on all."""

import os
import signal
import time

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Fault(Hook):
    """A fault of some kind in an iteration, counted from 1.

    Args:
        kind (str): ``'loss'``: images of NaN; ``'gradient'``: an infinite gradient; ``'die'``; ``'stand'``: the process
            stands still; ``'sleep'``: the rank waits in Python.
        iterations (Sequence[int]): In which iterations.
        rank (int): On which rank. Defaults to 0.
        once (str, optional): A file that is made by the fault, and without which alone it happens. Defaults to None.
    """

    def __init__(self, kind: str, iterations, rank: int = 0, once: str | None = None) -> None:
        self.kind, self.iterations, self.rank, self.once = kind, iterations, rank, once

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 not in self.iterations or get_rank() != self.rank:
            return
        if self.once is not None:
            if os.path.exists(self.once):
                return
            open(self.once, 'w').close()
        if self.kind == 'loss':
            data_batch['inputs'] = [torch.full_like(image.float(), torch.nan) for image in data_batch['inputs']]
        elif self.kind == 'gradient':
            parameter = next(p for p in runner.model.parameters() if p.requires_grad)
            handle = parameter.register_hook(lambda grad: (handle.remove(), grad * torch.inf)[1])
        elif self.kind == 'die':
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == 'stand':
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.kind == 'sleep':
            time.sleep(1000)
