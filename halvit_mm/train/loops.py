"""Training loops that go on in the middle of an epoch, without reading the data that came before."""

from itertools import islice

from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader, Sampler

from halvit_mm.registry import LOOPS

from .delegate import Delegate


class ResumableBatchSampler(Delegate, Sampler):
    """A batch sampler of the hosts, which can begin in the middle of an epoch.

    Args:
        sampler (Sampler): Chooses the samples.
        batch_size (int): Samples in a batch.
        batch_sampler (dict): Config of the batch sampler.
    """

    delegate = 'batch_sampler'

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: dict) -> None:
        self.batch_sampler = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )
        self._begin = 0

    def __iter__(self):
        begin, self._begin = self._begin, 0
        return islice(self.batch_sampler, begin, None)

    def begin_at(self, batches: int) -> None:
        self._begin = batches


def begin_at(dataloader: DataLoader, batches: int) -> None:
    """Let the next epoch of a data loader begin with a later batch; those before are not read.

    Args:
        dataloader (DataLoader): From a config of :func:`halvit_mm.train.seeds.seed_by_place`.
        batches (int): How many batches are left out.
    """
    if isinstance(dataloader.batch_sampler, ResumableBatchSampler):
        dataloader.batch_sampler.begin_at(batches)
    else:
        dataloader.sampler.begin_at(batches * dataloader.batch_size)


@LOOPS.register_module()
class ResumableEpochTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which resumes in the middle of an epoch too.

    A checkpoint that ``CheckpointHook(by_epoch=False)`` writes between two ends of epochs is one.
    """

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        if done > 0:
            begin_at(self.dataloader, done)
        for idx, data_batch in enumerate(self.dataloader, start=max(done, 0)):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class _ResumableIterator(_InfiniteDataloaderIterator):
    def skip_iter(self, num_iters: int) -> None:
        if hasattr(self._dataloader.sampler, 'skip'):
            super().skip_iter(num_iters)
            return
        self._epoch, batches = divmod(num_iters, len(self._dataloader))
        self._dataloader.sampler.set_epoch(self._epoch)
        begin_at(self._dataloader, batches)
        self._iterator = None


@LOOPS.register_module()
class ResumableIterTrainLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, which leaves out what was trained on already with samplers of epochs too."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = _ResumableIterator(self.dataloader)
