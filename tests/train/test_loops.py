"""Runs that are resumed with other batches, other ranks or other images than they were cut with."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import load_file
from tests.utils import count_reads, run_tool

BY_EPOCH = dict(by_epoch=True, max_epochs=3, val_interval=100)
BY_ITERATION = dict(by_epoch=False, max_iters=15, val_interval=100)
EVERY_ITERATION = {'default_hooks.checkpoint': dict(by_epoch=False, interval=1, max_keep_ckpts=-1)}
WARM_UP = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2, convert_to_iter_based=True)]


@pytest.fixture
def cut(build_runner, tmp_path):
    """Train with batches of 8, five to an epoch, and leave the checkpoint of an iteration alone in a work directory."""

    def cut(iteration: int, loop: dict = BY_EPOCH, **options) -> list[int]:
        runner = build_runner('whole', loop, **EVERY_ITERATION, **options)
        read = count_reads(runner)
        runner.train()
        (tmp_path / 'cut').mkdir()
        shutil.copy(tmp_path / f'whole/iter_{iteration}.pth', tmp_path / 'cut')
        return read

    return cut


def resume(build_runner, loop: dict = BY_EPOCH, **options):
    runner = build_runner('cut', loop, resume=True, **EVERY_ITERATION, **options)
    read = count_reads(runner)
    runner.train()
    return runner, read


def log_of(runner) -> str:
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


@pytest.mark.parametrize(('batch', 'rest', 'epoch'), [(16, 1, 3), (4, 4, 10), (24, 1, 2), (5, 4, 8)])
def test_other_batches(build_runner, cut, batch, rest, epoch):
    """The 16 images that the second epoch has left are read once, then those of a third."""
    read = cut(8)
    runner, again = resume(build_runner, **{'train_dataloader.batch_size': batch})
    assert again == read[64:]
    assert runner.iter == 8 + rest + epoch
    assert runner.max_iters == runner.iter
    assert runner.epoch == 3
    assert 'the images of a step were 8 and are' in log_of(runner)


def test_at_the_end_of_an_epoch(build_runner, cut):
    read = cut(10)
    runner, again = resume(build_runner, **{'train_dataloader.batch_size': 20})
    assert again == read[80:]
    assert (runner.epoch, runner.iter) == (3, 12)


@pytest.mark.parametrize('images', [24, 56])
def test_other_images(build_runner, cut, images):
    """Their order is another one, so that the epoch is begun anew."""
    cut(8)
    runner, again = resume(build_runner, **{'train_dataloader.dataset.indices': images})
    assert len(again) == 2 * images
    assert sorted(again[:images]) == [*range(images)]
    assert f'the images were 40 and are {images}' in log_of(runner)
    assert 'epoch 2 begins' in log_of(runner)


def test_resumed_twice(build_runner, cut, tmp_path):
    read = cut(7)
    resume(build_runner, **{'train_dataloader.batch_size': 4})
    for file in (tmp_path / 'cut').glob('iter_*.pth'):
        if file.name != 'iter_9.pth':
            file.unlink()
    runner, again = resume(build_runner, **{'train_dataloader.batch_size': 8})
    assert again == read[64:]
    assert runner.iter == 9 + 2 + 5


def test_no_batch(build_runner):
    """Upstream trains on nothing and says that it is done."""
    runner = build_runner(**{'train_dataloader.batch_size': 64, 'train_dataloader.drop_last': True})
    with pytest.raises(UserError, match=r'train_dataloader has 40 images and no batch of batch_size=64 on 1 ranks'):
        runner.train()


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_loops_by_iteration(build_runner, cut, sampler):
    options = {'train_dataloader.sampler.type': sampler}
    read = cut(7, BY_ITERATION, **options)
    runner, again = resume(build_runner, BY_ITERATION, **options, **{'train_dataloader.batch_size': 4})
    assert runner.iter == 15
    assert again == read[56 : 56 + 8 * 4]


def test_a_checkpoint_without_a_place(build_runner, cut, tmp_path):
    """As earlier releases wrote them: what is known is the number of iterations."""
    read = cut(8)
    content = load_file(tmp_path / 'cut/iter_8.pth')
    del content['message_hub']['runtime_info']['place']
    torch.save(content, tmp_path / 'cut/iter_8.pth')
    shutil.copy(tmp_path / 'cut/iter_8.pth', tmp_path / 'iter_8.pth')
    _, again = resume(build_runner)
    assert again == read[64:]
    for file in (tmp_path / 'cut').glob('iter_*.pth'):
        file.unlink()
    shutil.copy(tmp_path / 'iter_8.pth', tmp_path / 'cut')
    runner, again = resume(build_runner, **{'train_dataloader.batch_size': 20})
    assert len(again) == 80
    assert runner.epoch == 3


def test_schedules_keep_to_the_epochs(build_runner, cut, tmp_path):
    """A warm-up of two epochs is one of two epochs still, and goes on where it was."""

    def rate(folder: str, iteration: int) -> float:
        return load_file(tmp_path / folder / f'iter_{iteration}.pth')['optimizer']['param_groups'][0]['lr']

    cut(5, param_scheduler=WARM_UP)
    resume(build_runner, param_scheduler=WARM_UP, **{'train_dataloader.batch_size': 4})
    # Ten of the warm-up's iterations are twenty now: the rate of iteration n is that of a run that always had them.
    build_runner(
        'small', BY_EPOCH, param_scheduler=WARM_UP, **EVERY_ITERATION, **{'train_dataloader.batch_size': 4}
    ).train()
    for now in (6, 10, 14, 15, 25):
        assert rate('cut', now) == pytest.approx(rate('small', now + 5))


@pytest.mark.long
def test_more_ranks(build_runner, cut, digits_root, tmp_path):
    """One rank's run goes on on two: they read what is left, each image once."""
    cut(8)
    config = tmp_path / 'config.py'
    cfg = Config.fromfile(tmp_path / 'whole/halvit_2xb64_digits.py')
    cfg.custom_imports = dict(imports='tests.train.image_recorder')
    cfg.custom_hooks = [dict(type='ImageRecorder', out=str(tmp_path))]
    cfg.work_dir = str(tmp_path / 'cut')
    cfg.dump(config)
    run_tool('tools/train.py', config, '--launcher', 'pytorch', '--resume', '--no-validate', ranks=2)
    read = [(tmp_path / f'rank{rank}.txt').read_text().splitlines() for rank in (0, 1)]
    second = [line for lines in read for line in lines if line.startswith('1 ')]
    third = [line for lines in read for line in lines if line.startswith('2 ')]
    assert len(second) == len({*second}) == 16
    assert len(third) == len({*third}) == 40
