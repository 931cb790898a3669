import os
import shutil
from pathlib import Path

import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import check_writable, find_latest_checkpoint, load_file, read_seed, written_whole
from halvit_mm.train.hooks.checkpoint import WholeCheckpointHook
from tests.utils import assert_identical


def save(path, **meta) -> None:
    torch.save(dict(meta=meta, state_dict=dict(weight=torch.rand(4)), message_hub=dict()), path)


def test_a_file_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), written_whole(path) as part:
        part.write_bytes(b'ne')
        assert path.read_bytes() == b'old'
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    with written_whole(path) as part:
        part.write_bytes(b'new')
    assert path.read_bytes() == b'new'
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']


def test_latest_is_the_highest_number(tmp_path):
    for i, epoch in enumerate((10, 9, 2)):
        save(tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (i, i))
    save(tmp_path / 'best_accuracy_epoch_99.pth')
    (tmp_path / 'epoch_11.pth.part').write_bytes(b'')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth')


def test_cut_files_are_passed_over(tmp_path, caplog):
    save(tmp_path / 'epoch_1.pth')
    whole = (tmp_path / 'epoch_1.pth').read_bytes()
    for epoch, length in ((2, len(whole) // 2), (3, len(whole) - 1), (4, 0)):
        (tmp_path / f'epoch_{epoch}.pth').write_bytes(whole[:length])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('pointer', ['', None])
def test_without_the_pointer(tmp_path, pointer):
    assert find_latest_checkpoint(tmp_path) is None
    assert find_latest_checkpoint(tmp_path / 'absent') is None
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    save(tmp_path / 'iter_20.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'iter_20.pth')


def test_checkpoints_that_are_kept_elsewhere(tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    save(tmp_path / 'elsewhere' / 'epoch_3.pth')
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'elsewhere' / 'epoch_2.pth'))
    assert find_latest_checkpoint(tmp_path / 'work') == str(tmp_path / 'elsewhere' / 'epoch_3.pth')


def test_the_kind_that_was_written_last(tmp_path):
    save(tmp_path / 'iter_500.pth')
    os.utime(tmp_path / 'iter_500.pth', (1, 1))
    save(tmp_path / 'epoch_2.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')


def test_seed(tmp_path):
    save(tmp_path / 'a.pth', seed=41)
    assert read_seed(tmp_path / 'a.pth') == 41
    save(tmp_path / 'b.pth')
    assert read_seed(tmp_path / 'b.pth') is None


def test_a_damaged_byte_is_found(tmp_path):
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth')
    content = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    content[content.index(b'data/0') + 80] ^= 1  # within the weights
    (tmp_path / 'epoch_2.pth').write_bytes(content)
    torch.save(dict(weight=torch.rand(4)), tmp_path / 'epoch_3.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


class Code:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def test_code_in_the_newest_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth', code=Code())
    with pytest.raises(UserError, match=r'epoch_2\.pth carries code \(posix\.mkdir\)'):
        find_latest_checkpoint(tmp_path)
    assert not (tmp_path / 'executed').exists()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    (tmp_path / 'epoch_1.pth.part').symlink_to('/dev/full')
    message = r'epoch_1\.pth cannot be written \(No space left on device\)'
    with pytest.raises(UserError, match=message), written_whole(path) as part:
        part.write_bytes(b'new')
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'old'


@pytest.mark.parametrize('folder', ['/proc/training', 'file/training'])
def test_folder_that_cannot_be_written_to(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    with pytest.raises(UserError, match=f'work_dir {folder} cannot be written to'):
        check_writable(folder)
    check_writable('made/by/it')
    assert [*Path('made/by/it').iterdir()] == []


class TestHook:
    def test_the_old_one_goes_after_the_new_one_is_whole(self, build_runner, monkeypatch):
        runner = build_runner(**{'default_hooks.checkpoint.max_keep_ckpts': 1})
        work_dir, there = Path(runner.work_dir), []
        save_checkpoint = runner.save_checkpoint

        def spy(*args, **kwargs):
            save_checkpoint(*args, **kwargs)
            there.append(sorted(file.name for file in work_dir.glob('*.pth')))

        monkeypatch.setattr(runner, 'save_checkpoint', spy)
        runner.train()
        assert there == [['epoch_1.pth'], ['epoch_1.pth', 'epoch_2.pth']]
        assert [file.name for file in work_dir.glob('*.pth')] == ['epoch_2.pth']
        assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_2.pth')
        # What a kill before the deletion left behind goes at the next start.
        save(work_dir / 'epoch_1.pth')
        options = {'default_hooks.checkpoint.max_keep_ckpts': 1, 'resume': True}
        build_runner(loop=dict(by_epoch=True, max_epochs=3), **options).train()
        assert [file.name for file in work_dir.glob('*.pth')] == ['epoch_3.pth']

    def test_the_best_one_is_kept_until_the_better_one_is_whole(self, build_runner, monkeypatch):
        runner = build_runner(loop=dict(by_epoch=True, max_epochs=3), **{'default_hooks.checkpoint.save_best': 'auto'})
        metrics = iter([10.0, 5.0, 20.0])
        hook = next(hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook))
        work_dir, there = Path(runner.work_dir), []
        save_checkpoint = runner.save_checkpoint

        def spy(*args, **kwargs):
            save_checkpoint(*args, **kwargs)
            there.append(sorted(file.name for file in work_dir.glob('best*.pth')))

        monkeypatch.setattr(runner, 'save_checkpoint', spy)
        save_best = hook._save_best_checkpoint
        monkeypatch.setattr(
            hook, '_save_best_checkpoint', lambda runner, _: save_best(runner, {'accuracy/top1': next(metrics)})
        )
        runner.train()
        best = [f'best_accuracy_top1_epoch_{epoch}.pth' for epoch in (1, 3)]
        assert best in there
        assert [file.name for file in work_dir.glob('best*')] == best[1:]
        assert runner.message_hub.get_info('best_ckpt') == str(work_dir / best[1])

    def test_only_files_of_the_folder_are_deleted(self, build_runner, tmp_path):
        build_runner(loop=dict(by_epoch=True, max_epochs=1)).train()
        path = tmp_path / 'run/epoch_1.pth'
        checkpoint = load_file(path)
        (tmp_path / 'precious').mkdir()
        (tmp_path / 'precious.pth').touch()
        checkpoint['message_hub']['runtime_info'].update(
            best_ckpt=str(tmp_path / 'precious'), best_score=-1.0, keep_ckpt_ids=['/../../precious'] * 3
        )
        torch.save(checkpoint, path)
        (tmp_path / 'run/epoch_').mkdir()
        options = {'default_hooks.checkpoint.save_best': 'auto', 'default_hooks.checkpoint.max_keep_ckpts': 1}
        build_runner(loop=dict(by_epoch=True, max_epochs=2), resume=True, **options).train()
        assert (tmp_path / 'precious').is_dir()
        assert (tmp_path / 'precious.pth').is_file()
        assert [file.name for file in (tmp_path / 'run').glob('best*')] == ['best_accuracy_top1_epoch_2.pth']

    def test_a_full_disk_ends_the_run(self, build_runner, tmp_path):
        runner = build_runner()
        (tmp_path / 'run/epoch_2.pth.part').symlink_to('/dev/full')
        with pytest.raises(UserError, match=r'epoch_2\.pth cannot be written .* --resume goes on from there'):
            runner.train()
        assert find_latest_checkpoint(tmp_path / 'run') == str(tmp_path / 'run/epoch_1.pth')


def state(path) -> dict:
    """What a checkpoint holds, without times."""
    content = load_file(path)
    scalars = content['message_hub']['log_scalars']
    logs = {key: value.data[0].tolist() for key, value in scalars.items() if 'time' not in key}
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return {**{part: content[part] for part in parts}, 'logs': logs, 'epoch': content['meta']['epoch']}


BY_EPOCH = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=100)
BY_ITERATION = dict(by_epoch=False, max_iters=10, val_interval=100)


@pytest.mark.parametrize(
    ('loop', 'sampler', 'workers'),
    [(BY_EPOCH, 'DefaultSampler', 0), (BY_ITERATION, 'DefaultSampler', 1), (BY_ITERATION, 'InfiniteSampler', 0)],
)
def test_a_run_resumed_anywhere_ends_as_one_that_was_not_cut(build_runner, tmp_path, loop, sampler, workers):
    options = {
        'default_hooks.checkpoint': dict(by_epoch=False, interval=1, max_keep_ckpts=-1),
        'custom_hooks': [dict(type='EMAHook', momentum=0.1)],
        'model.backbone.drop_path_rate': 0.3,
        'train_dataloader.sampler.type': sampler,
        'train_dataloader.num_workers': workers,
    }
    build_runner('whole', loop, **options).train()
    expected = state(tmp_path / 'whole/iter_10.pth')
    for cut in (5, 8):
        work_dir = tmp_path / f'cut{cut}'
        work_dir.mkdir()
        shutil.copy(tmp_path / f'whole/iter_{cut}.pth', work_dir)
        runner = build_runner(work_dir.name, loop, resume=True, **options)
        read = count_reads(runner)
        runner.train()
        assert runner.iter == 10
        # With a worker, samples are read in its process.
        assert workers or len(read) == 8 * (10 - cut)
        assert_identical(state(work_dir / 'iter_10.pth'), expected)


def count_reads(runner) -> list:
    """Note what the training reads from here on."""
    dataset = runner.train_dataloader.dataset.dataset.dataset
    read, prepare = [], dataset.prepare_data

    def noted(index):
        read.append(index)
        return prepare(index)

    dataset.prepare_data = noted
    return read
