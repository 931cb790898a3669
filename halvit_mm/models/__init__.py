from halvit_mm.layers import SharedBottleneckStage, TiedFFN, TiedMultiheadAttention

from . import tied_model
from .backbones import HaLViT, MiniDeiT, SharedStageResNet
from .classifiers import DistilledClassifier
from .necks import GlobalAveragePooling, ViTPyramid

__all__ = [
    'DistilledClassifier',
    'GlobalAveragePooling',
    'HaLViT',
    'MiniDeiT',
    'SharedBottleneckStage',
    'SharedStageResNet',
    'TiedFFN',
    'TiedMultiheadAttention',
    'ViTPyramid',
    'tied_model',
]
