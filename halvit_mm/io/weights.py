"""State dicts: read from files, compared with a model's, refused where they are another model's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from torch import Tensor, nn

from halvit_mm.errors import UserError
from halvit_mm.layers.shared import Borrower, tied_modules
from halvit_mm.layers.sharing import BorrowingLinear
from halvit_mm.names import to_mmpretrain

from .checkpoints import load_file

RUNNING_STATISTICS = ('running_mean', 'running_var')


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a checkpoint's weights.

    Args:
        path (str): A file of ``torch.save`` (mmengine's, DeiT's, torchvision's) or a ``.safetensors`` (timm's).

    Returns:
        dict[str, Tensor]: The weights, with mmpretrain's names.

    Raises:
        UserError: If the file does not exist, is not a checkpoint, or holds anything but data.
    """
    content = load_file(path)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f'checkpoint {path} is not a state dict; expected tensors by name')
    return to_mmpretrain({name.removeprefix('module.'): value for name, value in content.items()})


class Comparison:
    """How the entries of a state dict differ from a model's.

    ``num_batches_tracked`` is left out: older files lack it and nothing depends on it.

    Args:
        expected (Mapping[str, Tensor]): The model's state dict.
        given (Mapping[str, Tensor]): The other state dict.

    Attributes:
        expected, given (dict[str, tuple[int, ...]]): Shape of each entry.
        unfilled (list[str]): Entries of the model that ``given`` lacks or has in another shape.
        reshaped (list[str]): Those that ``given`` has in another shape.
        unplaced (list[str]): Entries of ``given`` that the model lacks.
    """

    def __init__(self, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        self.expected, self.given = (
            {name: tuple(value.shape) for name, value in state.items() if not name.endswith('num_batches_tracked')}
            for state in (expected, given)
        )
        self.unfilled = [name for name, shape in self.expected.items() if self.given.get(name) != shape]
        self.reshaped = [name for name in self.unfilled if name in self.given]
        self.unplaced = [name for name in self.given if name not in self.expected]

    def __bool__(self) -> bool:
        return bool(self.unfilled or self.unplaced)

    def summary(self, first: int = 5, prefix: str = '') -> str:
        """The first differences in words.

        Args:
            first (int): Number of differences. Defaults to 5.
            prefix (str): Put in front of the names. Defaults to ``''``.

        Returns:
            str: Such as ``'head.bias (3,) instead of (10,); extra.weight has no place'``; empty if nothing differs.
        """
        lines = [f'{prefix}{n} {self.given.get(n, "missing")} instead of {self.expected[n]}' for n in self.unfilled]
        lines += [f'{prefix}{name} has no place' for name in self.unplaced]
        rest = f' and {len(lines) - first} more' if len(lines) > first else ''
        return '; '.join(lines[:first]) + rest


def fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights, all of which must fit.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): A state dict.
        source (str): Origin of the weights, for the message.

    Raises:
        UserError: If names or shapes differ; the model is not changed.
    """
    if comparison := Comparison(model.state_dict(), weights):
        raise UserError(
            f'{source} is not a checkpoint of this model: {comparison.summary()}. {_advice(model, comparison)}'
        )
    model.load_state_dict(weights, strict=False)


def require_filled(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that upstream has loaded where parameters or running statistics stay as they were drawn.

    Upstream mentions them in a warning. Entries that a module renames or resizes as it loads them are filled, and other
    buffers than running statistics may be missing, as in older files.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): The state dict that was loaded into the model.
        source (str): Origin of the weights, for the message.

    Raises:
        UserError: If an entry is not filled.
    """
    weights = {name.removeprefix('module.'): value for name, value in weights.items()}
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    expected = {
        name: value
        for name, value in model.state_dict().items()
        if name in trained or name.endswith(RUNNING_STATISTICS)
    }
    if not Comparison(expected, weights).unfilled:
        return
    try:
        missing = model.load_state_dict(dict(weights), strict=False).missing_keys
    except RuntimeError:  # of another shape
        missing = [*expected]
    comparison = Comparison({name: value for name, value in expected.items() if name in missing}, weights)
    if unfilled := comparison.unfilled:
        comparison.unplaced = [name for name in weights if name not in model.state_dict()]
        raise UserError(
            f'{source} is not a checkpoint of this model: {len(unfilled)} of its {len(expected)} entries would stay as '
            f'they were drawn: {comparison.summary(3)}. {_advice(model, comparison)}'
        )


# With a smaller fraction filled a model would train on from random weights.
LEAST_FILLED = 0.9

_reading_file = ContextVar('reading_file', default=False)


@contextmanager
def reading_file() -> Iterator[None]:
    """A context in which modules under :func:`guard` refuse another model's weights."""
    token = _reading_file.set(True)
    try:
        yield
    finally:
        _reading_file.reset(token)


def guard(module: nn.Module) -> None:
    """Let a module refuse the weights of a file that are another model's.

    These are weights that fill fewer than 90 % of the module's entries or leave a shared matrix as it was drawn, and
    weights of which a tied layer has no place for a part, such as a slack. Of an untied model's file only norms and
    embeddings fit a tied model. Upstream loads what fits and mentions the rest in a warning; the model would train on
    as if it had been pretrained. A file without slack is a start of a model that has one.

    The guard acts where ``init_cfg=dict(type='Pretrained', ...)``, of the module or of a model around it, names a file,
    and within :func:`reading_file`. Other calls of ``load_state_dict`` are not checked.
    """
    module._register_load_state_dict_pre_hook(partial(_refuse_foreign, module))


def _refuse_foreign(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
    # mmengine's init_weights sets this attribute while it runs.
    if not _reading_file.get() and not hasattr(module, '_params_init_info'):
        return
    given = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
    expected = {prefix + name: value for name, value in module.state_dict().items()}
    if not any(map(_is_slack, given)):
        expected = {name: value for name, value in expected.items() if not _is_slack(name)}
    comparison = Comparison(expected, given)
    matrices, unfilled = shared_matrices(module, prefix), {*comparison.unfilled}
    tied = tuple(f'{prefix}{name}.' if name else prefix for name, _ in tied_modules(module))
    if (
        len(unfilled) > (1 - LEAST_FILLED) * len(comparison.expected)
        or unfilled & matrices
        or any(map(_is_slack, unfilled))
    ):
        raise UserError(
            f'{type(module).__name__} cannot take these weights: {len(unfilled)} of its '
            f'{len(comparison.expected)} entries would stay as they were drawn: {comparison.summary(3)}. '
            f'{_advice(module, comparison, prefix)}'
        )
    if lost := [name for name in comparison.unplaced if name.startswith(tied)]:
        raise UserError(
            f'{type(module).__name__} cannot take these weights: {len(lost)} entries of its tied layers would be left '
            f'out, {lost[0]} the first. {_advice(module, comparison, prefix)}'
        )


def _is_slack(name: str) -> bool:
    return 'slack' in name.split('.')


def _advice(module: nn.Module, comparison: Comparison, prefix: str = '') -> str:
    """The likeliest reason why weights do not fit, and what to do."""
    expected, unplaced = {*comparison.expected}, comparison.unplaced
    matrices = shared_matrices(module, prefix)
    tied = any(hasattr(part, 'matrices') and not isinstance(part, BorrowingLinear) for part in module.modules())
    shortest = min(expected, key=len, default='')
    fronts = {name.removesuffix(shortest) for name in unplaced if shortest and name.endswith(f'.{shortest}')}
    if any({name.removeprefix(front) for name in unplaced} >= expected for front in fronts):
        return (
            'Their names have a prefix. A whole classifier is loaded into a backbone with '
            "init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')."
        )
    owners = tuple(f'{name.rpartition(".")[0]}.' for name in matrices)
    untied = any(name.startswith(owners) for name in unplaced)
    if tied and untied and matrices <= {*comparison.unfilled} - {*comparison.reshaped}:
        return (
            "The weights are the untied counterpart's. tools/tie_checkpoint.py ties them; tie='none' (of a "
            'ResNet: shared_stages=()) takes them as they are.'
        )
    if not tied and any(name.endswith(('.q_weight', '.kv_weight')) for name in unplaced):
        return "The weights are a tied model's. Build the model with the tie that it was trained with."
    ranks = [
        next((shape[-1] for name, shape in shapes.items() if '.slack.left.' in name), 0)
        for shapes in (comparison.given, comparison.expected)
    ]
    if ranks[0] != ranks[1]:
        return f'The checkpoint has tie_rank={ranks[0]}, the model {ranks[1]}; build the model as it was trained.'
    if comparison.reshaped:
        return 'The checkpoint is of another width, size or number of classes; build the model as it was trained.'
    if 0 < len(matrices & {*comparison.unfilled}) < len(matrices):
        return 'The checkpoint is of another share, tie or number of layers; build the model as it was trained.'
    return 'Check that the checkpoint is of this architecture.'


def shared_matrices(module: nn.Module, prefix: str = '') -> set[str]:
    """Names of the parameters that a module uses more than once: as they are and transposed, or in several layers."""
    borrowers = [part for part in module.modules() if isinstance(part, Borrower)]
    names = {part.owner: part.matrices for part in borrowers}
    return {
        '.'.join(filter(None, (prefix.rstrip('.'), owner, name)))
        for owner, part in module.named_modules()
        for name in names.get(part, getattr(part, 'matrices', ()))
        if name in part._parameters
    }
