"""Cost of configs side by side: counts and bytes, memory in a fresh process each, times in one process."""

import logging
import os
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import nn

from .count import count_macs, count_parameters
from .measure import autocast, inference, keep_freed_memory, time_interleaved, training_step
from .samples import input_channels, is_detector, is_segmentor
from .storage import activation_bytes, training_bytes, weight_file_bytes
from .subject import Settings, Subject, random_images

PACKAGES = (
    *('torch', 'onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmdetection', 'onedl-mmsegmentation'),
    *('mmengine', 'mmpretrain', 'mmdet', 'mmsegmentation', 'timm', 'onnxruntime'),
)


def count(subject: Subject, settings: Settings) -> dict[str, int]:
    """Counts and bytes of a config.

    Returns:
        dict[str, int]: ``params``, ``params_no_head``, ``macs`` for one image, ``weight_bytes``, ``gradient_bytes`` and
        ``train_state_bytes``.
    """
    logging.disable(logging.INFO)  # mmengine logs each parameter's group
    model = subject.model(settings)
    counts = dict(
        params=count_parameters(model),
        params_no_head=count_parameters(model, without_head=True),
        macs=count_macs(model, (input_channels(model), *settings.shape)),
        weight_bytes=weight_file_bytes(model),
    )
    # Batch norms need two values for each channel, which one small image may not have. Detectors and segmentors take
    # any size, and these two counts do not depend on it.
    any_size = is_detector(model) or is_segmentor(model)
    images = random_images(model, replace(settings, shape=(128, 128)) if any_size else settings, 2)
    counts['gradient_bytes'], counts['train_state_bytes'] = training_bytes(
        model, images, subject.optim_wrapper(model), subject.config().get('find_unused_parameters', False)
    )
    return counts


def peak_memory(subject: Subject, settings: Settings, batch: int, mode: str, precision: str) -> dict[str, int | None]:
    """Peak of memory while a model runs: CUDA's allocations on a GPU, else the resident memory of this process.

    Args:
        subject (Subject): The config.
        settings (Settings): Shape, device and layout.
        batch (int): Images in a batch.
        mode (str): ``'infer'`` or ``'train'``.
        precision (str): As in :class:`Settings`.

    Returns:
        dict[str, int | None]: ``peak_memory_bytes``, and ``activation_bytes``, which is None for inferences.
    """
    logging.disable(logging.INFO)
    model = subject.model(settings)
    activations = None
    if mode == 'train':
        with autocast(settings.device, precision):
            activations = activation_bytes(model, random_images(model, settings, batch))
    run = build_run(subject, model, settings, batch, mode, precision)
    for _ in range(2):  # the second training step has the optimizer's state
        run()
    if settings.device == 'cuda':
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    return dict(peak_memory_bytes=peak, activation_bytes=activations)


def build_run(
    subject: Subject,
    model: nn.Module,
    settings: Settings,
    batch: int,
    mode: str,
    precision: str,
    compiled: bool = False,
) -> Callable[[], None]:
    """A function that runs one inference or one training step of a config's model on random images."""
    images = random_images(model, settings, batch)
    if mode == 'infer':
        return inference(model, images, precision, compiled)
    return training_step(model, images, subject.optim_wrapper(model, precision), precision, compiled)


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """Call a function of a module in a new process that has imported upstream.

    Returns:
        What the function returns. An error of the function is raised here; if its process dies,
        ``BrokenProcessPool`` is raised.
    """
    context = get_context('forkserver')
    context.set_forkserver_preload([__name__, 'mmpretrain.models', 'mmdet.models'])
    with ProcessPoolExecutor(1, mp_context=context, initializer=_without_output) as pool:
        return pool.submit(function, *args).result()


def _without_output() -> None:
    # Gloo prints its peers, from C++.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def environment(settings: Settings) -> dict[str, Any]:
    """The device's name, cores, threads, memory, versions of packages, and the settings' shape, layout and TF32."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return dict(
        device=torch.cuda.get_device_name() if settings.device == 'cuda' else _processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count(),
        threads=torch.get_num_threads(),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.system(),
        python=platform.python_version(),
        versions=versions,
        shape=list(settings.shape),
        channels_last=settings.channels_last,
        tf32=settings.tf32 if settings.device == 'cuda' else None,
    )


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def take_times(
    subjects: Sequence[Subject], settings: Settings, say: Callable[[str], None]
) -> tuple[dict[tuple, dict[tuple[str, bool], list[float]]], dict[str, str]]:
    """Time models in turn in this process, which keeps the memory that it frees; arguments as in :func:`benchmark`.

    Returns:
        tuple[dict, dict]: Seconds of each run by (batch, mode, precision) and by (name, whether it was compiled); the
        error of each model that failed, by name.
    """
    logging.disable(logging.INFO)
    keep_freed_memory()
    models = {subject.name: subject.model(settings) for subject in subjects}
    forms = (False, True) if settings.compile else (False,)
    able = [(subject, compiled) for subject in subjects for compiled in forms]
    times, errors = {}, {}
    for combination in settings.combinations:
        batch, mode, precision = combination
        say(f'times: {mode}, batch {batch}, {precision}, {len(models)} models in turn')
        runs = {}
        for subject, compiled in [*able]:
            try:
                run = build_run(subject, models[subject.name], settings, *combination, compiled)
                run()
                runs[subject.name, compiled] = run
            except Exception as error:
                able.remove((subject, compiled))
                errors[subject.name] = ('compiled: ' if compiled else '') + _in_short(error)
        times[combination] = time_interleaved(runs, settings.rounds, warm_up=1)
    return times, errors


def benchmark(
    subjects: Sequence[Subject], settings: Settings, say: Callable[[str], None] = str
) -> list[dict[str, Any]]:
    """Measure configs side by side. If one fails its results so far are kept, and the others go on.

    Args:
        subjects (Sequence[Subject]): The configs; ratios are to the first that can be run.
        settings (Settings): Shape, batches, modes, precisions ... to measure.
        say (Callable[[str], None]): Receives progress messages, in several processes, so that it must be picklable.
            Defaults to ``str``, which does nothing with them.

    Returns:
        list[dict]: For each config ``name``, ``config``, the counts of :func:`count`, ``runs``, ``environment``, and
        ``error`` where something failed. Each run has ``batch``, ``mode``, ``precision``, ``device``, ``compiled``,
        ``rounds`` (of all processes), ``ms_median``, ``ms_min``, ``ms_max``, ``images_per_second``, ``ratio_to_first``
        (the median of the ratios to the first config's time in the same round), ``peak_memory_bytes`` and
        ``activation_bytes``, which is None for inferences.
    """
    machine = environment(settings)
    results = {s.name: dict(name=s.name, config=s.path, runs=[], environment=machine) for s in subjects}

    def fail(name: str, error: str) -> None:
        results[name]['error'] = error
        say(f'{name} failed: {error}')

    peaks, unread = {}, dict(peak_memory_bytes=None, activation_bytes=None)
    for i, subject in enumerate(subjects, 1):
        say(f'[{i}/{len(subjects)}] {subject.name}: counts{" and memory" if settings.memory else ""}')
        try:
            results[subject.name].update(in_fresh_process(count, subject, settings))
            for combination in settings.combinations if settings.memory else ():
                peaks[(subject.name, *combination)] = in_fresh_process(peak_memory, subject, settings, *combination)
        except Exception as error:
            fail(subject.name, _in_short(error))

    able = [subject for subject in subjects if 'error' not in results[subject.name]]
    pooled, ratios, errors = _pool_times(able, settings, say)
    for name, error in errors.items():
        fail(name, error)
    for (combination, (name, compiled)), seconds in pooled.items():
        batch, mode, precision = combination
        results[name]['runs'].append(
            dict(
                batch=batch,
                mode=mode,
                precision=precision,
                device=settings.device,
                compiled=compiled,
                rounds=len(seconds),
                ms_median=1e3 * median(seconds),
                ms_min=1e3 * min(seconds),
                ms_max=1e3 * max(seconds),
                images_per_second=batch / median(seconds),
                ratio_to_first=median(ratios[combination, (name, compiled)]),
                **(unread if compiled else peaks.get((name, *combination), unread)),
            )
        )
    return [*results.values()]


def _pool_times(
    subjects: Sequence[Subject], settings: Settings, say: Callable[[str], None]
) -> tuple[dict[tuple, list[float]], dict[tuple, list[float]], dict[str, str]]:
    """Pool :func:`take_times` over the processes: seconds, ratios to the first config in the same round, errors."""
    pooled, ratios, errors = defaultdict(list), defaultdict(list), {}
    for _ in range(settings.processes if settings.combinations else 0):
        if not (able := [subject for subject in subjects if subject.name not in errors]):
            break
        try:
            times, failed = in_fresh_process(take_times, able, settings, say)
        except Exception as error:
            times, failed = {}, {subject.name: _in_short(error) for subject in able}
        errors |= failed
        for combination, runs in times.items():
            first = next(iter(runs.values()), [])
            for key, seconds in runs.items():
                pooled[combination, key] += seconds
                ratios[combination, key] += [one / base for one, base in zip(seconds, first, strict=True)]
    return pooled, ratios, errors


def _in_short(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


def elapsed() -> Callable[[str], None]:
    """A ``say`` that prints messages to the error stream with the time since this call."""
    return partial(_say, time.perf_counter())


def _say(start: float, line: str) -> None:
    print(f'{time.perf_counter() - start:6.0f} s  {line}', file=sys.stderr, flush=True)
