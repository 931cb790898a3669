import math

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.layers import tied_modules
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class AnnealTyingHook(Hook):
    """Anneal an untied model to a tied one: ``W_1 = S + a D_1`` and ``W_2^T = S + a D_2``, with a from 1 to 0.

    ``annealed=True`` (of ``halvit_mm.HaLViT`` or ``halvit_mm.TiedModel``) gives each shared matrix S its D_1 and D_2.
    The training starts from a checkpoint that ``tools/tie_checkpoint.py`` wrote for that config: with a = 1 the model
    computes the outputs of the plain one. S, D_1 and D_2 are trained together. The value of a depends on the iteration
    only, so that a resumed training continues unchanged.

    From the iteration on in which a is 0 the model is exactly tied, and checkpoints hold it without D_1 and D_2: they
    fit the config without ``annealed``.

    Args:
        end (float): Fraction of the training's iterations after which a is 0, above 0 and at most 1; with 1 it becomes
            0 for the last iteration. Defaults to 0.5.
        schedule (str): ``'cosine'``, ``'linear'``. Defaults to ``'cosine'``.

    Raises:
        ValueError: If ``end`` or ``schedule`` is not as above, or, before training, if the model has no deviations.
    """

    # After the EMA hook, which puts its weights into a checkpoint
    priority = 'LOW'

    @refuse_unknown_arguments
    def __init__(self, end: float = 0.5, schedule: str = 'cosine') -> None:
        expect = Expect(self)
        expect.fraction(end=end)
        expect.choice(('cosine', 'linear'), schedule=schedule)
        if end == 0:
            raise ValueError('AnnealTyingHook: end=0 leaves no iteration to anneal in; expected above 0')
        self.end = end
        self.schedule = schedule

    def alpha(self, iteration: int, iterations: int) -> float:
        """The number a in an iteration, counted from 0: 1 in the first iteration, 0 in the last at the latest."""
        progress = min(iteration / max(1, min(self.end * iterations, iterations - 1)), 1)
        return (1 + math.cos(math.pi * progress)) / 2 if self.schedule == 'cosine' else 1 - progress

    def before_train(self, runner: Runner) -> None:
        self._deviations = _deviations(runner)
        if not self._deviations:
            raise ValueError(
                'AnnealTyingHook: the model has no deviations; build it with annealed=True, as in '
                'model.backbone.annealed=True'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        alpha = self.alpha(*_progress(runner, batch_idx))
        for deviation in self._deviations:
            deviation.alpha.fill_(alpha)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if any(deviation.alpha.item() for deviation in _deviations(runner)):
            return
        for key in ('state_dict', 'ema_state_dict'):
            state = checkpoint.get(key, {})
            for name in [name for name in state if '.deviation.' in name]:
                del state[name]


def _progress(runner: Runner, batch_idx: int) -> tuple[int, int]:
    """The iteration and their total, as if epochs had always had their present length."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.iter, runner.max_iters
    length = len(runner.train_dataloader)
    return runner.epoch * length + batch_idx, runner.max_epochs * length


def _deviations(runner: Runner) -> list:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return [module.deviation for _, module in tied_modules(model) if hasattr(module, 'deviation')]
