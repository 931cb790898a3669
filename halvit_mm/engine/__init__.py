from .checkpoint import find_latest_checkpoint
from .layer_decay import LayerDecayOptimWrapperConstructor
from .pretrained import PretrainedBackboneHook
from .reproduce import IterationSeedHook, SeededDataset, SeededSampler
from .runner import ResumableRunner, run_host_tool

__all__ = [
    'IterationSeedHook',
    'LayerDecayOptimWrapperConstructor',
    'PretrainedBackboneHook',
    'ResumableRunner',
    'SeededDataset',
    'SeededSampler',
    'find_latest_checkpoint',
    'run_host_tool',
]
