from .anneal import AnnealTyingHook
from .bad_images import BadImageHook, LabelHook
from .checkpoint import WholeCheckpointHook
from .finite import FiniteStepHook
from .hang import HangHook
from .history import LogHistoryHook
from .pretrained import PretrainedBackboneHook

__all__ = [
    'AnnealTyingHook',
    'BadImageHook',
    'FiniteStepHook',
    'HangHook',
    'LabelHook',
    'LogHistoryHook',
    'PretrainedBackboneHook',
    'WholeCheckpointHook',
]
