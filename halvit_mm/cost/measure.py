"""Time of inferences and training steps."""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from .samples import forward_tensor, ground_truth

PRECISIONS = {'fp32': None, 'amp-bf16': torch.bfloat16, 'amp-fp16': torch.float16}


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; on Linux only, with glibc, which torch's wheels need there.

    By default glibc returns blocks above 32 MiB to the system at once, and smaller ones now and then. Then the same
    layers run on fresh pages in one process and not in another, which made Swin-T and PVT-S 1.5 and 2 times as slow.
    """
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap does not shrink


def return_freed_memory() -> None:
    """Let this process return each large block to the system when it is freed; on Linux only, with glibc.

    Its peak is then what its tensors need. By default glibc keeps freed blocks, more in one run than in another.
    """
    if sys.platform == 'linux':
        ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: larger blocks are mapped by themselves


def set_tf32(allowed: bool) -> None:
    """Let a GPU's products of matrices and its convolutions both round fp32 to TF32, or neither.

    torch's own defaults round convolutions only.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def autocast(device: str, precision: str) -> torch.autocast | nullcontext:
    """A reusable context in which a model computes in one of ``PRECISIONS`` on ``'cpu'`` or ``'cuda'``."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def inference(model: nn.Module, images: Tensor, precision: str = 'fp32', compiled: bool = False) -> Callable[[], None]:
    """A function that runs one inference, up to the logits of a classifier or a segmentor, or the outputs of a
    detector's heads.

    Args:
        model (nn.Module): A classifier, a detector or a segmentor; it is put into evaluation mode.
        images (Tensor): Shape (B, C, H, W).
        precision (str): ``'fp32'``, ``'amp-bf16'`` or ``'amp-fp16'``. Defaults to ``'fp32'``.
        compiled (bool): Whether ``torch.compile`` compiles the model, at the first run. Defaults to False.
    """
    model.eval()
    forward = torch.compile(model) if compiled else model
    context = autocast(images.device.type, precision)

    def run() -> None:
        # torch.compile's guards do not support tensors of inference mode.
        with torch.no_grad() if compiled else torch.inference_mode(), context:
            forward_tensor(forward, images)

    return run


def training_step(
    model: nn.Module, images: Tensor, optim_wrapper: OptimWrapper, precision: str = 'fp32', compiled: bool = False
) -> Callable[[], None]:
    """A function that runs one training step: forward, loss, backward, update.

    Args:
        model (nn.Module): A classifier, a detector or a segmentor; it is put into training mode.
        images (Tensor): Shape (B, C, H, W).
        optim_wrapper (OptimWrapper): Over the model's parameters; for ``'amp-fp16'`` one that scales the loss.
        precision (str): As in :func:`inference`. Defaults to ``'fp32'``.
        compiled (bool): Whether ``torch.compile`` compiles the forward and backward pass. Defaults to False.
    """
    model.train()
    forward = torch.compile(model) if compiled else model
    samples = ground_truth(model, images)
    context = autocast(images.device.type, precision)

    def run() -> None:
        with context:
            loss, _ = model.parse_losses(forward(images, samples, mode='loss'))
        optim_wrapper.update_params(loss)

    return run


def time_interleaved(
    runs: Mapping[str, Callable[[], None]],
    rounds: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time functions in turn, so that a machine that slows down slows all of them.

    Args:
        runs (Mapping[str, Callable]): The functions, by name.
        rounds (int): Timed calls of each.
        warm_up (int): Calls of each before the timed ones. Defaults to 3.
        clock (Callable): What tells the seconds: ``time.process_time`` for those of the processor, all threads added.
            Defaults to ``time.perf_counter``.

    Returns:
        dict[str, list[float]]: Seconds of each timed call, by name.
    """
    times = {name: [] for name in runs}
    for i in range(warm_up + rounds):
        for name, run in runs.items():
            start = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= warm_up:
                times[name].append(clock() - start)
    return times
