"""Segmentation by the tools as processes, on digits in mmseg's layout."""

import re

import numpy as np
import pytest
from PIL import Image

from halvit_mm.data import write_digits_seg
from tests.utils import ROOT, run, run_tool

CONFIG = ROOT / 'configs/digits/upernet_halvit_digits-seg.py'
TINY = [
    *('model.backbone.arch.embed_dims=24', 'model.backbone.arch.num_layers=3', 'model.backbone.out_indices=(0,1,2)'),
    *('model.backbone.arch.feedforward_channels=48', 'model.neck.in_channels=24'),
    *('model.decode_head.in_channels=[24,24,24]', 'model.decode_head.channels=16'),
]
# Norms of all ranks, as mmseg's own configs have them; torch has none for the CPU.
SHORT = [
    *TINY,
    *('model.decode_head.norm_cfg.type=SyncBN', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1'),
    *('param_scheduler=None', 'default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with digits in ``data/digits_seg``, and a checkpoint of two iterations of two ranks."""
    folder = tmp_path_factory.mktemp('digits_seg')
    write_digits_seg(folder / 'data/digits_seg', train=8, val=4)
    folder.joinpath('trained').write_text(
        run_tool(
            *('tools/train.py', CONFIG, '--launcher', 'pytorch', '--work-dir', 'run', '--cfg-options', *SHORT),
            'train_cfg.max_iters=2',
            cwd=folder,
            ranks=2,
        ).stdout
    )
    return folder


def losses(shown: str) -> list[float]:
    return [float(value) for value in re.findall(r'Iter\(train\).* loss: (\S+)', shown)]


@pytest.mark.long
def test_training_on_two_ranks(folder):
    shown = (folder / 'trained').read_text()
    assert 'The backbone (HaLViT) starts from random weights' in shown
    assert len(losses(shown)) == 2
    assert all(0 < loss < 5 for loss in losses(shown))
    assert 'mIoU: ' in shown
    assert 'Last checkpoint: run/iter_2.pth' in shown
    resumed = run_tool(
        *('tools/train.py', CONFIG, '--launcher', 'pytorch', '--work-dir', 'run', '--resume', '--cfg-options', *SHORT),
        'train_cfg.max_iters=3',
        cwd=folder,
        ranks=2,
    ).stdout
    assert 'resumed epoch: 0, iter: 2' in resumed
    assert len(losses(resumed)) == 1


@pytest.mark.long
def test_test_on_two_ranks(folder):
    """By our runner, which mmseg's own tool does not ask for; rank 0 draws what it has tested: every other image."""
    shown = run_tool(
        *('tools/test.py', CONFIG, 'run/iter_2.pth', '--launcher', 'pytorch', '--show-dir', 'pictures'),
        *('--cfg-options', *SHORT),
        cwd=folder,
        ranks=2,
    ).stdout
    assert 'mIoU: ' in shown
    assert "runner_type = 'halvit_mm.ResumableRunner'" in shown
    drawn = [path.name for path in (folder / 'pictures').rglob('*.png')]
    assert sorted(name[:15] for name in drawn) == ['test_000001.png', 'test_000003.png']


@pytest.mark.long
def test_inference_export_and_counts(folder):
    shown = run_tool(
        *('tools/infer.py', CONFIG, 'run/iter_2.pth', 'data/digits_seg/images/val', '--out', 'inferred'),
        *('--cfg-options', *SHORT),
        cwd=folder,
    ).stdout
    for i in range(1, 5):
        [line] = [line for line in shown.splitlines() if line.startswith(f'data/digits_seg/images/val/00000{i}.png: ')]
        parts = [part.rsplit(' ', 2) for part in line.partition(': ')[2].split(', ')]
        mask = np.asarray(Image.open(folder / f'inferred/00000{i}_mask.png'))
        assert mask.shape == (64, 64)
        for name, percent, _ in parts:
            number = 0 if name == 'background' else int(name) + 1
            assert 100 * (mask == number).mean() == pytest.approx(float(percent), abs=0.06)
        assert Image.open(folder / f'inferred/00000{i}.png').size == (256, 256)

    exported = run_tool(
        *(
            'tools/export.py',
            CONFIG,
            'run/iter_2.pth',
            '--out',
            'model.onnx',
            '--dynamic-size',
            '--cfg-options',
            *SHORT,
        ),
        cwd=folder,
    ).stdout
    assert '4 images of 64 x 64 from data/digits_seg' in exported
    assert 'same class of a pixel 100.0 %' in exported
    # The head pools to a number of bins, whose places depend on the size.
    assert exported.count('an image of ') == 5

    counted = run_tool('tools/count.py', CONFIG, '--cfg-options', *TINY).stdout
    assert ' 64 x 64  ' in counted.splitlines()[-1]


def test_usage_of_the_digits():
    failed = run('tools/digits_seg.sh', check=False)
    assert failed.returncode == 2
    assert 'tools/digits_seg.sh WORK_DIR' in failed.stdout
