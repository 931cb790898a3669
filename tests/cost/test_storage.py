import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from torch import nn

from halvit_mm.cost import activation_bytes, count_parameters, storage_bytes, training_bytes, weight_file_bytes
from tests.utils import ROOT


def digits(**backbone):
    cfg = Config.fromfile(ROOT / 'configs/digits/halvit_2xb64_digits.py')
    cfg.model.backbone.update(backbone)
    model = MODELS.build(cfg.model)
    return model, count_parameters(model)


def wrapper(model, **optimizer):
    return build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(lr=0.1, **optimizer)))


@pytest.mark.parametrize(
    ('optimizer', 'copies'),
    [
        (dict(type='SGD'), 2),  # weights, gradients
        (dict(type='SGD', momentum=0.9), 3),
        (dict(type='AdamW'), 4),
    ],
)
def test_training_state(optimizer, copies):
    model, parameters = digits()
    gradients, state = training_bytes(model, torch.rand(2, 3, 32, 32), wrapper(model, **optimizer))
    assert gradients == 4 * parameters
    # AdamW counts its steps in a tensor for each parameter, of four bytes.
    steps = 4 * len([*model.parameters()]) if optimizer['type'] == 'AdamW' else 0
    assert state == 4 * parameters * copies + steps


def test_frozen_parameters_have_no_gradients():
    model, parameters = digits(frozen_stages=2)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen > 0
    gradients, state = training_bytes(model, torch.rand(2, 3, 32, 32), wrapper(model, type='SGD'))
    assert gradients == 4 * (parameters - frozen)
    assert state == 4 * (2 * parameters - frozen)


def test_the_halves_stay_halves():
    (tied, _), (untied, _) = digits(), digits(tie='none')
    assert weight_file_bytes(tied) < 0.53 * weight_file_bytes(untied)


def test_weight_file(tmp_path):
    model, parameters = digits()
    torch.save(model.state_dict(), tmp_path / 'w.pth')
    size = (tmp_path / 'w.pth').stat().st_size
    assert 4 * parameters < size < 1.05 * 4 * parameters
    # The name of the file is in it.
    assert weight_file_bytes(model) == pytest.approx(size, rel=0.01)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 5), nn.Linear(5, 7)

    def forward(self, images, samples, mode):
        return dict(loss=self.second(torch.relu(self.first(images.flatten(1)))).pow(2).mean())


def test_activations():
    """Kept are the images, the first layer's output after relu, which the second layer shares, and the second's."""
    assert activation_bytes(TwoLayers(), torch.rand(6, 3, 2, 2)) == 4 * 6 * (12 + 5 + 7)


def test_views_are_no_second_memory():
    weight = torch.zeros(8, 4)
    assert storage_bytes([weight, weight.t(), weight[2:], torch.zeros(2)]) == 4 * (32 + 2)
