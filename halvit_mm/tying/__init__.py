from .bases import AttentionWeights, FFNWeights, align_attention, change_basis, misfit
from .replace import TieReport, tie_model

__all__ = ['AttentionWeights', 'FFNWeights', 'TieReport', 'align_attention', 'change_basis', 'misfit', 'tie_model']
