from .backbones import HaLViT, SharedStageResNet
from .layers import SharedBottleneckStage, TiedFFN, TiedMultiheadAttention

__all__ = ['HaLViT', 'SharedBottleneckStage', 'SharedStageResNet', 'TiedFFN', 'TiedMultiheadAttention']
