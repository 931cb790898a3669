from .hooks import (
    AnnealTyingHook,
    BadImageHook,
    FiniteStepHook,
    HangHook,
    IterationSeedHook,
    LabelHook,
    LogHistoryHook,
    PretrainedBackboneHook,
    WholeCheckpointHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .runner import ResumableRunner

__all__ = [
    'AnnealTyingHook',
    'BadImageHook',
    'FiniteStepHook',
    'HangHook',
    'IterationSeedHook',
    'LabelHook',
    'LayerDecayOptimWrapperConstructor',
    'LogHistoryHook',
    'PretrainedBackboneHook',
    'ResumableEpochTrainLoop',
    'ResumableIterTrainLoop',
    'ResumableRunner',
    'WholeCheckpointHook',
]
