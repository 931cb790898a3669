"""Trainings in the test's own process: real digits, a small HaLViT, the runner of the tools."""

import itertools
from functools import partial
from pathlib import Path

import mmengine.runner.runner
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from halvit_mm.data import write_digits
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.train import ResumableRunner
from halvit_mm.train.hooks import ADDED_HOOKS
from tests.utils import ROOT

LOOP = dict(by_epoch=True, max_epochs=2, val_interval=10)
_numbers = itertools.count()


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('digits')
    write_digits(root)
    return root


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What the loader sets is taken back."""
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')


def digits_config(digits_root: Path, folder: Path, work_dir: str = 'run', loop: dict = LOOP, **options) -> Config:
    """40 images in batches of 8: five iterations an epoch."""
    cfg = Config.fromfile(ROOT / 'configs/digits/halvit_2xb64_digits.py')
    loaders = {f'{split}_dataloader.dataset.data_root': str(digits_root) for split in ('train', 'val', 'test')}
    cfg.merge_from_dict(
        {
            **loaders,
            'train_dataloader.dataset.indices': 40,
            'train_dataloader.batch_size': 8,
            'val_dataloader.dataset.indices': 16,
            'model.backbone.arch': dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=40),
            'model.head.in_channels': 24,
            'param_scheduler': [dict(type='PolyLR', power=1.0, by_epoch=False, end=100)],
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': 1,
            'work_dir': str(folder / work_dir),
            'launcher': 'none',
            'experiment_name': f'test{next(_numbers)}',
            **options,
        }
    )
    cfg.train_cfg = loop
    return cfg


def build_digits(*args, **options) -> Runner:
    """A runner for :func:`digits_config`."""
    cfg = digits_config(*args, **options)
    if cfg.runner_type == 'Runner':
        for name in ADDED_HOOKS:
            cfg.default_hooks.pop(name, None)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        return Runner.from_cfg(cfg)
    return ResumableRunner.from_cfg(cfg)


@pytest.fixture
def build_runner(digits_root, tmp_path, monkeypatch):
    """:func:`build_digits`, without the digits' folder and that of the runs."""
    # Compilers and git, asked for their versions by each runner and each checkpoint
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    monkeypatch.setattr(mmengine.runner.runner, 'get_git_hash', str)
    read_only_data()
    return partial(build_digits, digits_root, tmp_path)
