"""Write lists of the photographs of solar cells that the package elpv-dataset brings, for research/study_elpv.py.

The package (Deitsch et al., arXiv 1807.02894; CC BY-NC-SA 4.0) has 2,624 photographs of 300 x 300 pixels by
electroluminescence, and the probability that each cell is defective. A cell counts as defective from 0.5 on. Of each
type and probability 60 % are for training, 15 % are held out, 25 % are for testing. The photographs stay in the
package.

example:
  pip install elpv-dataset
  python research/prepare_elpv.py --root data/elpv
"""

import argparse
import csv
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path
from random import Random

from halvit_mm.errors import UserError, errors_in_one_line

SPLITS = {'train': 0.6, 'held_out': 0.75, 'test': 1.0}  # where each ends


def read_labels(path: Path) -> list[tuple[str, float, str]]:
    """Path, probability of a defect and type of each cell: three words a line."""
    rows = csv.reader(path.read_text().splitlines(), delimiter=' ', skipinitialspace=True)
    return [(name, float(probability), kind) for name, probability, kind in rows]


def split(cells: list[tuple[str, float, str]], seed: int = 0) -> dict[str, list[tuple[str, int]]]:
    """Path and label of the cells of each split, in the order of the paths."""
    groups = defaultdict(list)
    for name, probability, kind in cells:
        groups[kind, probability].append((name, int(probability >= 0.5)))
    random, found = Random(seed), {name: [] for name in SPLITS}
    for key in sorted(groups):
        group, begin = groups[key], 0
        random.shuffle(group)
        for name, end in SPLITS.items():
            found[name] += group[begin : round(end * len(group))]
            begin = round(end * len(group))
    return {name: sorted(part) for name, part in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--root', type=Path, default=Path('data/elpv'), help='folder to write to (default: %(default)s)'
    )
    args = parser.parse_args()
    with errors_in_one_line():
        if (package := find_spec('elpv_dataset')) is None:
            raise UserError('elpv-dataset is not installed; pip install elpv-dataset')
        data = Path(package.origin).parent / 'data'
        args.root.mkdir(parents=True, exist_ok=True)
        (args.root / 'images').unlink(missing_ok=True)
        (args.root / 'images').symlink_to(data / 'images')
        for name, part in split(read_labels(data / 'labels.csv')).items():
            (args.root / f'{name}.txt').write_text(''.join(f'{path} {label}\n' for path, label in part))
            counts = Counter(label for _, label in part)
            print(f'{args.root}/{name}.txt: {counts[0]} functional and {counts[1]} defective cells')


if __name__ == '__main__':
    main()
