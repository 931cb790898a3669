"""Write the handwritten digits that come with scikit-learn as PNG files in ImageNet's layout.

example:
  python tools/prepare_digits.py --root data/digits
"""

import argparse

from halvit_mm.data import write_digits
from halvit_mm.errors import errors_in_one_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default='data/digits', help='folder to write to (default: %(default)s)')
    args = parser.parse_args()
    counts = write_digits(args.root)
    print(f'{args.root}: {counts["train"]} images in train, {counts["val"]} in val')


if __name__ == '__main__':
    with errors_in_one_line():
        main()
