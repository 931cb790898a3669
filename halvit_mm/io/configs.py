"""Config files: reading them, and what we read in them."""

from pathlib import Path

from mmengine.config import Config

from halvit_mm.errors import UserError


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and merge options from the command line into it.

    Args:
        path (str): The file, or ``package::path`` for one that an installed package carries.
        options (dict, optional): Values by dotted key. Defaults to None.

    Returns:
        Config: The config.

    Raises:
        UserError: If there is no such file, or if it or one of its bases cannot be read.
    """
    packaged = '::' in path
    if not packaged and not Path(path).is_file():
        raise UserError(f'config {path} does not exist')
    try:
        cfg = Config.fromstring(f'_base_ = {path!r}', '.py') if packaged else Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    cfg.merge_from_dict(options or {})
    return cfg


def reliability(cfg: Config) -> dict:
    """Read what a config says about faults, in the dict ``reliability``.

    Args:
        cfg (Config): The config. ``reliability`` may hold

            - ``not_finite``: ``'stop'`` or ``'skip'``, for a step whose loss or gradients are not finite
              (:class:`~halvit_mm.train.hooks.finite.FiniteStepHook`);
            - ``bad_images``: ``'stop'`` or ``'skip'``, for images that cannot be read, in training
              (:class:`~halvit_mm.train.hooks.bad_images.CheckedDataset`); elsewhere they always stop the run;
            - ``hang_limit``: the longest that an iteration may take, in seconds
              (:class:`~halvit_mm.train.hooks.hang.HangHook`), or None.

    Returns:
        dict: All three; the defaults are ``'stop'``, ``'stop'`` and None.

    Raises:
        UserError: If there is another key, or a value that is none of these.
    """
    given = cfg.get('reliability') or {}
    options = {**dict(not_finite='stop', bad_images='stop', hang_limit=None), **given}
    if unknown := given.keys() - {'not_finite', 'bad_images', 'hang_limit'}:
        raise UserError(f'reliability.{min(unknown)} is unknown; there are not_finite, bad_images and hang_limit')
    for key in ('not_finite', 'bad_images'):
        if options[key] not in ('stop', 'skip'):
            raise UserError(f"reliability.{key}={options[key]!r} is unknown; choose 'stop' or 'skip'")
    limit = options['hang_limit']
    if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
        raise UserError(f'reliability.hang_limit={limit!r} is no number of seconds above 0')
    return options
