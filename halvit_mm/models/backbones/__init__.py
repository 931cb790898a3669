from .halvit import HaLViT
from .shared_resnet import SharedStageResNet

__all__ = ['HaLViT', 'SharedStageResNet']
