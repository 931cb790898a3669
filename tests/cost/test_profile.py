import pytest
import torch
from torch import nn

from halvit_mm.cost import inference, profile_run, training_step
from tests.cost.conftest import build, sgd


def test_shares():
    model = build('halvit_2xb64_digits')
    images = torch.rand(8, 3, 32, 32)
    for run in (inference(model, images), training_step(model, images, sgd(model))):
        profile = profile_run(run, rounds=3)
        assert sum(profile.fractions.values()) == pytest.approx(1)
        assert min(profile.fractions[kind] for kind in ('matrix products', 'attention', 'norms')) > 0
        assert profile.ms_bare > 0
        assert profile.ms > 0


def test_bare_operators_are_all_there():
    """Of a large product followed by next to nothing, the bare product is next to everything."""
    layer = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU())
    profile = profile_run(inference(layer, torch.rand(512, 1024)), rounds=5)
    assert profile.ms_bare / profile.ms > 0.2
    assert profile.fractions['matrix products'] > 0.5
