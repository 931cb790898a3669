from .halvit import HaLViT

__all__ = ['HaLViT']
