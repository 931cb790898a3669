"""Activations that the backward pass computes again instead of keeping them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from halvit_mm._torch import is_dynamo_compiling, is_exporting, keep_products

# What an encoder layer computes again: its feed-forward network and norms; these and the output projection; everything
LEVELS = ('ffn', 'all_but_attn', True)


def trains() -> bool:
    """Whether a backward pass may follow: gradients are wanted, and no graph is made for a file."""
    # Under Dynamo the second function would always be true.
    exporting = not is_dynamo_compiling() and is_exporting()
    return torch.is_grad_enabled() and not exporting and not torch.jit.is_tracing()


def recompute(function: Callable, *args: Any) -> Any:
    """Call a function, of which nothing is kept for the backward pass but its arguments.

    The backward pass calls the function again and stops at the last tensor that it needs: a matrix product at the
    function's end is not done twice. So leave out what comes behind it and costs nothing to keep, such as stochastic
    depth. Dropout masks and autocast are those of the first call.

    Args:
        function (Callable): A function of tensors; its modules' parameters need not be among the arguments.
        *args: Its arguments.

    Returns:
        Any: What the function returns.
    """
    return checkpoint(function, *args, use_reentrant=False) if trains() else function(*args)


def recompute_but_products(function: Callable, *args: Any) -> Any:
    """:func:`recompute`, but what the function's matrix products return is kept, and no product is done twice.

    So everything that follows is computed as without it, bit for bit. A second backward pass through the same graph,
    and a gradient of a gradient, raise a ``RuntimeError``.

    Args:
        function (Callable): As in :func:`recompute`.
        *args: Its arguments.

    Returns:
        Any: What the function returns.
    """
    # A compiler keeps what is used behind the function, and drops the products from what it computes again.
    if not trains() or is_dynamo_compiling():
        return recompute(function, *args)
    return checkpoint(function, *args, use_reentrant=False, context_fn=keep_products)


class Recomputing:
    """The ``forward`` of a module of upstream's, of which nothing is kept: ``module.forward = Recomputing(module)``.

    Args:
        module (nn.Module): The module; it keeps its class, and copies of it have a forward of their own.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return recompute(partial(type(self.module).forward, self.module, **kwargs), *args)
