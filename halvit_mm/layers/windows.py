"""Cut the tokens of a map into windows, and put them together again.

As in "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet, `arXiv 2203.16527
<https://arxiv.org/abs/2203.16527>`_): windows do not overlap, and zeros fill them up at the lower and right edges.
Unlike in that paper the windows of a map are as even as possible, so that few zeros are needed, and extra tokens in
front (a class token) take part in every window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_windows(length: int, largest: int) -> tuple[int, int]:
    """Cover a side of a map with as few windows as possible, of one size.

    Args:
        length (int): Tokens along the side.
        largest (int): Most tokens that a window may have along the side.

    Returns:
        tuple[int, int]: Number of windows and tokens of each along the side; their product is at least ``length``,
        and less than ``length`` plus the number of windows.
    """
    # Of positive numbers only: ONNX rounds the quotient of a negative one upwards.
    number = (length + largest - 1) // largest
    return number, (length + number - 1) // number


def split_into_windows(x: Tensor, resolution: tuple[int, int], largest: int) -> Tensor:
    """Cut the tokens of each map into windows.

    Args:
        x (Tensor): E extra tokens and the H x W tokens of a map, row by row: shape (B, E + H * W, D).
        resolution (tuple[int, int]): H and W.
        largest (int): Most tokens that a window may have along a side.

    Returns:
        Tensor: E extra tokens, the same for all windows of a map, and the h x w tokens of the window: shape
        (B * windows, E + h * w, D).
    """
    B, N, D = x.shape
    H, W = resolution
    (rows, h), (columns, w) = fit_windows(H, largest), fit_windows(W, largest)
    extra, tokens = x.split([N - H * W, H * W], dim=1)
    tokens = F.pad(tokens.view(B, H, W, D), (0, 0, 0, columns * w - W, 0, rows * h - H))
    tokens = tokens.view(B, rows, h, columns, w, D).transpose(2, 3).reshape(B * rows * columns, h * w, D)
    if extra.shape[1] == 0:
        return tokens
    return torch.cat((extra.repeat_interleave(rows * columns, dim=0), tokens), dim=1)


def join_windows(windows: Tensor, resolution: tuple[int, int], largest: int) -> Tensor:
    """Undo :func:`split_into_windows`.

    Args:
        windows (Tensor): Shape (B * windows, E + h * w, D).
        resolution (tuple[int, int]): H and W of the map.
        largest (int): As for :func:`split_into_windows`.

    Returns:
        Tensor: The extra tokens, each the mean over the windows, and the map: shape (B, E + H * W, D).
    """
    H, W = resolution
    (rows, h), (columns, w) = fit_windows(H, largest), fit_windows(W, largest)
    D = windows.shape[-1]
    extra, tokens = windows.split([windows.shape[1] - h * w, h * w], dim=1)
    tokens = tokens.reshape(-1, rows, columns, h, w, D).transpose(2, 3).reshape(-1, rows * h, columns * w, D)
    # Not tokens[:, :H, :W], of whose size an exporter only knows that it is at most H x W
    tokens = tokens.split([H, rows * h - H], dim=1)[0].split([W, columns * w - W], dim=2)[0].reshape(-1, H * W, D)
    if extra.shape[1] == 0:
        return tokens
    return torch.cat((extra.unflatten(0, (-1, rows * columns)).mean(1), tokens), dim=1)
