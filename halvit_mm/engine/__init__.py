from .bad_images import BadImageHook, CheckedDataset
from .checkpoint import WholeCheckpointHook, find_latest_checkpoint
from .finite import FiniteStepHook
from .history import LogHistoryHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loading import load_file, read_only_data
from .loops import ResumableEpochTrainLoop, ResumableIterTrainLoop
from .pretrained import PretrainedBackboneHook
from .reproduce import IterationSeedHook, SeededDataset, SeededSampler
from .runner import ResumableRunner
from .watch import HangHook

__all__ = [
    'BadImageHook',
    'CheckedDataset',
    'FiniteStepHook',
    'HangHook',
    'IterationSeedHook',
    'LayerDecayOptimWrapperConstructor',
    'LogHistoryHook',
    'PretrainedBackboneHook',
    'ResumableEpochTrainLoop',
    'ResumableIterTrainLoop',
    'ResumableRunner',
    'SeededDataset',
    'SeededSampler',
    'WholeCheckpointHook',
    'find_latest_checkpoint',
    'load_file',
    'read_only_data',
]
