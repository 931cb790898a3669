from .backbones import HaLViT, SharedStageResNet
from .layers import SharedBottleneckStage, TiedFFN, TiedMultiheadAttention
from .necks import ViTPyramid

__all__ = ['HaLViT', 'SharedBottleneckStage', 'SharedStageResNet', 'TiedFFN', 'TiedMultiheadAttention', 'ViTPyramid']
