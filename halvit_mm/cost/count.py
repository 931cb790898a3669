import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, without_head: bool = False) -> int:
    """Count the numbers that a model learns.

    Args:
        model (nn.Module): A model; a parameter that it holds under several names is counted once.
        without_head (bool): Whether what is reached through ``model.head`` alone is left out, as the papers
            count. Defaults to False.

    Returns:
        int: The number of scalars.
    """
    parameters = {id(parameter): parameter for parameter in model.parameters()}
    if without_head:
        body = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if not name.startswith('head.')}
        parameters = {key: parameter for key, parameter in parameters.items() if key in body}
    return sum(parameter.numel() for parameter in parameters.values())


def count_macs(model: nn.Module, shape: tuple[int, ...] = (3, 224, 224)) -> int:
    """Count the multiply-accumulates of one input, as the papers count "FLOPs".

    Convolutions and matrix products count, norms, activations and additions do not. Attention is counted in its
    unfused form, because torch's counter passes over the fused one on the CPU.

    Args:
        model (nn.Module): A model whose ``forward`` takes a batch of inputs; it is put into evaluation mode for
            the count and then back.
        shape (tuple[int, ...]): Shape of one input. Defaults to ``(3, 224, 224)``.

    Returns:
        int: The number of multiply-accumulates.
    """
    parameter = next(model.parameters())
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device))
    finally:
        for module in training:
            module.training = True
    return counter.get_total_flops() // 2
