"""Classify images, detect objects in them or segment them, with a checkpoint; the config says which.

Prints a line for each image, and draws the results with --out, beside a segmentor's masks. An image that cannot be
read is named on the standard error and skipped. The exit status is 0; 1 if an image was skipped; 2 if there is no image
or no model.

example:
  python tools/infer.py configs/digits/halvit_2xb64_digits.py work_dirs/demo/epoch_100.pth data/digits/val \\
      --out pictures
"""

import argparse
import sys

from halvit_mm.deploy.infer import infer
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.io.configs import OptionAction, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier, a detector or a segmentor')
    parser.add_argument('checkpoint', help='its weights: a file or a URL')
    parser.add_argument('source', metavar='image_or_folder', help='in a folder, images at any depth')
    parser.add_argument('--out', metavar='DIR', help='folder to draw the results to')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='score above which a detection counts (default: %(default)s)'
    )
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: the accelerator, if there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE', help='values merged into the config'
    )
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    with errors_in_one_line():
        read_only_data(trust=args.trust_checkpoint)
        cfg = load_config(args.config, args.cfg_options)
        skipped = infer(cfg, args.checkpoint, args.source, args.out, args.score_thr, args.device)
    if skipped:
        sys.exit(1)


if __name__ == '__main__':
    main()
