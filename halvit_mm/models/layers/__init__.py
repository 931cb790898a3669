from .shared_stage import SharedBottleneckStage
from .tied_attention import TiedMultiheadAttention
from .tied_ffn import TiedFFN
from .transposed import transposed_linear

__all__ = ['SharedBottleneckStage', 'TiedFFN', 'TiedMultiheadAttention', 'transposed_linear']
