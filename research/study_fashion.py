"""Compare ways of tying and sharing on Fashion-MNIST: top-1 over seeds, with intervals.

For each variant the learning rate is chosen among three by one training of 10 epochs each, on 5,000 held-out images of
the training list. Then the variant is trained for 20 epochs with that rate over seeds, and tested once each on the
10,000 images of the testing list. Each training is one process of one thread. Results are kept in a JSON file, and a
second call goes on from there.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Lock

from charts import scatter
from compare_untied import difference, interval
from study_digits import parameters
from variants import train_variant

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import UserError, errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
HALVIT = ROOT / 'configs/fashion/halvit_1xb128_fashion.py'
RESNET = ROOT / 'configs/fashion/resnet50-pe_1xb128_fashion.py'
RATES = (5e-4, 1e-3, 2e-3)
CHOICE_SEED, CHOICE_EPOCHS = 100, 10  # of the trainings that choose a rate


@dataclass
class Variant:
    """A model of the study.

    Attributes:
        config (Path): Its config.
        options (tuple[str, ...]): ``KEY=VALUE``, merged into the config.
        baseline (str): The variant that it is compared with.
    """

    config: Path
    options: tuple[str, ...]
    baseline: str


def halvit(width: int = 96, layers: int = 6, **options: object) -> Variant:
    shape = dict(embed_dims=width, feedforward_channels=4 * width, num_layers=layers)
    changed = [f'model.backbone.arch.{key}={value}' for key, value in shape.items()]
    changed += [f'model.backbone.{key}={value}' for key, value in options.items()]
    return Variant(HALVIT, (*changed, f'model.head.in_channels={width}'), 'untied')


def resnet(stages: str) -> Variant:
    return Variant(RESNET, (f'model.backbone.shared_stages={stages}',), 'ResNet-50, plain')


VARIANTS = {
    'untied': halvit(tie='none'),
    'tied': halvit(),
    'attention tied': halvit(tie='attn'),
    'FFN tied': halvit(tie='ffn'),
    'tied, 135 wide': halvit(width=135),
    'untied, pairs share': halvit(tie='none', share=2),
    'tied, pairs share': halvit(share=2),
    'tied, rank 4': halvit(tie_rank=4),
    'tied, rank 16': halvit(tie_rank=16),
    'tied, pairs share, rank 16': halvit(share=2, tie_rank=16),
    'untied, 3 layers': halvit(layers=3, tie='none'),
    'untied, 66 wide': halvit(width=66, tie='none'),
    'ResNet-50, plain': resnet('()'),
    'ResNet50-PE1': resnet('(0,1,2,3)'),
    'ResNet50-PE2': resnet('(2,3)'),
}

REPORT = """# What each way of tying costs: a study on Fashion-MNIST

28 x 28 photographs of clothes in 10 classes (Xiao, Rasul, Vollgraf, arXiv 1708.07747). Each model is trained on 10,000
images for 20 epochs and tested on 10,000 others. Its learning rate is chosen among {rates} by one training of
{choice_epochs} epochs each, seed {choice_seed}, on 5,000 further images of the training list; all else is the same for
all models. Each training is one process of one thread. {split}

"Difference" is to the baseline with the same seeds: the mean of the pairs, and the interval by Student's t that holds
it in 95 of 100 cases. Where the interval has 0 in it, the study cannot tell the two apart.

{table}

![top-1 over parameters](study_fashion.png)

<!-- not run: takes hours on 2 cores; tests/research/test_studies.py runs parts of it -->
```bash
python -c "from torchvision.datasets import FashionMNIST; FashionMNIST('data', download=True)"
python research/study_fashion.py --out docs
```

goes on from `docs/study_fashion.json`, which has the top-1 of each training: of those that choose a rate on the
held-out images, of the others on the images for testing.
"""
OTHER_SPLIT = (
    'The files here are not the published split: of each class 1,000 images, chosen anew, are for testing. The figures '
    'must not be compared with papers.'
)


class Study:
    """Trainings whose results are kept.

    Args:
        kept (Path): The JSON file.
        work_dir (Path): Of the trainings.
        options (tuple[str, ...]): ``KEY=VALUE``, merged into every config.
    """

    def __init__(self, kept: Path, work_dir: Path, options: tuple[str, ...] = ()) -> None:
        self.kept, self.work_dir, self.options = kept, work_dir, options
        self.top1 = json.loads(kept.read_text()) if kept.exists() else {}
        self._lock = Lock()

    def train(self, name: str, rate: float, seed: int) -> float:
        """Top-1 of a variant; with ``CHOICE_SEED`` on the held-out images."""
        key = ', '.join([name, f'lr {rate:g}', f'seed {seed}', *self.options])
        if key not in self.top1:
            variant = VARIANTS[name]
            options = [f'optim_wrapper.optimizer.lr={rate:g}', f'randomness.seed={seed}']
            if seed == CHOICE_SEED:
                options += [f'train_cfg.max_epochs={CHOICE_EPOCHS}', f'train_cfg.val_interval={CHOICE_EPOCHS}']
            else:  # evaluated once, at the end
                options += ['val_dataloader.dataset.split=test', 'val_dataloader.dataset.indices=None']
                options += ['val_dataloader.dataset.test_mode=True']
            folder = self.work_dir / key.replace(', ', '_').replace(' ', '-')
            command = [str(ROOT / 'tools/train.py'), str(variant.config)]
            value = train_variant(command, folder, [*variant.options, *options, *self.options])
            with self._lock:
                self.top1[key] = value
                self.kept.write_text(json.dumps(dict(sorted(self.top1.items())), indent=1) + '\n')
        print(f'{key}: {self.top1[key]:.2f} %', flush=True)
        return self.top1[key]

    def rate_of(self, name: str) -> float:
        """The learning rate of the best top-1 on the held-out images."""
        return max(RATES, key=lambda rate: self.train(name, rate, CHOICE_SEED))

    def reach(self, name: str, seeds: list[int]) -> tuple[float, list[float]]:
        """The learning rate of a variant and the top-1 of each seed."""
        rate = self.rate_of(name)
        return rate, [self.train(name, rate, seed) for seed in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--only', nargs='+', choices=[*VARIANTS], default=[*VARIANTS], help='(default: all)')
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='merged into every config')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/fashion'), help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='of study_fashion.md, .json and .png')
    parser.add_argument('--other-split', action='store_true', help='say that these files are not the published split')
    args = parser.parse_args()
    with errors_in_one_line():
        if args.jobs < 1:
            raise UserError(f'--jobs {args.jobs} is not a number of trainings; expected 1 or more')
        if CHOICE_SEED in args.seeds:
            raise UserError(f'--seeds {CHOICE_SEED} is the seed that chooses the rates; expected others')
        args.out.mkdir(parents=True, exist_ok=True)
        study = Study(args.out / 'study_fashion.json', args.work_dir, tuple(args.cfg_options))
        with ThreadPoolExecutor(args.jobs) as pool:
            reached = dict(zip(args.only, pool.map(lambda name: study.reach(name, args.seeds), args.only), strict=True))
    rows, points = [], []
    for name, (rate, values) in reached.items():
        variant = VARIANTS[name]
        size = parameters(variant.config, [*variant.options])
        known = name != variant.baseline and variant.baseline in reached
        compared = difference(values, reached[variant.baseline][1]) if known else ''
        half = interval(values)
        rows.append([name, f'{size:,}', f'{rate:g}', *(f'{value:.2f}' for value in values)])
        rows[-1] += [f'{mean(values):.2f}' + (f' ± {half:.2f}' if half else ''), compared]
        points.append((name, size / 1e6, mean(values), half))
    seeds = [f'seed {seed}' for seed in args.seeds]
    table = markdown_table(['', 'parameters', 'learning rate', *seeds, 'mean', 'difference'], rows)
    print('', table, sep='\n')
    text = dict(
        rates=', '.join(f'{rate:g}' for rate in RATES),
        choice_seed=CHOICE_SEED,
        choice_epochs=CHOICE_EPOCHS,
        split=OTHER_SPLIT if args.other_split else 'The split is the published one.',
    )
    (args.out / 'study_fashion.md').write_text(REPORT.format(table=table, **text))
    scatter(points, 'parameters (M)', 'top-1 (%), mean and interval', args.out / 'study_fashion.png')


if __name__ == '__main__':
    main()
