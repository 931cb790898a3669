"""Draw the pictures of the README and the pages.

example:
  python research/draw_pictures.py savings
  python research/draw_pictures.py curves --runs HaLViT=work_dirs/demo untied=work_dirs/untied
  python research/draw_pictures.py detections --runs demo=work_dirs/demo-det
"""

import argparse
import json
from pathlib import Path

from matplotlib import pyplot

from halvit_mm.cost.report import save, subplots
from halvit_mm.errors import UserError, errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
# Rows of docs/tables.json: the tied model and its baseline
PAIRS = {
    'HaLViT-Tiny : DeiT-S': ('HaLViT-Tiny, 300 epochs', 'DeiT-S/16'),
    'HaLViT-M : DeiT-B': ('HaLViT-M', 'DeiT-B/16'),
}
COUNTED = dict(
    params_no_head='parameters',
    weight_bytes='weight file',
    gradient_bytes='gradients',
    train_state_bytes='training state',
)


def draw_savings(tables: Path, path: Path) -> Path:
    """Draw what a tied model takes of its baseline, from what ``make tables`` has measured."""
    [measured, *_] = json.loads(tables.read_text())
    figure, axes = subplots(figsize=(8, 3.6))
    names = [*COUNTED.values(), 'multiply-\naccumulates', 'activations\n(batch 16)', 'time of a step\n(batch 16)']
    for i, (pair, (tied, plain)) in enumerate(PAIRS.items()):
        ours, theirs = measured['measured'][tied], measured['measured'][plain]
        ratios = [ours[key] / theirs[key] for key in (*COUNTED, 'macs')]
        if tied in measured['charted']:
            last, first = (measured['charted'][name]['runs'][-1] for name in (tied, plain))
            ratios += [last['activation_bytes'] / first['activation_bytes'], last['ratio_to_first']]
        places = [place + 0.38 * i - 0.19 for place in range(len(ratios))]
        bars = axes.bar(places, ratios, 0.36, label=pair, color=('tab:red', 'tab:orange')[i])
        axes.bar_label(bars, fmt='%.2f', padding=2, fontsize='x-small')
    axes.axhline(1, color='grey', linewidth=0.8)
    axes.set_xticks(range(len(names)), names, fontsize='small')
    axes.set_ylabel('fraction of the baseline')
    axes.set_ylim(0, 1.3)
    axes.legend(fontsize='small', ncols=2, loc='upper left')
    return save(figure, path)


def draw_curves(runs: dict[str, Path], path: Path) -> Path:
    """Draw loss and accuracy of trainings over their epochs, from the logs in their work directories."""
    figure, (losses, accuracies) = subplots(ncols=2, figsize=(8, 3.2))
    for name, folder in runs.items():
        logs = [file.read_text() for file in sorted(folder.glob('*/vis_data/scalars.json'))]
        lines = [json.loads(line) for log in logs for line in log.splitlines()]
        trained = [(line['epoch'], line['loss']) for line in lines if 'loss' in line]
        tested = [(line['step'], line['accuracy/top1']) for line in lines if 'accuracy/top1' in line]
        if not trained or not tested:
            raise UserError(f'{folder} is not the work directory of a finished training of a classifier')
        losses.plot(*zip(*trained, strict=True), label=name)
        accuracies.plot(*zip(*tested, strict=True), marker='o', markersize=3, label=f'{name}: {tested[-1][1]:.2f} %')
    losses.set_ylabel('training loss')
    accuracies.set_ylabel('top-1, validation (%)')
    for axes in (losses, accuracies):
        axes.set_xlabel('epoch')
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    return save(figure, path)


def draw_detections(folder: Path, path: Path) -> Path:
    """Draw the first four pictures of a tested detector: the truth on the left, detections on the right."""
    pictures = sorted(folder.glob('*/pictures/*.png'))[:4]
    if len(pictures) < 4:
        raise UserError(f'{folder} is not the work directory of `make demo-det`; expected four pictures in */pictures')
    figure, places = subplots(nrows=2, ncols=2, figsize=(8, 5.2))
    for axes, picture in zip(places.flat, pictures, strict=True):
        axes.imshow(pyplot.imread(picture))
        axes.set_title(f'{picture.stem}: truth | detections', fontsize='small')
        axes.axis('off')
    return save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('picture', choices=['savings', 'curves', 'detections'])
    parser.add_argument('--runs', nargs='+', default=[], metavar='NAME=WORK_DIR', help='trainings')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images', metavar='DIR', help='(default: docs/images)')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with errors_in_one_line():
        if args.picture == 'savings':
            print(draw_savings(ROOT / 'docs/tables.json', args.out / 'savings.png'))
        elif args.picture == 'detections':
            print(draw_detections(Path(args.runs[0].partition('=')[2]), args.out / 'detections.png'))
        else:
            runs = {name: Path(folder) for name, _, folder in (run.partition('=') for run in args.runs)}
            print(draw_curves(runs, args.out / 'curves.png'))


if __name__ == '__main__':
    main()
