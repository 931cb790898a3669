"""Fit tied layers to the outputs of untied ones on images, and measure the errors of their outputs."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from halvit_mm.layers.sharing import groups_that_share


class _Chain(nn.ModuleList):
    """Blocks that run one after another, each with the further arguments of the first."""

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        for block in self:
            x = _first(block(x, *args, **kwargs))
        return x


class _Stop(Exception):
    """Ends a model's run where the rest of the model is not needed."""


def _first(output) -> Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output


@torch.no_grad()
def record(model: nn.Module, name: str, images: Iterable[Tensor]) -> list[tuple[tuple, dict, Tensor]]:
    """Arguments, keyword arguments and output of a model's module for each batch of images, (B, C, H, W)."""
    records = []

    def hook(module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        records.append((args, kwargs, _first(output)))
        raise _Stop

    handle = model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
    model.eval()
    try:
        for batch in images:
            with suppress(_Stop):
                model(batch)
    finally:
        handle.remove()
    return records


def output_error(plain: nn.Module, tied: nn.Module, name: str, images: Iterable[Tensor]) -> float:
    """Relative error of a tied module's outputs, given the inputs of the plain one.

    Args:
        plain (nn.Module): The plain model.
        tied (nn.Module): The tied model.
        name (str): Name of the module in both.
        images (Iterable[Tensor]): Batches, each of shape (B, C, H, W).

    Returns:
        float: Norm of the difference over the norm of the plain outputs, a shortcut from input to output left out.
    """
    module, reference = tied.get_submodule(name), plain.get_submodule(name)
    error = norm = 0.0
    for args, kwargs, _ in record(plain, name, images):
        if 'identity' in inspect.signature(type(reference).forward).parameters:
            kwargs = {**kwargs, 'identity': torch.zeros_like(args[0])}
        with torch.no_grad():
            expected, output = (_first(layer.eval()(*args, **kwargs)) for layer in (reference, module))
        error += (output - expected).square().sum().item()
        norm += expected.square().sum().item()
    return (error / norm) ** 0.5


def fit_units(
    plain: nn.Module,
    tied: nn.Module,
    units: Sequence[str],
    images: Sequence[Tensor],
    steps: int = 300,
    lr: float = 1e-3,
    report: Callable[[str, float, float], None] = lambda name, before, after: None,
) -> None:
    """Fit the blocks of a tied model, one after another, to the outputs of the plain model's.

    Least squares on outputs: the tied block, given the tied model's own input, is fitted to the output of the plain
    block for the plain model's input, so that it corrects the errors of the blocks in front of it. Adam with a cosine
    schedule fits the matrices, biases and norms of the block. Blocks that share matrices are fitted together, as one
    block.

    Args:
        plain (nn.Module): The plain model.
        tied (nn.Module): The tied model, started from the plain one; it is changed.
        units (Sequence[str]): Names of the blocks in both, in the order in which they run.
        images (Sequence[Tensor]): Batches, each of shape (B, C, H, W).
        steps (int): Steps for each block, of one batch each. Defaults to 300.
        lr (float): Learning rate of the first step. Defaults to 1e-3.
        report (Callable): Called with the name of each block and its relative errors before and after.
            Defaults to a function that does nothing.
    """
    for group in groups_that_share(tied, units):
        targets = [output for _, _, output in record(plain, group[-1], images)]
        inputs = [(args, kwargs) for args, kwargs, _ in record(tied, group[0], images)]
        block = _Chain([tied.get_submodule(unit) for unit in group])
        report(' and '.join(group), *_fit(block, inputs, targets, steps, lr))


def _fit(module: nn.Module, inputs, targets, steps: int, lr: float) -> tuple[float, float]:
    """Fit a module; its relative errors before and after."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    before = _relative_error(module, inputs, targets)
    # Batch norms use the statistics of the batch; nothing drops out.
    for child in module.modules():
        child.training = isinstance(child, _BatchNorm)
    optimizer = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    norm = sum(target.square().mean() for target in targets) / len(targets)
    for step in range(steps):
        (args, kwargs), target = inputs[step % len(inputs)], targets[step % len(inputs)]
        with torch.enable_grad():
            loss = (_first(module(*args, **kwargs)) - target).square().mean() / norm
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        optimizer.step()
        schedule.step()
    module.eval()
    return before, _relative_error(module, inputs, targets)


@torch.no_grad()
def _relative_error(module: nn.Module, inputs, targets) -> float:
    error = sum(
        (_first(module(*args, **kwargs)) - target).square().sum() for (args, kwargs), target in zip(inputs, targets)
    )
    return (error / sum(target.square().sum() for target in targets)).sqrt().item()
