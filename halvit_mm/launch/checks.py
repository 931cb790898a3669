import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from halvit_mm.errors import UserError
from halvit_mm.io.configs import reliability
from halvit_mm.io.datasets import local_files, walk_datasets

from .class_check import check_classes, check_head
from .coco_check import check_coco
from .config import check_config, check_numbers, try_to_build


def check_run(cfg: Config, tool: str, args: argparse.Namespace) -> None:
    """Refuse a run that cannot succeed, before it prints or builds anything; docs/checks.md lists what is looked for.

    Ranks of torchrun look for missing files only: the process that starts them has checked the rest.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace): From upstream's parser, and ``trust_checkpoint``.

    Raises:
        UserError: At the first fault.
    """
    check_numbers(cfg)
    loaders = check_files(cfg, tool, args)
    if 'RANK' in os.environ:
        return
    # These import torch's serialization, mmengine's runner, and what the config is made of.
    from halvit_mm.io.checkpoints import read_only_data

    check_coco(cfg, loaders)
    check_classes(cfg, loaders)
    check_config(cfg, tool, args)
    read_only_data(trust=args.trust_checkpoint)
    model = try_to_build(cfg, tool, args)
    if model is not None:
        check_head(cfg, model)


def check_files(cfg: Config, tool: str, args: argparse.Namespace) -> list[str]:
    """Refuse a run whose data or checkpoint is missing, or whose arguments do not fit the config or the machine.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace): From upstream's parser; not every parser has all options.

    Returns:
        list[str]: Keys of the data loaders that the run uses.
    """
    reliability(cfg)
    checkpoint = args.checkpoint if tool == 'test' else args.resume if args.resume != 'auto' else None
    if checkpoint and '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} does not exist')
    if tool == 'train':
        if not args.resume and (path := cfg.get('load_from')) and '://' not in path and not Path(path).is_file():
            raise UserError(f'load_from={path!r} is not a file (looked from {Path.cwd()}); expected a checkpoint')
        _check_schedules(cfg)
    amp = getattr(args, 'amp', False) or cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper'
    if tool == 'train' and amp and get_device() == 'cpu':
        raise UserError('mixed precision (--amp, AmpOptimWrapper) needs a GPU; this machine shows none')
    if getattr(args, 'auto_scale_lr', False) and 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} is not a config to scale from; expected auto_scale_lr.base_batch_size'
        )
    loaders = ['test_dataloader'] if tool == 'test' else ['train_dataloader', 'val_dataloader']
    if getattr(args, 'no_validate', False):
        loaders.remove('val_dataloader')
    for loader in loaders:
        for key, dataset in walk_datasets(cfg.get(loader), loader):
            for path in local_files(dataset):
                if not path.exists():
                    raise UserError(
                        f'{loader}: {path} does not exist (looked from {Path.cwd()}); put or link the data there, or '
                        f'name its place with --cfg-options {key}.data_root=...'
                    )
    return loaders


def _check_schedules(cfg: Config) -> None:
    """Refuse a schedule that begins after the last epoch, as that behind a warm-up does in a short trial."""
    epochs, schedules = (cfg.get('train_cfg') or {}).get('max_epochs'), cfg.get('param_scheduler')
    for i, schedule in enumerate(schedules if epochs and isinstance(schedules, (list, tuple)) else ()):
        if schedule.get('by_epoch', True) and schedule.get('begin', 0) >= epochs:
            raise UserError(
                f'param_scheduler[{i}] ({schedule["type"]}) begins at epoch {schedule["begin"]}, which '
                f'train_cfg.max_epochs={epochs} does not reach; expected more epochs or, for a short trial, '
                '--cfg-options param_scheduler=None'
            )
