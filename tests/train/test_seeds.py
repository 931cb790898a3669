import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from halvit_mm.train.loops import _Place
from halvit_mm.train.seeds import SeededDataset, SeededIndex, SeededSampler, _Seeds, seed_by_place


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


def test_beginning_later_keeps_the_places_of_what_follows():
    """Of an endless sampler too."""

    def sampler():
        return SeededSampler(NoisyNumbers(), dict(type=InfiniteSampler, shuffle=True), sample_seed=0, seed=1)

    iterator = iter(sampler())
    expected = [next(iterator) for _ in range(20)][8:]
    later = sampler()
    later.begin_at(8)
    iterator = iter(later)
    found = [next(iterator) for _ in range(12)]
    assert [(i, i.seed) for i in found] == [(i, i.seed) for i in expected]


@pytest.mark.parametrize('kind', ['DefaultSampler', 'mmpretrain.RepeatAugSampler'])
@pytest.mark.parametrize('place', [0, 3, 4, 7, 11, 12, 13])
def test_ranks_deal_out_what_is_left(kind, place, monkeypatch):
    """On any number of ranks: each sample after a place once, all ranks the same number, each with the seed it had."""

    def on(rank: int, ranks: int, place: int) -> list:
        for module in ('mmengine.dataset.sampler', 'halvit_mm.train.seeds', 'mmpretrain.datasets.samplers.repeat_aug'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, ranks))
        sampler = SeededSampler(NoisyNumbers(), dict(type=kind, shuffle=True), sample_seed=0, seed=1)
        sampler.set_epoch(2)
        sampler.begin_at(place)
        return [(int(index), index.seed) for index in sampler]

    whole = on(0, 1, 0)
    for ranks in (1, 2, 3, 5):
        dealt = [on(rank, ranks, place) for rank in range(ranks)]
        assert len({len(indices) for indices in dealt}) == 1
        found = [index for indices in dealt for index in indices]
        assert {*whole[place:]} <= {*found}
        # What upstream fills the list up with, so that all ranks have as many
        assert len(found) - len(whole[place:]) <= 2 * (ranks - 1)


@pytest.mark.parametrize('batch_sampler', [None, dict(type='mmdet.AspectRatioBatchSampler', drop_last=False)])
def test_an_epoch_that_begins_later(batch_sampler):
    """Batches before are left out, with mmdet's batches by aspect ratio too, and only in the next epoch."""
    cfg = dict(batch_size=3, num_workers=0, dataset=dict(type='NoisyNumbers'), sampler=dict(type='DefaultSampler'))
    data_loader = Runner.build_dataloader(seed_by_place({**cfg, 'batch_sampler': batch_sampler}, seed=3), seed=3)
    whole = list(data_loader)
    place = _Place(data_loader)
    place.enter(0, samples=6)
    assert place.begin() == 2
    rest = list(data_loader)
    assert len(whole) == len(data_loader) == 4
    assert rest == whole[2:]
    assert list(data_loader) == whole


def test_seeds_are_made_for_many_samples_at_once(monkeypatch):
    """The seeds of a batch are made in the gap between two steps, where nothing else may be slow."""
    made = []
    of = np.random.SeedSequence
    monkeypatch.setattr(np.random, 'SeedSequence', lambda *args: (made.append(args), of(*args))[1])

    class Many(NoisyNumbers):
        def __len__(self):
            return 5000

    sampler = SeededSampler(Many(), dict(type='DefaultSampler', shuffle=False), sample_seed=3, seed=1)
    seeds = [index.seed for index in sampler]
    assert len({*seeds}) > 4990
    assert len(made) == 1


def test_seeds_of_places_beyond_the_first_block():
    whole, there = _Seeds(3, 0), _Seeds(3, 0)
    last = _Seeds.LENGTH
    assert [whole[i] for i in (0, last - 1, last, 2 * last)] == [there[i] for i in (2 * last, last, last - 1, 0)][::-1]
    assert len({whole[0], whole[last], _Seeds(3, 1)[0], _Seeds(4, 0)[0]}) == 4
