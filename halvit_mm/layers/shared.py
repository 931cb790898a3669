"""Matrices that serve on the way in and, transposed, on the way out, and what a way out may have beyond them.

This is the only place that applies a matrix W and its transpose: ``W x`` and ``W^T x``, for tokens and for the pixels
of a map.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halvit_mm._torch import is_compiling
from halvit_mm.errors import UserError


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


class Slack(nn.Module):
    """What the way out of a tied pair has beyond the transpose of the way in: ``W_2^T = W + U V``, of low rank.

    Source: the layer-wise differences of "Relaxed Recursive Transformers" (`arXiv 2410.20672
    <https://arxiv.org/abs/2410.20672>`_), between the two ways through a matrix instead of between two layers.

    V starts as LoRA's first matrix does (Kaiming's uniform distribution), U at zero: the pair starts tied.

    Args:
        matrices (Mapping[str, Tensor]): The shared matrices by name, each of shape (out, in).
        rank (int): Columns of U.

    Attributes:
        left (nn.ParameterDict): U of each matrix, shape (out, rank).
        right (nn.ParameterDict): V of each matrix, shape (rank, in).
    """

    def __init__(self, matrices: Mapping[str, Tensor], rank: int) -> None:
        super().__init__()
        self.left = nn.ParameterDict({name: m.new_zeros(m.shape[0], rank) for name, m in matrices.items()})
        self.right = nn.ParameterDict({name: m.new_empty(rank, m.shape[1]) for name, m in matrices.items()})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set U to zero; draw V."""
        for left in self.left.values():
            nn.init.zeros_(left)
        for right in self.right.values():
            nn.init.kaiming_uniform_(right, a=sqrt(5))

    def difference(self, name: str) -> Tensor:
        """``U V``, of the matrix's shape."""
        return self.left[name] @ self.right[name]

    def forward(self, name: str, x: Tensor) -> Tensor:
        """``x U V`` without the product U V: shape (T, out) to (T, in)."""
        return x @ self.left[name] @ self.right[name]


class Borrower:
    """A module that may use the matrices of another in place of its own; each then has one owner and one name.

    Attributes:
        matrices (tuple[str]): Names of those parameters.
    """

    matrices: tuple[str, ...]
    # torch.jit.script compiles no lookup of a matrix by its name.
    __jit_unused_properties__ = ['owner']
    # In a tuple the lender is hidden from the children of the module.
    _lender: tuple[nn.Module, ...] = ()

    @property
    def owner(self) -> nn.Module:
        """nn.Module: The lender, or the module itself where its matrices are its own."""
        return self._lender[0] if self._lender else self

    def matrix(self, name: str) -> Tensor:
        """The owner's matrix of that name."""
        return getattr(self.owner, name)

    def borrow(self, lender: nn.Module) -> None:
        """Drop the module's matrices and use those of a module of the same kind, which must be a part of the model."""
        for name in self.matrices:
            delattr(self, name)
        self._lender = (lender,)

    def __prepare_scriptable__(self) -> nn.Module:
        if self._lender or hasattr(self, 'slack'):
            raise UserError(
                'a model with share or tie_rank is not one that torch.jit.script compiles; expected share=1 and '
                'tie_rank=0, or torch.jit.trace'
            )
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
        for name in self.matrices if self._lender else ():
            if prefix + name in state_dict:
                raise UserError(
                    f'{prefix}{name} is not a matrix of this model, whose layers share; expected weights of a model '
                    'with the same share'
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class TiedModule(Borrower):
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

    def way_out(self, name: str) -> Tensor:
        """``W_2^T``, of the same shape: the matrix of that name, with the module's slack if it has one."""
        matrix, slack = self.matrix(name), getattr(self, 'slack', None)
        return matrix if slack is None else matrix + slack.difference(name)

    def linear(self, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """:func:`linear` by the matrix of that name: shape (T, in) to (T, out)."""
        return linear(x, self.matrix(name), bias)

    def transposed_linear(self, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """:func:`transposed_linear` by the way out of the matrix of that name: shape (T, out) to (T, in).

        A slack is applied by its two thin matrices, so that an exported file holds W once.
        """
        slack = getattr(self, 'slack', None)
        if slack is None:
            return transposed_linear(x, self.way_out(name), bias)
        return transposed_linear(x, self.matrix(name), bias) + slack(name, x)


def tied_modules(model: nn.Module) -> Iterator[tuple[str, TiedModule]]:
    """Name and module of every module of a model that uses a matrix and its transpose."""
    for name, module in model.named_modules():
        if isinstance(module, TiedModule):
            yield name, module


def add_slack(model: nn.Module, rank: int) -> None:
    """Give the way out of every tied pair of a model a :class:`Slack` of that rank.

    Args:
        model (nn.Module): A model whose tied layers are linear maps of tokens.
        rank (int): Columns of U.
    """
    for _, module in tied_modules(model):
        module.slack = Slack({name: module.matrix(name) for name in module.matrices}, rank)


def set_matrix(modules: Sequence[TiedModule], name: str, ways: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set the matrix that modules use to the mean of theirs, and their slack to what the way out is beyond that mean.

    The mean is nearest to all in least squares. A slack is nearest to the rest within its rank: the truncated singular
    value decomposition.

    Args:
        modules (Sequence[TiedModule]): One module, or those that share.
        name (str): Name of the matrix.
        ways (Sequence[tuple]): W_1 and W_2^T of each module, each with as many entries as the matrix.
    """
    matrix = modules[0].matrix(name)
    with torch.no_grad():
        ways = [[way.view_as(matrix) for way in pair] for pair in ways]
        matrix.copy_(sum(way for pair in ways for way in pair) / (2 * len(ways)))
        for module, (_, way_out) in zip(modules, ways, strict=True):
            if hasattr(module, 'slack'):
                left, values, right = torch.linalg.svd(way_out - matrix, full_matrices=False)
                rank = module.slack.left[name].shape[1]
                root = values[:rank].sqrt()
                # Columns of U beyond the rank of the rest add nothing.
                module.slack.left[name].zero_()[:, : len(root)] = left[:, :rank] * root
                module.slack.right[name][: len(root)] = root[:, None] * right[:rank]
