"""Time of a model by kind of operator, and the time of its bare matrix products."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from .measure import time_interleaved

# Names of operators and kernels by kind. Activations, additions, copies ... are 'the rest'.
KINDS = {
    'attention': re.compile('scaled_dot_product|(flash|efficient|cudnn)_attention|fmha'),
    'matrix products': re.compile(
        r'\b(add|b|baddb)?mm\b|\b(linear|matmul)\b|conv|gemm|cutlass|nvjet|wgrad|dgrad|fprop'
    ),
    'norms': re.compile('norm'),
    'optimizer': re.compile('adam|sgd|_foreach|optimizer'),
}


@dataclass
class Profile:
    """Time of one run.

    Attributes:
        fractions (dict[str, float]): Fraction of the time by kind of operator; they sum to 1.
        ms (float): Median milliseconds of a run.
        ms_bare (float): Median milliseconds of its matrix products, convolutions and fused attention alone, on the same
            tensors one after another.
    """

    fractions: dict[str, float]
    ms: float
    ms_bare: float


class _BareOperators(TorchDispatchMode):
    """Keeps each call of a matrix product, convolution and fused attention, to repeat it."""

    # Inference mode dispatches composite operators without decomposing them.
    KEPT = ('mm', 'addmm', 'bmm', 'baddbmm', 'linear', 'matmul', 'conv2d', 'convolution', 'convolution_backward')

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in self.KEPT or 'scaled_dot_product' in name:
            self.calls.append(lambda: func(*args, **kwargs))
        return func(*args, **kwargs)


def profile_run(run: Callable[[], None], device: str = 'cpu', rounds: int = 10) -> Profile:
    """Profile a run of a model; all tensors of a run are kept meanwhile.

    Args:
        run (Callable): From :func:`inference` or :func:`training_step`, not compiled.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        rounds (int): Timed runs, each in turn with its bare operators. Defaults to 10.
    """
    for _ in range(2):
        run()
    activity = ProfilerActivity.CUDA if device == 'cuda' else ProfilerActivity.CPU
    with profile(activities=[ProfilerActivity.CPU, activity]) as profiler:
        run()
    spent = time_by_kind(profiler.key_averages(), device)
    whole = sum(spent.values())

    with torch.no_grad(), _BareOperators() as recorder, torch.enable_grad():
        run()

    def bare() -> None:
        with torch.no_grad():
            for call in recorder.calls:
                call()

    times = time_interleaved(dict(run=run, bare=bare), rounds)
    return Profile({kind: value / whole for kind, value in spent.items()}, *(1e3 * median(t) for t in times.values()))


def time_by_kind(events: Iterable, device: str) -> dict[str, float]:
    """Microseconds of a profile by kind of operator.

    On a GPU a kernel is an event of its own, and its time is that of the operator that started it as well. Operators
    are counted, whose names do not depend on the GPU.

    Args:
        events (Iterable): From ``profiler.key_averages()``.
        device (str): ``'cpu'`` or ``'cuda'``.
    """
    spent = dict.fromkeys((*KINDS, 'the rest'), 0.0)
    for event in events:
        if event.device_type == DeviceType.CPU:
            time = event.self_device_time_total if device == 'cuda' else event.self_cpu_time_total
            spent[_kind(event.key)] += time
    return spent


def _kind(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if pattern.search(name.lower())), 'the rest')
