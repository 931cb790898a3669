"""A config becomes a run: what the tools for training and testing share."""

import argparse
import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import distributed as dist
from torch.utils.data import DataLoader

from halvit_mm.errors import RankError, UserError, told_in_one_line
from halvit_mm.registry import RUNNERS

from .bad_images import BadImageHook, CheckedDataset, LabelHook
from .checkpoint import WholeCheckpointHook, check_writable, find_latest_checkpoint, read_seed, written_whole
from .coco_check import check_coco, coco_datasets
from .finite import FiniteStepHook, check_finite
from .launch import init_cpu_ranks
from .loading import read_only_data
from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .reproduce import IterationSeedHook, seed_by_place
from .watch import HangHook

_RESUMABLE_LOOPS = dict(EpochBasedTrainLoop=ResumableEpochTrainLoop, IterBasedTrainLoop=ResumableIterTrainLoop)


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's runner, on CPU ranks too, and with runs that can be cut anywhere and resumed.

    It differs in these points:

    - without an accelerator the ranks talk over gloo;
    - a checkpoint appears under its name only when it is whole and its weights are finite, none is deleted before, and
      resuming takes the last whole one, in the middle of an epoch too;
    - augmentations, dropout and their like depend on the seed, the epoch, the sample's place and the iteration
      alone (see :mod:`halvit_mm.engine.reproduce`), so that a resumed run repeats the one that was not cut;
    - what :func:`reliability` reads in the config: steps that are not finite, images that cannot be read, ranks that
      hang.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'ResumableRunner':
        init_cpu_ranks(cfg)
        if cfg.get('launcher', 'none') != 'none' and not dist.is_initialized():
            # As mmengine does later: what to resume from is the first rank's to say.
            init_dist(cfg.launcher, **cfg.get('env_cfg', {}).get('dist_cfg', {}))
        options = reliability(cfg)
        if cfg.get('train_dataloader'):
            cfg.train_dataloader['bad_images'] = options['bad_images']
        _from_the_first_rank(check_writable, cfg.work_dir)
        if cfg.get('resume'):
            cfg.load_from, seed = _from_the_first_rank(_find_resumed, cfg)
            if cfg.load_from is None:
                print_log(f'No whole checkpoint in {cfg.work_dir}: training starts from the beginning.')
                cfg.resume = False
            elif '://' not in cfg.load_from and not Path(cfg.load_from).is_file():
                raise RankError(
                    f'checkpoint {cfg.load_from} does not exist on this machine; machines share the work_dir'
                )
            elif cfg.setdefault('randomness', {}).get('seed') is None:
                # The samplers are built before the checkpoint is read.
                cfg.randomness['seed'] = seed
        return super().from_cfg(cfg)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False):
        if not isinstance(dataloader, DataLoader) and seed is not None:
            dataloader = dict(dataloader)
            bad_images = dataloader.pop('bad_images', 'stop')
            dataloader['dataset'] = dict(type=CheckedDataset, dataset=dataloader['dataset'], bad_images=bad_images)
            dataloader = seed_by_place(dataloader, seed)
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_train_loop(self, loop: dict):
        if isinstance(loop, dict):
            loop = dict(loop)
            name = loop.get('type') or ('EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop')
            loop['type'] = _RESUMABLE_LOOPS.get(str(name).rpartition('.')[2], name)
        return super().build_train_loop(loop)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        hooks = dict(hooks or {})
        checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and str(checkpoint['type']).rpartition('.')[2] == 'CheckpointHook':
            hooks['checkpoint'] = {**checkpoint, 'type': WholeCheckpointHook}
        super().register_default_hooks(hooks)

    def register_hooks(self, default_hooks=None, custom_hooks=None) -> None:
        super().register_hooks(default_hooks, custom_hooks)
        options = reliability(self.cfg)
        self.register_hook(IterationSeedHook())
        self.register_hook(LabelHook())
        self.register_hook(FiniteStepHook(options['not_finite']))
        if options['bad_images'] == 'skip':
            self.register_hook(BadImageHook())
        if options['hang_limit'] is not None:
            self.register_hook(HangHook(options['hang_limit']))

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        check_finite(self.model)
        if not isinstance(get_file_backend(out_dir, backend_args=kwargs.get('backend_args')), LocalBackend):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            with written_whole(os.path.join(out_dir, filename)) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)


def reliability(cfg: Config) -> dict:
    """Read what a config says about faults, in the dict ``reliability``.

    Args:
        cfg (Config): The config. ``reliability`` may hold

            - ``not_finite``: ``'stop'`` or ``'skip'``, for a step whose loss or gradients are not finite
              (:class:`~halvit_mm.engine.finite.FiniteStepHook`);
            - ``bad_images``: ``'stop'`` or ``'skip'``, for images that cannot be read, in training
              (:class:`~halvit_mm.engine.bad_images.CheckedDataset`); elsewhere they always stop the run;
            - ``hang_limit``: the longest that an iteration may take, in seconds
              (:class:`~halvit_mm.engine.watch.HangHook`), or None.

    Returns:
        dict: All three; the defaults are ``'stop'``, ``'stop'`` and None.

    Raises:
        UserError: If there is another key, or a value that is none of these.
    """
    given = cfg.get('reliability') or {}
    options = {**dict(not_finite='stop', bad_images='stop', hang_limit=None), **given}
    if unknown := given.keys() - {'not_finite', 'bad_images', 'hang_limit'}:
        raise UserError(f'reliability.{min(unknown)} is unknown; there are not_finite, bad_images and hang_limit')
    for key in ('not_finite', 'bad_images'):
        if options[key] not in ('stop', 'skip'):
            raise UserError(f"reliability.{key}={options[key]!r} is unknown; choose 'stop' or 'skip'")
    limit = options['hang_limit']
    if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
        raise UserError(f'reliability.hang_limit={limit!r} is no number of seconds above 0')
    return options


def _from_the_first_rank(function: Callable, *args):
    """Call a function on the first rank, and return on every rank what it returned or raise what it raised."""
    answer = [None, None]
    if is_main_process():
        try:
            answer[0] = function(*args)
        except UserError as error:
            answer[1] = error
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def _find_resumed(cfg: Config) -> tuple[str | None, int | None]:
    """The checkpoint to resume from, and its training's seed."""
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    return path, None if path is None or '://' in path else read_seed(path)


def run_host_tool(tool: str, argv: list[str] | None = None) -> None:
    """Run a config with the host's own tool, its command line and :class:`ResumableRunner`.

    The host is the config's ``default_scope``; its tool is the file that its package carries for mim.

    Args:
        tool (str): ``'train'`` or ``'test'``.
        argv (list[str], optional): Arguments of the tool. Defaults to those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    with told_in_one_line():
        args = parse_tool_args(tool, argv)
        read_only_data(trust=args.trust_checkpoint)
        cfg = load_config(args.config, args.cfg_options)
        check_run(cfg, tool, args)
        module = _load_host_tool(cfg.get('default_scope', 'mmpretrain'), tool)
        module.Runner = ResumableRunner
        sys.argv[1:] = [word for word in argv if word != '--trust-checkpoint']
        module.main()
    if dist.is_initialized():
        # A thread of gloo's that is still busy as the interpreter ends aborts a rank that has done its work. The group
        # joins its threads, but not before the runner is gone, whose model holds it.
        gc.collect()
        dist.destroy_process_group()


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
        _load_host_tool('mmpretrain', tool).parse_args()
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


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and merge options from the command line into it.

    Args:
        path (str): The file, or ``package::path`` for one that an installed package carries.
        options (dict, optional): Values by dotted key. Defaults to None.

    Returns:
        Config: The config.

    Raises:
        UserError: If there is no such file, or if it or one of its bases cannot be read.
    """
    packaged = '::' in path
    if not packaged and not Path(path).is_file():
        raise UserError(f'config {path} does not exist')
    try:
        cfg = Config.fromstring(f'_base_ = {path!r}', '.py') if packaged else Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    cfg.merge_from_dict(options or {})
    return cfg


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
        for path in local_data(cfg.get(loader) or {}):
            if not path.exists():
                raise UserError(
                    f'{loader}: {path} does not exist (looked from {Path.cwd()}); put or link the data there, or name '
                    f'its place with --cfg-options {loader}.dataset.data_root=...'
                )
        if 'RANK' not in os.environ:  # once for all ranks, by what starts them
            for dataset in coco_datasets(cfg.get(loader)):
                check_coco(loader, dataset)


def local_data(cfg: dict) -> Iterator[Path]:
    """Files and folders that the datasets in a config read, as far as they are local.

    Args:
        cfg (dict): Config of a data loader or a dataset, or a list of such.

    Yields:
        Path: Each of them, whether it is there or not.
    """
    if isinstance(cfg, (list, tuple)):
        for item in cfg:
            yield from local_data(item)
    elif isinstance(cfg, dict):
        root = cfg.get('data_root')
        if root and '://' not in root:
            yield Path(root)
            prefix = cfg.get('data_prefix') or cfg.get('split') or ''
            parts = [*prefix.values()] if isinstance(prefix, dict) else [prefix]
            yield from (Path(root, part) for part in (*parts, cfg.get('ann_file') or '') if isinstance(part, str))
        for key in ('dataset', 'datasets'):
            yield from local_data(cfg.get(key) or ())


def _load_host_tool(host: str, tool: str) -> ModuleType:
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
