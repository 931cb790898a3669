"""Measure what the levels of ``with_cp`` save and cost: peaks of training processes, kept activations, times of steps.

Of DeiT, HaLViT and HaLViT with each level: over the batch, over the side of an image, the largest batch in 8 GB, and of
Mask R-CNN at 800 x 1333 beside PVT-M's and ResNet-101's. Every peak is read in a fresh process, which returns what it
frees: the peak is what the tensors need, and not what glibc keeps besides. Times are seconds of the processor in one
thread, which other work on the machine disturbs less than it disturbs the clock; a ratio is the median of the ratios to
the first model's time in the same round. A second call goes on from what --out has.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from halvit_mm import config_path
from halvit_mm.cost.benchmark import build_run, elapsed, environment, in_fresh_process, peak_memory
from halvit_mm.cost.measure import keep_freed_memory, return_freed_memory, time_interleaved
from halvit_mm.cost.report import environment_line, markdown_table, save, subplots
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.layers.recompute import LEVELS

# Configs of the baselines and of ours, to whose backbone each level is given
TINY = (('DeiT-S', 'deit-small_4xb256_in1k'),), ('HaLViT-Tiny', 'halvit/halvit-tiny_8xb128_in1k')
MEDIUM = (('DeiT-B', 'deit-base_16xb64_in1k'),), ('HaLViT-M', 'halvit/halvit-medium_8xb128_in1k')
DETECTION = (
    (('PVT-M', 'mask-rcnn_pvt-m_fpn_1x_coco'), ('ResNet-101', 'mask-rcnn_r101_fpn_1x_coco')),
    ('HaLViT-M', 'mask_rcnn/mask-rcnn_halvit-medium_fpn_1x_coco'),
)
PARTS = ('batch', 'side', 'largest', 'detection', 'times', 'times_medium')
LIMIT = 8e9  # of the largest batch, in bytes


def subjects_of(baselines: tuple, ours: tuple[str, str]) -> list[Subject]:
    """The baselines, ours, and a config for each level."""
    name, path = ours
    known = {path.stem: path for path in (Path(__file__).parents[1] / 'configs').rglob('*.py')}
    subjects = [Subject(str(known[stem]), baseline) for baseline, stem in baselines]
    plain = Subject(config_path(f'{path}.py'), name)
    levels = (Subject(plain.path, f'{name}, with_cp={level!r}', {'model.backbone.with_cp': level}) for level in LEVELS)
    return [*subjects, plain, *levels]


def peak(subject: Subject, shape: tuple[int, int], batch: int) -> dict[str, int]:
    """Peak of memory of a process that trains, and the activations that a step keeps."""
    return_freed_memory()
    return peak_memory(subject, Settings(shape=shape), batch, 'train', 'fp32')


def step_times(subjects: list[Subject], batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor that training steps take, of models in turn, in one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = Settings()
    runs = {s.name: build_run(s, s.model(settings), settings, batch, 'train', 'fp32') for s in subjects}
    return time_interleaved(runs, rounds, warm_up=1, clock=time.process_time)


def largest_batch(first: tuple[int, float], second: tuple[int, float]) -> int:
    """The largest batch whose peak is within ``LIMIT``, on the line through two batches and their peaks."""
    (batch, low), (other, high) = first, second
    return int(batch + (LIMIT - low) * (other - batch) / (high - low))


def chart(points: list[dict], path: Path) -> Path:
    """Draw the peaks over the batch and over the side of an image."""
    figure, axes = subplots(ncols=2, figsize=(11, 4.5))
    labels = dict(batch='images of 224 x 224 in a batch', side='side of an image; 2 images in a batch')
    for ax, (key, label) in zip(axes, labels.items()):
        for name in dict.fromkeys(point['name'] for point in points):
            line = [point for point in points if (point['over'], point['name']) == (key, name)]
            at = [p['batch'] if key == 'batch' else p['shape'][0] for p in line]
            ax.plot(at, [p['peak_memory_bytes'] / 1e9 for p in line], marker='o', label=name)
        ax.set_xlabel(label)
        ax.set_ylabel('peak of a training process (GB)')
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize='small')
    return save(figure, path)


def table(points: list[dict]) -> str:
    """Markdown table of the points, with ratios to the first config's."""
    first = {(p['batch'], tuple(p['shape'])): p for p in reversed(points)}
    rows = []
    for point in points:
        base = first[point['batch'], tuple(point['shape'])]
        cells = [point['name'], point['batch'], ' x '.join(map(str, point['shape']))]
        for key in ('activation_bytes', 'peak_memory_bytes'):
            cells += [f'{point[key] / 1e6:.0f}', f'{point[key] / base[key]:.2f}']
        rows.append(cells)
    header = ['', 'batch', 'image', 'activations (MB)', 'ratio', 'peak (MB)', 'ratio']
    return markdown_table(header, rows)


def times_table(times: dict[str, list[float]]) -> str:
    """Markdown table of the steps' times, with ratios to the first model's."""
    first = next(iter(times.values()))
    rows = []
    for name, seconds in times.items():
        ratios = [one / base for one, base in zip(seconds, first, strict=True)]
        spread = f'{min(ratios):.3f} to {max(ratios):.3f}'
        rows.append([name, len(seconds), f'{median(seconds):.2f}', f'{median(ratios):.3f}', spread])
    return markdown_table(['', 'rounds', 'median s', 'ratio', 'ratios'], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='(default: all)')
    parser.add_argument('--batches', nargs='+', type=int, default=[4, 8, 16])
    parser.add_argument('--sides', nargs='+', type=int, default=[224, 448, 672])
    parser.add_argument('--rounds', type=int, default=8, help='timed steps (default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, help='folder of memory.json and memory.png')
    args = parser.parse_args()
    say = elapsed()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / 'memory.json'
    measured = json.loads(kept.read_text()) if kept.exists() else {}

    def measure(key: str, function, *arguments):
        if key not in measured:
            say(key)
            measured[key] = in_fresh_process(function, *arguments)
            kept.write_text(json.dumps(measured, indent=1) + '\n')
        return measured[key]

    def points(over: str, models: tuple, batches_and_shapes: list[tuple[int, tuple[int, int]]]) -> list[dict]:
        found = []
        for subject in subjects_of(*models):
            for batch, shape in batches_and_shapes:
                key = f'{subject.name}, batch {batch}, {shape[0]} x {shape[1]}'
                read = measure(key, peak, subject, shape, batch)
                found.append(dict(name=subject.name, over=over, batch=batch, shape=shape, **read))
        return found

    shown = [environment_line(environment(Settings()))]
    classification = []
    if 'batch' in args.parts:
        classification += points('batch', TINY, [(batch, (224, 224)) for batch in args.batches])
    if 'side' in args.parts:
        classification += points('side', TINY, [(2, (side, side)) for side in args.sides])
    if classification:
        chart(classification, args.out / 'memory.png')
        shown.append(table(classification))
    if 'largest' in args.parts:
        rows = []
        for subject in subjects_of(*TINY)[:-1]:
            size = (224, 224)
            key = f'{subject.name}, batch {{}}, 224 x 224'
            known = [(n, measure(key.format(n), peak, subject, size, n)['peak_memory_bytes']) for n in (8, 16)]
            batch = largest_batch(*known)
            read = measure(key.format(batch), peak, subject, size, batch)
            rows.append([subject.name, batch, f'{read["peak_memory_bytes"] / 1e9:.2f}'])
        shown.append(markdown_table(['', 'largest batch in 8 GB', 'peak (GB)'], rows))
    if 'detection' in args.parts:
        shown.append(table(points('detection', DETECTION, [(1, (800, 1333))])))
    for part, models, batch in (('times', TINY, 16), ('times_medium', MEDIUM, 16)):
        if part in args.parts:
            subjects = subjects_of(*models)
            key = f'times, {subjects[0].name}, batch {batch}, {args.rounds} rounds'
            shown.append(times_table(measure(key, step_times, subjects, batch, args.rounds)))
    print(*shown, sep='\n\n')


if __name__ == '__main__':
    main()
