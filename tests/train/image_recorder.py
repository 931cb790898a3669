"""A hook for runs in tests: writes down which images each rank trains on, with the epoch in front."""

from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ImageRecorder(Hook):
    def __init__(self, out: str) -> None:
        self.path = Path(out, f'rank{get_rank()}.txt')

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        with open(self.path, 'a') as file:
            for sample in data_batch['data_samples']:
                print(runner.epoch, sample.img_path, file=file)
