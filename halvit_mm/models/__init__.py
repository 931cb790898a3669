from . import tied_model
from .backbones import HaLViT, SharedStageResNet
from .classifiers import DistilledClassifier
from .necks import GlobalAveragePooling, ViTPyramid

__all__ = [
    'DistilledClassifier',
    'GlobalAveragePooling',
    'HaLViT',
    'SharedStageResNet',
    'ViTPyramid',
    'tied_model',
]
