"""What of the check on GPUs can be seen without one: its steps, configs and page, and the parts that CPUs run."""

import sys

import gpu_check
import pytest
import torch
from gpu_check import Command, Plan, Step
from mmengine.config import Config

from halvit_mm.launch.config import check_config
from tests.utils import run_tool


def test_without_a_gpu_it_says_what_it_would_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py'])
    gpu_check.main()
    lines = capsys.readouterr().out.splitlines()
    for step in Plan('cuda', 2, gpu_check.ROOT / 'work_dirs').steps():
        assert f'{step.name}: {step.shows}' in lines
    assert lines[-1].startswith('Nothing was run: this machine shows no GPU.')


def test_an_unknown_step_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--only', 'fp8'])
    with pytest.raises(SystemExit):
        gpu_check.main()
    assert '--only fp8 is not a step; expected data, fp32, ' in capsys.readouterr().err


@pytest.mark.parametrize('device', ['cuda', 'cpu'])
def test_each_config_is_one_that_a_run_takes(device, tmp_path):
    steps = Plan(device, 2, tmp_path).steps()
    configs = {}
    for step in steps:
        for path, text in step.configs.items():
            path.write_text(text)
            configs[path.stem] = Config.fromfile(path)
            if 'train_cfg' in text:
                check_config(configs[path.stem], 'train')
    assert configs['fp16-fused'].optim_wrapper.optimizer == dict(
        _scope_='mmpretrain', type='AdamW', lr=2e-3, weight_decay=0.05, fused=True
    )
    assert configs['detect-fp16'].optim_wrapper.type == 'AmpOptimWrapper'
    assert configs['cut'].randomness.deterministic
    assert configs['detect'].val_evaluator.ann_file == f'{tmp_path}/data/digits_coco/annotations/instances_val.json'


def test_the_page_has_what_came_of_each_step(tmp_path, capsys):
    file, page = tmp_path / 'there', tmp_path / 'gpu.md'
    page.write_text(f'# GPUs\n\nBefore.\n\n{gpu_check.BEGIN}\nold\n{gpu_check.END}\n\nBehind.\n')
    write = f'import time; open({str(file)!r}, "w").close(); time.sleep(100)'
    last = gpu_check._last_result
    steps = [
        Step('good', 'it runs', [Command(['python', '-c', 'print("result: 3 | 4")'])], result=last),
        Step('bad', 'it fails', [Command(['python', '-c', 'raise ValueError("no such thing")'])]),
        Step('killed', 'it ends', [Command(['python', '-c', write], killed_at=file)]),
        Step('gpu', 'it is left out', [], gpu_only=True),
        Step(
            'tables',
            'it measures',
            [Command(['python', '-c', 'print("| a |"); print("| 1 |")'])],
            result=gpu_check._tables,
        ),
    ]
    assert gpu_check.run_steps(steps, 'cpu', 2, tmp_path, page) == ['bad']
    text = page.read_text()
    assert text.startswith('# GPUs\n\nBefore.\n')
    assert text.endswith('Behind.\n')
    assert 'old' not in text
    assert f'2 x CPU, torch {torch.__version__}, ' in text
    rows = {line.split(' | ')[0].removeprefix('| '): line for line in text.splitlines() if line.startswith('| ')}
    assert '| it runs | 3 / 4 |' in rows['good']
    assert '**failed**' in rows['bad']
    assert 'ValueError: no such thing' in rows['bad']
    assert '| done |' in rows['killed']
    assert 'left out: exists on a GPU only' in rows['gpu']
    assert '| below |' in rows['tables']
    assert '\n| a |\n| 1 |\n' in text


@pytest.mark.long
def test_shards_of_a_model_with_windows():
    shown = run_tool('research/gpu_parts.py', 'fsdp', '--device', 'cpu', ranks=2).stdout
    assert 'result: 3 steps on 2 ranks, last loss ' in shown
