"""HaLViT and ResNet50-PE for mmpretrain and mmdet: one matrix and its transpose instead of two.

Importing this package loads neither mmpretrain, mmdet nor torch. Its components are reached by name
(``type='halvit_mm.HaLViT'``), its configs by ``_base_ = 'halvit_mm::halvit/...'`` once this package is imported, and by
``_base_ = __import__('halvit_mm').config_path('halvit/...')`` under every tool. ``halvit_mm.tie_model`` ties a model of
upstream where it is.
"""

from ._upstream import announce, config_path
from .io.cores import loader_workers

__all__ = ['config_path', 'loader_workers', 'tie_model']

__version__ = '0.1.0'

announce()


def __getattr__(name: str):
    # Looked up when it is asked for: it needs torch and upstream.
    if name == 'tie_model':
        from .tying import tie_model

        return tie_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
