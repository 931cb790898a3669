"""Trainings with stored logits, held to those with a teacher that runs."""

import copy
import json
import os
import shutil
from pathlib import Path

import mmengine.runner.runner
import numpy as np
import pytest
import torch
from mmengine.config import Config

import halvit_mm.io.logits
from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.io.configs import load_config
from halvit_mm.io.logits import StoredLogits
from halvit_mm.train.save_logits import save_logits
from tests.train.conftest import build_digits, digits_config
from tests.utils import ROOT, TINY_ARCH, on_ranks, run_tool

CONFIG = str(ROOT / 'configs/digits/halvit_2xb64_digits.py')
TEACHER_OPTIONS = {
    'model.backbone.arch': TINY_ARCH,
    'model.backbone.tie': 'none',
    'model.head.in_channels': TINY_ARCH['embed_dims'],
}
DISTILLED = {'model.type': 'halvit_mm.DistilledClassifier', 'model.label': 0.3, 'model.soft': 0.7, 'model.hard': 0.1}
DISTILLED |= {'model.temperature': 2.0, 'optim_wrapper.optimizer.eps': 1e-3, 'randomness.seed': 3}
MIXED = {
    'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
    'model.head.loss.mode': 'original',
}
REPEATED = {'train_dataloader.sampler': dict(type='RepeatAugSampler', shuffle=True, num_repeats=3)}


@pytest.fixture(scope='session')
def teacher(tmp_path_factory) -> str:
    model = build_model(load_config(CONFIG, TEACHER_OPTIONS))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def options_of(teacher: str, logits: Path | None, options: dict) -> dict:
    """Of a student with a teacher that runs, or with stored logits."""
    source = {'model.teacher': CONFIG, 'model.teacher_checkpoint': teacher, 'model.teacher_options': TEACHER_OPTIONS}
    return {**DISTILLED, **(source if logits is None else {'model.teacher_logits': str(logits)}), **options}


@pytest.fixture
def build(build_runner, teacher):
    return lambda work_dir, logits=None, **options: build_runner(work_dir, **options_of(teacher, logits, options))


@pytest.fixture
def config(digits_root, tmp_path, teacher):
    return lambda **options: digits_config(digits_root, tmp_path, **options_of(teacher, None, options))


@pytest.fixture
def save(teacher, tmp_path):
    """Store logits for the training of a runner's config; return the folder and what was said."""

    def save(cfg: Config, topk: int = 10, name: str = 'logits', **options) -> tuple[Path, list[str]]:
        cfg, said = copy.deepcopy(cfg), []
        cfg.merge_from_dict(options)
        save_logits(cfg, load_config(CONFIG, TEACHER_OPTIONS), teacher, str(tmp_path / name), topk, say=said.append)
        return tmp_path / name, said

    return save


def losses_of(runner) -> list[dict]:
    lines = Path(runner.log_dir, 'vis_data', f'{runner.timestamp}.json').read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if 'loss' in key} for line in lines if 'loss' in line
    ]


def weights_of(runner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])


@pytest.mark.parametrize(
    ('options', 'single'), [({}, False), (MIXED, True), (REPEATED, True)], ids=['half precision', 'mixed', 'repeated']
)
def test_training_is_that_of_a_running_teacher(build, config, save, monkeypatch, options, single):
    """Of all classes; but for the rounding of the logits, which single precision takes away."""
    if single:
        monkeypatch.setattr(halvit_mm.io.logits, 'LOGS', np.float32)
    folder, said = save(config(**options))
    # Each runner sets the seed from which its weights are drawn.
    running = build('running', **options)
    if not single:
        assert said[0].startswith('2 epochs of 40 images, the 10 largest of 10 logits: 2.9 kB (36 bytes an image)')
    assert said[1].startswith('epoch 1 of 2: the teacher says the label of ')
    start = weights_of(running)
    running.train()
    stored = build('stored', folder, **options)
    stored.train()
    wanted, given = losses_of(running), losses_of(stored)
    assert len(wanted) == 10
    for one, other in zip(wanted, given, strict=True):
        assert one.keys() == other.keys() == {'loss', 'loss_label', 'loss_soft', 'loss_hard'}
        assert one == pytest.approx(other, rel=2e-4 if single else 1e-2, abs=1e-5)
    apart = (weights_of(stored) - weights_of(running)).norm() / (weights_of(running) - start).norm()
    assert apart < (1e-3 if single else 0.05)


def test_after_a_cut_of_both(build, config, save, tmp_path, monkeypatch):
    """Of the writing of the logits, and of the training in the middle of an epoch."""
    monkeypatch.setattr(halvit_mm.io.logits, 'SHARD', 16)
    every = {'default_hooks.checkpoint': dict(by_epoch=False, interval=7), **MIXED}
    folder, _ = save(config(**every))
    before = {path: path.read_bytes() for path in folder.glob('*/*.npy')}
    assert len(before) == 2 * 3
    for name in ('epoch_1/0_2.npy', 'epoch_2/0_1.npy', 'epoch_2/0_2.npy'):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r'it is not whole: what rank 0 reads in epoch 1 is missing'):
        build('refused', folder, **every).train()
    _, said = save(config(**every))
    assert 'of which 1.4 kB are to be written' in said[0]
    assert {path: path.read_bytes() for path in before} == before
    stored = build('stored', folder, **every)
    stored.train()
    (tmp_path / 'cut').mkdir()
    shutil.copy(tmp_path / 'stored/iter_7.pth', tmp_path / 'cut')
    cut = build('cut', folder, resume=True, **every)
    cut.train()
    assert torch.equal(weights_of(cut), weights_of(stored))


def test_truncation(build, save):
    """Of 3 in 10 classes only the soft loss is another one: that of the truncated distribution."""
    running = build('running')
    folder, _ = save(running.cfg, topk=3)
    model = build('stored', folder, **{'model.hard': 0.0}).model
    model.init_weights()
    model.teacher_logits.accepted = True
    running.model.init_weights()
    images, samples = _first_batch(running)
    logits = running.model.teacher(images)
    largest = logits.log_softmax(1).topk(3)
    rest = (1 - largest.values.exp().sum(1, keepdim=True)).log() - torch.tensor(7.0).log()
    expected = rest.expand(-1, 10).scatter(1, largest.indices, largest.values)
    found = model.teacher_logits.teach(images, [sample.place for sample in samples])
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=6e-3, atol=1e-5)


def _first_batch(runner):
    loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=runner.seed)
    data = runner.model.data_preprocessor(next(iter(loader)), training=True)
    return data['inputs'], data['data_samples']


def test_refusals_before_anything_is_stored(config, save, tmp_path, monkeypatch):
    cfg = config()
    for options, message in (
        (
            {'randomness.seed': None},
            r'randomness=.* does not give all ranks a seed that a training can have again; exp',
        ),
        ({'train_cfg': dict(by_epoch=False, max_iters=9)}, r'train_cfg=.* does not count epochs; expected max_epochs'),
        ({'train_cfg.max_epochs': -1}, r'train_cfg=.* does not count epochs; expected max_epochs, 1 or more'),
        ({'train_dataloader': None}, 'train_dataloader=None is not the config of a data loader'),
        ({'model.head.num_classes': 7}, r'teacher\.pth is a teacher of 10 classes; expected the 7 of model\.head'),
        ({'train_dataloader.sampler.type': 'InfiniteSampler'}, r'train_dataloader\.sampler=.* never ends'),
        ({'train_dataloader.batch_sampler': dict(type='x')}, r'train_dataloader\.batch_sampler regroups the places'),
    ):
        with pytest.raises(UserError, match=message):
            save(cfg, **options)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: shutil._ntuple_diskusage(9000, 6000, 2000))
    with pytest.raises(
        UserError, match=r'--out .*logits is not a folder with 2\.9 kB free; expected a larger disk, fewer'
    ):
        save(cfg)
    assert not [*tmp_path.glob('logits/*')]


def test_a_folder_with_other_logits(save, config):
    cfg = config()
    folder, _ = save(cfg)
    for topk, options, message in (
        (3, {}, r'has other logits: topk was 10 and is 3; expected another --out'),
        (10, {'randomness.seed': 4}, r'has other logits: randomness\.seed was 3 and is 4'),
    ):
        with pytest.raises(UserError, match=message):
            save(cfg, topk, **options)
    # More epochs are added.
    _, said = save(cfg, **{'train_cfg.max_epochs': 3})
    assert len(said) == 2
    assert StoredLogits(folder).epochs == 3


@pytest.mark.long
def test_on_two_ranks(digits_root, teacher, tmp_path):
    """The list of one rank is filled up, and images are mixed."""
    on_ranks(_train_on_a_rank, digits_root, tmp_path, teacher)


def _train_on_a_rank(root: Path, folder: Path, teacher: str, rank: int) -> None:
    read_only_data()
    # Compilers and git, asked for their versions by each runner and each checkpoint
    mmengine.runner.runner.collect_env, mmengine.runner.runner.get_git_hash = dict, str
    os.environ['LOCAL_RANK'] = str(rank)
    loop = dict(by_epoch=True, max_epochs=1, val_interval=10)
    options = {**DISTILLED, **MIXED, 'loop': loop, 'launcher': 'pytorch', 'train_dataloader.dataset.indices': 61}
    source = {'model.teacher': CONFIG, 'model.teacher_checkpoint': teacher, 'model.teacher_options': TEACHER_OPTIONS}
    cfg = digits_config(root, folder, **options, **source)
    save_logits(cfg, load_config(CONFIG, TEACHER_OPTIONS), teacher, str(folder / 'logits'), launcher='pytorch')
    moved = []
    for name, logits in (('running', {}), ('stored', {'model.teacher_logits': str(folder / 'logits')})):
        runner = build_digits(root, folder, name, **options, **source, **logits)
        runner.model.module.init_weights()
        start = weights_of(runner)
        runner.train()
        moved.append(weights_of(runner) - start)
    stored = runner.model.module.teacher_logits
    assert (stored.ranks, stored.places) == (2, 62)
    assert (moved[1] - moved[0]).norm() < 0.05 * moved[0].norm()


def test_tool(digits_root, teacher, tmp_path):
    teacher_options = [f'model.backbone.arch.{key}={value}' for key, value in TINY_ARCH.items()]
    teacher_options += ['model.backbone.tie=none', 'model.head.in_channels=24']
    options = (f'train_dataloader.dataset.data_root={digits_root}', 'train_dataloader.dataset.indices=20')
    tool = ('tools/save_logits.py', CONFIG, CONFIG, teacher, '--topk', '3', '--out', tmp_path / 'logits')
    tool = (*tool, '--teacher-options', *teacher_options, '--cfg-options', *options, 'train_cfg.max_epochs=1')
    lines = run_tool(*tool).stdout.splitlines()
    assert any(line.startswith('1 epochs of 20 images, the 3 largest of 10 logits: 0.3 kB (15 bytes') for line in lines)
    assert StoredLogits(tmp_path / 'logits').missing(0, 0) == []
    for option, message in (
        ('randomness.seed=None', "randomness={'seed': None, "),
        ('randomness.seed=-1', 'randomness.seed=-1'),
        ('train_cfg.max_epochs=-1', 'train_cfg.max_epochs=-1'),
        ('train_dataloader=None', 'train_dataloader=None is not'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size=0'),
        ('train_dataloader.sampler.selectd=0', 'train_dataloader.sampler.selectd'),
        ('train_dataloader.dataset.pipeline.0.tpye=X', 'train_dataloader.dataset.pipeline.0.tpye'),
        ('train_dataloader.dataset.pipeline.0.type=LoadImageFromFil', 'train_dataloader.dataset.pipeline.0.type'),
        ('model.head.num_classes=7', f'{teacher} is a teacher of 10 classes'),
    ):
        failed = run_tool(*tool, option, check=False)
        assert failed.returncode == 2
        assert failed.stdout.splitlines()[-1].startswith(f'error: {message}')
