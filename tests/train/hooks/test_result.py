import re
import shlex
import sys
from pathlib import Path

import pytest

from halvit_mm.train import ResultHook
from tests.utils import ROOT, run_tool

CONFIG = 'configs/digits/halvit_2xb64_digits.py'
LOOP = dict(by_epoch=True, max_epochs=2, val_interval=1)


@pytest.fixture
def tell(monkeypatch):
    """Call the hook of a runner, and return what it tells."""

    def tell(runner) -> list[str]:
        told = []
        monkeypatch.setattr(runner.logger, 'info', told.append)
        ResultHook().after_train(runner)
        return told

    return tell


def test_the_best(build_runner, tell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = build_runner('run', LOOP, **{'default_hooks.checkpoint.save_best': 'auto'})
    runner.train()
    [best] = (tmp_path / 'run').glob('best_*.pth')
    score = runner.message_hub.get_info('best_score')
    # pytest is not a tool that trains.
    assert tell(runner) == [f'Best accuracy/top1: {score:.4f}, of {best.relative_to(tmp_path)}']
    # A resumed run that has nothing left to do knows it too.
    runner = build_runner('run', LOOP, resume=True, **{'default_hooks.checkpoint.save_best': 'accuracy/top1'})
    runner.train()
    assert tell(runner)[0].endswith(str(best.relative_to(tmp_path)))


def test_the_last_where_no_best_is_kept(build_runner, tell, tmp_path):
    runner = build_runner()
    runner.train()
    assert tell(runner) == [f'Last checkpoint: {tmp_path / "run/epoch_2.pth"}']


def test_nothing_where_nothing_is_saved(build_runner, tell):
    runner = build_runner(**{'default_hooks.checkpoint': None})
    runner.train()
    assert tell(runner) == []


@pytest.mark.parametrize(
    ('variables', 'start'),
    [
        ({}, ['python', 'tools/test.py', CONFIG, 'CHECKPOINT']),
        (
            dict(RANK='0', WORLD_SIZE='4', LOCAL_WORLD_SIZE='2'),
            ['bash', 'tools/dist_test.sh', CONFIG, 'CHECKPOINT', '2'],
        ),
    ],
)
def test_the_command_is_that_of_the_tool(build_runner, tell, tmp_path, monkeypatch, variables, start):
    monkeypatch.chdir(ROOT)
    runner = build_runner()
    runner.train()
    given = ['--cfg-options', "model.backbone.arch=dict(a='b c')", 'x=(1,2)', '--amp']
    monkeypatch.setattr(sys, 'argv', ['tools/train.py', '--cfg-options=runner_type=X', CONFIG, *given])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = shlex.split(tell(runner)[-1].removeprefix('To test it:\n'))
    path = str(tmp_path / 'run/epoch_2.pth')
    assert words == [*(path if word == 'CHECKPOINT' else word for word in start), *given[:-1]]
    # The config of a training that tests nothing
    runner.cfg.test_dataloader = None
    assert len(tell(runner)) == 1


@pytest.mark.long
def test_the_command_runs_as_it_is_told(digits_root, tmp_path):
    options = [
        *('model.backbone.arch.embed_dims=24', 'model.backbone.arch.num_layers=2', 'model.head.in_channels=24'),
        *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'param_scheduler=None'),
        *('train_dataloader.dataset.indices=64', 'default_hooks.checkpoint.save_best=auto'),
        *(f'{split}_dataloader.dataset.data_root={digits_root}' for split in ('train', 'val', 'test')),
    ]
    config = 'halvit_mm::digits/halvit_2xb64_digits.py'
    work_dir = tmp_path / 'my runs'
    trained = run_tool('tools/train.py', config, '--work-dir', work_dir, '--cfg-options', *options, cwd=tmp_path).stdout
    best, command = re.search(r'Best accuracy/top1: (\S+), of .*To test it:\n(.*?)\n', trained, re.DOTALL).groups()
    python, tool, *arguments = shlex.split(command)
    assert python == 'python'
    assert Path(tool) == ROOT / 'tools/test.py'
    assert f'accuracy/top1: {best}' in run_tool(tool, *arguments, cwd=tmp_path).stdout
