"""Checkpoints of mmpretrain, timm and torchvision as the state dict of one of mmpretrain's classifiers."""

import re
from collections.abc import Mapping

from torch import Tensor

from halvit_mm.errors import UserError

from .checkpoints import load_file

# timm's (and DeiT's own) names of a ViT
_VIT = (
    (r'^patch_embed\.proj\.', 'backbone.patch_embed.projection.'),
    (r'^blocks\.(\d+)\.norm(\d)\.', r'backbone.layers.\1.ln\2.'),
    (r'^blocks\.(\d+)\.attn\.', r'backbone.layers.\1.attn.'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'backbone.layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'backbone.layers.\1.ffn.layers.1.'),
    (r'^blocks\.(\d+)\.ls1\.gamma$', r'backbone.layers.\1.attn.gamma1.weight'),
    (r'^blocks\.(\d+)\.ls2\.gamma$', r'backbone.layers.\1.ffn.gamma2.weight'),
    (r'^norm\.', 'backbone.ln1.'),
    (r'^(cls_token|pos_embed)$', r'backbone.\1'),
    (r'^head\.', 'head.layers.head.'),
)
# torchvision's and timm's names of a ResNet
_RESNET = ((r'^fc\.', 'head.fc.'), (r'^(conv1|bn1|layer\d)\.', r'backbone.\1.'))


def to_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ViT of timm's or DeiT's own, or of a ResNet of torchvision's or timm's.

    Args:
        state (Mapping[str, Tensor]): A state dict.

    Returns:
        dict[str, Tensor]: With mmpretrain's names. One that has them already, or names of neither, is left as it is.
    """
    rules = _VIT if 'blocks.0.attn.qkv.weight' in state else _RESNET if 'layer1.0.conv1.weight' in state else ()
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name, found = re.subn(pattern, replacement, name)
            if found:
                break
        renamed[name] = value
    return renamed


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a checkpoint's weights.

    Args:
        path (str): A file of ``torch.save`` (mmengine's, DeiT's, torchvision's) or a ``.safetensors`` (timm's).

    Returns:
        dict[str, Tensor]: The weights, with mmpretrain's names.

    Raises:
        UserError: If there is no such file, if it is no checkpoint, or if it holds anything but data.
    """
    content = load_file(path)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f'checkpoint {path} holds no state dict')
    return to_mmpretrain({name.removeprefix('module.'): value for name, value in content.items()})


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], prefix: str = '', first: int = 5) -> str:
    """What two state dicts differ in.

    Args:
        ours (Mapping[str, Tensor]): Weights of a model.
        theirs (Mapping[str, Tensor]): Weights that it should take.
        prefix (str): Put in front of the names that are told. Defaults to ``''``.
        first (int): How many differences are told. Defaults to 5.

    Returns:
        str: The first keys and shapes that differ; empty where none do.
    """

    def shape(state: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(state[name].shape)) if name in state else 'missing'

    names = [name for name in {**ours, **theirs} if not name.endswith('num_batches_tracked')]
    told = [
        f'{prefix}{name} {shape(theirs, name)} instead of {shape(ours, name)}'
        if name in ours
        else f'{prefix}{name} has no place'
        for name in names
        if shape(ours, name) != shape(theirs, name)
    ]
    rest = f' and {len(told) - first} more' if len(told) > first else ''
    return '; '.join(told[:first]) + rest
