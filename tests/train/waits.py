"""What each iteration waits for: numbers that are read from the device, and exchanges between ranks."""

from collections import Counter

import torch
from mmengine.runner import Runner
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}


class Waits(TorchDispatchMode):
    """Counts reads of numbers (``item``, ``bool``, ``float`` ...) and collectives of what runs within.

    On the CPU every tensor is at hand. A tensor that is made of Python's numbers is so on any device, and to read it is
    no wait; to read any other one is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter()
        self._of_the_host = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == 'lift_fresh':
            self._of_the_host.append(out)
        elif name in ('_local_scalar_dense', 'equal', 'nonzero', 'is_nonzero'):
            if all(args[0].data_ptr() != one.data_ptr() for one in self._of_the_host):
                self.counts[name] += 1
        elif func.namespace == 'c10d':
            self.counts[name] += 1
        return out

    def __enter__(self):
        self._calls = _Calls(self.counts)
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._calls.__exit__(*error)


class _Calls(TorchFunctionMode):
    def __init__(self, counts: Counter) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READS:
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits_of(runner: Runner, begin: int = 3) -> list[dict[str, int]]:
    """Train; return the waits of each iteration from ``begin`` on, counted from 1."""
    loop, found = runner.train_loop, []
    run_iter = loop.run_iter

    def counted(*args):
        with Waits() as waits:
            run_iter(*args)
        found.append(dict(waits.counts))

    loop.run_iter = counted
    runner.train()
    return found[begin - 1 :]
