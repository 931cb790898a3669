from .gap import GlobalAveragePooling
from .vit_pyramid import ViTPyramid

__all__ = ['GlobalAveragePooling', 'ViTPyramid']
