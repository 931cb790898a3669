import torch
from torch import Tensor


def transposed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply ``W^T``: the way back through a matrix that ``F.linear(x, weight)`` goes in by.

    The weight itself is the operand, not a transposed view of it: no copy is made, autocast finds the
    low-precision copy that the way in has cached, and an exporter sees one matrix product whose
    transposition is an attribute.

    Args:
        x (Tensor): Tokens, shape (T, out).
        weight (Tensor): W, shape (out, in), as ``nn.Linear(in, out)`` holds it.
        bias (Tensor, optional): Shape (in, ). Defaults to None.

    Returns:
        Tensor: ``x W + bias``, shape (T, in).
    """
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
