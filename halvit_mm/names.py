"""The names that a weight has in timm, in torchvision and in mmpretrain."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# A name in timm (and in DeiT's own code) begins with the first and one in mmpretrain with the second, where # is a
# number. The first pair that fits counts.
_VIT = (
    ('patch_embed.proj.', 'backbone.patch_embed.projection.'),
    ('blocks.#.norm1.', 'backbone.layers.#.ln1.'),
    ('blocks.#.norm2.', 'backbone.layers.#.ln2.'),
    ('blocks.#.ls1.gamma', 'backbone.layers.#.attn.gamma1.weight'),
    ('blocks.#.ls2.gamma', 'backbone.layers.#.ffn.gamma2.weight'),
    ('blocks.#.attn.', 'backbone.layers.#.attn.'),
    ('blocks.#.mlp.fc1.', 'backbone.layers.#.ffn.layers.0.0.'),
    ('blocks.#.mlp.fc2.', 'backbone.layers.#.ffn.layers.1.'),
    # Of a tied network
    ('blocks.#.mlp.', 'backbone.layers.#.ffn.'),
    ('norm.', 'backbone.ln1.'),
    ('cls_token', 'backbone.cls_token'),
    ('pos_embed', 'backbone.pos_embed'),
    ('head.', 'head.layers.head.'),
)
# torchvision's and timm's names of a ResNet
_RESNET = (
    ('fc.', 'head.fc.'),
    ('conv1.', 'backbone.conv1.'),
    ('bn1.', 'backbone.bn1.'),
    ('layer#.', 'backbone.layer#.'),
)


def to_mmpretrain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the weights of a timm or DeiT ViT, of a timm HaLViT, or of a torchvision or timm ResNet.

    Args:
        state (Mapping[str, Tensor]): A state dict.

    Returns:
        dict[str, Tensor]: The same weights under mmpretrain's names. A state dict with other names, mmpretrain's among
        them, keeps its names.
    """
    if any(name.startswith('blocks.0.attn.') for name in state):
        return _rename(state, _VIT)
    return _rename(state, _RESNET if 'layer1.0.conv1.weight' in state else ())


def to_timm(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the weights of a classifier with a ViT or a HaLViT of mmpretrain's names: undo :func:`to_mmpretrain`.

    Args:
        state (Mapping[str, Tensor]): A state dict.

    Returns:
        dict[str, Tensor]: The same weights under timm's names. A state dict with other names keeps its names.
    """
    known = any(name.startswith('backbone.layers.0.attn.') for name in state)
    return _rename(state, [(ours, theirs) for theirs, ours in _VIT] if known else ())


def _rename(state: Mapping[str, Any], rules: Iterable[tuple[str, str]]) -> dict[str, Any]:
    patterns = [(re.compile(re.escape(old).replace(r'\#', r'(\d+)')), new.replace('#', r'\1')) for old, new in rules]

    def renamed(name: str) -> str:
        for pattern, new in patterns:
            if match := pattern.match(name):
                return match.expand(new) + name[match.end() :]
        return name

    return {renamed(name): value for name, value in state.items()}
