"""Write canvases with handwritten digits and a class for each pixel, for a segmentor, in mmseg's layout.

example:
  python tools/prepare_digits_seg.py --root data/digits_seg --train 2000 --val 200
"""

import argparse

from halvit_mm.data import write_digits_seg
from halvit_mm.errors import errors_in_one_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', default='data/digits_seg', help='folder to write to (default: %(default)s)')
    parser.add_argument('--train', type=int, default=2000, help='canvases for training (default: %(default)s)')
    parser.add_argument('--val', type=int, default=200, help='canvases for validation (default: %(default)s)')
    args = parser.parse_args()
    counts = write_digits_seg(args.root, args.train, args.val)
    print(f'{args.root}: {counts["train"]} digits in train, {counts["val"]} in val')


if __name__ == '__main__':
    with errors_in_one_line():
        main()
