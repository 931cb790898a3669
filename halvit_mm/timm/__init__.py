"""HaLViT among timm's models, with torch and timm alone.

Once this is imported, ``timm.create_model('halvit_tiny_patch16_224')`` builds it, with the options that timm's vision
transformers have. ``python -m halvit_mm.timm train.py ...`` runs a script that does not import it.
"""

from .halvit import HaLViT, checkpoint_filter_fn
from .hub import from_pretrained

__all__ = ['HaLViT', 'checkpoint_filter_fn', 'from_pretrained']
