"""Parameters and multiply-accumulates of a model."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from halvit_mm._torch import unfused_attention

from .samples import all_proposals, forward_tensor


def count_parameters(model: nn.Module, without_head: bool = False) -> int:
    """Count the scalars in a model's parameters, frozen ones too.

    Args:
        model (nn.Module): A model; a parameter with several names counts once.
        without_head (bool): Whether parameters of heads alone are left out, as the papers count: those of mmpretrain's
            ``head``, of mmdet's ``*_head``, and of the classifier within mmpretrain's ``TimmClassifier`` and
            ``HuggingFaceClassifier``. Defaults to False.
    """
    heads = tuple(_head_prefixes(model)) if without_head else ()
    named = model.named_parameters(remove_duplicate=False)
    counted = {parameter: parameter.numel() for name, parameter in named if not name.startswith(heads)}
    return sum(counted.values())


def _head_prefixes(model: nn.Module) -> Iterator[str]:
    for name, _ in model.named_children():
        if name == 'head' or name.endswith('_head'):
            yield f'{name}.'
    # Of the models that mmpretrain wraps, timm's name their classifier; those of transformers call it 'classifier'.
    wrapped = getattr(model, 'model', None)
    if isinstance(wrapped, nn.Module):
        names = getattr(wrapped, 'default_cfg', {}).get('classifier', 'classifier')
        for name in (names,) if isinstance(names, str) else names:
            yield f'model.{name}.'


def count_macs(model: nn.Module, shape: tuple[int, ...] = (3, 224, 224)) -> int:
    """Count the multiply-accumulates of one image, as the papers count "FLOPs".

    Convolutions and matrix products count; norms, activations, additions and RoIAlign do not. Attention is counted in
    its unfused form, because torch's counter ignores the fused one on the CPU.

    Args:
        model (nn.Module): A classifier, a detector or a backbone of upstream. The heads of a two-stage detector count
            for as many proposals as ``test_cfg.rpn.max_per_img`` allows, whatever the weights. The model is in
            evaluation mode during the count only.
        shape (tuple[int, ...]): Shape of one image, (C, H, W). Defaults to ``(3, 224, 224)``.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with (
            torch.no_grad(),
            unfused_attention(),
            all_proposals(model),
            FlopCounterMode(display=False) as counter,
        ):
            forward_tensor(model, image)
    finally:
        for module in training:
            module.training = True
    return counter.get_total_flops() // 2
