from mmengine.hooks import Hook

from halvit_mm.registry import HOOKS
from halvit_mm.train.seeds import seed_all, seed_of


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed Python, NumPy and torch before each training iteration from the run's seed, the rank and the iteration.

    Mixup, dropout and stochastic depth differ between ranks, as in DeiT's training.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed_all(seed_of(runner.seed, runner.iter, runner.rank))
