"""What is done at the steps of a training. :func:`default_hooks` says which of them every run has."""

from halvit_mm.errors import UserError
from halvit_mm.io.datasets import type_name

from .anneal import AnnealTyingHook
from .bad_images import BadImageHook
from .checkpoint import WholeCheckpointHook
from .finite import FiniteStepHook
from .hang import HangHook
from .history import LogHistoryHook
from .labels import LabelHook
from .pretrained import PretrainedBackboneHook
from .seeds import IterationSeedHook

__all__ = [
    'AnnealTyingHook',
    'BadImageHook',
    'FiniteStepHook',
    'HangHook',
    'IterationSeedHook',
    'LabelHook',
    'LogHistoryHook',
    'PretrainedBackboneHook',
    'WholeCheckpointHook',
    'default_hooks',
]

# Name in default_hooks: class, and the option of ``reliability`` that stands for one of its arguments
OWN = dict(
    seeds=(IterationSeedHook, {}),
    labels=(LabelHook, {}),
    history=(LogHistoryHook, {}),
    finite=(FiniteStepHook, dict(action='not_finite')),
    bad_images=(BadImageHook, dict(action='bad_images')),
    hang=(HangHook, dict(limit='hang_limit')),
)


def default_hooks(hooks: dict, reliability: dict) -> dict:
    """``default_hooks`` of a config with those that this package adds to upstream's.

    Args:
        hooks (dict): The config's own, by name. A hook under one of our names (``seeds``, ``labels``, ``history``,
            ``finite``, ``bad_images``, ``hang``) replaces ours; None leaves it out.
        reliability (dict): From :func:`~halvit_mm.io.configs.reliability`: a shorthand for arguments of ours.

    Returns:
        dict: The new dict; mmengine's ``CheckpointHook`` in it is a :class:`WholeCheckpointHook`.

    Raises:
        UserError: If the shorthand and a hook disagree.
    """
    hooks = dict(hooks)
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if isinstance(checkpoint, dict) and type_name(checkpoint) == 'CheckpointHook':
        hooks['checkpoint'] = {**checkpoint, 'type': WholeCheckpointHook}
    for name, (kind, arguments) in OWN.items():
        hook = hooks.pop(name, dict(type=kind))
        if hook is None:
            continue
        if isinstance(hook, dict):
            for argument, option in arguments.items():
                if option in reliability and hook.get(argument, reliability[option]) != reliability[option]:
                    raise UserError(
                        f'reliability.{option}={reliability[option]!r} and default_hooks.{name}.{argument}='
                        f'{hook[argument]!r} disagree; leave one of them out'
                    )
                hook = {**hook, **({argument: reliability[option]} if option in reliability else {})}
        # Behind the others of its priority
        hooks[name] = hook
    return hooks
