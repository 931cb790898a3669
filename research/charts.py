"""Charts of published and measured figures."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from halvit_mm.cost.report import save, subplots

# Where the name of a point may stand, in points of the page to the right and up, nearest first; how it is aligned.
SIDES = [
    *((5, 3, 'left'), (5, -9, 'left'), (-5, 3, 'right'), (-5, -9, 'right'), (0, 7, 'center'), (0, -14, 'center')),
    *(
        (right, up, alignment)
        for far in (1, 2, 3, 4)
        for right, alignment in ((9 * far, 'left'), (-9 * far, 'right'))
        for up in (11 * far, -11 * far - 6, 3)
    ),
]


def is_ours(name: str) -> bool:
    """Whether the name of a row stands for a tied model."""
    return any(word in name for word in ('HaLViT', 'PE', 'tied')) and 'untied' not in name


def scatter(
    points: Iterable[tuple[str, float, float, float]], x: str, y: str, path: Path, ticks: Sequence[float] = ()
) -> Path:
    """A chart of named points, with this package's models in front.

    Args:
        points (Iterable[tuple[str, float, float, float]]): Name, x, y and half the height of the error bar, 0 for none.
        x (str): Name of the horizontal axis.
        y (str): Name of the vertical one.
        path (Path): The PNG file.
        ticks (Sequence[float]): Marks of the horizontal axis, which then is logarithmic. Defaults to ``()``.

    Returns:
        Path: The file.
    """
    figure, axes = subplots(figsize=(9, 6))
    # Ours are named first and drawn last.
    points = sorted(points, key=lambda point: not is_ours(point[0]))
    for name, place, height, spread in points:
        ours = is_ours(name)
        color, size, order = ('tab:red', 8, 4) if ours else ('tab:blue', 5, 3)
        axes.errorbar(
            place, height, spread or None, fmt='o', color=color, markersize=size, capsize=3, zorder=order, alpha=0.9
        )
    if ticks:
        axes.set_xscale('log')
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.margins(0.06)
    figure.canvas.draw()
    _name_points(axes, points)
    return save(figure, path)


def intervals(rows: Iterable[tuple[str, float, float]], x: str, path: Path) -> Path:
    """A chart of one row for each model, the first on top.

    Args:
        rows (Iterable[tuple[str, float, float]]): Name, x and half the width of the error bar, 0 for none.
        x (str): Name of the horizontal axis.
        path (Path): The PNG file.

    Returns:
        Path: The file.
    """
    rows = [*rows]
    figure, axes = subplots(figsize=(9, 1 + 0.25 * len(rows)))
    for place, (name, value, spread) in enumerate(rows):
        color = 'tab:red' if is_ours(name) else 'tab:blue'
        axes.errorbar(value, place, xerr=spread or None, fmt='o', color=color, markersize=6, capsize=3)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
    return save(figure, path)


def _name_points(axes, points: Sequence[tuple[str, float, float, float]]) -> None:
    """Put each name on the nearest side of its point where it covers no other name and no point."""
    from matplotlib.transforms import Bbox

    centers = [axes.transData.transform(point[1:3]) for point in points]
    bounds, taken = axes.get_window_extent(), [Bbox([center - 4, center + 4]) for center in centers]
    for name, place, height, _ in points:
        style = dict(fontsize='x-small', color='tab:red' if is_ours(name) else 'black', zorder=5)
        for number, (right, up, alignment) in enumerate(SIDES):
            far = dict(arrowprops=dict(arrowstyle='-', linewidth=0.5, color='grey', shrinkA=0)) if number > 5 else {}
            label = axes.annotate(
                name, (place, height), (right, up), textcoords='offset points', ha=alignment, **style, **far
            )
            box = _text_box(label)
            clear = all(bounds.contains(*corner) for corner in itertools.product(*zip(box.min, box.max, strict=True)))
            if (clear and not any(box.overlaps(other) for other in taken)) or number + 1 == len(SIDES):
                taken.append(box)
                break
            label.remove()


def _text_box(label):
    """The box of the words alone, without the line to the point."""
    from matplotlib.text import Text

    label.update_positions(label.figure.canvas.get_renderer())
    return Text.get_window_extent(label)
