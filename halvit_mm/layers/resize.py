"""Maps of another size, by operators that are deterministic on a GPU too."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(grid: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Interpolate a map as ``F.interpolate`` does with ``align_corners=False``.

    On a GPU the backward passes of bilinear and bicubic interpolation add in any order, and torch refuses them under
    ``torch.use_deterministic_algorithms(True)``. Interpolation is linear in each direction: there it is done as two
    products of matrices.

    Args:
        grid (Tensor): Shape (B, C, H, W).
        size (tuple[int, int]): New height and width.
        mode (str): A mode of ``F.interpolate`` for maps.

    Returns:
        Tensor: Shape (B, C, *size).
    """
    align_corners = False if mode in ('bilinear', 'bicubic') else None
    if align_corners is None or not torch.are_deterministic_algorithms_enabled():
        return F.interpolate(grid, size, mode=mode, align_corners=align_corners)
    rows, columns = (_weights(old, new, mode, grid.device) for old, new in zip(grid.shape[-2:], size))
    with torch.autocast(grid.device.type, enabled=False):
        return (rows @ grid.float() @ columns.mT).to(grid.dtype)


@torch.no_grad()
def _weights(old: int, new: int, mode: str, device: torch.device) -> Tensor:
    """The share of each old place in each new one, shape (new, old)."""
    units = torch.eye(old, device=device)[None, None]
    # One direction is left as it is: its places are the columns of the unit matrix.
    return F.interpolate(units, (new, old), mode=mode, align_corners=False)[0, 0]
