"""Train a config and its untied counterpart over several seeds and print the top-1 of both as a table."""

import argparse
from pathlib import Path
from statistics import mean, stdev

from variants import train_variant

from halvit_mm.errors import errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the tied model')
    parser.add_argument('--untied', nargs='+', required=True, help='options that make the untied counterpart')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--ranks', type=int, default=2, help='ranks on this machine (default: %(default)s)')
    parser.add_argument('--work-dir', default='work_dirs/untied_pairs', help='(default: %(default)s)')
    args = parser.parse_args()

    top1 = {}
    for name, options in (('tied', []), ('untied', args.untied)):
        for seed in args.seeds:
            work_dir = Path(args.work_dir, f'{Path(args.config).stem}_{name}_{seed}')
            command = [str(TOOLS / 'dist_train.sh'), args.config, str(args.ranks)]
            with errors_in_one_line():
                value = train_variant(command, work_dir, [*options, f'randomness.seed={seed}'])
            top1.setdefault(name, []).append(value)
            print(f'{name}, seed {seed}: {value:.2f} %', flush=True)

    print(f'\n| | {" | ".join(f"seed {seed}" for seed in args.seeds)} | mean | deviation |')
    print('|---' * (len(args.seeds) + 3) + '|')
    for name, values in top1.items():
        spread = f'{stdev(values):.2f}' if len(values) > 1 else '-'
        print(f'| {name} | {" | ".join(f"{value:.2f}" for value in values)} | {mean(values):.2f} | {spread} |')
    print(f'\ntied - untied: {mean(top1["tied"]) - mean(top1["untied"]):+.2f} percentage points')


if __name__ == '__main__':
    main()
