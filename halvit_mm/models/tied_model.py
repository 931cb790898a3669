from mmengine.logging import print_log
from torch import nn

from halvit_mm.io.weights import guard
from halvit_mm.layers import TiedModule
from halvit_mm.registry import MODELS


def _tied_model(of: str, tie: dict = dict(), **model_cfg) -> nn.Module:
    """A tied model or backbone of upstream, by config.

    ``dict(type='SwinTransformer', ...)`` becomes ``dict(type='halvit_mm.TiedModel', of='SwinTransformer', ...)``, in
    any place of a config where a model or a part of it stands. The shared matrices start Xavier.

    Args:
        of (str): Upstream's type.
        tie (dict): Arguments of :func:`~halvit_mm.tying.tie_model`, without ``way``. Defaults to ``dict()``.
        **model_cfg: Arguments of upstream's type.

    Returns:
        nn.Module: Upstream's model, tied.

    Raises:
        UserError: On loading a file that fills less than 90 % of it; see :func:`~halvit_mm.io.weights.guard`.
    """
    # Imported here, because the building of a HaLViT imports this file and needs no tying.
    from halvit_mm.tying import tie_model

    model = MODELS.build(dict(type=of, **model_cfg))
    print_log(f'{of}:\n{tie_model(model, **tie, way="mean")}', logger='current')
    for module in model.modules():
        if isinstance(module, TiedModule):
            module.reset_parameters()
    guard(model)
    return model


MODELS.register_module(name='TiedModel', module=_tied_model)
