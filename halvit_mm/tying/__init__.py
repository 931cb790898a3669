from .bases import AttentionWeights, FFNWeights, align_attention, align_products, change_basis, misfit
from .checkpoint import tie_checkpoint, tie_weights
from .replace import TieReport, tie_model

__all__ = [
    'AttentionWeights',
    'FFNWeights',
    'TieReport',
    'align_attention',
    'align_products',
    'change_basis',
    'misfit',
    'tie_checkpoint',
    'tie_model',
    'tie_weights',
]
