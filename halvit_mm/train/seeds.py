"""Seeds that follow from the place in a training: sample and epoch, iteration and rank.

mmengine seeds every process once. A resumed training then has other augmentations and dropout masks than one that was
not cut. Here the seed of each sample and of each iteration depends on its place in the training only. No state of a
generator has to be kept, whatever the number of loader workers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler

from .delegate import Delegate
from .loops import ResumableBatchSampler


class SeededIndex(int):
    """The index of a sample in its dataset, with the seed of its augmentation, its epoch and its place in the epoch."""

    seed: int
    place: tuple[int, int]

    @classmethod
    def of(cls, index: int, seed: int, place: tuple[int, int] = (0, 0)) -> 'SeededIndex':
        seeded = cls(index)
        seeded.seed, seeded.place = seed, place
        return seeded


class _Seeds:
    """The seeds of the places in an epoch, made for many places at once: one at a time takes 7 microseconds each."""

    LENGTH = 2**16

    def __init__(self, seed: int, epoch: int) -> None:
        self._of, self._number, self._block = (seed, epoch), None, None

    def __getitem__(self, place: int) -> int:
        number, place = divmod(place, self.LENGTH)
        if number != self._number:
            self._block = np.random.SeedSequence((*self._of, number)).generate_state(self.LENGTH)
            self._number = number
        return int(self._block[place])


class SeededSampler(Delegate, Sampler):
    """A sampler that adds to each index of another sampler the seed of its place in the training.

    Args:
        dataset (Dataset): The dataset.
        sampler (dict): Config of the sampler that chooses the indices.
        sample_seed (int): Seed of the training.
        seed (int, optional): Seed of ``sampler``, for the choice of indices. Defaults to None.
    """

    delegate = 'sampler'

    def __init__(self, dataset: Dataset, sampler: dict, sample_seed: int, seed: int | None = None) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.sample_seed = sample_seed
        self.endless = isinstance(self.sampler, InfiniteSampler)
        self._epoch = 0
        self._begin = 0
        self._rank, self._world_size = get_dist_info()

    def __iter__(self) -> Iterator[SeededIndex]:
        begin, self._begin = self._begin, 0
        if self.endless:
            # It would go on behind what another iterator of it has read.
            self.sampler.indices = self.sampler._indices_of_rank()
        seeds = _Seeds(self.sample_seed, self._epoch)

        def seeded(index: int, i: int) -> SeededIndex:
            # The place of a sample in the common list, and so its seed, is the same for any number of ranks.
            place = i * self._world_size + self._rank
            return SeededIndex.of(index, seeds[place], (self._epoch, place))

        rounds, behind = divmod(begin, self._world_size)
        first = rounds + (self._rank < behind)
        count, first_index = 0, None
        for count, index in enumerate(self.sampler, start=1):
            first_index = index if first_index is None else first_index
            if count > first:
                yield seeded(index, count - 1)
        if self._rank < behind and rounds < count:
            # This rank has one sample fewer than others: as upstream does, the list is filled up from its start.
            yield seeded(first_index, count)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def begin_at(self, place: int) -> None:
        """Begin the next epoch behind the first ``place`` samples of the list that all ranks have in common."""
        self._begin = place


class SeededDataset(Delegate, Dataset):
    """A dataset that augments each sample from the seed of its index, and then restores all generators.

    The meta information ``place`` of ``data_samples`` is the sample's epoch and its place in the epoch.

    Args:
        dataset (dict): Config of the dataset.
    """

    delegate = 'dataset'

    def __init__(self, dataset: dict) -> None:
        self.dataset = DATASETS.build(dataset)

    def __getitem__(self, index: int):
        if not isinstance(index, SeededIndex):
            return self.dataset[index]
        with _seeded(index.seed):
            sample = self.dataset[int(index)]
        data_sample = sample.get('data_samples') if isinstance(sample, dict) else None
        if hasattr(data_sample, 'set_metainfo'):
            data_sample.set_metainfo(dict(place=index.place))
        return sample


def seed_by_place(dataloader: dict, seed: int) -> dict:
    """A copy of a data loader's config in which samples get seeds by place, from the seed of the training."""
    seeded = {
        **dataloader,
        'dataset': dict(type=SeededDataset, dataset=dataloader['dataset']),
        'sampler': dict(type=SeededSampler, sampler=dataloader['sampler'], sample_seed=seed),
    }
    if dataloader.get('batch_sampler') is not None:
        seeded['batch_sampler'] = dict(type=ResumableBatchSampler, batch_sampler=dataloader['batch_sampler'])
    return seeded


def seed_of(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1)[0])


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def _seeded(seed: int):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
