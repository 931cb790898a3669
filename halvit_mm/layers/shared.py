"""Matrices that serve on the way in and, transposed, on the way out, and deviations from them.

This is the only place that applies a matrix W and its transpose: ``W x`` and ``W^T x``, for tokens and for the pixels
of a map.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halvit_mm._torch import is_compiling


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply W to each token.

    Args:
        x (Tensor): Tokens, shape (T, in).
        weight (Tensor): W, shape (out, in), as ``nn.Linear(in, out)`` holds it.
        bias (Tensor, optional): Shape (out, ). Defaults to None.

    Returns:
        Tensor: ``x W^T + bias``, shape (T, out).
    """
    return F.linear(x, weight, bias)


def transposed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply W^T to each token: the way back through the matrix that :func:`linear` goes in by.

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


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, int] = 1) -> Tensor:
    """Apply W to each pixel.

    Args:
        x (Tensor): Shape (N, in, H, W).
        weight (Tensor): W, shape (out, in, 1, 1), as ``nn.Conv2d(in, out, 1)`` holds it.
        bias (Tensor, optional): Shape (out, ). Defaults to None.
        stride (int or tuple): Stride. Defaults to 1.

    Returns:
        Tensor: Shape (N, out, H / stride, W / stride), rounded up.
    """
    return F.conv2d(x, weight, bias, stride)


def transposed_conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply W^T to each pixel: the way back through the matrix that :func:`conv1x1` goes in by.

    Args:
        x (Tensor): Shape (N, out, H, W).
        weight (Tensor): W, shape (out, in, 1, 1), as ``nn.Conv2d(in, out, 1)`` holds it.
        bias (Tensor, optional): Shape (in, ). Defaults to None.

    Returns:
        Tensor: Shape (N, in, H, W).
    """
    # For many pixels oneDNN's convolution is about 1.2 times as fast, though it copies the matrix. In an exported file
    # or a compiled graph conv_transpose2d takes W itself, without a copy.
    eager = not (is_compiling() or torch.jit.is_tracing())
    if eager and x.device.type == 'cpu' and x.shape[0] * x.shape[2] * x.shape[3] > weight.shape[0]:
        return F.conv2d(x, transposed_view(weight), bias)
    return F.conv_transpose2d(x, weight, bias)


def transposed_view(weight: Tensor) -> Tensor:
    """W^T as ``nn.Linear`` and ``nn.Conv2d`` hold a weight: a view of shape (in, out, ...) of W, (out, in, ...)."""
    return weight.transpose(0, 1)


class Deviation(nn.Module):
    """What the matrices of an untied layer are beyond a shared S: ``W_1 = S + a D_1`` and ``W_2^T = S + a D_2``.

    With a = 1 the layer is untied, with a = 0 it is tied. D_1 and D_2 start at zero.

    Args:
        matrices (Mapping[str, Tensor]): The shared matrices by name.

    Attributes:
        way_in (nn.ParameterDict): D_1 of each matrix, of its shape.
        way_out (nn.ParameterDict): D_2 of each matrix, of its shape.
        alpha (Tensor): The number a, a buffer of no dimension; starts at 1.
    """

    def __init__(self, matrices: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.way_in = nn.ParameterDict({name: torch.zeros_like(matrix) for name, matrix in matrices.items()})
        self.way_out = nn.ParameterDict({name: torch.zeros_like(matrix) for name, matrix in matrices.items()})
        self.register_buffer('alpha', next(iter(matrices.values())).new_ones(()))

    def forward(self, name: str, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """W_1 and W_2^T of the shared matrix S of that name, both of S's shape."""
        return matrix + self.alpha * self.way_in[name], matrix + self.alpha * self.way_out[name]


class TiedModule:
    """A module whose matrices serve on the way in and, transposed, on the way out.

    Attributes:
        matrices (tuple[str]): Names of those parameters. All other parameters of the module itself are biases.
        draw (Callable): Gives a matrix its first values.
    """

    matrices: tuple[str, ...]
    draw = staticmethod(nn.init.xavier_uniform_)

    def reset_parameters(self) -> None:
        """Draw the matrices; set the biases to zero."""
        for name, parameter in self.named_parameters(recurse=False):
            initialize = self.draw if name in self.matrices else nn.init.zeros_
            initialize(parameter)

    def in_and_out(self, name: str) -> tuple[Tensor, Tensor]:
        """The matrix of the way in and that of the way out. They differ only where the module has a deviation.

        Args:
            name (str): One of ``matrices``.

        Returns:
            tuple[Tensor, Tensor]: ``W_1`` and ``W_2^T``, of one shape.
        """
        matrix = getattr(self, name)
        deviation = getattr(self, 'deviation', None)
        return (matrix, matrix) if deviation is None else deviation(name, matrix)


def tied_modules(model: nn.Module) -> Iterator[tuple[str, TiedModule]]:
    """Name and module of every owner of shared matrices in a model."""
    for name, module in model.named_modules():
        if isinstance(module, TiedModule):
            yield name, module


def add_deviations(model: nn.Module) -> None:
    """Give every shared matrix of a model a deviation, which starts at zero.

    Args:
        model (nn.Module): A model with tied layers.

    Raises:
        ValueError: If the model has none.
    """
    owners = [*tied_modules(model)]
    if not owners:
        raise ValueError(f'annealed=True: {type(model).__name__} has no tied attention, FFN or bottleneck to anneal')
    for _, module in owners:
        module.deviation = Deviation({name: getattr(module, name) for name in module.matrices})


def remove_deviations(model: nn.Module) -> None:
    """Drop the deviations of a model, which is tied from here on."""
    for _, module in tied_modules(model):
        if hasattr(module, 'deviation'):
            del module.deviation


def set_matrix(module: TiedModule, name: str, way_in: Tensor, way_out: Tensor) -> None:
    """Set a shared matrix to the mean of two, which is nearest to both in least squares, and its deviation to the rest.

    Args:
        module (TiedModule): Owner of the matrix.
        name (str): Name of the matrix.
        way_in (Tensor): W_1, with as many entries as the matrix.
        way_out (Tensor): W_2^T, with as many entries as the matrix.
    """
    matrix = getattr(module, name)
    with torch.no_grad():
        mean = (way_in + way_out) / 2
        matrix.copy_(mean.view_as(matrix))
        if hasattr(module, 'deviation'):
            module.deviation.way_in[name].copy_((way_in - mean).view_as(matrix))
            module.deviation.way_out[name].copy_((way_out - mean).view_as(matrix))
            module.deviation.alpha.fill_(1)
