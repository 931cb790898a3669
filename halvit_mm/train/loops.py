"""Training loops that resume in the middle of an epoch, without reading the data before.

Upstream's samplers deal the samples of a list that all ranks have in common to the ranks in turn. The samples that a
run has trained on are the first part of that list, whatever the number of ranks and the size of a batch. A *place* is
the length of that part. Each checkpoint keeps its place, and a resumed run continues there.
"""

import logging
from itertools import islice

from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader, Sampler

from halvit_mm.errors import UserError
from halvit_mm.registry import LOOPS

from .delegate import Delegate


class ResumableBatchSampler(Delegate, Sampler):
    """A batch sampler of upstream that can begin in the middle of an epoch.

    Args:
        sampler (Sampler): Chooses the samples.
        batch_size (int): Samples in a batch.
        batch_sampler (dict): Config of upstream's batch sampler.
    """

    delegate = 'batch_sampler'

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: dict) -> None:
        self.batch_sampler = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )
        self.batch_size = batch_size
        self._begin = 0

    def __iter__(self):
        begin, self._begin = self._begin, 0
        return islice(self.batch_sampler, begin, None)

    def begin_at(self, batches: int) -> None:
        self._begin = batches


class _Place:
    """The place of a training in the data of a loader from :func:`halvit_mm.train.seeds.seed_by_place`.

    Attributes:
        epoch (int): Completed passes over the data.
        samples (int): Samples of the common list before the first one of this run in this epoch.
        batches (int): Batches of each rank since then.
    """

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataloader = dataloader
        self.regroups = isinstance(dataloader.batch_sampler, ResumableBatchSampler)
        self.sampler = dataloader.batch_sampler.sampler if self.regroups else dataloader.sampler
        # A data loader that was not built from a config may have batches of any size.
        self.batch_size = getattr(dataloader.batch_sampler, 'batch_size', None) or 1
        self.total_batch = self.batch_size * get_world_size()
        self.enter(0)

    def enter(self, epoch: int, samples: int = 0) -> None:
        self.epoch, self.samples, self.batches = epoch, samples, 0

    def state(self) -> dict[str, int]:
        """The dict that a checkpoint keeps."""
        return dict(
            epoch=self.epoch,
            samples=self.samples + self.batches * self.total_batch,
            total_batch=self.total_batch,
            images=len(self.dataloader.dataset),
            batches=len(self.dataloader),
        )

    def resume(self, state: dict[str, int]) -> None:
        """Go to the place of a checkpoint, or to the epoch's beginning if the list has changed."""
        now, samples = self.state(), state['samples']
        words = dict(images='the images', total_batch='the images of a step', batches='the steps of an epoch')
        changed = [f'{words[key]} were {state[key]} and are {now[key]}' for key in words if state[key] != now[key]]
        if samples and (state['images'] != now['images'] or (self.regroups and changed)):
            samples = 0
        if changed:
            begins = f'goes on behind image {samples}' if samples else 'begins'
            message = f'Resumed: {", ".join(changed)}; epoch {state["epoch"] + 1} {begins}'
            print_log(message, logger='current', level=logging.WARNING)
        self.enter(state['epoch'], samples)

    def begin(self) -> int:
        """Let the next pass over the data loader begin here; return the number of batches before."""
        if not self.samples:
            return 0
        if self.regroups:
            batches = self.samples // self.total_batch
            self.dataloader.batch_sampler.begin_at(batches)
            return batches
        self.sampler.begin_at(self.samples)
        left = max(0, len(self.sampler) - self.samples // get_world_size())
        batches = left // self.batch_size if self.dataloader.drop_last else -(-left // self.batch_size)
        return len(self.dataloader) - batches


@LOOPS.register_module()
class ResumableEpochTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which also resumes from a checkpoint of the middle of an epoch.

    ``CheckpointHook(by_epoch=False)`` writes such checkpoints.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not len(self.dataloader):
            images, batch = len(self.dataloader.dataset), getattr(self.dataloader.batch_sampler, 'batch_size', None)
            raise UserError(
                f'train_dataloader has {images} images and no batch of batch_size={batch} on {get_world_size()} ranks; '
                'expected more images, a smaller batch, or drop_last=False'
            )
        self._place = _Place(self.dataloader)

    def place(self, by_epoch: bool) -> dict[str, int]:
        """The place in the data for a checkpoint, which is that of an epoch's end if ``by_epoch``.

        Returns:
            dict[str, int]: ``epoch``, ``samples``, ``total_batch``, ``images`` and ``batches`` of an epoch.
        """
        state = self._place.state()
        return {**state, 'epoch': self._epoch + 1, 'samples': 0} if by_epoch else state

    def resume(self, place: dict[str, int] | None) -> bool:
        """Continue at the place of a checkpoint, after the runner has set epoch and iteration.

        Args:
            place (dict[str, int], optional): From :meth:`place`; None if the checkpoint has none.

        Returns:
            bool: Whether the number of iterations of an epoch has changed.
        """
        if place is None:
            # mmengine's checkpoints hold the length of an epoch only.
            info, now = self.runner.message_hub.runtime_info, self._place.state()
            length = info.get('max_iters', 0) // info.get('max_epochs', 1) or now['batches']
            batches = self._iter - self._epoch * length if length == now['batches'] else 0
            place = {**now, 'epoch': self._epoch, 'samples': batches * now['total_batch'], 'batches': length}
        self._place.resume(place)
        left_out = self._place.begin()
        # The iterations before may have had batches of another size.
        self._max_iters = self._iter + (self._max_epochs - self._epoch) * len(self.dataloader) - left_out
        return len(self.dataloader) != place['batches']

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in enumerate(self.dataloader, start=self._place.begin()):
            self._place.batches += 1
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self._place.enter(self._epoch)


class _ResumableIterator(_InfiniteDataloaderIterator):
    def __init__(self, dataloader: DataLoader) -> None:
        # mmengine 0.10.7 would start the loader's workers here.
        self._dataloader, self._iterator, self._epoch = dataloader, None, 0
        self.place = _Place(dataloader)
        self._passed_over = 0

    def __next__(self):
        if self._passed_over:
            self._passed_over -= 1
            if not self._passed_over:
                self.skip_iter(0)
            return None
        if self._iterator is None:
            self._iterator = iter(self._dataloader)
        batch = super().__next__()
        if self._epoch != self.place.epoch:
            self.place.enter(self._epoch)
        self.place.batches += 1
        return batch

    def skip_iter(self, num_iters: int) -> None:
        self._epoch = self.place.epoch
        self.place.sampler.set_epoch(self._epoch)
        self.place.begin()
        self._iterator = None

    def resume(self, num_iters: int) -> None:
        """Begin at the place, where mmengine 0.10.7 would ask for all batches of before."""
        if not hasattr(_InfiniteDataloaderIterator, 'skip_iter'):
            self._passed_over = num_iters


@LOOPS.register_module()
class ResumableIterTrainLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, which resumes behind the samples trained on with samplers of epochs too."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader_iterator = _ResumableIterator(self.dataloader)

    def place(self, by_epoch: bool) -> dict[str, int]:
        """As :meth:`ResumableEpochTrainLoop.place`."""
        return self.dataloader_iterator.place.state()

    def resume(self, place: dict[str, int] | None) -> bool:
        """As :meth:`ResumableEpochTrainLoop.resume`; returns False, since schedules count iterations here."""
        here = self.dataloader_iterator.place
        if getattr(self, 'fast_forward_on_resume', False):
            return False
        if place is None:
            epoch, batches = (0, self._iter) if here.sampler.endless else divmod(self._iter, len(self.dataloader))
            place = {**here.state(), 'epoch': epoch, 'samples': batches * here.total_batch}
        here.resume(place)
        self.dataloader_iterator.resume(self._iter)
        return False
