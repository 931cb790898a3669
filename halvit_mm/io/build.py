"""A config becomes a model, as upstream's runner builds it."""

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .weights import fill, read_weights


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model, with the data preprocessor that stands beside ``model`` in mmpretrain's configs.

    Args:
        cfg (Config): The whole config; it is left as it is.

    Returns:
        nn.Module: The model, with its weights as the constructors draw them.
    """
    model = cfg.model
    if cfg.get('data_preprocessor'):
        model = {'data_preprocessor': cfg.data_preprocessor, **model}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        return MODELS.build(model)


def load_model(cfg: Config, checkpoint: str | None = None) -> nn.Module:
    """Build a config's model and fill it to the last weight.

    Args:
        cfg (Config): The whole config.
        checkpoint (str, optional): Its weights: a file of mmengine's, timm's, DeiT's own or torchvision's; see
            :func:`~halvit_mm.io.weights.read_weights`. Defaults to None, which leaves the weights as they are drawn.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        UserError: If the file is not a checkpoint of this model.
    """
    model = build_model(cfg)
    if checkpoint is not None:
        fill(model, read_weights(checkpoint), checkpoint)
    model.eval()  # which returns None in some of upstream's models
    return model
