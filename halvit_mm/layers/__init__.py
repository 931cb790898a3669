"""Layers in which a matrix W serves on the way in and its transpose on the way out.

Source: "HaLViT: Half of the Weights are Enough" (CVPR 2024 Workshops) and "Do deep neural networks utilize the weight
space efficiently?" (`arXiv 2401.16438 <https://arxiv.org/abs/2401.16438>`_).

Matrices start with Xavier's uniform distribution, as in ViT. Those of 1x1 convolutions start with Xavier's normal
distribution, as in the authors' code. Biases start at zero. The constructors do this, because an ``init_cfg`` by layer
type (``layer='Linear'``) cannot reach a bare parameter.

The layers need torch alone. Those that OpenMMLab's configs build are in :mod:`halvit_mm.layers.openmmlab`, which is
imported when one of them is asked for here.
"""

from .attention import TiedAttention
from .ffn import TiedMLP
from .shared import TiedModule, add_slack, set_matrix, tied_modules
from .sharing import share_matrices

__all__ = [
    'TiedAttention',
    'TiedMLP',
    'TiedModule',
    'add_slack',
    'set_matrix',
    'share_matrices',
    'tied_modules',
]

OPENMMLAB = ('EncoderLayer', 'SharedBottleneckStage', 'TiedEncoderLayer', 'TiedFFN', 'TiedMultiheadAttention')


def __getattr__(name: str):
    if name in OPENMMLAB:
        from . import openmmlab

        return getattr(openmmlab, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
