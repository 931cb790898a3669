"""A config, held against what reads it, before a run prints or builds anything."""

import argparse
import inspect
import os
import traceback
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from halvit_mm.errors import UserError, did_you_mean, warn
from halvit_mm.io.build import build_model, in_one_line
from halvit_mm.io.checkpoints import DamagedCheckpoint, load_file
from halvit_mm.io.components import candidates, check_components, quiet, words
from halvit_mm.io.configs import known_keys, scope_of
from halvit_mm.io.datasets import type_name, walk_datasets

OUR_RUNNER = 'halvit_mm.ResumableRunner'
# Keys of plain dicts, by those who read them
READ = dict(
    env_cfg=('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    auto_scale_lr=('enable', 'base_batch_size'),
)
# What mmengine's runner takes out of the config of a data loader
LOADER = ('num_batch_per_epoch', 'disable_subprocess_warning')
# Lengths and sizes, and the least of each
LEAST = dict(max_epochs=1, max_iters=1, val_begin=0, val_interval=1, batch_size=1, num_workers=0)
SEEDS = 2**32  # of numpy


def check_numbers(cfg: Config) -> None:
    """Refuse lengths of loops, sizes of batches and seeds that are not whole numbers, or out of range."""
    for key in ('train_cfg', 'train_dataloader', 'val_dataloader', 'test_dataloader'):
        for name, value in (cfg.get(key) or {}).items():
            if name not in LEAST or value is None:
                continue
            if not isinstance(value, Real) or isinstance(value, bool) or value % 1:
                raise UserError(f'{key}.{name}={value!r} is not a whole number; expected an int')
            if value < LEAST[name]:
                raise UserError(f'{key}.{name}={value!r} is too small; expected {LEAST[name]} or more')
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not (type(seed) is int and 0 <= seed < SEEDS):
        raise UserError(f'randomness.seed={seed!r} is not a seed; expected an int from 0 to 2**32 - 1')


def check_config(cfg: Config, tool: str, args: argparse.Namespace | None = None) -> None:
    """Refuse a config that names a class, an argument or a key that is not there, in what a run will build.

    Nothing is built. Upstream's and the user's own modules that the config names are imported.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace, optional): From upstream's parser. Defaults to None.

    Raises:
        UserError: The message has the key, what stands there, and the nearest name.
    """
    scope = scope_of(cfg)
    for option in getattr(args, 'cfg_options', None) or {}:
        if getattr(args, 'no_validate', False) and option.startswith(('val_dataloader.', 'val_evaluator.', 'val_cfg.')):
            raise UserError(f'--cfg-options {option}: --no-validate removes {option.partition(".")[0]}; leave out one')
    for key in cfg:
        if key not in known_keys() and (hint := did_you_mean(key, known_keys(), 0.9)):
            warn(f'{cfg.filename}: {key} is not a key that a run reads; {hint}')
    for key, known in READ.items():
        for name in cfg.get(key) or {}:
            if name not in known and (hint := did_you_mean(name, known)):
                warn(f'{key}.{name} is not a key that a run reads; {hint}')
    check_components(dict(type=cfg.get('runner_type') or 'Runner'), 'runner_type', scope, 'RUNNERS', arguments=False)
    if (cfg.get('runner_type') or 'Runner') not in ('Runner', OUR_RUNNER):
        return  # It may read the config in its own way.
    known = [*inspect.signature(Runner.set_randomness).parameters][1:]
    _refuse_unknown(cfg.get('randomness'), 'randomness', known)
    check_components(cfg.get('model'), 'model', scope, 'MODELS')
    check_components(cfg.get('data_preprocessor'), 'data_preprocessor', scope, 'MODELS')
    for split in _splits(tool, args):
        _check_split(cfg, split, scope)
    if tool == 'train':
        _check_optimizer(cfg.get('optim_wrapper'), scope)
        check_components(cfg.get('param_scheduler'), 'param_scheduler', scope, 'PARAM_SCHEDULERS')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if isinstance(hook, Mapping) and 'type' not in hook:
            others = [other for other in cfg.default_hooks if other != name]
            hint = did_you_mean(name, others) or 'expected dict(type=...) of a new hook'
            raise UserError(f"default_hooks.{name} has no 'type'; {hint}")
        check_components(hook, f'default_hooks.{name}', scope, 'HOOKS')
    check_components(cfg.get('custom_hooks'), 'custom_hooks', scope, 'HOOKS')
    check_components(cfg.get('visualizer'), 'visualizer', scope, 'VISUALIZERS')
    log_processor = cfg.get('log_processor') and {'type': 'LogProcessor', **cfg.log_processor}
    check_components(log_processor, 'log_processor', scope, 'LOG_PROCESSORS')
    check_components(cfg.get('model_wrapper_cfg'), 'model_wrapper_cfg', scope, 'MODEL_WRAPPERS')


def try_to_build(cfg: Config, tool: str, args: argparse.Namespace) -> nn.Module | None:
    """Build the model, the transforms and the optimizer, and read the heads of the checkpoints.

    What a constructor refuses, such as a value of another type, is told before the run prints anything.

    Returns:
        nn.Module or None: The model; None if the config has a runner of its own.

    Raises:
        UserError: The message has the key and the constructor's own words.
    """
    if (cfg.get('runner_type') or 'Runner') not in ('Runner', OUR_RUNNER):
        return None
    trust = getattr(args, 'trust_checkpoint', False)
    for path in _checkpoints(cfg, tool, args):
        if not trust and '://' not in path and os.path.isfile(path):
            _check_readable(path)
    try:
        _build(cfg, tool, args)
    except UserError as error:
        if not _needs_ranks(error.__cause__):
            raise


def _build(cfg: Config, tool: str, args: argparse.Namespace) -> None:
    with DefaultScope.overwrite_default_scope(scope_of(cfg)), quiet():
        for split in _splits(tool, args):
            for key, dataset in walk_datasets(cfg.get(f'{split}_dataloader'), f'{split}_dataloader'):
                for i, transform in enumerate(dataset.get('pipeline') or ()):
                    if isinstance(transform, Mapping):
                        with in_one_line(f'{key}.pipeline.{i}'):
                            TRANSFORMS.build(transform)
        model = build_model(cfg)
        wrapper_cfg = cfg.get('optim_wrapper') if tool == 'train' else None
        if not wrapper_cfg or not _of_torch(wrapper_cfg.get('optimizer')):
            return model
        with in_one_line('optim_wrapper'):
            wrapper = build_optim_wrapper(model, wrapper_cfg)
        schedules = cfg.get('param_scheduler')
        for i, schedule in enumerate([schedules] if isinstance(schedules, Mapping) else schedules or ()):
            if 'type' in schedule:
                with in_one_line(f'param_scheduler.{i}'):
                    PARAM_SCHEDULERS.build(schedule, default_args=dict(optimizer=wrapper, epoch_length=1000))
    return model


def _needs_ranks(error: BaseException | None) -> bool:
    """Whether torch refused because ranks are not joined yet, as for the batch norms of all ranks."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return bool(frames) and Path(torch.distributed.__file__).parent in Path(frames[-1].filename).parents


def _splits(tool: str, args: argparse.Namespace | None) -> tuple[str, ...]:
    if tool == 'test':
        return ('test',)
    return ('train',) if getattr(args, 'no_validate', False) else ('train', 'val')


def _check_split(cfg: Config, split: str, scope: str) -> None:
    loader, evaluator, loop = (cfg.get(f'{split}_{part}') for part in ('dataloader', 'evaluator', 'cfg'))
    if isinstance(loader, Mapping):
        key = f'{split}_dataloader'
        parameters = [*inspect.signature(DataLoader.__init__).parameters][1:]
        _refuse_unknown(loader, key, (*parameters, *LOADER))
        check_components(loader.get('dataset'), f'{key}.dataset', scope, 'DATASETS')
        for part in ('sampler', 'batch_sampler'):
            check_components(loader.get(part), f'{key}.{part}', scope, 'DATA_SAMPLERS')
        for part in ('collate_fn', 'worker_init_fn'):
            check_components(loader.get(part), f'{key}.{part}', scope, 'FUNCTIONS')
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        check_components({'type': 'Evaluator', **evaluator}, f'{split}_evaluator', scope, 'EVALUATOR')
    else:
        check_components(evaluator, f'{split}_evaluator', scope, 'METRICS')
    if isinstance(loop, Mapping):
        loop, key = dict(loop), f'{split}_cfg'
        if split == 'train' and 'type' not in loop:
            if 'by_epoch' not in loop:
                raise UserError("train_cfg has neither 'type' nor 'by_epoch'; expected by_epoch=True and max_epochs")
            loop['type'] = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
        loop.setdefault('type', f'{split.title()}Loop')
        check_components(loop, key, scope, 'LOOPS')


def _check_optimizer(cfg: Mapping | None, scope: str) -> None:
    if not isinstance(cfg, Mapping):
        return
    constructor = dict(type=cfg.get('constructor') or 'DefaultOptimWrapperConstructor')
    check_components(constructor, 'optim_wrapper.constructor', scope, 'OPTIM_WRAPPER_CONSTRUCTORS', arguments=False)
    [*kinds] = candidates(constructor['type'], scope, 'OPTIM_WRAPPER_CONSTRUCTORS')
    known = words(tuple(kinds))
    for name in cfg.get('paramwise_cfg') or {}:
        if name not in known and (hint := did_you_mean(name, [one for one in known if '_' in one])):
            raise UserError(f'optim_wrapper.paramwise_cfg.{name} is not read by {kinds[0].__name__}; {hint}')
    if 'constructor' in cfg and 'optimizer' not in cfg:
        return  # It makes several optimizers, of a config of its own form.
    check_components(cfg.get('optimizer'), 'optim_wrapper.optimizer', scope, 'OPTIMIZERS')
    rest = {name: value for name, value in cfg.items() if name not in ('constructor', 'paramwise_cfg', 'optimizer')}
    rest = {'type': 'OptimWrapper', 'optimizer': None, **rest}
    check_components(rest, 'optim_wrapper', scope, 'OPTIM_WRAPPERS', arguments='constructor' not in cfg)


def _refuse_unknown(cfg: Mapping | None, key: str, known: list[str]) -> None:
    for name in cfg or {}:
        if name not in known:
            hint = did_you_mean(name, known) or f'there are {", ".join(known)}'
            raise UserError(f'{key}.{name} is not a key that is read; {hint}')


def _of_torch(optimizer: object) -> bool:
    """Whether an optimizer's config is of one that needs neither ranks nor a device."""
    if not isinstance(optimizer, Mapping) or 'type' not in optimizer:
        return False
    kind = optimizer['type']
    [*kinds] = [kind] if callable(kind) else candidates(kind, 'mmengine', 'OPTIMIZERS')
    return any(one.__module__.startswith('torch.optim') for one in kinds)


def _checkpoints(cfg: Config, tool: str, args: argparse.Namespace) -> Iterator[str]:
    """The files that a run begins by reading."""
    if tool == 'test':
        yield args.checkpoint
    elif args.resume not in (None, 'auto'):
        yield args.resume
    elif not args.resume and cfg.get('load_from'):
        yield cfg.load_from
    yield from _pretrained(cfg.get('model'))


def _pretrained(cfg: object) -> Iterator[str]:
    """The checkpoints in a model's ``init_cfg``."""
    if isinstance(cfg, (list, tuple)):
        for one in cfg:
            yield from _pretrained(one)
    elif isinstance(cfg, Mapping):
        if isinstance(cfg.get('checkpoint'), str) and type_name(cfg) == 'Pretrained':
            yield cfg['checkpoint']
        for value in cfg.values():
            yield from _pretrained(value)


def _check_readable(path: str) -> None:
    try:
        load_file(path, mmap=True)  # which reads no tensor
    except DamagedCheckpoint:
        load_file(path)  # a file in the format of torch 1.5 cannot be mapped
