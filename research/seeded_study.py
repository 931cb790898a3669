"""Trainings of variants of a model over seeds: top-1 with intervals, the same effort for each variant.

Shorter trainings of some variants (``rate_by``) choose the learning rate of a variant, on held-out images. Then the
variant is trained with that rate over seeds, and tested once each on the images for testing. Each training is one
process of one thread. Results are kept in a JSON file, and a second call goes on from there.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Lock

import numpy as np
from charts import intervals
from scipy.stats import t as student
from study_digits import merged, parameters
from variants import train_variant

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.io.checkpoints import written_whole

ROOT = Path(__file__).resolve().parents[1]
RATES = (5e-4, 1e-3, 2e-3)
CHOICE_SEED = 100  # of the trainings that choose a rate


@dataclass
class Variant:
    """A model of a study.

    Attributes:
        config (Path): Its config.
        options (tuple[str, ...]): ``KEY=VALUE``, merged into the config.
        baseline (str): The variant that it is compared with.
        kind (str): Of the variants that are taken to deviate by as much between seeds as this one.
        rate_by (tuple[str, ...]): The variants whose shorter trainings choose its learning rate together. A choice for
            each variant alone would put the noise of single trainings into the differences.
        teacher (str, optional): The variant whose trained model of the same seed teaches. Defaults to None.
        start (str, optional): The variant whose trained weights of the same seed are its first ones. Defaults to None,
            which means random weights.
        tied_by (tuple[str, ...]): Options of ``tools/tie_checkpoint.py``, which ties these weights. Defaults to (),
            which leaves them as they are.
    """

    config: Path
    options: tuple[str, ...]
    baseline: str
    kind: str
    rate_by: tuple[str, ...]
    teacher: str | None = None
    start: str | None = None
    tied_by: tuple[str, ...] = ()


@dataclass
class Design:
    """What a study trains.

    Attributes:
        name (str): Of its files, ``study_NAME``.
        variants (dict[str, Variant]): By name.
        choice_epochs (int): Of the trainings that choose a rate.
        test (tuple[str, ...]): ``KEY=VALUE`` that evaluates on the images for testing, in place of the held-out ones.
        report (str): The page; ``{table}``, ``{rates}``, ``{choice_seed}`` and ``{choice_epochs}`` are filled in.
    """

    name: str
    variants: dict[str, Variant]
    choice_epochs: int
    test: tuple[str, ...]
    report: str


class Study:
    """Trainings whose results are kept.

    Args:
        design (Design): What is trained.
        kept (Path): The JSON file.
        work_dir (Path): Of the trainings.
        options (tuple[str, ...]): ``KEY=VALUE``, merged into every config.
    """

    def __init__(self, design: Design, kept: Path, work_dir: Path, options: tuple[str, ...] = ()) -> None:
        self.design, self.kept, self.work_dir, self.options = design, kept, work_dir.absolute(), options
        self.top1 = json.loads(kept.read_text()) if kept.exists() else {}
        self._lock, self._locks = Lock(), defaultdict(Lock)

    def train(self, name: str, rate: float, seed: int) -> float:
        """Top-1 of a variant; with ``CHOICE_SEED`` on the held-out images."""
        key = self._key(name, rate, seed)
        with self._locks[key]:
            if key not in self.top1:
                self._run(name, rate, seed)
        print(f'{key}: {self.top1[key]:.2f} %', flush=True)
        return self.top1[key]

    def rate_of(self, name: str) -> float:
        """The learning rate of the best top-1 on the held-out images, the mean over the variants that choose."""
        # A variant trains its own part first, so that two jobs do not wait for one another
        voters = sorted(self.design.variants[name].rate_by, key=lambda voter: voter != name)
        return max(RATES, key=lambda rate: mean(self.train(voter, rate, CHOICE_SEED) for voter in voters))

    def reach(self, name: str, seeds: list[int]) -> tuple[float, list[float]]:
        """The learning rate of a variant and the top-1 of each seed."""
        rate = self.rate_of(name)
        return rate, [self.train(name, rate, seed) for seed in seeds]

    def before(self, name: str, rate: float, seeds: list[int]) -> float | None:
        """Mean over seeds of a start's top-1, before any training, less that of the weights that it was made of."""
        found = [self.top1.get(f'{self._key(name, rate, seed)}, before') for seed in seeds]
        return None if None in found else mean(found)

    def _key(self, name: str, rate: float, seed: int) -> str:
        return ', '.join([name, f'lr {rate:g}', f'seed {seed}', *self.options])

    def _folder(self, key: str) -> Path:
        return self.work_dir / key.replace(', ', '_').replace(' ', '-')

    def _run(self, name: str, rate: float, seed: int) -> None:
        variant, key = self.design.variants[name], self._key(name, rate, seed)
        options = [f'optim_wrapper.optimizer.lr={rate:g}', f'randomness.seed={seed}']
        if seed == CHOICE_SEED:
            epochs = self.design.choice_epochs
            options += [f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}']
        else:
            options += self.design.test
        if variant.teacher:
            options.append(f'model.teacher_checkpoint={self._checkpoint(variant.teacher, seed)}')
        if variant.start:
            start = self._tied(name, rate, seed) if variant.tied_by else self._checkpoint(variant.start, seed)
            options.append(f'load_from={start}')
        command = [str(ROOT / 'tools/train.py'), str(variant.config)]
        value = train_variant(command, self._folder(key), [*variant.options, *options, *self.options])
        with self._lock:
            self.top1[key] = value
            with written_whole(self.kept) as part:
                part.write_text(json.dumps(dict(sorted(self.top1.items())), indent=1) + '\n')

    def _checkpoint(self, name: str, seed: int) -> Path:
        """The trained weights of a variant, which is trained anew if only its result is left."""
        rate = self.rate_of(name)
        key = self._key(name, rate, seed)
        with self._locks[key]:
            variant = self.design.variants[name]
            epochs = merged(variant.config, [*variant.options, *self.options]).train_cfg.max_epochs
            if seed == CHOICE_SEED:
                epochs = self.design.choice_epochs
            path = self._folder(key) / f'epoch_{epochs}.pth'
            if not path.exists():
                self._run(name, rate, seed)
        return path

    def _tied(self, name: str, rate: float, seed: int) -> Path:
        """Tied first weights of a variant; what they lack to those that they are made of is kept."""
        variant, out = self.design.variants[name], self._folder(self._key(name, rate, seed)) / 'start.pth'
        source = self.design.variants[variant.start]
        command = [ROOT / 'tools/tie_checkpoint.py', source.config, self._checkpoint(variant.start, seed)]
        command += [variant.config, '--out', out, *variant.tied_by, '--source-options', *source.options]
        command += ['--cfg-options', *variant.options, f'randomness.seed={seed}', *self.options]
        out.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise UserError(f'{out} could not be made: {done.stderr.strip().splitlines()[-1]}')
        plain, tied = (float(value) for value in re.findall(r'^top-1 .*: ([\d.]+) %$', done.stdout, re.MULTILINE))
        with self._lock:
            self.top1[f'{self._key(name, rate, seed)}, before'] = round(tied - plain, 2)
        return out


def half_of_interval(values: list[list[float]]) -> float:
    """Half of the interval, by Student's t, that holds the difference of two variants' means in 95 of 100 cases.

    The deviation is what neither the variant nor the seed explains, pooled over all variants of a kind, as if it were
    one for all of them: the pairs of two variants are too few to tell it.

    Args:
        values (list[list[float]]): Of each variant of a kind the value of each seed.

    Returns:
        float: 0 where there is one variant or one seed.
    """
    table = np.array(values)
    variants, seeds = table.shape
    freedom = (variants - 1) * (seeds - 1)
    if not freedom:
        return 0.0
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return student.ppf(0.975, freedom) * ((rest**2).sum() / freedom * 2 / seeds) ** 0.5


def run_study(design: Design, description: str) -> None:
    """The command line of a study."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    variants = [*design.variants]
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument(
        '--only', nargs='+', choices=variants, default=variants, metavar='VARIANT', help='(default: all)'
    )
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='merged into every config')
    work_dir = Path('work_dirs') / design.name
    parser.add_argument('--work-dir', type=Path, default=work_dir, help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='of the page, the results and the chart')
    args = parser.parse_args()
    with errors_in_one_line():
        if args.jobs < 1:
            raise UserError(f'--jobs {args.jobs} is not a number of trainings; expected 1 or more')
        if len({*args.seeds}) < len(args.seeds):
            raise UserError(f'--seeds {" ".join(map(str, args.seeds))} has one twice; expected each once')
        if CHOICE_SEED in args.seeds:
            raise UserError(f'--seeds {CHOICE_SEED} is the seed that chooses the rates; expected others')
        args.out.mkdir(parents=True, exist_ok=True)
        out = args.out / f'study_{design.name}.md'
        study = Study(design, out.with_suffix('.json'), args.work_dir, tuple(args.cfg_options))
        with ThreadPoolExecutor(args.jobs) as pool:
            reached = dict(zip(args.only, pool.map(lambda name: study.reach(name, args.seeds), args.only), strict=True))
    kinds = defaultdict(list)
    for name, (_, values) in reached.items():
        kinds[design.variants[name].kind].append(values)
    halves = {kind: half_of_interval(values) for kind, values in kinds.items()}
    rows, drawn = [], []
    for name, (rate, values) in reached.items():
        variant = design.variants[name]
        half, size = halves[variant.kind], parameters(variant.config, [*variant.options])
        compared = ''
        if name != variant.baseline and variant.baseline in reached:
            both = ((half**2 + halves[design.variants[variant.baseline].kind] ** 2) / 2) ** 0.5
            interval = f' ± {both:.2f}' if both else ''
            compared = f'{mean(values) - mean(reached[variant.baseline][1]):+.2f}{interval}'
        rows.append([name, f'{size:,}', f'{rate:g}', *(f'{value:.2f}' for value in values)])
        before = study.before(name, rate, args.seeds)
        rows[-1] += [f'{mean(values):.2f}', compared]
        rows[-1] += ['' if before is None else f'{before:+.2f}']
        drawn.append((f'{name} ({size / 1e6:.2f} M)', mean(values), half / 2**0.5))
    seeds = [f'seed {seed}' for seed in args.seeds]
    table = markdown_table(['', 'parameters', 'learning rate', *seeds, 'mean', 'difference', 'before'], rows)
    print('', table, sep='\n')
    chosen = dict(choice_seed=CHOICE_SEED, choice_epochs=design.choice_epochs)
    out.write_text(design.report.format(table=table, rates=', '.join(f'{rate:g}' for rate in RATES), **chosen))
    intervals(
        drawn,
        'top-1 (%), mean and interval',
        out.with_suffix('.png'),
    )
