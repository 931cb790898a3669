"""Steps whose loss or gradients are not finite."""

import logging

import torch
from mmengine.dist import all_gather, all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.errors import UserError
from halvit_mm.io.configs import check_action
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteStepHook(Hook):
    """Stop a training at a step whose loss or gradients are not finite, or skip the step.

    The ranks compare their losses before each step, and their gradients are equal, so that all of them act alike. A
    skipped step changes neither weights nor moments nor the statistics of batch norms; ``skipped_steps`` in the log
    counts such steps. Under mixed precision the scaler handles an overflow in the gradients.

    Args:
        action (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_in_row (int): Consecutive steps that ``'skip'`` may skip before it stops the training. Defaults to 10.

    Raises:
        ValueError: If ``action`` is neither.
    """

    priority = 'VERY_HIGH'

    @refuse_unknown_arguments
    def __init__(self, action: str = 'stop', max_in_row: int = 10) -> None:
        check_action('action', action)
        Expect(self).whole(max_in_row=max_in_row)
        self.action = action
        self.max_in_row = max_in_row
        self._cause = None
        self._in_row = 0

    def before_train(self, runner: Runner) -> None:
        optim_wrapper = runner.optim_wrapper
        update_params = optim_wrapper.update_params

        def watched(loss: torch.Tensor, *args, **kwargs) -> None:
            self._check_loss(runner, loss.detach())
            update_params(loss, *args, **kwargs)

        optim_wrapper.update_params = watched
        optim_wrapper.optimizer.register_step_pre_hook(lambda optimizer, *_: self._check_gradients(runner, optimizer))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self.action == 'skip':
            self._buffers = [(buffer, buffer.clone()) for buffer in runner.model.buffers()]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._cause is None:
            self._in_row = 0
            return
        for buffer, value in self._buffers:
            buffer.copy_(value)
        self._in_row += 1
        if self._in_row > self.max_in_row:
            raise UserError(f'{self._cause}; {self._in_row} steps in a row could not be made')
        skipped = runner.message_hub.runtime_info.get('skipped_steps', 0) + 1
        runner.message_hub.update_info('skipped_steps', skipped)
        runner.message_hub.update_scalar('train/skipped_steps', skipped)
        print_log(f'{self._cause}; the step is skipped', logger='current', level=logging.WARNING)
        self._cause = None

    def _check_loss(self, runner: Runner, loss: torch.Tensor) -> None:
        infinite = (~torch.isfinite(loss)).float().reshape(1)
        all_reduce(infinite, 'max')
        if infinite.item():
            losses = ', '.join(f'{value.item():g}' for value in all_gather(loss.float().reshape(1)))
            self._report(runner, f'the loss is not finite ({losses})')

    def _check_gradients(self, runner: Runner, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        if self._cause is None and parameters:
            norms = torch._foreach_norm([p.grad for p in parameters])
            if not torch.stack([norm.float() for norm in norms]).sum().isfinite():
                self._report(runner, 'the gradients are not finite')
        if self._cause is not None:
            # Optimizers skip parameters without gradients, their moments and weight decay too.
            for parameter in parameters:
                parameter.grad = None

    def _report(self, runner: Runner, what: str) -> None:
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        self._cause = f'iteration {runner.iter + 1} (learning rate {rate:g}): {what}'
        if self.action == 'stop':
            raise UserError(
                f'{self._cause}; the weights are unchanged and the last checkpoint is kept. A lower rate, or '
                'reliability.not_finite=skip, which skips such steps, may help'
            )


def check_finite(model: torch.nn.Module) -> None:
    """Raise a :class:`UserError` if a weight or a buffer of a model is not finite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f'{name} is not finite: no checkpoint is written, and the last one is kept')
