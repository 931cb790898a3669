import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from mmpretrain.structures import DataSample
from torch import nn


def inference(model: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """One inference of a classifier, to the logits.

    Args:
        model (nn.Module): mmpretrain's ``ImageClassifier``.
        images (Tensor): Shape (B, 3, H, W).

    Returns:
        Callable: Runs it.
    """

    def run() -> None:
        model.eval()
        with torch.inference_mode():
            model(images, mode='tensor')

    return run


def training_step(model: nn.Module, images: torch.Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """One training step of a classifier: forward, loss, backward, optimizer step.

    Args:
        model (nn.Module): mmpretrain's ``ImageClassifier``.
        images (Tensor): Shape (B, 3, H, W).
        optimizer (Optimizer): Over the model's parameters.

    Returns:
        Callable: Runs it.
    """
    samples = [DataSample().set_gt_label(i % model.head.num_classes).to(images.device) for i in range(len(images))]

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        losses = model(images, samples, mode='loss')
        losses['loss'].backward()
        optimizer.step()

    return run


def time_interleaved(runs: Mapping[str, Callable[[], None]], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Time several things in turn, so that a machine that slows down slows all of them.

    Args:
        runs (Mapping[str, Callable]): What to time, by name.
        rounds (int): Times that each is run and counted.
        warm_up (int): Times that each is run before that. Defaults to 3.

    Returns:
        dict[str, list[float]]: Seconds of each run, by name.
    """
    times = {name: [] for name in runs}
    for i in range(warm_up + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= warm_up:
                times[name].append(time.perf_counter() - start)
    return times


def ratios_to_first(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Ratio of each median to the first one's.

    Args:
        times (Mapping[str, list[float]]): From :func:`time_interleaved`.

    Returns:
        dict[str, float]: The ratios; the first is 1.
    """
    medians = {name: median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    return {name: value / first for name, value in medians.items()}
