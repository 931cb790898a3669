"""Refuse a run that cannot succeed before a rank is started or a host is imported."""

import argparse
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from mmengine.config import Config, DictAction
from mmengine.device import get_device

from halvit_mm.errors import UserError
from halvit_mm.io.configs import reliability
from halvit_mm.io.datasets import local_files, type_name, walk_datasets

from .coco_check import check_coco


def parse_tool_args(tool: str, argv: list[str]) -> argparse.Namespace:
    """Parse those arguments of the hosts' tools that can be checked before anything is started.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        argv (list[str]): All arguments of the tool; the others are left to the host.

    Returns:
        argparse.Namespace: ``config``, ``checkpoint``, ``cfg_options``, ``amp``, ``auto_scale_lr``,
            ``no_validate``, ``resume``, and ``trust_checkpoint``, which the hosts do not know.
    """
    if {'-h', '--help'} & set(argv):
        load_host_tool('mmpretrain', tool).parse_args()
    parser = argparse.ArgumentParser(prog=f'{tool}.py', add_help=False, allow_abbrev=False)
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?' if tool == 'train' else None)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--auto-scale-lr', action='store_true')
    parser.add_argument('--no-validate', action='store_true')
    parser.add_argument('--resume', nargs='?', const='auto')
    parser.add_argument('--trust-checkpoint', action='store_true')
    return parser.parse_known_args(argv)[0]


def check_run(cfg: Config, tool: str, args: argparse.Namespace) -> None:
    """Refuse a run that cannot succeed on this machine, before any of it is built.

    Args:
        cfg (Config): The config, with the options of the command line merged.
        tool (str): ``'train'`` or ``'test'``.
        args (argparse.Namespace): From :func:`parse_tool_args`.

    Raises:
        UserError: If data or a checkpoint is missing, or if an argument does not fit the config or the machine.
    """
    reliability(cfg)
    checkpoint = args.checkpoint if tool == 'test' else args.resume if args.resume != 'auto' else None
    if checkpoint and '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} does not exist')
    amp = args.amp or cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper'
    if tool == 'train' and amp and get_device() == 'cpu':
        raise UserError('mixed precision (--amp, AmpOptimWrapper) needs a GPU, and this machine shows none')
    if args.auto_scale_lr and 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(f'--auto-scale-lr: {cfg.filename} has no auto_scale_lr.base_batch_size to scale from')
    loaders = ['test_dataloader'] if tool == 'test' else ['train_dataloader', 'val_dataloader']
    if args.no_validate:
        loaders.remove('val_dataloader')
    for loader in loaders:
        for key, dataset in walk_datasets(cfg.get(loader), loader):
            for path in local_files(dataset):
                if not path.exists():
                    raise UserError(
                        f'{loader}: {path} does not exist (looked from {Path.cwd()}); put or link the data there, or '
                        f'name its place with --cfg-options {key}.data_root=...'
                    )
            # once for all ranks, by what starts them
            if 'RANK' not in os.environ and type_name(dataset) == 'CocoDataset':
                check_coco(loader, dataset)


def load_host_tool(host: str, tool: str) -> ModuleType:
    """Import the file that a host's package carries for mim.

    Args:
        host (str): ``'mmpretrain'`` or ``'mmdet'``.
        tool (str): ``'train'`` or ``'test'``.

    Returns:
        ModuleType: The tool.

    Raises:
        UserError: If there is no such package, or if it carries no such tool.
    """
    package = importlib.util.find_spec(host)
    if package is None:
        raise UserError(f'default_scope={host!r}: there is no such package; see python -m halvit_mm.check_env')
    path = Path(package.origin).parent / '.mim' / 'tools' / f'{tool}.py'
    if not path.is_file():
        raise UserError(f'{host} carries no {path.name} under {path.parent}; install it as a wheel or with mim')
    spec = importlib.util.spec_from_file_location(f'{host}_{tool}_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
