"""Reading config files and the options that this package adds to them."""

from pathlib import Path

from mmengine.config import Config

from halvit_mm._upstream import config_path
from halvit_mm.errors import UserError


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
        raise UserError(f'config {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    cfg.merge_from_dict(options or {})
    return cfg


def check_action(name: str, value: object) -> None:
    """Raise a ``ValueError`` that names the option ``name`` unless its value is ``'stop'`` or ``'skip'``."""
    if value not in ('stop', 'skip'):
        raise ValueError(f"{name}={value!r} is not an action; expected 'stop' or 'skip'")


def check_limit(name: str, value: object) -> None:
    """Raise a ``ValueError`` that names the option ``name`` unless its value is None or seconds above 0."""
    if value is not None and not (isinstance(value, (int, float)) and value > 0):
        raise ValueError(f'{name}={value!r} is not a time; expected a number of seconds above 0')


RELIABILITY = dict(not_finite=check_action, bad_images=check_action, hang_limit=check_limit)


def reliability(cfg: Config) -> dict:
    """Read a config's ``reliability``, a shorthand for arguments of hooks in ``default_hooks``.

    Args:
        cfg (Config): The config. ``reliability`` may hold

            - ``not_finite``: ``'stop'`` or ``'skip'``, for a step whose loss or gradients are not finite
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
