"""Hooks of a training; :func:`default_hooks` adds some of them to every run."""

from halvit_mm.errors import UserError
from halvit_mm.io.datasets import type_name

from .bad_images import BadImageHook
from .checkpoint import WholeCheckpointHook
from .finite import FiniteStepHook
from .hang import HangHook
from .history import LogHistoryHook
from .labels import LabelHook
from .result import ResultHook
from .seeds import IterationSeedHook
from .stored_logits import StoredLogitsHook

# Name in default_hooks: class, and {argument: option of ``reliability``}
ADDED_HOOKS = dict(
    seeds=(IterationSeedHook, {}),
    labels=(LabelHook, {}),
    stored_logits=(StoredLogitsHook, {}),
    history=(LogHistoryHook, {}),
    finite=(FiniteStepHook, dict(action='not_finite')),
    bad_images=(BadImageHook, dict(action='bad_images')),
    hang=(HangHook, dict(limit='hang_limit')),
    result=(ResultHook, {}),
)


def default_hooks(hooks: dict, reliability: dict) -> dict:
    """Add this package's hooks to the ``default_hooks`` of a config.

    Args:
        hooks (dict): The config's hooks by name. A hook under one of the names ``seeds``, ``labels``,
            ``stored_logits``, ``history``, ``finite``, ``bad_images``, ``hang``, ``result`` replaces this
            package's; None removes it.
        reliability (dict): From :func:`~halvit_mm.io.configs.reliability`: a shorthand for arguments of the hooks.

    Returns:
        dict: The new dict, with a :class:`WholeCheckpointHook` instead of mmengine's ``CheckpointHook``.

    Raises:
        UserError: If the shorthand and a hook disagree.
    """
    hooks = dict(hooks)
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if isinstance(checkpoint, dict) and type_name(checkpoint) == 'CheckpointHook':
        hooks['checkpoint'] = {**checkpoint, 'type': WholeCheckpointHook}
    for name, (kind, arguments) in ADDED_HOOKS.items():
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
        # After the config's hooks, and so after those of the same priority
        hooks[name] = hook
    return hooks


def bad_images_action(hooks: dict) -> str:
    """What a training does with an image that cannot be read: ``'stop'`` or ``'skip'``.

    Args:
        hooks (dict): From :func:`default_hooks`.
    """
    hook = hooks.get('bad_images') or {}
    return hook.get('action', 'stop') if isinstance(hook, dict) else hook.action
