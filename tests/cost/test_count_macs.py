import pytest
import torch
from mmpretrain.models import VisionTransformer
from torch import nn

from halvit_mm.cost import count_macs


def test_convolution_and_its_transpose():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 1))
    assert count_macs(model, (3, 6, 5)) == 30 * (3 * 8 * 9 + 8 * 4)


def test_attention_counts():
    arch = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=40)
    tokens, patches = 1 + 4, 4
    linear = tokens * (4 * 24 * 24 + 2 * 24 * 40) + patches * 3 * 16 * 16 * 24
    assert count_macs(VisionTransformer(arch, img_size=32), (3, 32, 32)) == linear + 2 * tokens * tokens * 24


@pytest.mark.parametrize('training', [True, False])
def test_leaves_the_model_as_it_was(training):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train(training)
    model[1].eval()
    count_macs(model, (3, 8, 8))
    assert model.training is training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, torch.zeros(8))
