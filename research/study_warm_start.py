"""Tie trained models of the handwritten digits in every way, fine-tune them in every way, and compare.

For each seed the study trains the untied counterpart, trains the tied model from scratch, and fine-tunes every start
with every recipe; "random" starts from random weights, for comparison. With one rank a training is one
process of one thread. Results are kept in WORK_DIR/top1.json; a second call continues from there.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, stdev
from threading import Lock

from variants import train_curve

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import UserError, errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs/digits'
SCRATCH = CONFIGS / 'halvit_2xb64_digits.py'
WARM, DISTILLED = (CONFIGS / f'halvit-{name}_2xb64_digits.py' for name in ('warm', 'distilled'))
UNTIED = 'model.backbone.tie=none'
BATCH = 128  # of all ranks together
EPOCHS = (5, 10, 20)
STARTS = {f'{way}{fit}': way for fit in ('', ' + fit') for way in ('mean', 'products')}
RANDOM = 'random'
RECIPES = ('plain', 'distilled')


class Study:
    """Trainings that are done once.

    Args:
        work_dir (Path): Where they go.
        ranks (int): Ranks of each training; a batch is divided among them.
        jobs (int): Trainings at a time. Each has its own port for its ranks, from ``PORT`` (29500) on.
    """

    def __init__(self, work_dir: Path, ranks: int, jobs: int) -> None:
        self.work_dir = work_dir
        self.ranks = ranks
        self.ports = SimpleQueue()
        for job in range(jobs):
            self.ports.put(int(os.environ.get('PORT', 29500)) + job)
        self.kept = work_dir / 'top1.json'
        work_dir.mkdir(parents=True, exist_ok=True)
        self.curves = json.loads(self.kept.read_text()) if self.kept.exists() else {}
        self.lock = Lock()

    def keep(self, key: str, curve: dict) -> None:
        with self.lock:
            self.curves[key] = {str(epoch): top1 for epoch, top1 in curve.items()}
            self.kept.write_text(json.dumps(self.curves, indent=1) + '\n')

    def folder(self, name: str, seed: int) -> Path:
        return self.work_dir / f'{re.sub("[^a-z]+", "-", name)}_{seed}'

    def train(self, name: str, config: Path, seed: int, options: list[str]) -> None:
        """Train, unless it has been done, and keep the top-1 by epoch."""
        key = f'{name}, seed {seed}'
        if key not in self.curves:
            options = [*options, f'train_dataloader.batch_size={BATCH // self.ranks}']
            options += [f'randomness.seed={seed}', 'default_hooks.checkpoint.interval=1000']
            command = [str(TOOLS / 'train.py'), str(config)]
            if self.ranks > 1:
                command = [str(TOOLS / 'dist_train.sh'), str(config), str(self.ranks)]
            port = self.ports.get()
            try:
                curve = train_curve(command, self.folder(name, seed), options, PORT=str(port))
            finally:
                self.ports.put(port)
            self.keep(key, curve)
        print(f'{key}: {[*self.curves[key].values()][-1]:.2f} %', flush=True)

    def untied(self, seed: int) -> Path:
        """Checkpoint of the untied counterpart."""
        return max(self.folder('untied', seed).glob('epoch_*.pth'))

    def tie(self, start: str, seed: int) -> Path:
        """Tie the untied counterpart, unless that has been done, and keep the top-1 as that of epoch 0."""
        out = self.folder(f'start {start}', seed).with_suffix('.pth')
        if out.exists():
            return out
        command = [sys.executable, TOOLS / 'tie_checkpoint.py', SCRATCH, self.untied(seed), WARM, '--out', out]
        command += ['--way', STARTS[start], '--source-options', UNTIED]
        command += ['--calibrate', WARM] if start.endswith('fit') else []
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        if done.returncode:
            raise UserError(f'{out} could not be made: {done.stderr.strip().splitlines()[-1]}')
        self.keep(f'{start}, seed {seed}', {0: re.search(r'fine-tuning: ([\d.]+)', done.stdout)[1]})
        return out

    def start(self, start: str, seed: int) -> None:
        """Keep the top-1 of a start, unless it is known."""
        if start != RANDOM and f'{start}, seed {seed}' not in self.curves:
            self.tie(start, seed)

    def fine_tune(self, start: str, recipe: str, seed: int) -> None:
        if f'{start}, {recipe}, seed {seed}' in self.curves:
            return
        distilled = recipe == 'distilled'
        options = [f'load_from={None if start == RANDOM else self.tie(start, seed)}']
        if distilled:
            options.append(f'model.teacher_checkpoint={self.untied(seed)}')
        self.train(f'{start}, {recipe}', DISTILLED if distilled else WARM, seed, options)


def summary(values: list[float], sign: str = '') -> str:
    return f'{mean(values):{sign}.2f}' + (f' ± {stdev(values):.2f}' if len(values) > 1 else '')


def report(curves: dict[str, dict[str, float]], seeds: list[int], starts: list[str], recipes: list[str]) -> str:
    """Tables of the results of the seeds."""
    rows = []
    untied = [[*curves[f'untied, seed {seed}'].values()][-1] for seed in seeds]
    for name in ('untied', 'from scratch'):
        bests = [max(curves[f'{name}, seed {seed}'].items(), key=lambda item: item[1]) for seed in seeds]
        lasts = [[*curves[f'{name}, seed {seed}'].values()][-1] for seed in seeds]
        epochs = ', '.join(epoch for epoch, _ in bests)
        rows.append((name, summary(lasts), summary([top1 for _, top1 in bests]), epochs))
    base = markdown_table(['', 'last epoch', 'best', 'epochs of the best, by seed'], rows)
    rows = []
    for start, recipe in product(starts, recipes):
        by_epoch = [[float(curves[f'{start}, {recipe}, seed {s}'][str(e)]) for s in seeds] for e in EPOCHS]
        beyond = summary([top1 - base for top1, base in zip(by_epoch[-1], untied)], sign='+')
        before = ''
        if start != RANDOM:
            before = summary([float(curves[f'{start}, seed {seed}']['0']) for seed in seeds])
        rows.append((start, recipe, before, *map(summary, by_epoch), beyond))
    epochs = [f'epoch {epoch}' for epoch in EPOCHS]
    header = ['start', 'recipe', 'before', *epochs, 'epoch 20 less the untied counterpart']
    return f'{base}\n\n{markdown_table(header, rows)}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4], help='(default: 0 1 2 3 4)')
    parser.add_argument(
        '--starts', nargs='+', choices=[RANDOM, *STARTS], default=[*STARTS], help='(default: all but random)'
    )
    parser.add_argument('--recipes', nargs='+', choices=RECIPES, default=[*RECIPES], help='(default: all)')
    parser.add_argument(
        '--ranks',
        type=int,
        choices=[1, 2, 4, 8],
        default=1,
        help='of each training; each number needs its own WORK_DIR (default: %(default)s)',
    )
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/warm_start'), help='(default: %(default)s)')
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs: {args.jobs} is not positive')

    study = Study(args.work_dir.absolute(), args.ranks, args.jobs)
    every = ['train_cfg.val_interval=1']
    with errors_in_one_line(), ThreadPoolExecutor(args.jobs) as pool:
        # Each lot needs the results of the lot before.
        lots = [
            [(study.train, 'untied', SCRATCH, seed, [*every, UNTIED]) for seed in args.seeds]
            + [(study.train, 'from scratch', SCRATCH, seed, every) for seed in args.seeds],
            [(study.start, start, seed) for seed in args.seeds for start in args.starts],
            [(study.fine_tune, *pair, seed) for seed in args.seeds for pair in product(args.starts, args.recipes)],
        ]
        for lot in lots:
            for done in [pool.submit(*job) for job in lot]:
                done.result()
    print('', report(study.curves, args.seeds, args.starts, args.recipes), sep='\n')


if __name__ == '__main__':
    main()
