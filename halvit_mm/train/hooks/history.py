from mmengine.hooks import Hook
from mmengine.runner import Runner

from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class LogHistoryHook(Hook):
    """Keep only the logged values that the log processor reads, so that memory and checkpoints do not grow.

    mmengine keeps the last million values of each loss, learning rate and time, on every rank and in every checkpoint,
    and copies all of them in each iteration. This hook keeps one epoch of values, or the longest ``window_size`` of the
    ``log_processor`` if that is longer. It keeps all values if a ``window_size`` is ``'global'``.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        log, loops = runner.log_processor, (runner.train_loop, runner.val_loop)
        epoch = max(len(loop.dataloader) for loop in loops if loop is not None)
        windows = [one.get('window_size', 'global') for one in log.custom_cfg if one.get('method_name') != 'current']
        lengths = (epoch, log.window_size, *(epoch if window == 'epoch' else window for window in windows))
        self._length = None if 'global' in windows else max(lengths)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self._length is not None:
            for buffer in runner.message_hub.log_scalars.values():
                buffer.max_length = self._length
