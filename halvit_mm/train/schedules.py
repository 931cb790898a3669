"""Schedules, and the optimizer's values that they set, of a run that is resumed in another form than it had."""

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine.optim import (
    ConstantLR,
    LinearLR,
    OptimWrapper,
    _ParamScheduler,
)


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


def early_end(schedules: Iterable[_ParamScheduler], epochs: int, iterations: int) -> str | None:
    """A sentence for schedules of the learning rate that end before the training does, or None.

    A warm-up alone is meant to end, as is a schedule of other values than the rate.

    Args:
        schedules (Iterable[_ParamScheduler]): Schedules, as they are when the training starts or goes on.
        epochs (int): Epochs of the training.
        iterations (int): Iterations of the training.
    """
    rates = [one for one in schedules if one.param_name == 'lr']
    if not rates or all(isinstance(one, (LinearLR, ConstantLR)) for one in rates):
        return None
    last = max(rates, key=lambda one: one.end / (epochs if one.by_epoch else iterations))
    length = epochs if last.by_epoch else iterations
    if last.end >= length:
        return None
    unit = 'epoch' if last.by_epoch else 'iteration'
    return (
        f'The last schedule of the learning rate ({type(last).__name__}) ends at {unit} {last.end} of {length}; from '
        'there on the rate stays as it is. A resumed training keeps the schedules that it began with.'
    )


def hyperparameters(optim_wrapper: OptimWrapper) -> list[dict[str, Any]]:
    """What the config gives each group of the optimizer: its rate before any schedule, its decay and the like."""
    groups = []
    for group in getattr(optim_wrapper, 'param_groups', ()):
        values = {name: value for name, value in group.items() if isinstance(value, (int, float, tuple))}
        scheduled = {name.removeprefix('initial_') for name in values if name.startswith('initial_')}
        groups.append({name: value for name, value in values.items() if name not in scheduled})
    return groups


def ignored(given: Sequence[dict[str, Any]], loaded: Sequence[dict[str, Any]]) -> str | None:
    """A sentence for hyperparameters that a config gives and a resumed optimizer replaces, or None.

    Args:
        given (Sequence[dict]): From :func:`hyperparameters`, before the checkpoint is read.
        loaded (Sequence[dict]): The same, afterwards.
    """
    for mine, kept in zip(given, loaded):
        for name, value in mine.items():
            if kept.get(name, value) != value:
                name, old = name.removeprefix('initial_'), kept[name]
                return (
                    f'{name}={value!r} of the config is not used: a resumed optimizer goes on with {name}={old!r} of '
                    'the checkpoint. To train on with other values, give the checkpoint as load_from, without --resume.'
                )
    return None
