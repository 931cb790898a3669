"""Write docs/formats.md's table: exported files of tied models and baselines, on disk, in memory and in time.

Models have random weights: their sizes and times are those of trained ones.
"""

import argparse
import logging
import warnings
from pathlib import Path

from deploy_table import KINDS, describe, measure

from halvit_mm.cost.benchmark import elapsed, environment
from halvit_mm.cost.report import environment_line, markdown_table, quantity
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.errors import UserError, errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]
HALVIT = str(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py')
SUBJECTS = (
    Subject('mmpretrain::deit/deit-small_4xb256_in1k.py'),
    Subject(HALVIT, options={'model.backbone.tie': 'none'}),
    Subject(HALVIT),
    Subject('mmpretrain::deit/deit-base_16xb64_in1k.py'),
    Subject(str(ROOT / 'configs/halvit/halvit-medium_8xb128_in1k.py')),
    Subject('mmpretrain::resnet/resnet50_8xb32_in1k.py'),
    Subject(str(ROOT / 'configs/shared_resnet/resnet50-pe1_8xb32_in1k.py')),
)
BEGIN, END = '<!-- table -->', '<!-- end of table -->'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', metavar='CONFIG', help='ratios are to the first (default: seven)')
    parser.add_argument('--rounds', type=int, default=20, help='timed runs (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=3, help='for resident memory (default: %(default)s)')
    parser.add_argument(
        '--kinds', nargs='+', metavar='WORDS', default=[''], help='only rows whose first cell has these'
    )
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/formats.md', help='(default: docs/formats.md)')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    with errors_in_one_line():
        kinds = [kind for kind in KINDS if any(words in describe(*kind) for words in args.kinds)]
        if not kinds:
            raise UserError(
                f'--kinds {" ".join(args.kinds)} is in no row; expected words such as {describe(*KINDS[0])!r}'
            )
        subjects = [Subject(path) for path in args.configs] if args.configs else SUBJECTS
        rows = measure(subjects, args.rounds, elapsed(), args.processes, kinds)
    header = ['', 'config', 'file (MB)', 'resident (MB)', 'ms', 'ratio', 'largest difference', 'error']
    cells = []
    for row in rows:
        if 'error' in row:
            cells.append([row['kind'], row['name'], f'failed: {row["error"]}', *[None] * 5])
            continue
        cells.append(
            [
                *(row['kind'], row['name']),
                *(quantity(row[key], 1e6, 1) for key in ('file_bytes', 'resident_bytes')),
                *(f'{row["ms"]:.1f}', f'{row["ratio"]:.2f}', f'{row["difference"]:.1e}', f'{row["error_norm"]:.2%}'),
            ]
        )
    table = f'{environment_line(environment(Settings()))}.\n\n{markdown_table(header, cells)}'
    print(table)
    text = args.out.read_text() if args.out.exists() else f'{BEGIN}\n{END}\n'
    before, _, rest = text.partition(BEGIN)
    args.out.write_text(f'{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}')


if __name__ == '__main__':
    main()
