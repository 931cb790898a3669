"""A script of timm's own parts, in a process that has torch and timm and nothing of OpenMMLab's."""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.utils import CheckpointSaver, ModelEmaV3

import halvit_mm.timm  # noqa: F401
from halvit_mm.io.weights import read_weights
from halvit_mm.names import to_mmpretrain
from tests.utils import WITHOUT_OPENMMLAB, run

# Imports every layer, then runs a module as python -m does.
PROGRAM = f"""{WITHOUT_OPENMMLAB}
import importlib, pkgutil, runpy
import halvit_mm.layers as layers

names = [module.name for module in pkgutil.iter_modules(layers.__path__, 'halvit_mm.layers.')]
print('layers', sum(bool(importlib.import_module(name)) for name in names if 'openmmlab' not in name))
try:
    layers.TiedFFN
except ModuleNotFoundError as error:
    print(error)
runpy.run_module('halvit_mm.timm', run_name='__main__', alter_sys=True)
"""


@pytest.fixture
def data(tmp_path) -> Path:
    pixels = np.random.default_rng(0)
    for name in ('a', 'b'):
        (tmp_path / 'data/train' / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(pixels.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / 'data/train' / name / f'{i}.png'
            )
    return tmp_path / 'data'


def test_a_training_by_timm(data, tmp_path):
    script = shutil.copy(Path(__file__).parent / 'train_small.py', tmp_path)
    (tmp_path / 'out').mkdir()
    shown = run(sys.executable, '-c', PROGRAM, script, data, tmp_path / 'out', cwd=tmp_path).stdout.splitlines()
    assert {'layers 8', "No module named 'mmcv'"} <= {*shown}
    assert shown[-1].startswith('epochs 2, loss ')
    assert shown[-1].endswith('OpenMMLab []')


def test_tools_read_the_checkpoint_of_a_training_by_timm(tmp_path):
    """Its train.py keeps the parsed arguments in the file, and the weights of the average beside the network's."""
    model = timm.create_model('halvit_micro_patch16_224', img_size=32, patch_size=8, depth=2, num_classes=2)
    average = ModelEmaV3(model, decay=0.9)
    torch.nn.init.ones_(average.module.head.bias)
    args = argparse.Namespace(model='halvit_micro_patch16_224', lr=1e-3, mean=None, model_kwargs=dict(img_size=32))
    saver = CheckpointSaver(model, torch.optim.AdamW(model.parameters()), args, average, checkpoint_dir=tmp_path)
    saver.save_checkpoint(0, metric=50.0)
    weights, expected = read_weights(str(tmp_path / 'last.pth.tar')), to_mmpretrain(model.state_dict())
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize('arguments', [(), ('absent.py', '--model', 'x')], ids=str)
def test_no_script(arguments, monkeypatch, capsys):
    from halvit_mm.timm.__main__ import main

    monkeypatch.setattr(sys, 'argv', ['halvit_mm.timm', *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    given = arguments[0] if arguments else ''
    expected = f'error: {given!r} is not a script; expected python -m halvit_mm.timm train.py ARGUMENTS\n'
    assert capsys.readouterr().err == expected
