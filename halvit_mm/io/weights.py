"""State dicts: read from files, compared with a model's, refused where they are another model's."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from halvit_mm.errors import UserError

from .checkpoints import load_file

# timm's (and DeiT's own) names of a ViT
_VIT = (
    (r'^patch_embed\.proj\.', 'backbone.patch_embed.projection.'),
    (r'^blocks\.(\d+)\.norm(\d)\.', r'backbone.layers.\1.ln\2.'),
    (r'^blocks\.(\d+)\.attn\.', r'backbone.layers.\1.attn.'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'backbone.layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'backbone.layers.\1.ffn.layers.1.'),
    (r'^blocks\.(\d+)\.ls1\.gamma$', r'backbone.layers.\1.attn.gamma1.weight'),
    (r'^blocks\.(\d+)\.ls2\.gamma$', r'backbone.layers.\1.ffn.gamma2.weight'),
    (r'^norm\.', 'backbone.ln1.'),
    (r'^(cls_token|pos_embed)$', r'backbone.\1'),
    (r'^head\.', 'head.layers.head.'),
)
# torchvision's and timm's names of a ResNet
_RESNET = ((r'^fc\.', 'head.fc.'), (r'^(conv1|bn1|layer\d)\.', r'backbone.\1.'))


def to_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ViT of timm's or DeiT's own, or of a ResNet of torchvision's or timm's.

    Args:
        state (Mapping[str, Tensor]): A state dict.

    Returns:
        dict[str, Tensor]: With mmpretrain's names. One that has them already, or names of neither, is left as it is.
    """
    rules = _VIT if 'blocks.0.attn.qkv.weight' in state else _RESNET if 'layer1.0.conv1.weight' in state else ()
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name, found = re.subn(pattern, replacement, name)
            if found:
                break
        renamed[name] = value
    return renamed


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a checkpoint's weights.

    Args:
        path (str): A file of ``torch.save`` (mmengine's, DeiT's, torchvision's) or a ``.safetensors`` (timm's).

    Returns:
        dict[str, Tensor]: The weights, with mmpretrain's names.

    Raises:
        UserError: If there is no such file, if it is no checkpoint, or if it holds anything but data.
    """
    content = load_file(path)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f'checkpoint {path} holds no state dict')
    return to_mmpretrain({name.removeprefix('module.'): value for name, value in content.items()})


@dataclass(frozen=True)
class Comparison:
    """How the entries of a state dict differ from those that a model has.

    ``num_batches_tracked``, which older files lack and nothing depends on, is left out.

    Attributes:
        own (Mapping[str, tuple[int, ...]]): Shape of each entry of the model.
        given (Mapping[str, tuple[int, ...]]): Shape of each entry of the state dict.
    """

    own: Mapping[str, tuple[int, ...]]
    given: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> 'Comparison':
        return cls(
            *(
                {name: tuple(value.shape) for name, value in state.items() if not name.endswith('num_batches_tracked')}
                for state in (own, given)
            )
        )

    @property
    def unfilled(self) -> list[str]:
        """Entries of the model that the state dict lacks or has in another shape."""
        return [name for name, shape in self.own.items() if self.given.get(name) != shape]

    @property
    def unplaced(self) -> list[str]:
        """Entries of the state dict that the model lacks."""
        return [name for name in self.given if name not in self.own]

    @property
    def reshaped(self) -> list[str]:
        """Entries of both that have two shapes."""
        return [name for name in self.unfilled if name in self.given]

    def __bool__(self) -> bool:
        return bool(self.unfilled or self.unplaced)

    def told(self, first: int = 5, prefix: str = '') -> str:
        """The first differences in words.

        Args:
            first (int): How many. Defaults to 5.
            prefix (str): Put in front of the names. Defaults to ``''``.

        Returns:
            str: Such as ``'head.bias (3,) instead of (10,); extra.weight has no place'``; empty where there are none.
        """
        lines = [
            f'{prefix}{name} {self.given.get(name, "missing")} instead of {self.own[name]}' for name in self.unfilled
        ]
        lines += [f'{prefix}{name} has no place' for name in self.unplaced]
        rest = f' and {len(lines) - first} more' if len(lines) > first else ''
        return '; '.join(lines[:first]) + rest


def fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights that must fit to the last one.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): Its state dict.
        source (str): Where they come from, for the message.

    Raises:
        UserError: If names or shapes differ; the model is left as it was.
    """
    if comparison := Comparison.of(model.state_dict(), weights):
        raise UserError(
            f'{source} is not a checkpoint of this model: {comparison.told()}. {_advice(model, comparison)}'
        )
    model.load_state_dict(weights, strict=False)


# Less of a model than this is no load: what is left would train on as it was drawn.
LEAST_FILLED = 0.9

_reading_file = ContextVar('reading_file', default=False)


@contextmanager
def reading_file() -> Iterator[None]:
    """Within it, modules under :func:`guard` refuse weights that are another model's."""
    token = _reading_file.set(True)
    try:
        yield
    finally:
        _reading_file.reset(token)


def guard(module: nn.Module) -> None:
    """Let a module refuse the weights of a file of which fewer than 90 % of its entries can be filled.

    Upstream loads what fits and mentions the rest in a warning. Of an untied model's file only norms and embeddings
    fit a tied one, which would train on as if it had been pretrained. Files are what ``init_cfg=dict(type='Pretrained',
    ...)`` names, of the module or of a model around it, and what is loaded within :func:`reading_file`. A call of
    ``load_state_dict`` is left alone.

    Args:
        module (nn.Module): The module.
    """
    module._register_load_state_dict_pre_hook(partial(_refuse_foreign, module))


def _refuse_foreign(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
    # mmengine's init_weights sets this for as long as it runs.
    if not _reading_file.get() and not hasattr(module, '_params_init_info'):
        return
    # Without deviations a model is merely tied.
    own = {prefix + name: value for name, value in module.state_dict().items() if '.deviation.' not in name}
    given = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
    comparison = Comparison.of(own, given)
    shared, unfilled = _shared_matrices(module, prefix), comparison.unfilled
    # A shared stage of a ResNet has most names of its untied counterpart, and leaves such weights out.
    if len(unfilled) > (1 - LEAST_FILLED) * len(comparison.own) or (shared and shared <= {*unfilled}):
        raise UserError(
            f'{type(module).__name__} cannot take these weights: {len(unfilled)} of its '
            f'{len(comparison.own)} entries would stay as they were drawn: {comparison.told(3)}. '
            f'{_advice(module, comparison, prefix)}'
        )


def _advice(module: nn.Module, comparison: Comparison, prefix: str = '') -> str:
    """The likeliest reason why weights do not fit, and what to do."""
    own, unfilled, unplaced = {*comparison.own}, {*comparison.unfilled}, comparison.unplaced
    shared = _shared_matrices(module, prefix)
    if any({name.removeprefix(front) for name in unplaced} >= own for front in _fronts(unplaced, own)):
        return (
            'Their names have a prefix. A whole classifier is loaded into a backbone with '
            "init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')."
        )
    if shared and unplaced and shared <= unfilled - {*comparison.reshaped}:
        return (
            "The weights are the untied counterpart's. tools/tie_checkpoint.py makes a start of them; tie='none' (of a "
            'ResNet: shared_stages=()) takes them as they are.'
        )
    if not shared and any(name.endswith(('.q_weight', '.kv_weight')) for name in unplaced):
        return "The weights are a tied model's. Build the model with the tie that it was trained with."
    if comparison.reshaped:
        return 'The checkpoint is of another width, size or number of classes; build the model as it was trained.'
    return 'Check that the checkpoint is of this architecture.'


def _shared_matrices(module: nn.Module, prefix: str) -> set[str]:
    """Names of the parameters that are used on the way in and, transposed, on the way out."""
    return {
        '.'.join(filter(None, (prefix.rstrip('.'), owner, name)))
        for owner, part in module.named_modules()
        for name in getattr(part, 'matrices', ())
    }


def _fronts(unplaced: list[str], own: set[str]) -> set[str]:
    """What stands in front of the model's names in those that have no place."""
    shortest = min(own, key=len, default='')
    return {name.removesuffix(shortest) for name in unplaced if name.endswith(f'.{shortest}')} if shortest else set()
