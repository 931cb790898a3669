"""The papers' tables with a measured column beside each published one."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from charts import is_ours, scatter

from halvit_mm.cost.benchmark import benchmark, environment, in_fresh_process, peak_memory
from halvit_mm.cost.report import COUNTS, chart_lines, environment_line, markdown_table, quantity
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.errors import UserError

# Keys of published figures, and the names of their columns
ACCURACIES = dict(top1='top-1 %', top5='top-5 %', box_ap='box AP', mask_ap='mask AP')


# Of the chart of megabytes
TICKS = (10, 20, 50, 100, 200, 400)


def measure_tables(
    tables: Sequence[dict[str, Any]], configs: Path, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure the models in tables of published figures.

    Args:
        tables (Sequence[dict]): Of each table ``title``, ``shape`` and ``rows``, each with ``method`` and, if it can be
            built, ``config``. ``first`` names the row that times are compared with; without it none are taken.
            ``charted`` names rows that are measured at each of ``batches``, or for memory at ``memory_shapes``.
        configs (Path): The folder that the configs are in.
        rounds (int): Timed runs; of a single image twice as many in each of three processes.
        say (Callable[[str], None]): Receives progress messages.

    Returns:
        list[dict]: For each table ``environment``, ``measured`` (results of :func:`benchmark` by method), ``charted``
        (likewise) and ``memory`` (bytes at the peak of a training step by method, one for each shape).

    Raises:
        UserError: If ``first`` or ``charted`` names a row without a config.
    """
    subjects = []
    for table in tables:
        built = {row['method']: Subject(str(configs / row['config']), name=row['method']) for row in _built(table)}
        for name in (*filter(None, [table.get('first')]), *table.get('charted', [])):
            if name not in built:
                raise UserError(f'{table["title"]}: {name} is not a row with a config')
        subjects.append(built)
    measured = []
    for table, built in zip(tables, subjects, strict=True):
        shape, first = tuple(table['shape']), table.get('first')
        say(table['title'])
        order = sorted(built, key=lambda name: name != first)
        # One image takes milliseconds: more runs, over several minutes, average over the machine's other load.
        settings = Settings(
            shape, (1,) if first else (), ('infer',), rounds=2 * rounds, processes=3 if first else 1, memory=False
        )
        result = dict(
            environment=environment(settings),
            measured={one.pop('name'): one for one in benchmark([built[name] for name in order], settings, say)},
        )
        charted = [built[name] for name in table.get('charted', [])]
        if 'batches' in table:
            settings = Settings(shape, tuple(table['batches']), rounds=rounds)
            result['charted'] = {one.pop('name'): one for one in benchmark(charted, settings, say)}
        for size in table.get('memory_shapes', []):
            for subject in charted:
                say(f'memory of a training step of {subject.name} at {size[0]} x {size[1]}')
                read = in_fresh_process(peak_memory, subject, Settings(tuple(size)), 1, 'train', 'fp32')
                result.setdefault('memory', {}).setdefault(subject.name, []).append(read['peak_memory_bytes'])
        for one in (*result['measured'].values(), *result.get('charted', {}).values()):
            del one['environment'], one['config']
        measured.append(result)
    return measured


def _built(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (row for row in table['rows'] if 'config' in row)


def compare(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """Say how two measurements of the same tables differ.

    Args:
        before (Sequence[dict]): From :func:`measure_tables`.
        after (Sequence[dict]): From :func:`measure_tables`.

    Returns:
        list[str]: A line for each count that differs, and one for the largest difference of a ratio of times.
    """
    lines, largest, where = [], 0.0, ''
    for old_table, new_table in zip(before, after, strict=False):
        for kind in ('measured', 'charted'):
            for name in old_table.get(kind, {}).keys() & new_table.get(kind, {}).keys():
                old, new = old_table[kind][name], new_table[kind][name]
                lines += [
                    f'{name}: {key} was {old.get(key)}, is {new.get(key)}'
                    for key in COUNTS
                    if old.get(key) != new.get(key)
                ]
                for run, again in zip(old['runs'], new['runs'], strict=False):
                    difference = abs(again['ratio_to_first'] / run['ratio_to_first'] - 1)
                    if difference > largest:
                        largest, where = difference, f'{name}, {run["mode"]}, batch {run["batch"]}'
    lines = lines or ['counts: the same']
    return [*lines, f'ratios of times: at most {100 * largest:.1f} % apart' + (f' ({where})' if where else '')]


def write_tables(
    published: dict[str, Any], measured: Sequence[dict[str, Any]], folder: Path, command: str
) -> list[Path]:
    """Write ``tables.md``, ``tables.json`` (what was measured) and charts.

    Args:
        published (dict): ``sources``, ``tables`` as in :func:`measure_tables`, and if there is one, ``beyond`` as in
            :func:`bytes_of_weights`.
        measured (Sequence[dict]): From :func:`measure_tables`.
        folder (Path): Where they go; charts go into ``charts``.
        command (str): What writes them, for the text.

    Returns:
        list[Path]: The files.
    """
    charts = folder / 'charts'
    charts.mkdir(parents=True, exist_ok=True)
    parts = [
        "# What it costs, beside the papers' tables",
        f'Written by `{command}`. Accuracies and the columns marked "published" are quoted: {published["sources"]} The '
        'others were measured here: parameters, multiply-accumulates (MACs) of one image, the weight file, the '
        'gradients that a rank sends in a step, and the training state (weights, gradients and what the '
        "config's own optimizer keeps). A dash marks what no source prints or what cannot be built here. "
        'Parameters marked * are without the classifier, as the source counts.',
        'The models run in turn in one process. The process keeps the memory that it frees: by default glibc, the C '
        'library, gives large blocks back to the system, and new blocks cost time. A ratio is the median of the ratios '
        "to the first model's time in the same round. Ratios of one image are from three processes. The charts of "
        "times show the first model's median, times these ratios. Peaks of memory are read in a fresh process for each "
        'model, with the default allocator.',
    ]
    files = []
    for table, result in zip(published['tables'], measured, strict=True):
        parts += [f'## {table["title"]}', environment_line(result['environment']) + '.', _table(table, result)]
        notes = [f'- {row["method"]}: {row["note"]}' for row in table['rows'] if 'note' in row]
        notes += [f'- {name}: {one["error"]}' for name, one in result['measured'].items() if 'error' in one]
        if notes:
            parts += ['Where the two differ, and why:', '\n'.join(notes)]
        for title, path in _charts(table, result, charts):
            parts.append(f'![{title}](charts/{path.name})')
            files.append(path)
    if 'beyond' in published:
        section, chart = bytes_of_weights(published['beyond'], charts)
        parts += section
        files.append(chart)
    text, data = folder / 'tables.md', folder / 'tables.json'
    text.write_text('\n\n'.join(parts) + '\n')
    data.write_text(json.dumps(measured, indent=1) + '\n')
    return [text, data, *files]


def bytes_of_weights(beyond: dict[str, Any], charts: Path) -> tuple[list[str], Path]:
    """The accuracies that sources publish, over the bytes of the weights: parameters times bits / 8.

    Args:
        beyond (dict): ``title`` and ``rows``, each with ``method``, ``params`` (millions, with the classifier),
            ``top1``, ``gmacs``, ``source`` and, where there is one, ``bits`` of a weight (else 32) and ``teacher``.
        charts (Path): The folder for the chart.

    Returns:
        tuple[list[str], Path]: The paragraphs of a page, and the chart.
    """
    rows = sorted(beyond['rows'], key=lambda row: (megabytes(row), row['top1']))
    header = ('', 'weights (MB)', 'parameters (M)', 'bits', 'MACs (G)', 'top-1 % (published)', 'teacher', 'source')
    cells = [
        [
            *(f'**{row["method"]}**' if is_ours(row['method']) else row['method'], f'{megabytes(row):.1f}'),
            *(row['params'], row.get('bits', 32), row['gmacs'], row['top1'], row.get('teacher'), row['source']),
        ]
        for row in rows
    ]
    points = [(row['method'], megabytes(row), row['top1'], 0.0) for row in rows]
    name = 'top-1 %, as its source publishes it'
    path = charts / 'imagenet_accuracy_over_bytes.png'
    chart = scatter(points, 'weights (MB): parameters x bits / 8', name, path, TICKS)
    return [
        f'## {beyond["title"]}',
        "At 224 x 224. Nobody here has trained any of these models: each accuracy is its source's. Weights are counted "
        'with the classifier, in 32 bits unless the row says otherwise: parameters times bits / 8. The recipes differ: '
        'epochs, teachers and images (ImageNet-22k) are part of an accuracy. Ours are in bold.',
        markdown_table(header, cells),
        f'![{name}, over the bytes of the weights](charts/{chart.name})',
    ], chart


def megabytes(row: dict[str, Any]) -> float:
    """The weights of a row, in millions of bytes."""
    return row['params'] * row.get('bits', 32) / 8


def _table(table: dict[str, Any], result: dict[str, Any]) -> str:
    accuracies = [key for key in ACCURACIES if any(key in row for row in table['rows'])]
    with_macs = any('gmacs' in row for row in table['rows'])
    first = table.get('first')
    header = [
        *('', *(f'{ACCURACIES[key]} (published)' for key in accuracies), 'parameters (M, published)', 'measured'),
        *(['MACs (G, published)', 'measured'] if with_macs else ['MACs (G)']),
        *('weight file (MB)', 'gradients (MB)', 'training state (MB)'),
        *([f'time, batch 1, to {first}'] if first else []),
    ]
    rows = []
    for row in table['rows']:
        one = result['measured'].get(row['method'], {})
        star = '*' if 'counted' in row else ''
        params = quantity(one.get('params_no_head' if star else 'params'), 1e6)
        rows.append(
            [
                *(row['method'], *(row.get(key) for key in accuracies), row.get('params'), params and params + star),
                *([row.get('gmacs')] if with_macs else []),
                quantity(one.get('macs'), 1e9),
                *(quantity(one.get(key), 1e6, 1) for key in COUNTS[3:]),
                *([next((f'{run["ratio_to_first"]:.2f}' for run in one.get('runs', [])), None)] if first else []),
            ]
        )
    return markdown_table(header, rows)


def _charts(table: dict[str, Any], result: dict[str, Any], folder: Path) -> Iterator[tuple[str, Path]]:
    prefix = re.sub('[^a-z0-9]+', '_', table['title'].lower()).strip('_')
    accuracy = next((key for key in ACCURACIES if any(key in row for row in table['rows'])), None)
    published = [(row, result['measured'].get(row['method'], {})) for row in table['rows'] if row.get(accuracy)]
    for x, title, value in (
        ('parameters (M), published', 'parameters', lambda row, one: row.get('params')),
        ('training state (MB), measured', 'training_state', lambda row, one: one.get('train_state_bytes', 0) / 1e6),
    ):
        points = [(row['method'], value(row, one), row[accuracy], 0.0) for row, one in published if value(row, one)]
        if points:
            name = f'{ACCURACIES[accuracy]}, published'
            yield f'{name}, over {x}', scatter(points, x, name, folder / f'{prefix}_accuracy_over_{title}.png')
    for mode, words in (('infer', 'inference'), ('train', 'training step')):
        charted = {
            name: [run for run in one['runs'] if run['mode'] == mode] for name, one in result.get('charted', {}).items()
        }
        # By ratio, which does not depend on how slow the machine was in a round.
        first = {}
        for run in itertools.chain(*charted.values()):
            first.setdefault(run['batch'], run['ms_median'])
        lines = {
            name: [(run['batch'], run['ratio_to_first'] * first[run['batch']] / run['batch']) for run in runs]
            for name, runs in charted.items()
        }
        if any(lines.values()):
            y = f'ms per image, {words}'
            yield y, _lines(lines, 'images in a batch', y, folder / f'{prefix}_time_{mode}.png', log=True)
    if 'memory' in result:
        sizes = [height * width / 1e6 for height, width in table['memory_shapes']]
        lines = {
            name: [(size, value / 1e9) for size, value in zip(sizes, values, strict=True)]
            for name, values in result['memory'].items()
        }
        y = 'training step, one image: peak memory (GB)'
        yield y, _lines(lines, 'pixels of the image (millions)', y, folder / f'{prefix}_memory.png')


def _lines(lines: dict[str, list], *labels: str | Path, log: bool = False) -> Path:
    return chart_lines(lines, *labels, log=log, in_front=[name for name in lines if is_ours(name)])
