from .attention import TiedMultiheadAttention
from .bottleneck import SharedBottleneckStage
from .encoder_layer import EncoderLayer, TiedEncoderLayer
from .ffn import FrugalGELU, TiedFFN
from .shared import TiedModule, add_deviations, remove_deviations, set_matrix, tied_modules, transposed_linear
from .stand_ins import (
    TiedConv1x1,
    TiedKeyValue,
    TiedLinear,
    TiedQueryKeyValue,
    TiedTorchAttention,
    TransposedConv1x1,
    TransposedLinear,
)

__all__ = [
    'EncoderLayer',
    'FrugalGELU',
    'SharedBottleneckStage',
    'TiedConv1x1',
    'TiedEncoderLayer',
    'TiedFFN',
    'TiedKeyValue',
    'TiedLinear',
    'TiedMultiheadAttention',
    'TiedQueryKeyValue',
    'TiedTorchAttention',
    'TransposedConv1x1',
    'TransposedLinear',
    'TiedModule',
    'remove_deviations',
    'add_deviations',
    'set_matrix',
    'tied_modules',
    'transposed_linear',
]
