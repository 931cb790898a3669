from pathlib import Path

import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import find_latest_checkpoint, load_file
from halvit_mm.train import FiniteStepHook
from halvit_mm.train.hooks.finite import check_finite
from tests.train.faults import Fault
from tests.utils import assert_identical


def fault(kind: str, *iterations: int) -> dict:
    return {'custom_hooks': [dict(type=Fault, kind=kind, iterations=iterations)]}


@pytest.mark.parametrize(
    ('kind', 'told'), [('loss', r'the loss is not finite \(nan\)'), ('gradient', 'the gradients are not finite')]
)
def test_stop(build_runner, kind, told):
    runner = build_runner(**fault(kind, 7))
    with pytest.raises(UserError, match=rf'iteration 7 \(learning rate 0\.00187879\): {told}; .*not_finite=skip'):
        runner.train()
    check_finite(runner.model)
    latest = find_latest_checkpoint(runner.work_dir)
    assert Path(latest).name == 'epoch_1.pth'


@pytest.mark.parametrize('kind', ['loss', 'gradient'])
def test_skip_leaves_everything_as_it_was(build_runner, kind):
    """A step that is left out is as if it had not been: weights, moments, statistics, the count in the log."""
    options = {
        'reliability.not_finite': 'skip',
        'param_scheduler': None,
        'default_hooks.checkpoint': dict(by_epoch=False, interval=1, max_keep_ckpts=-1),
        # batch norm's statistics too
        'model.backbone': dict(
            _delete_=True,
            type='halvit_mm.SharedStageResNet',
            depth=50,
            base_channels=4,
            stem_channels=4,
            expansion=4,
            num_stages=2,
            out_indices=(1,),
            strides=(1, 2),
            dilations=(1, 1),
            shared_stages=(1,),
        ),
        'model.neck': dict(type='GlobalAveragePooling'),
        'model.head': dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=32),
    }
    runner = build_runner(loop=dict(by_epoch=True, max_epochs=1), **options, **fault(kind, 3, 4))
    runner.train()
    before, after = (load_file(Path(runner.work_dir, f'iter_{i}.pth')) for i in (2, 4))
    for state in (before, after):
        for name in [name for name in state['state_dict'] if 'num_batches' in name]:
            assert state['state_dict'][name] == 2
    assert_identical(before['state_dict'], after['state_dict'])
    assert_identical(before['optimizer'], after['optimizer'])
    assert runner.message_hub.get_scalar('train/skipped_steps').data[0].tolist() == [1, 2]
    check_finite(runner.model)
    last = load_file(Path(runner.work_dir, 'iter_5.pth'))
    assert not torch.equal(last['state_dict']['head.fc.weight'], after['state_dict']['head.fc.weight'])


def test_too_many_in_a_row(build_runner):
    runner = build_runner(**{'reliability.not_finite': 'skip'}, **fault('loss', *range(2, 20)))
    hook = next(hook for hook in runner.hooks if isinstance(hook, FiniteStepHook))
    hook.max_in_row = 3
    with pytest.raises(UserError, match=r'iteration 5 .*; 4 steps in a row could not be made'):
        runner.train()


def test_a_checkpoint_of_nan_is_not_written(build_runner):
    runner = build_runner()
    with torch.no_grad():
        runner.model.head.layers.head.bias[3] = torch.inf
    with pytest.raises(UserError, match=r'head\.layers\.head\.bias is not finite: no checkpoint is written'):
        runner.save_checkpoint(runner.work_dir, 'epoch_1.pth')
    assert find_latest_checkpoint(runner.work_dir) is None


def test_unknown_action():
    with pytest.raises(ValueError, match="action='ignore' is not an action; expected 'stop' or 'skip'"):
        FiniteStepHook('ignore')


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ({'not_finit': 'skip'}, 'reliability.not_finit is not an option; expected not_finite'),
        ({'bad_images': 1}, "reliability.bad_images=1 is not an action; expected 'stop' or 'skip'"),
        ({'hang_limit': 'soon'}, "reliability.hang_limit='soon' is not a time; expected a number of seconds"),
        ({'hang_limit': 0}, 'reliability.hang_limit=0 is not a time'),
    ],
)
def test_options(build_runner, options, told):
    with pytest.raises(UserError, match=told):
        build_runner(reliability=options)
