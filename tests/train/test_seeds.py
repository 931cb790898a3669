import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from halvit_mm.train.loops import begin_at
from halvit_mm.train.seeds import SeededDataset, SeededIndex, SeededSampler, seed_by_place


@DATASETS.register_module()
class NoisyNumbers(Dataset):
    """Item i is i and a random number from each generator."""

    metainfo = dict(classes=('number',))

    def __len__(self):
        return 12

    def get_data_info(self, index):
        return dict(width=2 + index % 2, height=2 + index // 6)

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()


@DATA_SAMPLERS.register_module()
class TwiceSampler:
    """Every sample twice, as in repeated augmentation."""

    def __init__(self, dataset, seed=None):
        self.dataset = dataset

    def __iter__(self):
        return iter([i for i in range(len(self.dataset)) for _ in range(2)])

    def __len__(self):
        return 2 * len(self.dataset)


def loader(sampler='DefaultSampler', num_workers=0, seed=3):
    cfg = dict(
        batch_size=4,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        dataset=dict(type='NoisyNumbers'),
        sampler=dict(type=sampler),
    )
    return Runner.build_dataloader(seed_by_place(cfg, seed), seed)


def epoch_of(data_loader, epoch: int) -> list:
    data_loader.sampler.set_epoch(epoch)
    return [sample for batch in data_loader for sample in zip(*batch)]


def test_a_sample_depends_on_its_place_only():
    reference = loader()
    first, second = epoch_of(reference, 0), epoch_of(reference, 1)
    assert len({sample[1:] for sample in first + second}) == 24
    for num_workers in (0, 1, 2):
        assert epoch_of(loader(num_workers=num_workers), 1) == second
    assert epoch_of(loader(seed=4), 0) != first


def test_repeats_of_a_sample_differ():
    samples = epoch_of(loader('TwiceSampler'), 0)
    assert len(samples) == len({sample[1:] for sample in samples}) == 24


def test_generators_are_left_alone():
    dataset = SeededDataset(dict(type='NoisyNumbers'))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert dataset[SeededIndex.of(5, seed=1)] == dataset[SeededIndex.of(5, seed=1)]
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_plain_index_is_handed_on():
    dataset = SeededDataset(dict(type='NoisyNumbers'))
    assert dataset[5][0] == 5
    assert dataset[5] != dataset[5]


def test_wrappers_show_what_they_wrap():
    dataset = SeededDataset(dict(type='NoisyNumbers'))
    assert dataset.metainfo == NoisyNumbers.metainfo
    with pytest.raises(AttributeError, match='get_cat_ids'):
        dataset.get_cat_ids(0)
    assert pickle.loads(pickle.dumps(dataset)).metainfo == NoisyNumbers.metainfo
    index = pickle.loads(pickle.dumps(SeededIndex.of(5, seed=9)))
    assert (index, index.seed) == (5, 9)
    sampler = SeededSampler(dataset, dict(type='DefaultSampler', shuffle=True), sample_seed=0, seed=1)
    assert sampler.dataset is dataset
    assert len(sampler) == 12


def test_skipping_keeps_the_places_of_what_follows():
    def sampler():
        return SeededSampler(NoisyNumbers(), dict(type=InfiniteSampler, shuffle=True), sample_seed=0, seed=1)

    iterator = iter(sampler())
    expected = [next(iterator) for _ in range(20)][8:]
    skipped = sampler()
    skipped.skip(8)
    iterator = iter(skipped)
    found = [next(iterator) for _ in range(12)]
    assert [(i, i.seed) for i in found] == [(i, i.seed) for i in expected]
    assert not hasattr(SeededSampler(NoisyNumbers(), dict(type='DefaultSampler'), sample_seed=0, seed=1), 'skip')


@pytest.mark.parametrize('batch_sampler', [None, dict(type='mmdet.AspectRatioBatchSampler', drop_last=False)])
def test_an_epoch_that_begins_later(batch_sampler):
    """Batches before are left out, with mmdet's batches by aspect ratio too, and only in the next epoch."""
    cfg = dict(batch_size=3, num_workers=0, dataset=dict(type='NoisyNumbers'), sampler=dict(type='DefaultSampler'))
    data_loader = Runner.build_dataloader(seed_by_place({**cfg, 'batch_sampler': batch_sampler}, seed=3), seed=3)
    whole = list(data_loader)
    begin_at(data_loader, 2)
    rest = list(data_loader)
    assert len(whole) == len(data_loader) == 4
    assert rest == whole[2:]
    assert list(data_loader) == whole
