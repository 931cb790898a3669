"""Measure the cost of configs side by side: parameters, multiply-accumulates, bytes, time, memory.

A config is a file, or package::path for one that an installed package carries, such as
mmpretrain::deit/deit-small_4xb256_in1k.py. Models run in turn in one process, which keeps the memory that it frees. A
ratio is the median of the ratios to the first config's time in the same round. Peaks of memory are read in a fresh
process each, with the default allocator.

example:
  python tools/benchmark.py mmpretrain::deit/deit-small_4xb256_in1k.py configs/halvit/halvit-tiny_8xb128_in1k.py \\
      --batch 1 16 --out results
"""

import argparse
import logging
import sys
from pathlib import Path

import torch

from halvit_mm.cost import PRECISIONS, keep_freed_memory, profile_run
from halvit_mm.cost.benchmark import benchmark, build_run, elapsed, environment
from halvit_mm.cost.profile import KINDS
from halvit_mm.cost.report import counts_table, environment_line, markdown_table, runs_table, write_results
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.errors import UserError, errors_in_one_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='the first is what the others are compared with')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        default=[224],
        metavar='PIXELS',
        help='height and width (default: 224)',
    )
    parser.add_argument('--batch', nargs='+', type=int, default=[1, 16], metavar='N', help='(default: 1 16)')
    parser.add_argument(
        '--modes',
        nargs='*',
        choices=['infer', 'train'],
        default=['infer', 'train'],
        help='what is timed (default: both); with no value nothing is, and parameters and bytes are printed',
    )
    parser.add_argument(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='(default: cuda if there is a GPU)',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=[*PRECISIONS],
        default=['fp32'],
        help='(default: fp32)',
    )
    parser.add_argument('--compile', action='store_true', help='time each model under torch.compile as well')
    parser.add_argument(
        '--tf32',
        action='store_true',
        help='round fp32 to TF32 on a GPU, in products and convolutions (default: neither)',
    )
    parser.add_argument('--channels-last', action='store_true', help='images and weights in channels_last layout')
    parser.add_argument('--rounds', type=int, default=10, help='timed runs (default: %(default)s)')
    parser.add_argument(
        '--processes', type=int, default=1, help='processes that take times, each with its rounds (default: 1)'
    )
    parser.add_argument('--no-memory', action='store_true', help='do not read peaks of memory, which takes a while')
    parser.add_argument('--profile', action='store_true', help='print where the time of each model goes instead')
    parser.add_argument('--out', type=Path, metavar='DIR', help='write results.json, .csv, .md and charts there')
    args = parser.parse_args()
    if len(args.shape) > 2:
        parser.error('--shape: one number or height and width')
    return args


def profile(subjects: list[Subject], settings: Settings) -> str:
    rows = []
    for subject in subjects:
        model = subject.model(settings)
        for combination in settings.combinations:
            run = build_run(subject, model, settings, *combination)
            result = profile_run(run, settings.device, settings.rounds)
            rows.append(
                [
                    *(subject.name, *combination),
                    *(f'{100 * fraction:.1f} %' for fraction in result.fractions.values()),
                    *(f'{result.ms:.1f}', f'{result.ms_bare:.1f}', f'{100 * result.ms_bare / result.ms:.1f} %'),
                ]
            )
    header = ['config', 'batch', 'mode', 'precision', *KINDS, 'the rest', 'ms', 'bare products and attention ms']
    return markdown_table([*header, 'fraction'], rows)


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)  # mmengine logs each parameter's group
    with errors_in_one_line():
        settings = Settings(
            shape=(args.shape[0], args.shape[-1]),
            batches=tuple(args.batch),
            modes=tuple(args.modes),
            device=args.device,
            precisions=tuple(args.precision),
            compile=args.compile,
            channels_last=args.channels_last,
            tf32=args.tf32,
            rounds=args.rounds,
            processes=args.processes,
            memory=not args.no_memory,
        )
        subjects = [Subject(path) for path in args.configs]
        if args.profile:
            keep_freed_memory()
            print(environment_line(environment(settings)), profile(subjects, settings), sep='\n\n')
            return
        names = [subject.name for subject in subjects]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f'two configs have the name {twice.pop()}; expected files of different names')
        results = benchmark(subjects, settings, elapsed())
        print(environment_line(results[0]['environment']), counts_table(results), sep='\n\n')
        if any(result['runs'] for result in results):
            print('', runs_table(results), sep='\n')
        if args.out:
            print('', *write_results(results, args.out), sep='\n')
        failed = [f'{result["name"]}: {result["error"]}' for result in results if 'error' in result]
        for line in failed:
            print(f'error: {line}', file=sys.stderr)
        sys.exit(2 if failed else 0)


if __name__ == '__main__':
    main()
