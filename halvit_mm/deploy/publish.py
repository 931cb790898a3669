"""Publishing the weights of a checkpoint without what only the training needed."""

import datetime
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import load_file

# Entries of ``meta`` that users of the weights need
META = ('dataset_meta', 'cfg', 'epoch', 'iter', 'mmengine_version')


def publish(checkpoint: str | os.PathLike, out: str | os.PathLike) -> Path:
    """Write the weights of a checkpoint to a file whose name holds its hash, as upstream's files do.

    Optimizer, schedules and logs are left out. Of a training that averaged its weights (EMA) the average is written,
    which is what was validated.

    Args:
        checkpoint (str or PathLike): A checkpoint of a training.
        out (str or PathLike): The file, ``.pth`` or ``.safetensors``; its name gets the date and the first 8 digits of
            the SHA-256.

    Returns:
        Path: The file, such as ``halvit-tiny_20261121-0a1b2c3d.pth``.

    Raises:
        UserError: If the checkpoint holds no weights, or if the file cannot be written.
    """
    out = Path(out)
    if out.suffix not in ('.pth', '.safetensors'):
        raise UserError(f'--out {out} is not a file of weights; expected a name that ends with .pth or .safetensors')
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f'--out {out}: folder {out.parent} does not exist or cannot be written to')
    content = load_file(checkpoint)
    weights = content.get('state_dict', content)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(
            f'{checkpoint} is not a checkpoint with weights; it has the entries {", ".join(map(str, content))}'
        )
    meta = {key: value for key, value in content.get('meta', {}).items() if key in META}
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        written = Path(folder, out.name)
        if out.suffix == '.safetensors':
            classes = json.dumps(meta.get('dataset_meta', {}).get('classes', []))
            # save_file would leave a file that its owner alone reads.
            content = save({name: value.clone() for name, value in weights.items()}, dict(classes=classes))
            written.write_bytes(content)
        else:
            # Each tensor without the rest of its storage, and one with two names once
            copies = {}
            weights = {
                name: copies.setdefault((value.data_ptr(), value.dtype, value.shape, value.stride()), value.clone())
                for name, value in weights.items()
            }
            torch.save(dict(meta=meta, state_dict=weights), written)
        digest = hashlib.sha256(written.read_bytes()).hexdigest()
        return written.replace(out.with_stem(f'{out.stem}_{datetime.date.today():%Y%m%d}-{digest[:8]}'))
