"""Randomness as a function of place: which sample of which epoch, which iteration on which rank.

mmengine seeds every process once and lets the generators run. A training that was cut and resumed then goes
on with other augmentations and other dropout masks than the one that was never cut. Here each sample is
augmented, and each iteration is run, from a seed that depends on nothing but its place in the training, so
that no state of a generator has to be kept, whatever the number of loader workers.
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
    """The index of a sample in its dataset, with the seed from which it is to be augmented this time."""

    seed: int

    @classmethod
    def of(cls, index: int, seed: int) -> 'SeededIndex':
        seeded = cls(index)
        seeded.seed = seed
        return seeded


class SeededSampler(Delegate, Sampler):
    """A sampler that gives each index of another sampler the seed of its place in the training.

    Args:
        dataset (Dataset): The dataset.
        sampler (dict): Config of the sampler that chooses the indices.
        sample_seed (int): Seed of the training.
        seed (int, optional): Seed for the choice of indices, handed on to ``sampler``. Defaults to None.
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
        seed = lambda i: seed_of(self.sample_seed, self._epoch, i * self._world_size + self._rank)  # noqa: E731
        # The list that all ranks have in common is dealt out to them in turn: with the place in that list a sample's
        # seed is the same for any number of ranks.
        rounds, behind = divmod(begin, self._world_size)
        first = rounds + (self._rank < behind)
        count, own = 0, None
        for count, index in enumerate(self.sampler, start=1):
            own = index if own is None else own
            if count > first:
                yield SeededIndex.of(index, seed(count - 1))
        if self._rank < behind and rounds < count:
            # One fewer is left for this rank than for others: as upstream does, the list is filled up from its start.
            yield SeededIndex.of(own, seed(count))

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def begin_at(self, place: int) -> None:
        """Leave out the first samples of the next epoch.

        Args:
            place (int): How many, of the list that all ranks have in common.
        """
        self._begin = place


class SeededDataset(Delegate, Dataset):
    """A dataset that augments each sample from the seed that comes with its index.

    The generators of Python, NumPy and torch are given back as they were found.

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
            return self.dataset[int(index)]


def seed_by_place(dataloader: dict, seed: int) -> dict:
    """Config of a data loader whose samples are augmented from the seed of their place in the training.

    Args:
        dataloader (dict): Config of a data loader; it is left as it is.
        seed (int): Seed of the training.

    Returns:
        dict: The new config.
    """
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
