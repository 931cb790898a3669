from .checkpoint import tie_checkpoint, tie_weights
from .replace import TieReport, tie_model

__all__ = ['TieReport', 'tie_checkpoint', 'tie_model', 'tie_weights']
