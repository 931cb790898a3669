"""A config becomes a model, as upstream's runner builds it."""

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from .weights import fill, read_weights


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a whole config, with the weights that the constructors draw.

    mmpretrain's configs have the data preprocessor beside ``model``; it becomes the model's. ``cfg`` is not changed.
    """
    model = cfg.model
    if cfg.get('data_preprocessor'):
        model = {'data_preprocessor': cfg.data_preprocessor, **model}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
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
