"""Write the weights of a checkpoint to a new file: NAME_DATE-HASH.pth or .safetensors.

Optimizer, schedules and logs are left out. If the checkpoint has averaged weights (EMA), the average is written.

example:
  python tools/publish_model.py work_dirs/demo/epoch_100.pth --out halvit-digits.safetensors
"""

import argparse

from halvit_mm.deploy.publish import publish
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.checkpoints import read_only_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='a checkpoint of a training')
    parser.add_argument('--out', required=True, metavar='FILE', help='date and hash are put into its name')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    with errors_in_one_line():
        read_only_data(trust=args.trust_checkpoint)
        path = publish(args.checkpoint, args.out)
    print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
