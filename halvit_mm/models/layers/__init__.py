from .shared_stage import SharedBottleneckStage
from .tied_attention import TiedMultiheadAttention
from .tied_ffn import FrugalGELU, TiedFFN
from .tied_linear import (
    TiedConv1x1,
    TiedKeyValue,
    TiedLinear,
    TiedQueryKeyValue,
    TiedTorchAttention,
    TransposedConv1x1,
    TransposedLinear,
)
from .transposed import transposed_linear
from .two_ways import TwoWays, end_deviations, let_deviate, set_matrix, tied_modules

__all__ = [
    'FrugalGELU',
    'SharedBottleneckStage',
    'TiedConv1x1',
    'TiedFFN',
    'TiedKeyValue',
    'TiedLinear',
    'TiedMultiheadAttention',
    'TiedQueryKeyValue',
    'TiedTorchAttention',
    'TransposedConv1x1',
    'TransposedLinear',
    'TwoWays',
    'end_deviations',
    'let_deviate',
    'set_matrix',
    'tied_modules',
    'transposed_linear',
]
