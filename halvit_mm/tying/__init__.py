from .anneal import AnnealTyingHook
from .bases import AttentionWeights, FFNWeights, align_attention, align_products, change_basis, misfit
from .checkpoint import tie_checkpoint, tie_weights
from .distill import DistilledClassifier
from .replace import TieReport, tie_model

__all__ = [
    'AnnealTyingHook',
    'AttentionWeights',
    'DistilledClassifier',
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
