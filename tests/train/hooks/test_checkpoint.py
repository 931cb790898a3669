import shutil
from pathlib import Path

import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import find_latest_checkpoint, load_file
from halvit_mm.train.hooks.checkpoint import WholeCheckpointHook
from tests.utils import assert_identical, count_reads


def save(path, **meta) -> None:
    torch.save(dict(meta=meta, state_dict=dict(weight=torch.rand(4)), message_hub=dict()), path)


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
