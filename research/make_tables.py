"""Write docs/tables.md: the papers' tables with measured columns beside the published ones, and charts.

If the folder has an earlier measurement, the changes since are printed.
"""

import argparse
import json
import logging
from pathlib import Path

from tables import compare, measure_tables, write_tables

from halvit_mm.cost.benchmark import elapsed
from halvit_mm.errors import errors_in_one_line

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--published', type=Path, default=ROOT / 'docs/published.json', help='(default: docs/published.json)'
    )
    parser.add_argument('--configs', type=Path, default=ROOT / 'configs', help='(default: configs)')
    parser.add_argument('--rounds', type=int, default=9, help='timed runs (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs', help='(default: docs)')
    args = parser.parse_args()

    logging.disable(logging.INFO)  # mmengine lists each parameter's group
    published = json.loads(args.published.read_text())
    before = args.out / 'tables.json'
    before = json.loads(before.read_text()) if before.exists() else None
    with errors_in_one_line():
        measured = measure_tables(published['tables'], args.configs, args.rounds, elapsed())
    print(*write_tables(published, measured, args.out, 'make tables'), sep='\n')
    if before is not None:
        print('Since the last time:', *compare(before, measured), sep='\n  ')


if __name__ == '__main__':
    main()
