"""Layers in which a matrix W serves on the way in and its transpose on the way out.

Source: "HaLViT: Half of the Weights are Enough" (CVPR 2024 Workshops) and "Do deep neural networks utilize the weight
space efficiently?" (`arXiv 2401.16438 <https://arxiv.org/abs/2401.16438>`_).

Matrices start with Xavier's uniform distribution, as in ViT. Those of 1x1 convolutions start with Xavier's normal
distribution, as in the authors' code. Biases start at zero. The constructors do this, because an ``init_cfg`` by layer
type (``layer='Linear'``) cannot reach a bare parameter.
"""

from .attention import TiedMultiheadAttention
from .ffn import TiedFFN
from .openmmlab import EncoderLayer, SharedBottleneckStage, TiedEncoderLayer
from .shared import TiedModule, add_deviations, add_slack, remove_deviations, set_matrix, tied_modules
from .sharing import share_matrices

__all__ = [
    'EncoderLayer',
    'SharedBottleneckStage',
    'TiedEncoderLayer',
    'TiedFFN',
    'TiedModule',
    'TiedMultiheadAttention',
    'add_deviations',
    'add_slack',
    'remove_deviations',
    'set_matrix',
    'share_matrices',
    'tied_modules',
]
