"""Training with activations that are computed again."""

import pytest

from halvit_mm.layers.recompute import LEVELS
from tests.train.conftest import LOOP
from tests.utils import assert_identical

DROPS = {'model.backbone.drop_path_rate': 0.3, 'model.backbone.drop_rate': 0.1}


@pytest.mark.parametrize('with_cp', LEVELS)
def test_training_is_the_same_bit_for_bit(build_runner, with_cp):
    short = {**LOOP, 'max_epochs': 1}
    plain = build_runner('plain', short, **DROPS)
    plain.train()
    level = build_runner('level', short, **DROPS, **{'model.backbone.with_cp': with_cp})
    level.train()
    assert_identical(plain.model.state_dict(), level.model.state_dict())
    assert_identical(plain.optim_wrapper.state_dict(), level.optim_wrapper.state_dict())


def test_training_resumes_bit_for_bit(build_runner):
    options = {**DROPS, 'model.backbone.with_cp': 'all_but_attn'}
    build_runner('cut', {**LOOP, 'max_epochs': 1}, **options).train()
    resumed = build_runner('cut', resume=True, **options)
    resumed.train()
    whole = build_runner('whole', **options)
    whole.train()
    assert_identical(whole.model.state_dict(), resumed.model.state_dict())
    assert_identical(whole.optim_wrapper.state_dict(), resumed.optim_wrapper.state_dict())
