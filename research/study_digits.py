"""Train tied and untied models on the handwritten digits over several seeds: the accuracy that tying loses at equal
width and gains at equal parameters.

Each training is one process of one thread. Results are kept in WORK_DIR/top1.json; a second call continues from there.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from charts import scatter
from mmengine.config import Config, DictAction
from variants import train_variant

from halvit_mm.cost import count_parameters
from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import load_config

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs/digits'
HALVIT, RESNET = CONFIGS / 'halvit_2xb64_digits.py', CONFIGS / 'resnet50-pe_2xb64_digits.py'
WIDE = [f'model.backbone.arch.{key}={value}' for key, value in dict(embed_dims=135, feedforward_channels=540).items()]
VARIANTS = {
    'HaLViT, tied': (HALVIT, []),
    'HaLViT, attention tied': (HALVIT, ['model.backbone.tie=attn']),
    'HaLViT, FFN tied': (HALVIT, ['model.backbone.tie=ffn']),
    'HaLViT, untied': (HALVIT, ['model.backbone.tie=none']),
    'HaLViT, tied, 135 wide': (HALVIT, [*WIDE, 'model.head.in_channels=135']),
    'ResNet50-PE1': (RESNET, []),
    'ResNet50-PE2': (RESNET, ['model.backbone.shared_stages=(2,3)']),
    'ResNet-50, plain': (RESNET, ['model.backbone.shared_stages=()']),
}

REPORT = """# What tying costs at equal width, and gains at equal parameters

The real handwritten digits, 1,437 images to train on and 360 to validate (one image is 0.28 points). Top-1 in percent
after the config's own schedule, each training one process with batches of 128. The schedules were chosen on the same
360 images.

{table}

![top-1 over parameters](study_digits.png)

Written by `research/study_digits.py --out docs`, after `tools/prepare_digits.py`, on 2 CPU cores (AMD EPYC), torch
2.10.0.
"""


def merged(config: Path, options: list[str]) -> Config:
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return load_config(str(config), parser.parse_args(['--options', *options]).options)


def parameters(config: Path, options: list[str]) -> int:
    return count_parameters(build_model(merged(config, options)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4], help='(default: 0 1 2 3 4)')
    parser.add_argument('--only', nargs='+', choices=[*VARIANTS], default=[*VARIANTS], help='(default: all)')
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: %(default)s)')
    parser.add_argument('--epochs', type=int, help="(default: the config's own)")
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/study'), help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, metavar='DIR', help='write study_digits.md and a chart there')
    args = parser.parse_args()

    args.work_dir.mkdir(parents=True, exist_ok=True)
    kept = args.work_dir / 'top1.json'
    top1 = json.loads(kept.read_text()) if kept.exists() else {}

    def run(name: str, seed: int) -> None:
        key = f'{name}, seed {seed}' + (f', {args.epochs} epochs' if args.epochs else '')
        if key not in top1:
            config, options = VARIANTS[name]
            # The two ranks of the config's name are one here.
            options = [*options, 'train_dataloader.batch_size=128', f'randomness.seed={seed}']
            if args.epochs:
                options += [f'train_cfg.max_epochs={args.epochs}', 'param_scheduler=None']
            command = [str(TOOLS / 'train.py'), str(config)]
            top1[key] = train_variant(command, args.work_dir / key.replace(', ', '_').replace(' ', '-'), options)
            kept.write_text(json.dumps(top1, indent=1) + '\n')
        print(f'{key}: {top1[key]:.2f} %', flush=True)
        values[name][seed] = top1[key]

    values = {name: {} for name in args.only}
    with errors_in_one_line(), ThreadPoolExecutor(args.jobs) as pool:
        for done in [pool.submit(run, name, seed) for seed in args.seeds for name in args.only]:
            done.result()

    sizes = {name: parameters(*VARIANTS[name]) for name in args.only}
    rows, points = [], []
    for name, by_seed in values.items():
        reached = [by_seed[seed] for seed in args.seeds]
        spread = stdev(reached) if len(reached) > 1 else 0.0
        rows.append((name, f'{sizes[name]:,}', *(f'{v:.2f}' for v in reached), f'{mean(reached):.2f}', f'{spread:.2f}'))
        points.append((name, sizes[name] / 1e6, mean(reached), spread))
    table = markdown_table(
        ['', 'parameters', *(f'seed {seed}' for seed in args.seeds), 'mean', 'standard deviation'], rows
    )
    print('', table, sep='\n')
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'study_digits.md').write_text(REPORT.format(table=table))
        scatter(points, 'parameters (M)', 'top-1 (%), mean and standard deviation', args.out / 'study_digits.png')


if __name__ == '__main__':
    main()
