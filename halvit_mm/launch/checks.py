import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from halvit_mm.errors import UserError
from halvit_mm.io.configs import reliability
from halvit_mm.io.datasets import local_files, walk_datasets

from .class_check import check_classes
from .coco_check import check_coco


def check_run(cfg: Config, tool: str, args: argparse.Namespace, build: bool = True) -> None:
    """Refuse a run that cannot succeed on this machine, before any of it is built.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace): From upstream's parser; not every parser has all options.
        build (bool): Whether this process builds the model for a check, and so imports what it is made of. Defaults
            to True.

    Raises:
        UserError: If data or a checkpoint is missing, or if an argument does not fit the config or the machine.
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
    # Once for all ranks, in the process that starts them
    if 'RANK' not in os.environ:
        check_coco(cfg, loaders)
    check_classes(cfg, loaders, build)


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
