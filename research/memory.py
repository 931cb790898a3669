"""Measure what the levels of ``with_cp`` save: the peak of a training process and the activations that a step keeps.

Of DeiT-S, HaLViT-Tiny and HaLViT-Tiny with each level; over the batch, and over the side of an image. Every point is
read in a fresh process, with the default allocator.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from halvit_mm import config_path
from halvit_mm.cost.benchmark import elapsed, environment, in_fresh_process, peak_memory
from halvit_mm.cost.report import environment_line, markdown_table, save, subplots
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.layers.recompute import LEVELS

BASELINE = 'baselines/deit-small_4xb256_in1k.py'
OURS = 'halvit/halvit-tiny_8xb128_in1k.py'


def write_subjects(folder: Path) -> list[Subject]:
    """The baseline, ours, and a config for each level."""
    baseline = Path(__file__).parents[1] / 'configs' / BASELINE
    subjects = [Subject(str(baseline), 'DeiT-S'), Subject(config_path(OURS), 'HaLViT-Tiny')]
    for level in LEVELS:
        path = folder / f'{level}.py'
        path.write_text(f'_base_ = {config_path(OURS)!r}\nmodel = dict(backbone=dict(with_cp={level!r}))\n')
        subjects.append(Subject(str(path), f'with_cp={level!r}'))
    return subjects


def chart(points: list[dict], path: Path) -> Path:
    """Draw the peaks over the batch and over the side of an image."""
    figure, axes = subplots(ncols=2, figsize=(11, 4.5))
    labels = dict(batch='images of 224 x 224 in a batch', side='side of an image; 2 images in a batch')
    for ax, (key, label) in zip(axes, labels.items()):
        for name in dict.fromkeys(point['name'] for point in points):
            line = [point for point in points if (point['over'], point['name']) == (key, name)]
            ax.plot([p[key] for p in line], [p['peak_memory_bytes'] / 1e9 for p in line], marker='o', label=name)
        ax.set_xlabel(label)
        ax.set_ylabel('peak of a training process (GB)')
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize='small')
    return save(figure, path)


def table(points: list[dict]) -> str:
    """Markdown table of the points, with ratios to the first config's."""
    first = {(p['batch'], p['side']): p for p in points if p['name'] == points[0]['name']}
    rows = []
    for point in points:
        base = first[point['batch'], point['side']]
        cells = [point['name'], point['batch'], f'{point["side"]} x {point["side"]}']
        for key in ('activation_bytes', 'peak_memory_bytes'):
            cells += [f'{point[key] / 1e6:.0f}', f'{point[key] / base[key]:.2f}']
        rows.append(cells)
    header = ['', 'batch', 'image', 'activations (MB)', 'ratio', 'peak (MB)', 'ratio']
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batches', nargs='+', type=int, default=[4, 8, 16])
    parser.add_argument('--sides', nargs='+', type=int, default=[224, 448, 672])
    parser.add_argument('--out', type=Path, required=True, help='folder of memory.json and memory.png')
    args = parser.parse_args()
    say = elapsed()
    over = [('batch', batch, 224) for batch in args.batches] + [('side', 2, side) for side in args.sides]
    points = []
    with TemporaryDirectory() as folder:
        for subject in write_subjects(Path(folder)):
            for key, batch, side in over:
                settings = Settings(shape=(side, side))
                say(f'{subject.name}: batch {batch}, {side} x {side}')
                measured = in_fresh_process(peak_memory, subject, settings, batch, 'train', 'fp32')
                points.append(dict(name=subject.name, over=key, batch=batch, side=side, **measured))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'memory.json').write_text(json.dumps(points, indent=1) + '\n')
    chart(points, args.out / 'memory.png')
    print(environment_line(environment(Settings())), table(points), sep='\n\n')


if __name__ == '__main__':
    main()
