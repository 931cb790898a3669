"""The layers as parts of OpenMMLab's models: built by its configs, with its own classes around them."""

from .bottleneck import SharedBottleneckStage
from .encoder_layer import EncoderLayer, TiedEncoderLayer

__all__ = ['EncoderLayer', 'SharedBottleneckStage', 'TiedEncoderLayer']
