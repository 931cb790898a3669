"""HaLViT and ResNet50-PE for mmpretrain and mmdet: one matrix and its transpose instead of two.

Importing this package loads neither mmpretrain, mmdet nor torch. Its components are reached by name
(``type='halvit_mm.HaLViT'``), its configs by ``_base_ = 'halvit_mm::halvit/...'``. ``halvit_mm.tie_model`` ties a
model of the hosts where it is.
"""

from ._upstream import announce

__version__ = '0.1.0'

announce()


def __getattr__(name: str):
    # Looked up when it is asked for: it needs torch and the hosts.
    if name == 'tie_model':
        from .tying import tie_model

        return tie_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
