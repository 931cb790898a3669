"""A config becomes a model, as upstream's runner builds it."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from halvit_mm.errors import UserError

from .components import check_components
from .configs import scope_of
from .weights import fill, read_weights


@contextmanager
def in_one_line(key: str) -> Iterator[None]:
    """Let what a constructor raises for its arguments be a :class:`UserError` that names their key in the config."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # str() of a KeyError is in quotes.
        words = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        raise UserError(f'{key} cannot be built: {type(error).__name__}: {words}') from error


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a whole config, with the weights that the constructors draw.

    mmpretrain's configs have the data preprocessor beside ``model``; it becomes the model's. ``cfg`` is not changed.

    Raises:
        UserError: If the config has no model, or one that cannot be built of what it says.
    """
    scope = scope_of(cfg)
    model = cfg.get('model')
    if not model:
        raise UserError(
            f"{cfg.filename} has no 'model'; expected the config of a classifier, a detector or a segmentor"
        )
    check_components(model, 'model', scope, 'MODELS')
    if cfg.get('data_preprocessor'):
        model = {'data_preprocessor': cfg.data_preprocessor, **model}
    with DefaultScope.overwrite_default_scope(scope), in_one_line('model'):
        return MODELS.build(model)


def load_model(cfg: Config, checkpoint: str | None = None) -> nn.Module:
    """Build the model of a whole config and load all of its weights.

    Args:
        cfg (Config): The whole config.
        checkpoint (str, optional): A file of mmengine, timm, DeiT or torchvision; see
            :func:`~halvit_mm.io.weights.read_weights`. Defaults to None, which keeps the weights as they are drawn.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        UserError: If the file is not a checkpoint of this model.
    """
    model = build_model(cfg)
    if checkpoint is not None:
        fill(model, read_weights(checkpoint), checkpoint)
    model.eval()  # which returns None in some models of upstream
    return model
