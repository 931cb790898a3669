"""mmengine's runner, with runs that resume where they were cut."""

import os
from pathlib import Path

from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from halvit_mm.errors import RankError
from halvit_mm.io.checkpoints import (
    check_writable,
    find_latest_checkpoint,
    read_only_data_by_default,
    read_seed,
    written_whole,
)
from halvit_mm.io.configs import reliability
from halvit_mm.io.datasets import type_name
from halvit_mm.io.weights import Comparison, reading_file, require_filled
from halvit_mm.registry import RUNNERS

from .hooks import bad_images_action, default_hooks
from .hooks.bad_images import CheckedDataset
from .hooks.finite import check_finite
from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .ranks import from_the_first_rank, join_ranks, wrapper_for_cpu
from .schedules import Beginning, early_end, hyperparameters, ignored
from .seeds import seed_by_place

_RESUMABLE_LOOPS = dict(EpochBasedTrainLoop=ResumableEpochTrainLoop, IterBasedTrainLoop=ResumableIterTrainLoop)


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's runner, on CPU ranks too, and with runs that can be cut anywhere and resumed.

    A config selects it by ``runner_type='halvit_mm.ResumableRunner'``, under upstream's tools too. It takes mmengine's
    arguments, by keyword, and differs in these points:

    - ranks without an accelerator communicate over gloo, and have batch norms of their own instead of ``SyncBN``;
      with one GPU in sight of each, each takes that one;
    - loaders pin the memory of their batches where there is a GPU, unless the config says ``pin_memory``;
    - checkpoints are read as data, and refused if they carry code;
    - a checkpoint gets its name once it is whole and its weights are finite, and none is deleted before that;
    - a run resumes from the last whole checkpoint, in the middle of an epoch too, on any number of ranks;
    - augmentations, dropout and other randomness depend only on the seed, the epoch, the sample's place and the
      iteration (see :mod:`halvit_mm.train.seeds`), so that a resumed run repeats one that was not cut;
    - it has the hooks of :func:`halvit_mm.train.hooks.default_hooks`, which the config's ``default_hooks`` may replace
      or, with None, remove.

    The config is written into the work directory as it was given.
    """

    def __init__(self, model: nn.Module | dict, work_dir: str, **options) -> None:
        read_only_data_by_default()
        if (options.get('randomness') or {}).get('deterministic'):
            # Without it torch refuses each product on a GPU in this mode. It is read at the first product.
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        join_ranks(options.get('launcher', 'none'), (options.get('env_cfg') or {}).get('dist_cfg', {}))
        from_the_first_rank(check_writable, work_dir)
        if options.get('resume'):
            options = {**options, **self._resumed(work_dir, **options)}
        super().__init__(model, work_dir, **options)

    @staticmethod
    def _resumed(work_dir: str, load_from: str | None = None, randomness: dict | None = None, **_) -> dict:
        """The options of a resumed run: its checkpoint and its seed."""
        load_from, seed = from_the_first_rank(_find_resumed, load_from, work_dir)
        if load_from is None:
            print_log(f'No whole checkpoint in {work_dir}: training starts from the beginning.')
            return dict(resume=False, load_from=None)
        if '://' not in load_from and not Path(load_from).is_file():
            raise RankError(f'checkpoint {load_from} does not exist on this machine; machines share the work_dir')
        randomness = dict(randomness or {})
        if randomness.get('seed') is None:
            # The samplers are built before the checkpoint is read.
            randomness['seed'] = seed
        return dict(load_from=load_from, randomness=randomness)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and get_device() == 'cpu':
            # torch's batch norms of all ranks need GPUs.
            model = revert_sync_batchnorm(model)
            model_wrapper_cfg = wrapper_for_cpu(model_wrapper_cfg, self.cfg.get('find_unused_parameters', False))
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False):
        if not isinstance(dataloader, DataLoader):
            # As mmpretrain's tool sets it, and mmdet's does not
            dataloader = {'pin_memory': get_device() == 'cuda', **dataloader}
            if seed is not None:
                dataloader = seed_by_place(checked(dataloader), seed)
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_train_loop(self, loop: dict):
        if isinstance(loop, dict):
            loop = dict(loop)
            name = type_name(loop) if 'type' in loop else None
            name = name or ('EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop')
            loop['type'] = _RESUMABLE_LOOPS.get(name, loop.get('type'))
        if not isinstance(self._train_dataloader, DataLoader):
            self._train_dataloader = checked(self._train_dataloader, self._bad_images)
        return super().build_train_loop(loop)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        hooks = default_hooks(hooks or {}, reliability(self.cfg))
        self._bad_images = bad_images_action(hooks)
        super().register_default_hooks(hooks)

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        with reading_file():
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        # A training may start from the weights of a part, or of other classes.
        if self._resume or not isinstance(self._train_loop, BaseLoop):
            model = self.model.module if is_model_wrapper(self.model) else self.model
            require_filled(model, checkpoint.get('state_dict', checkpoint), filename)
        return checkpoint

    def call_hook(self, fn_name: str, **kwargs) -> None:
        if fn_name == 'after_load_checkpoint' and isinstance(self._train_loop, BaseLoop) and not self._resume:
            _drop_reshaped_averages(self.model, kwargs['checkpoint'])
        super().call_hook(fn_name, **kwargs)

    def load_or_resume(self) -> None:
        super().load_or_resume()
        loop = self._train_loop
        if isinstance(self.param_schedulers, list) and hasattr(loop, 'max_epochs') and hasattr(loop, 'max_iters'):
            self._warn(early_end(self.param_schedulers, loop.max_epochs, loop.max_iters))

    def _warn(self, message: str | None) -> None:
        if message:
            self.logger.warning(message)

    def resume(self, *args, **kwargs) -> None:
        given = hyperparameters(self.optim_wrapper)
        schedules = self.param_schedulers if isinstance(self.param_schedulers, list) else []
        beginning = Beginning(schedules, self.cfg.get('param_scheduler'))
        super().resume(*args, **kwargs)
        self._warn(ignored(given, hyperparameters(self.optim_wrapper)))
        loop = self.train_loop
        if hasattr(loop, 'resume') and loop.resume(self.message_hub.runtime_info.get('place')):
            length = len(self.train_dataloader)
            beginning.replay(self.epoch, loop.max_epochs * length - (loop.max_iters - loop.iter), length)

    def save_checkpoint(self, out_dir: str, filename: str, *args, by_epoch: bool = True, **kwargs) -> None:
        check_finite(self.model)
        if hasattr(self.train_loop, 'place'):
            self.message_hub.update_info('place', self.train_loop.place(by_epoch))
        kwargs['by_epoch'] = by_epoch
        if not isinstance(get_file_backend(out_dir, backend_args=kwargs.get('backend_args')), LocalBackend):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
        elif is_main_process():
            with written_whole(os.path.join(out_dir, filename)) as part:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)


def checked(dataloader: dict, bad_images: str = 'stop') -> dict:
    """Config of a data loader whose images are checked before they are decoded."""
    if dataloader['dataset'].get('type') is CheckedDataset:
        return dataloader
    return {**dataloader, 'dataset': dict(type=CheckedDataset, dataset=dataloader['dataset'], bad_images=bad_images)}


def _drop_reshaped_averages(model: nn.Module, checkpoint: dict) -> None:
    """Leave weights of another shape out of the averages, as mmengine leaves them out of the model.

    mmpretrain's ``EMAHook`` would end a fine-tuning on another number of classes.
    """
    averages = checkpoint.get('ema_state_dict') or {}
    model = model.module if is_model_wrapper(model) else model
    given = {name.removeprefix('module.'): value for name, value in averages.items() if name.startswith('module.')}
    for name in Comparison(model.state_dict(), given).reshaped:
        del averages[f'module.{name}']


def _find_resumed(load_from: str | None, work_dir: str) -> tuple[str | None, int | None]:
    """The checkpoint to resume from, and its training's seed."""
    path = load_from or find_latest_checkpoint(work_dir)
    return path, None if path is None or '://' in path else read_seed(path)
