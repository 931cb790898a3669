import random

import numpy as np
import pytest
import torch

from halvit_mm.train import IterationSeedHook


@pytest.fixture
def drawn(build_runner):
    """Numbers that each of the generators gives before an iteration."""
    runner = build_runner()

    def drawn(iteration: int, seed: int = 3, rank: int = 0) -> tuple[float, ...]:
        runner.train_loop._iter, runner._seed, runner._rank = iteration, seed, rank
        IterationSeedHook().before_train_iter(runner, 0)
        return random.random(), np.random.rand(), torch.rand(1).item()

    return drawn


def test_numbers_follow_from_the_iteration(drawn):
    first = drawn(5)
    assert drawn(6) != first
    assert drawn(5) == first


def test_seeds_and_ranks_have_numbers_of_their_own(drawn):
    numbers = [*drawn(5), *drawn(5, seed=4), *drawn(5, rank=1)]
    assert len({*numbers}) == 9
