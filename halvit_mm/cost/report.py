"""Benchmark results as tables, files and charts."""

import csv
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COUNTS = ('params', 'params_no_head', 'macs', 'weight_bytes', 'gradient_bytes', 'train_state_bytes')
RUN_KEYS = (
    *('batch', 'mode', 'precision', 'device', 'compiled', 'rounds', 'ms_median', 'ms_min', 'ms_max'),
    *('images_per_second', 'peak_memory_bytes', 'ratio_to_first'),
)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, without a line break at the end; a cell that is None becomes a dash."""
    lines = [header, ['---'] * len(header), *(['-' if cell is None else cell for cell in row] for row in rows)]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def quantity(value: float | None, unit: float, digits: int = 2) -> str | None:
    """Format a number in a unit such as 1e6, with 2 digits after the point by default; None stays None."""
    return None if value is None else f'{value / unit:.{digits}f}'


def counts_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown table of the counts and bytes in results of :func:`~halvit_mm.cost.benchmark.benchmark`."""
    header = (
        *('config', 'parameters (M)', 'without head (M)', 'MACs (G)', 'weight file (MB)', 'gradients (MB)'),
        'training state (MB)',
    )
    rows = (
        (
            result['name'],
            *(quantity(result.get(key), 1e6, 3) for key in COUNTS[:2]),
            quantity(result.get('macs'), 1e9, 3),
            *(quantity(result.get(key), 1e6, 1) for key in COUNTS[3:]),
        )
        for result in results
    )
    return markdown_table(header, rows)


def runs_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown table of the runs in results of :func:`~halvit_mm.cost.benchmark.benchmark`, sorted by kind of run."""
    header = [
        *('config', 'batch', 'mode', 'precision', 'median ms', 'min to max ms', 'images/s', 'ratio'),
        *('peak memory (MB)', 'activations (MB)'),
    ]
    runs = [(result['name'], run) for result in results for run in result['runs']]
    kinds = list(dict.fromkeys((run['precision'], run['batch'], run['mode']) for _, run in runs))
    runs.sort(key=lambda item: kinds.index((item[1]['precision'], item[1]['batch'], item[1]['mode'])))
    rows = (
        (
            name + (', compiled' if run['compiled'] else ''),
            *(run['batch'], run['mode'], run['precision'], f'{run["ms_median"]:.1f}'),
            *(f'{run["ms_min"]:.1f} to {run["ms_max"]:.1f}', f'{run["images_per_second"]:.1f}'),
            f'{run["ratio_to_first"]:.3f}',
            *(quantity(run[key], 1e6, 0) for key in ('peak_memory_bytes', 'activation_bytes')),
        )
        for name, run in runs
    )
    return markdown_table(header, rows)


def environment_line(environment: dict[str, Any]) -> str:
    """A dict of :func:`~halvit_mm.cost.benchmark.environment` in one line."""
    height, width = environment['shape']
    versions = ', '.join(f'{name} {number}' for name, number in environment['versions'].items())
    layout = ', channels_last' if environment['channels_last'] else ''
    tf32 = environment.get('tf32')
    layout += '' if tf32 is None else f', TF32 {"on" if tf32 else "off"} in products and convolutions'
    return (
        f'{environment["device"]} ({environment["instructions"]}), {environment["cores"]} cores, '
        f'{environment["threads"]} threads, {height} x {width}{layout}; {versions}'
    )


def write_results(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write ``results.json``, ``results.csv`` (a line for each run), ``results.md`` and charts.

    Args:
        results (Sequence[dict]): From :func:`~halvit_mm.cost.benchmark.benchmark`.
        folder (Path): Made if it does not exist.

    Returns:
        list[Path]: The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
    with open(folder / 'results.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, ['name', 'config', *COUNTS, *RUN_KEYS], extrasaction='ignore')
        writer.writeheader()
        for result in results:
            for run in result['runs'] or [{}]:
                writer.writerow({**result, **run})
    parts = [environment_line(results[0]['environment']), counts_table(results)]
    if any(result['runs'] for result in results):
        parts.append(runs_table(results))
    (folder / 'results.md').write_text('\n\n'.join(parts) + '\n')
    files = [folder / name for name in ('results.json', 'results.csv', 'results.md')]
    measured = [result for result in results if 'params' in result]
    if measured:
        files.append(_chart_counts(measured, folder / 'counts.png'))
    for mode in ('infer', 'train'):
        timed = [result for result in results if any(run['mode'] == mode for run in result['runs'])]
        if timed:
            files.append(_chart_times(timed, mode, folder / f'time_{mode}.png'))
    return files


def subplots(**options):
    """A figure for a file and its axes; arguments as of matplotlib's ``subplots``."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot.subplots(**options, layout='constrained')


def _chart_counts(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Bars of each count, relative to the first config."""
    keys = dict(zip(COUNTS, ('parameters', 'without head', 'MACs', 'weight file', 'gradients', 'training state')))
    figure, axes = subplots(figsize=(9, 4.5))
    width = 0.8 / len(results)
    for i, result in enumerate(results):
        ratios = [result[key] / results[0][key] for key in keys]
        places = [place - 0.4 + (i + 0.5) * width for place in range(len(keys))]
        axes.bar(places, ratios, width, label=result['name'])
    axes.axhline(1, color='grey', linewidth=0.8)
    axes.set_xticks(range(len(keys)), keys.values())
    axes.set_ylabel(f'relative to {results[0]["name"]}')
    axes.legend(fontsize='small')
    return save(figure, path)


def _chart_times(results: Sequence[dict[str, Any]], mode: str, path: Path) -> Path:
    """Time of one image over the batch size."""
    lines = {}
    for result in results:
        for run in result['runs']:
            if run['mode'] == mode:
                name = ', '.join([result['name'], run['precision'], *(['compiled'] if run['compiled'] else [])])
                lines.setdefault(name, []).append((run['batch'], run['ms_median'] / run['batch']))
    y = 'ms per image, ' + ('inference' if mode == 'infer' else 'training step')
    return chart_lines(lines, 'images in a batch', y, path, log=True)


def chart_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    path: Path,
    log: bool = False,
    in_front: Container[str] = (),
) -> Path:
    """Write a chart of lines, whose vertical axis begins at 0, to a PNG file; of bars if all lines have one place.

    Args:
        lines (Mapping[str, Sequence[tuple[float, float]]]): Points of each line by its name.
        x (str): Label of the horizontal axis.
        y (str): Label of the vertical axis.
        path (Path): The PNG file, which is returned.
        log (bool): Whether the horizontal axis is logarithmic, to base 2. Defaults to False.
        in_front (Container[str]): Names of lines that are drawn wider and over the others. Defaults to none.
    """
    places = sorted({place for points in lines.values() for place, _ in points})
    if len(places) == 1:
        return _chart_bars({name: value for name, [(_, value)] in lines.items()}, f'{y} ({x}: {places[0]:g})', path)
    figure, axes = subplots(figsize=(7, 4.5))
    for name, points in lines.items():
        style = dict(linewidth=2.5, zorder=3) if name in in_front else {}
        axes.plot(*zip(*points, strict=True), marker='o', label=name, **style)
    if log:
        axes.set_xscale('log', base=2)
        axes.set_xticks(places, [f'{place:g}' for place in places])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    return save(figure, path)


def _chart_bars(bars: Mapping[str, float], x: str, path: Path) -> Path:
    """A bar for each name, with its value beside it."""
    figure, axes = subplots(figsize=(8, max(3.5, 1 + 0.45 * len(bars))))
    drawn = axes.barh([*bars], [*bars.values()], color=[f'C{i % 10}' for i in range(len(bars))])
    axes.bar_label(drawn, fmt='%.3g', padding=3, fontsize='small')
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(x)
    return save(figure, path)


def save(figure, path: Path) -> Path:
    """Write a figure to a PNG file and close it."""
    from matplotlib import pyplot

    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
