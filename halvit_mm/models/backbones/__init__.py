from .halvit import HaLViT
from .mini_deit import MiniDeiT
from .shared_resnet import SharedStageResNet

__all__ = ['HaLViT', 'MiniDeiT', 'SharedStageResNet']
