import os

import pytest
from mmengine.config import Config

from halvit_mm.io.cores import loader_workers
from tests.utils import ROOT


@pytest.mark.parametrize(
    ('variables', 'workers'),
    [
        ({}, 16),
        (dict(LOCAL_WORLD_SIZE='8'), 8),
        (dict(LOCAL_WORLD_SIZE='40'), 1),
        (dict(LOCAL_WORLD_SIZE='100'), 1),
        (dict(OMPI_COMM_WORLD_LOCAL_SIZE='16'), 4),
        (dict(SLURM_CPUS_PER_TASK='5'), 5),
    ],
)
def test_workers_follow_the_cores(monkeypatch, variables, workers):
    for name in ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'SLURM_CPUS_PER_TASK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(64), raising=False)
    assert loader_workers() == workers


@pytest.mark.parametrize(
    'path', ['halvit/halvit-tiny_8xb128_in1k.py', 'mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py']
)
def test_configs_ask_for_them(monkeypatch, path):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(48), raising=False)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    monkeypatch.delenv('SLURM_CPUS_PER_TASK', raising=False)
    cfg = Config.fromfile(ROOT / 'configs' / path)
    assert [cfg[f'{split}_dataloader'].num_workers for split in ('train', 'val', 'test')] == [12] * 3
