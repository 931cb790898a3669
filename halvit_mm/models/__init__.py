from .backbones import HaLViT
from .layers import TiedFFN, TiedMultiheadAttention

__all__ = ['HaLViT', 'TiedFFN', 'TiedMultiheadAttention']
