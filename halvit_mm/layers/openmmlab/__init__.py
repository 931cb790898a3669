"""The layers as parts of OpenMMLab's models: built by its configs, with its own classes around them."""

from .attention import TiedMultiheadAttention
from .bottleneck import SharedBottleneckStage
from .encoder_layer import EncoderLayer, TiedEncoderLayer
from .ffn import TiedFFN

__all__ = ['EncoderLayer', 'SharedBottleneckStage', 'TiedEncoderLayer', 'TiedFFN', 'TiedMultiheadAttention']
