"""mmengine's runner, made to keep what it has."""

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import distributed as dist
from torch.utils.data import DataLoader

from halvit_mm.errors import RankError, UserError
from halvit_mm.io.checkpoints import check_writable, find_latest_checkpoint, read_seed, written_whole
from halvit_mm.io.configs import reliability
from halvit_mm.registry import RUNNERS
from halvit_mm.train.hooks.bad_images import BadImageHook, CheckedDataset, LabelHook
from halvit_mm.train.hooks.checkpoint import WholeCheckpointHook
from halvit_mm.train.hooks.finite import FiniteStepHook, check_finite
from halvit_mm.train.hooks.hang import HangHook
from halvit_mm.train.hooks.history import LogHistoryHook

from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .ranks import init_cpu_ranks
from .seeds import IterationSeedHook, seed_by_place

_RESUMABLE_LOOPS = dict(EpochBasedTrainLoop=ResumableEpochTrainLoop, IterBasedTrainLoop=ResumableIterTrainLoop)


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's runner, on CPU ranks too, and with runs that can be cut anywhere and resumed.

    It differs in these points:

    - without an accelerator the ranks talk over gloo;
    - a checkpoint appears under its name only when it is whole and its weights are finite, none is deleted before, and
      resuming takes the last whole one, in the middle of an epoch too;
    - augmentations, dropout and their like depend on the seed, the epoch, the sample's place and the iteration
      alone (see :mod:`halvit_mm.train.seeds`), so that a resumed run repeats the one that was not cut;
    - of the log's values only as many are kept as the log looks back at;
    - what :func:`~halvit_mm.io.configs.reliability` reads: steps that are not finite, images that cannot be
      read, ranks that hang.
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
        self.register_hook(LogHistoryHook())
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
