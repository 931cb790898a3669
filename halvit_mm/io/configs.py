"""Reading config files and the options that this package adds to them."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from mmengine.config import Config, DictAction

from halvit_mm._upstream import MIM, UPSTREAM, config_path
from halvit_mm.errors import UserError, did_you_mean, warn

CONFIGS = MIM / 'configs'


@cache
def known_keys() -> tuple[str, ...]:
    """Top-level keys that mmengine's runner, mmpretrain, mmdet, mmseg or this package reads."""
    from mmengine.runner import Runner  # which imports torch

    return (
        *[*inspect.signature(Runner.__init__).parameters][1:],
        *('runner_type', 'reliability', 'custom_imports', 'tta_model', 'tta_pipeline', 'model_wrapper_cfg', 'strategy'),
        *('sync_bn', 'find_unused_parameters', 'activation_checkpointing', 'efficient_conv_bn_eval', 'compile'),
    )


def scope_of(cfg: Config) -> str:
    """The package that a config belongs to: its ``default_scope``, or mmpretrain."""
    return cfg.get('default_scope') or UPSTREAM[0]


class OptionAction(DictAction):
    """mmengine's ``KEY=VALUE ...``, whose mistakes are those of the command line."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError):
            parser.error(not_an_option(values))


def not_an_option(words: Sequence[str]) -> str:
    """The message for the first word that is not ``KEY=VALUE``, or else for the first with half a pair of brackets."""
    wrong = [word for word in words if '=' not in word]
    wrong += [word for word in words if any(word.count(one) != word.count(other) for one, other in ('()', '[]'))]
    return (
        f'--cfg-options: {wrong[0]!r} is not KEY=VALUE; expected such as optim_wrapper.optimizer.lr=1e-3 or, in '
        "quotes, 'KEY=[1,2]'"
    )


def words_after(argv: list[str], option: str) -> list[str]:
    """The words that belong to an option, up to the next option."""
    words, own = [], False
    for word in argv:
        if word.startswith('--'):
            name, sign, value = word.partition('=')
            words += [value] if name == option and sign else []  # and no more than that one
            own = name == option and not sign
        elif own:
            words.append(word)
    return words


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and merge options from the command line into it.

    Args:
        path (str): The file, or ``package::path`` for one that an installed package carries.
        options (dict, optional): Values by dotted key. Defaults to None.

    Raises:
        UserError: If the file does not exist, or if it or one of its bases cannot be read.
    """
    package, prefix, name = path.partition('::')
    if prefix:
        path = config_path(name, package)
    elif not Path(path).is_file():
        raise UserError(f'config {path} does not exist{_near_file(Path(path))}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {_reason(error)}') from error
    for key in options or {}:
        _check_option(cfg, key)
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f'--cfg-options {" ".join(options)}: {" ".join(str(error.args[0]).split())}') from error
    return cfg


def _near_file(path: Path) -> str:
    """The question for the file beside a path, or the config of ours, that has a name like it; empty if none has."""
    name = path.name if path.suffix else f'{path.name}.py'
    ours = {one.name: f'halvit_mm::{one.relative_to(CONFIGS).as_posix()}' for one in CONFIGS.glob('[!_]*/*.py')}
    beside = {one.name: str(one) for one in path.parent.glob('*.py')}
    for known, cutoff in ((beside, 1), (ours, 1), ({**ours, **beside}, 0.8)):
        if hint := did_you_mean(name, known, cutoff):
            return f'; {hint}'
    return ''


def _reason(error: Exception) -> str:
    """Why a config cannot be read, with the line where Python knows it."""
    if isinstance(error, SyntaxError):
        # mmengine reads a copy under another name; a base is named by its text.
        return f'SyntaxError: {error.msg} in line {error.lineno}: {(error.text or "").strip()}'
    if isinstance(error, ImportError) and error.__cause__:  # of custom_imports; mmengine's own words hold sys.path
        return f'{error.__cause__} (custom_imports; PYTHONPATH must have the folder of the module)'
    words = ' '.join(str(error).split())
    return f'{type(error).__name__}: {words}'


def _check_option(cfg: Config, option: str) -> None:
    """Refuse a key that nothing reads; warn of one that is new beside a key that is much the same."""
    place, names = cfg, option.split('.')
    for depth, name in enumerate(names):
        here = '.'.join(names[:depth])
        if isinstance(place, (list, tuple)):
            if not name.isdigit() or int(name) >= len(place):
                raise UserError(
                    f'--cfg-options {option}: {name!r} is not an entry of {here}, a list of {len(place)}; expected '
                    f'0 to {len(place) - 1}'
                )
            place = place[int(name)]
            continue
        if not isinstance(place, (Mapping, Config)):
            if place is not None:
                raise UserError(f'--cfg-options {option}: {here}={place!r} has no keys; expected {here}=VALUE')
            return
        if name not in place:
            if not depth and name not in known_keys():
                if hint := did_you_mean(name, [*known_keys(), *place], 0.8):
                    raise UserError(f'--cfg-options {option}: {name!r} is not a key that a run reads; {hint}')
                warn(f'--cfg-options {option}: {name!r} is not a key of {cfg.filename}, nor one that a run reads')
                return
            # The arguments of a component are held against its class.
            if (
                (names[0] == 'model' or depth > 1)
                and 'type' not in place
                and (hint := did_you_mean(name, [*place], 0.85))
            ):
                warn(f'--cfg-options {option}: {here} has had no {name!r} so far; {hint}')
            return
        place = place[name]


IMAGE_ACTIONS = ('stop', 'skip')
FINITE_ACTIONS = ('stop', 'skip', 'off')


def check_action(name: str, value: object, actions: tuple[str, ...] = IMAGE_ACTIONS) -> None:
    """Raise a ``ValueError`` that names the option ``name`` unless its value is one of the actions."""
    if value not in actions:
        *others, last = map(repr, actions)
        raise ValueError(f'{name}={value!r} is not an action; expected {", ".join(others)} or {last}')


def check_limit(name: str, value: object) -> None:
    """Raise a ``ValueError`` that names the option ``name`` unless its value is None or seconds above 0."""
    if value is not None and not (isinstance(value, (int, float)) and value > 0):
        raise ValueError(f'{name}={value!r} is not a time; expected a number of seconds above 0')


RELIABILITY = dict(
    not_finite=partial(check_action, actions=FINITE_ACTIONS), bad_images=check_action, hang_limit=check_limit
)


def reliability(cfg: Config) -> dict:
    """Read a config's ``reliability``, a shorthand for arguments of hooks in ``default_hooks``.

    Args:
        cfg (Config): The config. ``reliability`` may hold

            - ``not_finite``: ``'stop'``, ``'skip'`` or ``'off'``, for a step whose loss or gradients are not finite
              (:class:`~halvit_mm.train.FiniteStepHook`);
            - ``bad_images``: ``'stop'`` or ``'skip'``, for images that cannot be read, in training
              (:class:`~halvit_mm.train.BadImageHook`); elsewhere they always stop the run;
            - ``hang_limit``: the longest that an iteration may take, in seconds (:class:`~halvit_mm.train.HangHook`),
              or None.

    Returns:
        dict: The options that the config gives.

    Raises:
        UserError: If there is another key or value.
    """
    given = dict(cfg.get('reliability') or {})
    for key, value in given.items():
        if key not in RELIABILITY:
            raise UserError(f'reliability.{key} is not an option; expected {", ".join(RELIABILITY)}')
        try:
            RELIABILITY[key](f'reliability.{key}', value)
        except ValueError as error:
            raise UserError(str(error)) from None
    return given
