from .hooks.bad_images import BadImageHook
from .hooks.checkpoint import WholeCheckpointHook
from .hooks.finite import FiniteStepHook
from .hooks.hang import HangHook
from .hooks.history import LogHistoryHook
from .hooks.labels import LabelHook
from .hooks.pretrained import PretrainedBackboneHook
from .hooks.result import ResultHook
from .hooks.seeds import IterationSeedHook
from .hooks.stored_logits import StoredLogitsHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .runner import ResumableRunner

__all__ = [
    'BadImageHook',
    'FiniteStepHook',
    'HangHook',
    'IterationSeedHook',
    'LabelHook',
    'LayerDecayOptimWrapperConstructor',
    'LogHistoryHook',
    'PretrainedBackboneHook',
    'ResultHook',
    'ResumableEpochTrainLoop',
    'ResumableIterTrainLoop',
    'ResumableRunner',
    'StoredLogitsHook',
    'WholeCheckpointHook',
]
