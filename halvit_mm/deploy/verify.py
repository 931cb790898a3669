"""Comparison of an exported file with its model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from halvit_mm.errors import UserError

# Largest difference, as a fraction of the largest output, or of 1 if that is larger
TOLERANCES = {'fp32': 1e-4, 'fp16': 2e-2}
# Fraction of decisions that are the same; fraction of a map's norm that differs
LEAST_AGREEMENT, MOST_MAP_ERROR = 0.95, 0.1
# Of two boxes that are the same: pixels between their sides, and between their scores
SAME_BOX, SAME_SCORE = 0.5, 1e-2

# What a task decides by its logits, shape (B, classes, ...), and whether two decisions of a batch are the same.
# mmpretrain takes the labels whose probability is above 0.5 by default.
SAME = {
    'classes': ('top-1', lambda ours, theirs: ours.argmax(1) == theirs.argmax(1)),
    'labels': ('set of labels', lambda ours, theirs: ((ours > 0) == (theirs > 0)).all(1)),
    'pixels': ('class of a pixel', lambda ours, theirs: _classes(ours) == _classes(theirs)),
}


def _classes(logits: Tensor) -> Tensor:
    """Classes of pixels; of two classes with one channel of logits, whether it is above 0."""
    return logits.argmax(1) if logits.shape[1] > 1 else logits > 0


@dataclass
class Difference:
    """Between outputs for the same images.

    Attributes:
        images (int): Number of images.
        largest (float): Largest absolute difference of an output.
        scale (float): Largest absolute value of an output.
        error (float): Norm of the difference, as a fraction of the norm.
        agreement (float, optional): Fraction of the decisions that are the same; None for maps.
        decision (str): What is decided: a value of ``SAME``.
    """

    images: int = 0
    largest: float = 0.0
    scale: float = 0.0
    error: float = 0.0
    agreement: float | None = None
    decision: str = 'top-1'

    def __str__(self) -> str:
        text = f'largest difference {self.largest:.2e} (outputs up to {self.scale:.3g}), error {100 * self.error:.3f} %'
        return text if self.agreement is None else f'{text}, same {self.decision} {100 * self.agreement:.1f} %'

    def check(self, path: str, precision: str) -> None:
        """Raise a :class:`UserError` that names ``path`` if the difference is too large for a precision."""
        if self.decision == 'box':
            close, expected = self.agreement is None or self.agreement >= LEAST_AGREEMENT, f'{LEAST_AGREEMENT:.0%} are'
        elif precision in TOLERANCES:
            most = TOLERANCES[precision] * max(1.0, self.scale)
            close, expected = self.largest <= most, f'at most {most:.1e} is'
        elif self.agreement is not None:
            close, expected = (
                self.agreement >= LEAST_AGREEMENT,
                f'{LEAST_AGREEMENT:.0%} of the same {self.decision} are',
            )
        else:
            close, expected = self.error <= MOST_MAP_ERROR, f'an error of at most {MOST_MAP_ERROR:.0%} is'
        if not close:
            raise UserError(
                f'{path} differs from the model: {self}; {expected} expected in {precision}, and nothing was written'
            )


def compare(
    expected: Iterable[tuple[Tensor, ...]],
    run: Callable[[Tensor], tuple[Tensor, ...]],
    batches: Iterable[Tensor],
    task: str | None,
) -> Difference:
    """Compare the outputs of a file with those of its model.

    Args:
        expected (Iterable[tuple[Tensor]]): The model's outputs for each batch.
        run (Callable): Runs the file.
        batches (Iterable[Tensor]): Images, shape (B, C, H, W).
        task (str, optional): What the outputs decide, of ``SAME``; None for maps.

    Returns:
        Difference: Over all images and outputs.

    Raises:
        UserError: If the file's outputs have other shapes.
    """
    decision, is_same = SAME.get(task, ('top-1', None))
    result, same, difference_norm, norm = Difference(decision=decision), [], 0.0, 0.0
    for outputs, images in zip(expected, batches, strict=True):
        pairs = [*zip(outputs, run(images), strict=True)]
        for ours, theirs in pairs:
            if ours.shape != theirs.shape:
                raise UserError(
                    f'an output of the file has the shape {tuple(theirs.shape)} for images of shape '
                    f'{tuple(images.shape)}; expected {tuple(ours.shape)}, and nothing was written'
                )
            difference = (ours - theirs).abs()
            # max keeps its first argument if the second is NaN.
            largest = difference.max().item() if difference.isfinite().all() else float('inf')
            result.largest, result.scale = max(result.largest, largest), max(result.scale, ours.abs().max().item())
            difference_norm += difference.square().sum().item()
            norm += ours.square().sum().item()
        if is_same:
            same.append(is_same(*pairs[0]).flatten())  # of the logits; attention may be behind them
        result.images += len(images)
    # An untrained head may be all zeros.
    result.error = (difference_norm / norm) ** 0.5 if norm else float(difference_norm > 0)
    result.agreement = torch.cat(same).float().mean().item() if same else None
    return result


def compare_boxes(
    expected: Iterable[tuple[Tensor, ...]],
    run: Callable[[Tensor], tuple[Tensor, ...]],
    batches: Iterable[Tensor],
) -> Difference:
    """Compare the boxes that a file finds with those of its model.

    Args:
        expected (Iterable[tuple[Tensor]]): The model's boxes, scores and labels, and masks if it has any, for each
            image.
        run (Callable): Runs the file, which returns the same.
        batches (Iterable[Tensor]): Images, shape (1, C, H, W).

    Returns:
        Difference: ``largest``, ``scale`` and ``error`` are those of the coordinates of the boxes that are the same.
        ``agreement`` is the number of these as a fraction of all boxes; None if there are no boxes.
    """
    result, number, same, square, norm = Difference(decision='box'), 0, 0, 0.0, 0.0
    for (boxes, scores, labels, *masks), images in zip(expected, batches, strict=True):
        found, found_scores, found_labels, *found_masks = run(images)
        number += max(len(boxes), len(found))
        result.images += len(images)
        if not len(boxes) or not len(found):
            continue
        gap = (boxes[:, None] - found).abs().amax(2)
        other = (labels[:, None] != found_labels) | ((scores[:, None] - found_scores).abs() > SAME_SCORE)
        gap, nearest = gap.masked_fill(other, float('inf')).min(1)
        close = gap <= SAME_BOX
        for ours, theirs in zip(masks, found_masks, strict=True):
            close &= (ours - theirs[nearest]).abs().flatten(1).amax(1) <= SAME_SCORE
        same += len(nearest[close].unique())
        if close.any():
            result.largest = max(result.largest, gap[close].max().item())
            result.scale = max(result.scale, boxes.abs().max().item())
            square += (boxes - found[nearest])[close].square().sum().item()
            norm += boxes[close].square().sum().item()
    result.error = (square / norm) ** 0.5 if norm else 0.0
    result.agreement = same / number if number else None
    return result
