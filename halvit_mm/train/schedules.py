"""Schedules of a run that is resumed with another number of iterations in an epoch."""

from collections.abc import Sequence
from typing import Any

from mmengine.optim import _ParamScheduler


class Beginning:
    """The state of schedules, and of the optimizer's values that they set, before the first iteration.

    Args:
        schedules (Sequence[_ParamScheduler]): New schedules.
        configs (Sequence[dict] or dict): Their configs.
    """

    def __init__(self, schedules: Sequence[_ParamScheduler], configs: Sequence[dict] | dict) -> None:
        self.schedules = schedules
        self.converted = [
            bool(isinstance(cfg, dict) and cfg.get('convert_to_iter_based'))
            for cfg in (configs if isinstance(configs, (list, tuple)) else [configs])
        ]
        self.states = [dict(vars(schedule)) for schedule in schedules]
        self.values: dict[str, list[Any]] = {
            schedule.param_name: [group[schedule.param_name] for group in schedule.optimizer.param_groups]
            for schedule in schedules
        }

    def replay(self, epochs: int, iterations: int, length: int) -> None:
        """Step the schedules to a place of the run, as if its epochs had always had their present length.

        mmengine's schedules compute a value from the value before, so that all steps have to be repeated. A schedule
        that counts iterations in the config, and was not converted from epochs, keeps its count.

        Args:
            epochs (int): Completed epochs.
            iterations (int): Completed iterations of all epochs, in epochs of the present length.
            length (int): Iterations of an epoch.
        """
        if not any(self.converted):
            return
        ends = [
            epochs if schedule.by_epoch else iterations if converted else schedule.last_step
            for schedule, converted in zip(self.schedules, self.converted)
        ]
        for schedule, state in zip(self.schedules, self.states):
            vars(schedule).update(state)
        for name, values in self.values.items():
            for group, value in zip(self.schedules[0].optimizer.param_groups, values):
                group[name] = value
        for iteration in range(1, max(iterations, *ends) + 1):
            for schedule, end in zip(self.schedules, ends):
                due = iteration % length == 0 if schedule.by_epoch else True
                if due and schedule.last_step < end:
                    schedule.step()
