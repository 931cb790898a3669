from .checkpoint import find_latest_checkpoint
from .reproduce import IterationSeedHook, SeededDataset, SeededSampler
from .runner import ResumableRunner, run_host_tool

__all__ = [
    'IterationSeedHook',
    'ResumableRunner',
    'SeededDataset',
    'SeededSampler',
    'find_latest_checkpoint',
    'run_host_tool',
]
