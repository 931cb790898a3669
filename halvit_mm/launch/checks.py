import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from halvit_mm.errors import UserError, warn
from halvit_mm.io.configs import reliability
from halvit_mm.io.datasets import local_files, type_name, walk_datasets
from halvit_mm.io.operators import calls_operators, how_to_get_cuda, lack_cuda

from .class_check import check_classes, check_head
from .coco_check import check_coco
from .config import check_config, check_numbers, try_to_build
from .mask_check import check_masks


def check_run(cfg: Config, tool: str, args: argparse.Namespace, ranks: int | None = None) -> None:
    """Refuse a run that cannot succeed, before it prints or builds anything; docs/checks.md lists what is looked for.

    Ranks of torchrun look for missing files only: the process that starts them has checked the rest.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace): From upstream's parser, and ``trust_checkpoint``.
        ranks (int, optional): Ranks of the run. Defaults to None, which means those that Slurm or MPI has started, or
            else 1.

    Raises:
        UserError: At the first fault.
    """
    check_numbers(cfg)
    loaders = check_files(cfg, tool, args)
    if 'RANK' in os.environ:
        return
    if tool == 'train' and (getattr(args, 'auto_scale_lr', False) or (cfg.get('auto_scale_lr') or {}).get('enable')):
        if ranks is None:
            ranks = int(os.environ.get('SLURM_NTASKS') or os.environ.get('OMPI_COMM_WORLD_SIZE') or 1)
        check_scaled_rate(cfg, ranks)
    # These import torch's serialization, mmengine's runner, and what the config is made of.
    from halvit_mm.io.checkpoints import read_only_data

    check_coco(cfg, loaders)
    check_classes(cfg, loaders)
    check_masks(cfg, loaders)
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
    if cfg.get('default_scope') == 'mmdet' and lack_cuda():
        message = f"mmcv's operators are compiled for the CPU only; expected operators for CUDA: {how_to_get_cuda()}"
        if calls_operators(cfg.get('model')):
            raise UserError(f'{message}. With CUDA_VISIBLE_DEVICES= in front of the command the run is left to the CPU')
        warn(f'{message}. A model that calls none of them, such as DETR, can do without')
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
    check_data(cfg, loaders)
    return loaders


def check_data(cfg: Config, loaders: list[str]) -> None:
    """Raise a :class:`UserError` if a file or a folder of the data loaders with these keys is missing."""
    for loader in loaders:
        for key, dataset in walk_datasets(cfg.get(loader), loader):
            for path in local_files(dataset):
                if not path.exists():
                    raise UserError(
                        f'{loader}: {path} does not exist (looked from {Path.cwd()}); put or link the data there, or '
                        f'name its place with --cfg-options {key}.data_root=...'
                    )


# The most that the batch of a published recipe with Adam has grown beside its rate: ConvNeXt's 4,096 images, rate 4e-3
MOST_SCALED = 4


def check_scaled_rate(cfg: Config, ranks: int) -> None:
    """Warn of a rate that grows with the batch further than Adam's has been seen to train."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    batch, rate = (cfg.get('train_dataloader') or {}).get('batch_size'), optimizer.get('lr')
    factor = ranks * batch / base if batch and rate and base else 0
    if factor <= MOST_SCALED or not type_name(optimizer).startswith(('Adam', 'NAdam', 'RAdam')):
        return
    smaller = base * MOST_SCALED // ranks
    other = f', or train_dataloader.batch_size={smaller}' if smaller else ', or fewer GPUs'
    warn(
        f'--auto-scale-lr: {ranks} x {batch} = {ranks * batch:,} images in a step make {type_name(optimizer)} '
        f"lr={rate * factor:g} of the recipe's {rate:g} for {base:,}; beyond {MOST_SCALED} times the batch Adam's rate "
        f'is advised to grow with the root: --cfg-options optim_wrapper.optimizer.lr={rate * factor**0.5:.2g} without '
        f'--auto-scale-lr{other}'
    )


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
