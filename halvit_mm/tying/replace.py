"""Tie the attention, feed-forward networks and bottlenecks of any model of mmpretrain, mmdet or timm."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from halvit_mm._torch import set_submodule

from .kinds import align, is_tied, kind_of

# Words in the names of classes that may be of a part
_NAMES = dict(attn=('Attention', 'MSA'), ffn=('FFN', 'Mlp', 'MLP'), bottleneck=('Bottleneck', 'BasicBlock'))


@dataclass
class TieReport:
    """What :func:`tie_model` did.

    Attributes:
        tied (list[tuple]): Name, class, parameters before and after of each module that was tied.
        left (list[tuple]): Name, class and reason of each module that looks as if it could be tied and was not.
        before (int): Parameters of the model.
        after (int): Parameters of the model now.
    """

    tied: list[tuple[str, str, int, int]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)
    before: int = 0
    after: int = 0

    @property
    def replaced(self) -> tuple[int, int]:
        """tuple[int, int]: Parameters of the tied modules, before and after."""
        return sum(row[2] for row in self.tied), sum(row[3] for row in self.tied)

    def __str__(self) -> str:
        lines = [f'tied  {name} ({kind}): {before:,} -> {after:,}' for name, kind, before, after in self.tied]
        lines += [f'left  {name} ({kind}): {reason}' for name, kind, reason in self.left]
        before, after = self.replaced
        if before:
            lines.append(
                f'{len(self.tied)} modules tied: {before:,} -> {after:,} parameters ({after / before:.2f} times)'
            )
        lines.append(f'the model: {self.before:,} -> {self.after:,} parameters')
        return '\n'.join(lines)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _within(name: str, root: str) -> bool:
    return root in ('', name) or name.startswith(f'{root}.')


def tie_model(
    model: nn.Module,
    attn: bool = True,
    ffn: bool = True,
    bottleneck: bool = True,
    within: str | Sequence[str] = (),
    way: str = 'products',
    with_cp: bool = False,
) -> TieReport:
    """Tie the layers of a model in place; the model keeps its interface.

    Layers that can be tied: mmpretrain's ``MultiheadAttention`` (which becomes a HaLViT's), attention of Swin and
    Twins, torch's ``nn.MultiheadAttention`` (in mmcv's, PVT's and DETR's), timm's ``Attention``, ``WindowAttention``
    and ``Mlp``, mmcv's ``FFN``, PVT's ``MixFFN``, and the bottlenecks of ResNet and ResNeXt whose input is as wide as
    their output. All other layers stay untied, and the report says why.

    A shared matrix starts as the mean of the two that it replaces.

    Args:
        model (nn.Module): A model that contains such layers; it is changed.
        attn (bool): Whether attention is tied. Defaults to True.
        ffn (bool): Whether feed-forward networks are tied. Defaults to True.
        bottleneck (bool): Whether the 1x1 convolutions of a bottleneck are tied. Defaults to True.
        within (str or Sequence[str]): Names of modules, such as ``'encoder'``; only layers within them are tied.
            Defaults to ``()``, which means everywhere.
        way (str): Preparation before the mean is taken, see :mod:`halvit_mm.tying.bases`: ``'mean'``: none;
            ``'products'``: changes of basis that bring the products of an attention's matrices closer. Defaults to
            ``'products'``.
        with_cp (bool): Whether the activations of the tied feed-forward networks are computed again in the backward
            pass instead of being kept. Defaults to False.

    Returns:
        TieReport: The tied layers, the untied ones with the reasons, and parameters before and after.

    Raises:
        ValueError: If ``way`` or a name in ``within`` is unknown, or if nothing can be tied.
    """
    roots = (within,) if isinstance(within, str) else tuple(within) or ('',)
    modules = dict(model.named_modules())
    for root in roots:
        if root not in modules:
            names = ', '.join(dict(model.named_children()))
            raise ValueError(f'within={root!r} is not a module of the model; expected a name such as {names}')
    parts = {part for part, wanted in dict(attn=attn, ffn=ffn, bottleneck=bottleneck).items() if wanted}
    report = TieReport(before=_count(model))
    chosen = {name: module for name, module in modules.items() if any(_within(name, root) for root in roots)}
    for name, module in chosen.items():
        kind, title = kind_of(module), type(module).__name__
        if kind is None or kind.part not in parts:
            continue
        if reason := kind.refusal(module):
            report.left.append((name, title, reason))
            continue
        before, example, training = _count(module), next(module.parameters()), module.training
        weights = align(kind.read(module), way)
        tied = kind.tie(module).to(example).train(training)
        kind.fill(tied, weights)
        if with_cp and kind.part == 'ffn':
            kind.recompute(tied)
        set_submodule(model, name, tied)
        report.tied.append((name, title, before, _count(tied)))
    handled = [name for name, *_ in (*report.tied, *report.left)]
    for name, module in chosen.items():
        title = type(module).__name__
        looks_like = {part for part, words in _NAMES.items() if any(word in title for word in words)}
        known = any(_within(name, other) or _within(other, name) for other in handled)
        if looks_like & parts and not known and not is_tied(module):
            report.left.append((name, title, 'not a class that can be tied'))
    if not report.tied:
        raise ValueError(f'nothing in {type(model).__name__} could be tied:\n{report}')
    report.after = _count(model)
    return report
