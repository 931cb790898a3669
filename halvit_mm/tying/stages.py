"""From the plain stage of a ResNet to one in which a single matrix serves all bottlenecks.

A 3x3 convolution, norms and ReLUs stand between a bottleneck's matrices. The hidden channels of either side may change
places, each side by itself, and have any positive scale: the 3x3 convolution and the norms take it back, and the block
keeps its function. The dense shortcut of the plain first block has no counterpart in a shared stage, whose depthwise
convolutions keep their own initialization.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from halvit_mm.layers import SharedBottleneckStage

from .bases import assign_units

ROUNDS = 10


@dataclass
class Side:
    """One 1x1 convolution of a block, as rows of the shared matrix.

    Attributes:
        rows (Tensor): Shape (mid, C), C being ``out``, or ``in`` on the way into the first block.
        order (Tensor): Number of the plain channel at each place, shape (mid, ).
        scale (Tensor): Factor of each place, shape (mid, ).
    """

    rows: Tensor
    order: Tensor
    scale: Tensor

    def placed(self) -> Tensor:
        return self.rows[self.order] * self.scale[:, None]


@torch.no_grad()
def fill_stage(shared: SharedBottleneckStage, plain: nn.Sequential, way: str) -> dict[str, float]:
    """Start a shared stage from a plain one.

    Args:
        shared (SharedBottleneckStage): The stage to fill.
        plain (nn.Sequential): Upstream's stage of bottlenecks, of the same shape.
        way (str): ``'mean'``: W is the mean of all matrices unchanged; any other: W is their mean after the channels
            of each block have moved to the places and scales that fit the other blocks best.

    Returns:
        dict[str, float]: Relative error of W in place of each of the 1x1 convolutions.
    """
    mid, out = shared.weight.shape[:2]
    sides = []
    for block in plain:
        for rows in (block.conv1.weight.flatten(1), block.conv3.weight.flatten(1).T):
            sides.append(Side(rows, torch.arange(mid, device=rows.device), rows.new_ones(mid)))
    matrix = _mean(sides, out)
    if way != 'mean':
        matrix = sides[-1].rows
        for _ in range(ROUNDS):
            for side in sides:
                _place(side, matrix[:, -side.rows.shape[1] :], plain[0].conv2.groups)
            matrix = _mean(sides, out)
    shared.weight.copy_(matrix.view_as(shared.weight))
    for block, own, way_in, way_out in zip(plain, shared, sides[::2], sides[1::2]):
        _fill_block(own, block, way_in, way_out)
    names = (f'{i}.{name}' for i in range(len(plain)) for name in ('conv1', 'conv3'))
    placed = ((side.placed(), matrix[:, -side.rows.shape[1] :]) for side in sides)
    return {name: ((rows - own).norm() / rows.norm()).item() for name, (rows, own) in zip(names, placed)}


def _mean(sides: list[Side], out: int) -> Tensor:
    """The mean of all rows, column by column: the way into the first block has the last columns only."""
    total = sides[-1].rows.new_zeros(len(sides[-1].rows), out)
    number = total.new_zeros(out)
    for side in sides:
        total[:, -side.rows.shape[1] :] += side.placed()
        number[-side.rows.shape[1] :] += 1
    return total / number


def _place(side: Side, matrix: Tensor, groups: int) -> None:
    norms = side.rows.norm(dim=1).clamp(min=1e-12)
    side.order = assign_units(matrix @ (side.rows / norms[:, None]).T, groups)
    target = matrix.norm(dim=1)
    side.scale = torch.where(target > 0, target / norms[side.order], 1.0)


def _fill_block(own: nn.Module, block: nn.Module, way_in: Side, way_out: Side) -> None:
    groups = block.conv2.groups
    weight = block.conv2.weight[way_out.order].unflatten(0, (groups, -1))
    within = (way_in.order % (len(way_in.order) // groups)).view(groups, -1)
    weight = torch.stack([part[:, places] for part, places in zip(weight, within)]).flatten(0, 1)
    own.conv2.weight.copy_(weight)
    for name in ('norm1', 'norm2', 'norm3'):
        getattr(own, name).load_state_dict(getattr(block, name).state_dict())
    # Rows times s: the statistics take the factor, epsilon does not, and the weight makes up for that.
    norm, order, scale = own.norm1, way_in.order, way_in.scale
    variance = norm.running_var[order]
    factor = ((scale**2 * variance + norm.eps) / (variance + norm.eps)).sqrt() / scale
    norm.weight.copy_(norm.weight[order] * factor)
    norm.bias.copy_(norm.bias[order])
    norm.running_mean.copy_(norm.running_mean[order] * scale)
    norm.running_var.copy_(variance * scale**2)
    # Columns times s: their input is divided by s.
    norm, order, scale = own.norm2, way_out.order, way_out.scale
    norm.weight.copy_(norm.weight[order] / scale)
    norm.bias.copy_(norm.bias[order] / scale)
    norm.running_mean.copy_(norm.running_mean[order])
    norm.running_var.copy_(norm.running_var[order])
