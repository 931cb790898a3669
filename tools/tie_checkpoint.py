"""Turn the checkpoint of a plain ViT, DeiT or ResNet into the start of its tied form, for a short fine-tuning.

Prints the relative errors of each layer's weights and outputs, and the accuracy before any fine-tuning. If the
checkpoint does not fit, nothing is written.

example:
  python tools/tie_checkpoint.py mmpretrain::deit/deit-small_4xb256_in1k.py deit-small.pth \\
      configs/halvit/halvit-tiny_8xb128_in1k.py --out tied-deit-small.pth \\
      --calibrate configs/halvit/halvit-tiny_8xb128_in1k.py
"""

import argparse

from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.configs import OptionAction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source_config', help="the plain model's: a file, or a name such as mmpretrain::deit/...")
    parser.add_argument('source_checkpoint', help="its weights: mmpretrain's, timm's, DeiT's own or torchvision's")
    parser.add_argument('target_config', help="the tied model's")
    parser.add_argument('--out', required=True, metavar='FILE', help='checkpoint to write, for load_from')
    parser.add_argument(
        '--way',
        choices=['mean', 'products'],
        default='products',
        help='(default: %(default)s)',
    )
    parser.add_argument(
        '--calibrate', metavar='DATASET_CONFIG', help='fit the tied layers to the plain outputs on its training images'
    )
    parser.add_argument('--images', type=int, default=1024, help='images for --calibrate (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=300, help='steps of --calibrate a block (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-3, help='learning rate of --calibrate (default: %(default)s)')
    parser.add_argument('--source-options', nargs='+', action=OptionAction, help='values merged into the source config')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='values merged into the target config')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    with errors_in_one_line():
        from halvit_mm.io.checkpoints import read_only_data
        from halvit_mm.io.configs import load_config
        from halvit_mm.tying.checkpoint import tie_checkpoint

        read_only_data(trust=args.trust_checkpoint)
        tie_checkpoint(
            load_config(args.source_config, args.source_options),
            args.source_checkpoint,
            load_config(args.target_config, args.cfg_options),
            args.out,
            args.way,
            load_config(args.calibrate) if args.calibrate else None,
            args.images,
            args.steps,
            args.lr,
        )


if __name__ == '__main__':
    main()
