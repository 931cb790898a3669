import pytest
import torch
from mmengine.optim import LinearLR, MultiStepLR

from halvit_mm.train.schedules import Beginning, early_end, ignored


def build(length: int, converted: bool = True):
    """A warm-up of two epochs and a step after the third; 12 iterations of the run count them, at a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm_up = dict(start_factor=0.1, begin=0, end=2)
    if converted:
        schedules = [LinearLR.build_iter_from_epoch(optimizer, **warm_up, by_epoch=True, epoch_length=length)]
    else:
        schedules = [LinearLR(optimizer, start_factor=0.1, begin=0, end=8, by_epoch=False)]
    schedules.append(MultiStepLR(optimizer, milestones=[3], gamma=0.5, by_epoch=True))
    configs = [dict(warm_up, convert_to_iter_based=True) if converted else warm_up, dict(milestones=[3])]
    return optimizer, schedules, Beginning(schedules, configs)


def rates(optimizer, schedules, iterations: int, length: int, done: int = 0) -> list[float]:
    """Learning rates of the iterations behind those that are done."""
    found = []
    for iteration in range(done, iterations):
        found.append(optimizer.param_groups[0]['lr'])
        schedules[0].step()
        if (iteration + 1) % length == 0:
            schedules[1].step()
    return found


@pytest.mark.parametrize('epochs', [1, 2, 3, 4])
def test_epochs_that_become_longer(epochs):
    """As if they had always been as long."""
    expected = rates(*build(6)[:2], iterations=30, length=6)
    optimizer, schedules, beginning = build(6)
    # What a checkpoint of epochs of three iterations brings.
    for _ in range(epochs * 3):
        schedules[0].step()
    for _ in range(epochs):
        schedules[1].step()
    optimizer.param_groups[0]['lr'] = 0.123
    beginning.replay(epochs, epochs * 6, 6)
    assert rates(optimizer, schedules, 30, 6, done=epochs * 6) == pytest.approx(expected[epochs * 6 :])


def test_a_schedule_that_counts_iterations_is_left_alone():
    optimizer, schedules, beginning = build(6, converted=False)
    rates(optimizer, schedules, 4, 2)
    before = optimizer.param_groups[0]['lr'], [dict(vars(schedule)) for schedule in schedules]
    beginning.replay(4, 24, 6)
    assert (optimizer.param_groups[0]['lr'], [dict(vars(schedule)) for schedule in schedules]) == before


def test_schedules_that_end_early():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm_up = LinearLR(optimizer, start_factor=0.1, begin=0, end=500, by_epoch=False)
    steps = MultiStepLR(optimizer, milestones=[8, 11], begin=0, end=12, by_epoch=True)
    assert early_end([warm_up, steps], 12, 1200) is None
    assert early_end([warm_up, steps], 24, 2400).startswith(
        'The last schedule of the learning rate (MultiStepLR) ends at epoch 12 of 24'
    )
    # A warm-up is meant to end.
    assert early_end([warm_up], 12, 1200) is None
    assert early_end([warm_up, MultiStepLR(optimizer, milestones=[8], by_epoch=True)], 24, 2400) is None


def test_values_that_are_not_used():
    assert ignored([dict(initial_lr=1.0, betas=(0.9, 0.99))], [dict(initial_lr=1.0, betas=(0.9, 0.99))]) is None
    assert ignored([dict(lr=1.0)], [dict(initial_lr=2.0)]) is None
    assert ignored([dict(weight_decay=0.1)], [dict(weight_decay=0.2)]).startswith(
        'weight_decay=0.1 of the config is not used: a resumed optimizer goes on with weight_decay=0.2'
    )
