"""HaLViT and ResNet50-PE for mmpretrain and mmdet: one matrix and its transpose instead of two.

Importing this package loads neither mmpretrain, mmdet nor torch. Its components are reached by name
(``type='halvit_mm.HaLViT'``), its configs by ``_base_ = 'halvit_mm::halvit/...'``.
"""

from ._hosts import announce

__version__ = '0.1.0'

announce()
