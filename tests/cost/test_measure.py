import sys

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from halvit_mm.cost import inference, ratios_to_first, time_interleaved, training_step
from tests.utils import ROOT, run


def test_runs_are_interleaved_after_a_warm_up():
    order = []
    times = time_interleaved({name: lambda name=name: order.append(name) for name in 'ab'}, rounds=3, warm_up=2)
    assert order == ['a', 'b'] * 5
    assert [len(values) for values in times.values()] == [3, 3]


def test_ratios_are_those_of_medians():
    assert ratios_to_first(dict(a=[1.0, 2.0, 9.0], b=[1.0, 1.0, 30.0])) == dict(a=1.0, b=0.5)


def test_a_training_step_trains_and_an_inference_does_not():
    model = MODELS.build(Config.fromfile(ROOT / 'configs/digits/halvit_2xb64_digits.py').model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.rand(4, 3, 32, 32)
    before = model.backbone.layers[0].ffn.weight.detach().clone()
    inference(model, images)()
    assert torch.equal(model.backbone.layers[0].ffn.weight, before)
    training_step(model, images, optimizer)()
    assert not torch.equal(model.backbone.layers[0].ffn.weight, before)


def test_tool():
    shown = run(
        *(sys.executable, 'tools/benchmark.py', 'configs/digits/halvit_2xb64_digits.py', '--shape', '32'),
        *('--batch', '2', '--rounds', '2'),
    ).stdout
    rows = [line for line in shown.splitlines() if line.startswith('| halvit_2xb64_digits | 2 | ')]
    assert [row.split(' | ')[2] for row in rows] == ['infer', 'train']
    assert all(row.endswith('| 1.000 |') for row in rows)
