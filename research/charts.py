"""Charts of published and measured figures."""

from collections.abc import Iterable
from pathlib import Path

from halvit_mm.cost.report import save, subplots

# Points to the right and up from a point of a chart to its name, and how the name is aligned
LABEL_SIDES = {
    **{(5, 3): 'left', (5, -9): 'left', (-5, 3): 'right', (-5, -9): 'right'},
    **{(0, 9): 'center', (0, -15): 'center', (5, 11): 'left', (5, -17): 'left'},
}


def scatter(points: Iterable[tuple[str, float, float, float]], x: str, y: str, path: Path) -> Path:
    """A chart of named points.

    Args:
        points (Iterable[tuple[str, float, float, float]]): Name, x, y and half the height of the error bar, 0 for none.
        x (str): Name of the horizontal axis.
        y (str): Name of the vertical one.
        path (Path): The PNG file.

    Returns:
        Path: The file.
    """
    figure, axes = subplots(figsize=(8, 5))
    for name, place, height, spread in points:
        ours = 'HaLViT' in name or 'PE' in name
        axes.errorbar(place, height, spread or None, fmt='o', color='tab:red' if ours else 'tab:blue', capsize=3)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    figure.canvas.draw()
    taken = []
    for name, place, height, _ in points:
        # Beside the point, on the first side where no other name is.
        for (right, up), alignment in LABEL_SIDES.items():
            label = axes.annotate(
                name, (place, height), (right, up), textcoords='offset points', fontsize='x-small', ha=alignment
            )
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken) or (right, up) == [*LABEL_SIDES][-1]:
                taken.append(box)
                break
            label.remove()
    return save(figure, path)
