import torch
import torch.nn.functional as F
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


def transposed_conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply ``W^T`` to each pixel: the way back through a 1x1 convolution by W.

    Args:
        x (Tensor): Shape (N, out, H, W).
        weight (Tensor): W, shape (out, in, 1, 1), as ``nn.Conv2d(in, out, 1)`` holds it.
        bias (Tensor, optional): Shape (in, ). Defaults to None.

    Returns:
        Tensor: Shape (N, in, H, W).
    """
    # Of many pixels oneDNN's convolution is some 1.2 times as fast, though it copies the matrix. An exported file or a
    # compiled graph shall not have that copy.
    eager = not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    if eager and x.device.type == 'cpu' and x.shape[0] * x.shape[2] * x.shape[3] > weight.shape[0]:
        return F.conv2d(x, weight.transpose(0, 1), bias)
    return F.conv_transpose2d(x, weight, bias)
