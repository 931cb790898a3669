"""Train a config and its untied counterpart over several seeds and print the top-1 of both as a table.

Results are kept in WORK_DIR/top1.json; a second call goes on from there. The interval of the difference is that of
Student's t for pairs of one seed.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student
from variants import train_variant

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'


def interval(values: list[float]) -> float:
    """Half of the interval, by Student's t, that holds the mean in 95 of 100 cases; 0 for one value."""
    number = len(values)
    return student.ppf(0.975, number - 1) * stdev(values) / number**0.5 if number > 1 else 0.0


def difference(ours: list[float], theirs: list[float]) -> str:
    """The mean of the paired differences, with its interval."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    return f'{mean(pairs):+.2f}' + (f' ± {interval(pairs):.2f}' if len(pairs) > 1 else '')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the tied model')
    parser.add_argument(
        '--untied', nargs='+', required=True, metavar='KEY=VALUE', help='options that make the untied counterpart'
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--ranks', type=int, default=2, help='ranks on this machine (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/untied_pairs'), help='(default: %(default)s)')
    args = parser.parse_args()

    args.work_dir.mkdir(parents=True, exist_ok=True)
    kept = args.work_dir / 'top1.json'
    top1 = json.loads(kept.read_text()) if kept.exists() else {}
    command = [str(TOOLS / 'dist_train.sh'), args.config, str(args.ranks)]
    reached = {'tied': [], 'untied': []}
    for seed in args.seeds:
        for name, options in (('tied', []), ('untied', args.untied)):
            words = [Path(args.config).stem, *options, f'seed {seed}']
            if (key := ', '.join(words)) not in top1:
                work_dir = args.work_dir / f'{Path(args.config).stem}_{name}_{seed}'
                with errors_in_one_line():
                    top1[key] = train_variant(command, work_dir, [*options, f'randomness.seed={seed}'])
                kept.write_text(json.dumps(top1, indent=1) + '\n')
            print(f'{name}, seed {seed}: {top1[key]:.2f} %', flush=True)
            reached[name].append(top1[key])

    rows = [
        [
            name,
            *(f'{value:.2f}' for value in values),
            f'{mean(values):.2f}',
            f'{stdev(values):.2f}' if values[1:] else '-',
        ]
        for name, values in reached.items()
    ]
    header = ['', *(f'seed {seed}' for seed in args.seeds), 'mean', 'standard deviation']
    print('', markdown_table(header, rows), '', sep='\n')
    print(f'tied - untied: {difference(*reached.values())} percentage points')


if __name__ == '__main__':
    main()
