"""Steps whose loss or gradients are not finite."""

import logging
import math
from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.errors import RankError, UserError
from halvit_mm.io.configs import FINITE_ACTIONS, check_action
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Stop a training at a step whose loss or gradients are not finite, or skip the step.

    A loss that is not finite makes all of its gradients NaN, and the ranks exchange the gradients anyway: so all ranks
    act alike. The gradients are looked at on the device. One number is read from there before each step: the loss, or
    NaN for gradients that are not finite. mmengine reads the loss after each step; it is given this one instead, so
    that the hook waits for the device no more often than a training without it. Only ranks with shards of the
    gradients (FSDP) compare what they have found in each step; others compare their losses when a number is not finite.

    A skipped step changes neither weights nor moments nor the statistics of batch norms; ``skipped_steps`` in the log
    counts such steps. Under mixed precision the scaler handles an overflow in the gradients.

    Args:
        action (str): ``'stop'``, ``'skip'``, or ``'off'``, with which nothing is looked at. Defaults to ``'stop'``.
        max_in_row (int): Consecutive steps that ``'skip'`` may skip before it stops the training. Defaults to 10.

    Raises:
        ValueError: If ``action`` is none of these.
    """

    # Before mmengine's RuntimeInfoHook, which reads the loss
    priority = 'HIGHEST'

    @refuse_unknown_arguments
    def __init__(self, action: str = 'stop', max_in_row: int = 10) -> None:
        check_action('action', action, FINITE_ACTIONS)
        Expect(self).whole(max_in_row=max_in_row)
        self.action = action
        self.max_in_row = max_in_row
        self._cause = None
        self._in_row = 0
        self._buffers = None
        self._begin_step()
        self._loss = self._read = None

    def before_train(self, runner: Runner) -> None:
        if self.action == 'off':
            return
        wrapper = runner.optim_wrapper
        for one in wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            self._watch(runner, one)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self.action == 'skip' and self._buffers is None:
            self._buffers = [(buffer, buffer.clone()) for buffer in runner.model.buffers()]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._read is not None and _is_logged(self._loss, outputs):
            outputs['loss'] = torch.tensor(self._read, dtype=self._loss.dtype)
        self._loss = self._read = None
        if self._losses:
            return  # Gradients are accumulated for a later step.
        buffers, self._buffers = self._buffers, None
        if self._cause is None:
            self._in_row = 0
            return
        for buffer, value in buffers:
            buffer.copy_(value)
        self._in_row += 1
        if self._in_row > self.max_in_row:
            raise UserError(f'{self._cause}; {self._in_row} steps in a row could not be made')
        skipped = runner.message_hub.runtime_info.get('skipped_steps', 0) + 1
        runner.message_hub.update_info('skipped_steps', skipped)
        runner.message_hub.update_scalar('train/skipped_steps', skipped)
        print_log(f'{self._cause}; the step is skipped', logger='current', level=logging.WARNING)
        self._cause = None

    def _begin_step(self) -> None:
        self._losses, self._looked = [], False

    def _watch(self, runner: Runner, optim_wrapper: OptimWrapper) -> None:
        optimizer = optim_wrapper.optimizer
        # A wrapper with a backward pass of its own scales the loss: its gradients may overflow.
        scales = type(optim_wrapper).backward is not OptimWrapper.backward
        update_params, backward, step = optim_wrapper.update_params, optim_wrapper.backward, optim_wrapper.step

        def watched_update(loss: torch.Tensor, *args, **kwargs) -> None:
            self._loss, value = loss, loss.detach()
            self._losses.append(value)
            # The gradient of a finite loss times 1 is bit for bit that of the loss.
            update_params(loss * torch.where(torch.isfinite(value), 1.0, torch.nan), *args, **kwargs)

        # A compiled training step ends its graph at the backward pass in any case; the check is at the same place.
        @torch.compiler.disable
        def watched_backward(*args, **kwargs) -> None:
            backward(*args, **kwargs)
            if not scales and optim_wrapper.should_update():
                self._look(runner, optimizer)

        def watched_step(*args, **kwargs) -> None:
            step(*args, **kwargs)
            if not self._looked and self._losses:
                # The scaler has found an overflow and has not called the optimizer.
                self._compare(runner, by_scaler=True)
            self._begin_step()

        def before_step(*_) -> None:
            if not self._looked:
                self._look(runner, optimizer)

        optim_wrapper.update_params, optim_wrapper.backward = watched_update, watched_backward
        optim_wrapper.step = watched_step
        optimizer.register_step_pre_hook(before_step)

    def _look(self, runner: Runner, optimizer: torch.optim.Optimizer) -> None:
        self._looked = True
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        if not parameters:
            return
        # A scaler leaves its overflows to an optimizer that knows of them, such as a fused one.
        found_inf = getattr(optimizer, 'found_inf', None)
        finite = _are_finite([p.grad for p in parameters]) if found_inf is None else found_inf == 0
        if found_inf is None and _is_sharded(runner.model, parameters):
            shards = finite.float()
            all_reduce(shards, 'min')
            finite = shards > 0
        loss = finite.new_zeros((), dtype=torch.float) if self._loss is None else self._loss.detach()
        read = torch.where(finite, loss, torch.nan).item()
        if math.isfinite(read):
            self._read = read
            return
        if finite.item() and get_world_size() > 1:
            # The others do not know of it.
            raise RankError(f'{_where(runner)}: the loss of this rank is not finite ({read:g}), but its gradients are')
        self._compare(runner, by_scaler=found_inf is not None)
        if self._cause is not None:
            # Optimizers skip parameters without gradients, their moments and weight decay too.
            for parameter in parameters:
                parameter.grad = None

    def _compare(self, runner: Runner, by_scaler: bool) -> None:
        """Find what is not finite, after all ranks have found that something is not."""
        losses = [0.0]
        if self._losses:
            mean = torch.stack([loss.float() for loss in self._losses]).mean()
            losses = [value.item() for value in all_gather(mean.reshape(1))]
        if not all(map(math.isfinite, losses)):
            self._report(runner, f'the loss is not finite ({", ".join(f"{loss:g}" for loss in losses)})')
        elif not by_scaler:
            self._report(runner, 'the gradients are not finite')

    def _report(self, runner: Runner, what: str) -> None:
        self._cause = f'{_where(runner)}: {what}'
        if self.action == 'stop':
            raise UserError(
                f'{self._cause}; the weights are unchanged and the last checkpoint is kept. A lower rate, or '
                'reliability.not_finite=skip, which skips such steps, may help'
            )


def _where(runner: Runner) -> str:
    rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
    return f'iteration {runner.iter + 1} (learning rate {rate:g})'


def _are_finite(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Whether all gradients are finite, on their device."""
    own = [grad.to_local() if hasattr(grad, 'to_local') else grad for grad in gradients]
    own = [grad for grad in own if grad.numel()] or [own[0].new_zeros(1)]
    # The largest of finite numbers is finite, in any precision. A sum of squares need not be.
    return torch.stack([norm.float() for norm in torch._foreach_norm(own, math.inf)]).isfinite().all()


def _is_sharded(model: torch.nn.Module, parameters: Sequence[torch.Tensor]) -> bool:
    """Whether each rank has gradients of its own parts of the weights, under FSDP and FSDP2."""
    return isinstance(model, FullyShardedDataParallel) or hasattr(parameters[0], 'to_local')


def _is_logged(loss: torch.Tensor, outputs: object) -> bool:
    """Whether ``outputs['loss']``, which mmengine logs, is the loss of the step, and not a part of the loss."""
    if not isinstance(outputs, dict) or 'loss' not in outputs:
        return False
    return outputs['loss'] is loss or [key for key in outputs if 'loss' in key] == ['loss']


def check_finite(model: torch.nn.Module) -> None:
    """Raise a :class:`UserError` if a weight or a buffer of a model is not finite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f'{name} is not finite: no checkpoint is written, and the last one is kept')
