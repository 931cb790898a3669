import sys

import psutil
import pytest
import torch
from torch import nn

from halvit_mm.cost import (
    inference,
    is_detector,
    keep_freed_memory,
    time_interleaved,
    training_step,
)
from halvit_mm.cost.benchmark import in_fresh_process
from halvit_mm.cost.measure import return_freed_memory
from tests.cost.conftest import build, sgd


def test_runs_are_interleaved_after_a_warm_up():
    order = []
    times = time_interleaved({name: lambda name=name: order.append(name) for name in 'ab'}, rounds=3, warm_up=2)
    assert order == ['a', 'b'] * 5
    assert [len(values) for values in times.values()] == [3, 3]


def left_after_freeing(megabytes: int, keep: bool) -> float:
    if keep:
        keep_freed_memory()
    process = psutil.Process()
    before = process.memory_info().rss
    block = torch.ones(megabytes * 2**18)
    del block
    return (process.memory_info().rss - before) / 2**20


def left_below_a_block(give_back: bool) -> float:
    if give_back:
        return_freed_memory()
    torch.ones(7 * 2**20)  # freed at once, after which glibc takes smaller blocks from its heap
    process = psutil.Process()
    before = process.memory_info().rss
    blocks = [torch.ones(2**18) for _ in range(100)]
    above = torch.ones(2**18)
    del blocks
    return (process.memory_info().rss - before - above.nbytes) / 2**20


@pytest.mark.skipif(sys.platform != 'linux', reason="sets glibc's allocator, which only Linux has")
def test_freed_memory_is_returned():
    assert in_fresh_process(left_below_a_block, False) > 90
    assert in_fresh_process(left_below_a_block, True) < 10


@pytest.mark.skipif(sys.platform != 'linux', reason="sets glibc's allocator, which only Linux has")
def test_freed_memory_is_kept():
    assert in_fresh_process(left_after_freeing, 200, False) < 50
    assert in_fresh_process(left_after_freeing, 200, True) > 190


# mmcv's NMS takes no bfloat16 on the CPU.
@pytest.mark.parametrize(
    ('name', 'precision'),
    [
        ('halvit_2xb64_digits', 'fp32'),
        ('halvit_2xb64_digits', 'amp-bf16'),
        ('mask-rcnn_halvit_digits-coco', 'fp32'),
        ('upernet_halvit_digits-seg', 'amp-bf16'),
    ],
)
def test_a_training_step_trains_and_an_inference_does_not(name, precision):
    model = build(name)
    assert is_detector(model) is name.startswith('mask')
    images = torch.rand(2, 3, 32, 32)
    weight = model.backbone.layers[0].ffn.weight
    before = weight.detach().clone()
    inference(model, images, precision)()
    assert torch.equal(weight, before)
    training_step(model, images, sgd(model), precision)()
    assert not torch.equal(weight, before)
    assert weight.dtype is torch.float32


def test_precision_is_what_the_model_computes_in():
    model = build('halvit_2xb64_digits')
    seen = []
    model.head.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    for precision in ('fp32', 'amp-bf16'):
        inference(model, torch.rand(1, 3, 32, 32), precision)()
    assert seen == [torch.float32, torch.bfloat16]


def test_compiled_run_goes_through_the_compiler():
    model = nn.Sequential(nn.Linear(32, 8), nn.ReLU())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    inference(model, torch.rand(2, 3, 32, 32), compiled=True)()
    assert torch._dynamo.utils.counters['stats']['calls_captured'] > 0
