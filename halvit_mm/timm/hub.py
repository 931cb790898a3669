"""Models in folders and on the hub of Hugging Face."""

import os
from pathlib import Path

import timm
from torch import nn

from halvit_mm.errors import UserError

PREFIX = 'hf-hub:'


def from_pretrained(source: str | os.PathLike, **options) -> nn.Module:
    """Build a model that ``tools/publish_model.py --hub`` wrote, with its weights; no code is read with it.

    Args:
        source (str or PathLike): A folder, or ``'hf-hub:NAME/MODEL'``.
        **options: Options of the model that differ, such as ``num_classes``; see ``timm.create_model``.

    Returns:
        nn.Module: The model, in training mode as timm's are.

    Raises:
        UserError: If there is no such folder.
    """
    source = os.fspath(source)
    if not source.startswith(PREFIX):
        if not Path(source, 'config.json').is_file():
            raise UserError(
                f'{source} is not a folder with a config.json; expected one that tools/publish_model.py --hub wrote, '
                f'or {PREFIX}NAME/MODEL'
            )
        source = f'local-dir:{source}'
    return timm.create_model(source, pretrained=True, **options)
