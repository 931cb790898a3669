import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch._dynamo.utils import counters

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import find_latest_checkpoint, load_file
from halvit_mm.train import FiniteStepHook
from halvit_mm.train.hooks.finite import check_finite
from tests.train.conftest import build_digits
from tests.train.faults import Fault
from tests.train.waits import waits_of
from tests.utils import assert_identical, on_ranks


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
    with pytest.raises(ValueError, match="action='ignore' is not an action; expected 'stop', 'skip' or 'off'"):
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


FOUR = dict(by_epoch=False, max_iters=4, val_interval=100)


def waits_of_both(build: Callable, *actions: str, **options) -> None:
    """An iteration under our runner reads and exchanges what it does under mmengine's own, and no more."""
    options = {'default_hooks.logger.interval': 100, 'default_hooks.checkpoint': dict(interval=100), **options}
    plain = waits_of(build('plain', FOUR, runner_type='Runner', **options))
    assert all(one['_local_scalar_dense'] > 0 for one in plain)
    for action in actions:
        assert waits_of(build(action, FOUR, **{'reliability.not_finite': action, **options})) == plain, action


def test_no_waits_of_our_own(build_runner):
    waits_of_both(build_runner, 'stop', 'skip', 'off')


def waits_on_ranks(root: Path, folder: Path, rank: int) -> None:
    os.environ['LOCAL_RANK'] = str(rank)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    options = {'launcher': 'pytorch', 'model_wrapper_cfg': wrapper, 'optim_wrapper.accumulative_counts': 2}
    waits_of_both(partial(build_digits, root, folder), 'stop', **options)


@pytest.mark.long
def test_no_waits_of_our_own_on_ranks(digits_root, tmp_path):
    """Gradients are exchanged once a step as under mmengine, and nothing is while they are accumulated."""
    on_ranks(waits_on_ranks, digits_root, tmp_path)


def test_a_compiled_step_is_not_cut_by_the_check(build_runner):
    """The check is where the backward pass ends a graph anyway."""
    breaks = []
    for kind in ('Runner', 'halvit_mm.ResumableRunner'):
        torch._dynamo.reset()
        counters.clear()
        build_runner(
            kind,
            dict(by_epoch=False, max_iters=2, val_interval=100),
            runner_type=kind,
            compile=dict(backend='eager'),
            **{
                'model.backbone.arch.num_layers': 1,
                'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=0.01, weight_decay=0.0),
                # Upstream's smoothing of labels reads from the device.
                'model.head.loss': dict(_delete_=True, type='CrossEntropyLoss'),
                'default_hooks.checkpoint': dict(interval=100),
            },
        ).train()
        breaks.append(sum(counters['graph_break'].values()))
    assert breaks[1] == breaks[0] > 0


@pytest.mark.parametrize('fused', [True, False])
def test_overflows_are_left_to_the_scaler(build_runner, monkeypatch, fused):
    """A scale of 2**127 overflows in the first steps, whatever the optimizer; a loss of NaN is none of the scaler's."""
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)
    options = {
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.dtype': 'bfloat16',
        'optim_wrapper.loss_scale': dict(device='cpu', init_scale=2.0**127),
        'optim_wrapper.optimizer.fused': fused,
        'model.head.loss.loss_weight': 64.0,
    }
    runner = build_runner('a', **options)
    runner.train()
    scale = runner.optim_wrapper.loss_scaler.get_scale()
    assert 0 < scale < 2.0**127
    check_finite(runner.model)
    runner = build_runner('b', **options, **fault('loss', 9))
    with pytest.raises(UserError, match=r'iteration 9 \(learning rate .*\): the loss is not finite \(nan\)'):
        runner.train()


def test_off(build_runner):
    runner = build_runner(**{'reliability.not_finite': 'off'}, **fault('loss', 7))
    with pytest.raises(UserError, match='is not finite: no checkpoint is written'):
        runner.train()


def test_accumulated_gradients_are_skipped_together(build_runner):
    """Of four batches of one step the second has a loss of NaN: the step is left out, and the next one is made."""
    runner = build_runner(
        loop=dict(by_epoch=False, max_iters=8, val_interval=100),
        **{'reliability.not_finite': 'skip', 'optim_wrapper.accumulative_counts': 4},
        **fault('loss', 2),
    )
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.message_hub.get_scalar('train/skipped_steps').data[0].tolist() == [1]
    check_finite(runner.model)
    assert any(not torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())


def sharded(rank: int) -> None:
    """The last step has a gradient that is not finite on the first rank's part of the weights only."""
    # Not in torch 2.1
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = nn.Linear(4, 4)
    fully_shard(model, mesh=init_device_mesh('cpu', (2,)))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    backward = wrapper.backward

    def infinite(loss: torch.Tensor) -> None:
        backward(loss)
        if rank == 0:
            model.weight.grad.to_local()[0] = torch.inf

    hook = FiniteStepHook('skip')
    weights = []
    for one in (backward, infinite):
        wrapper.backward = one
        hook.before_train(SimpleNamespace(model=model, optim_wrapper=wrapper, iter=0))
        wrapper.update_params(model(torch.ones(1, 4)).sum())
        weights.append(model.weight.to_local().clone())
    assert torch.equal(*weights)
    assert hook._cause == 'iteration 1 (learning rate 0.1): the gradients are not finite'


def test_ranks_with_parts_of_the_gradients_act_alike():
    on_ranks(sharded)
