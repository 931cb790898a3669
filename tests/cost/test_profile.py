from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from halvit_mm.cost import inference, profile_run, training_step
from halvit_mm.cost.benchmark import environment
from halvit_mm.cost.profile import time_by_kind
from halvit_mm.cost.report import environment_line
from halvit_mm.cost.subject import Settings, Subject
from tests.cost.conftest import build, sgd
from tests.utils import ROOT


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


def test_a_kernel_is_counted_once():
    """On a GPU a profile has a kernel's time twice: as the kernel's and as that of the operator that started it."""
    event = SimpleNamespace
    events = [
        event(key='aten::addmm', device_type=DeviceType.CPU, self_device_time_total=30.0, self_cpu_time_total=1.0),
        event(key='nvjet_tst_128x8', device_type=DeviceType.CUDA, self_device_time_total=30.0, self_cpu_time_total=0.0),
        event(key='aten::gelu', device_type=DeviceType.CPU, self_device_time_total=10.0, self_cpu_time_total=2.0),
        event(key='vectorized_gelu', device_type=DeviceType.CUDA, self_device_time_total=10.0, self_cpu_time_total=0.0),
    ]
    spent = time_by_kind(events, 'cuda')
    assert spent == dict(zip(spent, (0, 30, 0, 0, 10)))
    assert sum(time_by_kind(events, 'cpu').values()) == 3


def test_both_kinds_of_product_are_rounded_alike():
    """Or neither: torch's defaults round convolutions only."""
    subject = Subject(str(ROOT / 'configs/digits/halvit_2xb64_digits.py'))
    for allowed in (True, False):
        subject.model(Settings(shape=(32, 32), tf32=allowed))
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed
    machine = environment(Settings(shape=(32, 32)))
    assert 'TF32' not in environment_line(machine)
    assert 'TF32 off in products and convolutions' in environment_line({**machine, 'tf32': False})
