import json

import pytest
import torch
from mmpretrain.registry import MODELS
from variants import train_variant

from halvit_mm.data import write_digits
from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config
from tests.utils import ROOT, run_tool


@pytest.fixture
def folder(tmp_path):
    """A folder with data/digits, 13 images of each class in each split."""
    write_digits(tmp_path / 'data/digits')
    for images in (tmp_path / 'data/digits').glob('*/*'):
        for image in sorted(images.iterdir())[13:]:
            image.unlink()
    return tmp_path


@pytest.mark.long
def test_study_goes_on_from_what_it_has(folder):
    kept = folder / 'work_dirs/study/top1.json'
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({'ResNet50-PE1, seed 0, 1 epochs': 12.5}))
    study = ['research/study_digits.py', '--seeds', '0', '--epochs', '1', '--out', 'out']
    shown = run_tool(*study, '--only', 'HaLViT, tied', 'ResNet50-PE1', cwd=folder).stdout
    assert '| ResNet50-PE1 | 822,890 | 12.50 | 12.50 | 0.00 |' in shown
    [row] = [line for line in shown.splitlines() if line.startswith('| HaLViT, tied | 360,682 | ')]
    reached = json.loads(kept.read_text())['HaLViT, tied, seed 0, 1 epochs']
    assert f'| {reached:.2f} |' in row
    assert row in (folder / 'out/study_digits.md').read_text()
    assert (folder / 'out/study_digits.png').is_file()


def test_warm_start_study_tells_what_it_has(tmp_path):
    runs = ('products + fit, distilled', 'random, distilled')
    curves = {f'{name}, seed {seed}': {'5': 90 + seed, '10': 95, '20': 99} for name in runs for seed in (0, 1)}
    for seed in (0, 1):
        curves[f'untied, seed {seed}'] = {'1': 50, '2': 98 + seed, '3': 98}
        curves[f'from scratch, seed {seed}'] = {'1': 10, '2': 20, '3': 97 + 2 * seed}
        curves.update({f'{start}, seed {seed}': {'0': 12.5} for start in ('mean', 'products + fit')})
    (tmp_path / 'top1.json').write_text(json.dumps(curves))
    tool = ('research/study_warm_start.py', '--work-dir', tmp_path, '--seeds', '0', '1')
    shown = run_tool(*tool, '--starts', 'products + fit', '--recipes', 'distilled').stdout
    assert '| untied | 98.00 ± 0.00 | 98.50 ± 0.71 | 2, 2 |' in shown
    assert '| from scratch | 98.00 ± 1.41 | 98.00 ± 1.41 | 3, 3 |' in shown
    assert (
        '| products + fit | distilled | 12.50 ± 0.00 | 90.50 ± 0.71 | 95.00 ± 0.00 | 99.00 ± 0.00 | +1.00 ± 0.00 |'
        in shown
    )
    shown = run_tool(*tool, '--starts', 'random', '--recipes', 'distilled').stdout
    assert '| random | distilled |  | 90.50' in shown
    refused = run_tool(*tool, '--jobs', '0', check=False)
    assert refused.returncode == 2
    assert '--jobs: 0 is not positive' in refused.stdout


@pytest.mark.long
def test_warm_start_study_ties_and_trains_on_two_ranks(folder):
    work_dir = folder / 'warm_start'
    (work_dir / 'untied_0').mkdir(parents=True)
    untied = MODELS.build(
        load_config(str(ROOT / 'configs/digits/halvit_2xb64_digits.py'), {'model.backbone.tie': 'none'}).model
    )
    torch.save(dict(state_dict=untied.state_dict()), work_dir / 'untied_0/epoch_100.pth')
    (work_dir / 'top1.json').write_text(
        json.dumps({f'{name}, seed 0': {'1': 50} for name in ('untied', 'from scratch')})
    )
    tool = ('research/study_warm_start.py', '--seeds', '0', '--ranks', '2')
    tool += ('--starts', 'mean', '--recipes', 'distilled')
    shown = run_tool(*tool, '--work-dir', work_dir, cwd=folder).stdout
    curves = json.loads((work_dir / 'top1.json').read_text())
    top1 = [
        float(curves['mean, seed 0']['0']),
        *(curves['mean, distilled, seed 0'][epoch] for epoch in ('5', '10', '20')),
    ]
    row = ' | '.join(['mean', 'distilled', *(f'{value:.2f}' for value in top1), f'{top1[-1] - 50:+.2f}'])
    assert f'| {row} |' in shown
    log = ' '.join((work_dir / 'mean-distilled_0/output.log').read_text().split())
    assert f'Load checkpoint from {work_dir}/start-mean_0.pth' in log
    assert 'Epoch(train) [20][2/2]' in log  # 130 images for two ranks of 64


@pytest.mark.long
def test_untied_counterparts_are_compared(folder):
    """Over seeds, of which one has its results and one lacks the tied model's."""
    short = folder / 'short.py'
    base = ROOT / 'configs/digits/halvit_2xb64_digits.py'
    short.write_text(
        f'_base_ = {str(base)!r}\ntrain_cfg = dict(max_epochs=1, val_interval=1)\nparam_scheduler = None\n'
    )
    kept = folder / 'work_dirs/untied_pairs/top1.json'
    kept.parent.mkdir(parents=True)
    known = {'short, seed 0': 50.0, 'short, a=b, seed 0': 40.0, 'short, a=b, seed 1': 60.0}
    kept.write_text(json.dumps(known))
    tool = ('research/compare_untied.py', short, '--ranks', '1', '--seeds', '0', '1')
    shown = run_tool(*tool, '--untied', 'a=b', cwd=folder).stdout
    reached = json.loads(kept.read_text())
    assert reached.keys() - known.keys() == {'short, seed 1'}
    tied = reached['short, seed 1']
    assert f'| tied | 50.00 | {tied:.2f} | {(50 + tied) / 2:.2f} |' in shown
    half = 12.706 * abs(70 - tied) / 2  # of Student's t for two pairs
    found, _, interval = shown.splitlines()[-1].removeprefix('tied - untied: ').partition(' ± ')
    assert float(found) == pytest.approx((tied - 50) / 2, abs=0.01)
    assert float(interval.split()[0]) == pytest.approx(half, rel=1e-3)


def test_a_training_that_fails_is_told(tmp_path):
    command = [str(ROOT / 'tools/train.py'), str(tmp_path / 'none.py')]
    with pytest.raises(UserError, match=r'the training in .*/variant failed; see .*/variant/output\.log'):
        train_variant(command, tmp_path / 'variant')
    assert 'none.py does not exist' in (tmp_path / 'variant/output.log').read_text()
