"""Write the weights of a checkpoint to a new file, or a classifier to a folder or repository of Hugging Face's hub.

A file is called NAME_DATE-HASH.pth or .safetensors. A folder has model.safetensors, config.json and a model card, and
timm builds the model from it. Optimizer, schedules and logs are left out. If the checkpoint has averaged weights (EMA),
the average is written.

examples:
  python tools/publish_model.py work_dirs/demo/epoch_100.pth --out halvit-digits.safetensors
  python tools/publish_model.py work_dirs/demo/epoch_100.pth --config configs/digits/halvit_2xb64_digits.py \\
      --metrics work_dirs/demo/metrics.json --hub halvit-digits
"""

import argparse

from halvit_mm.deploy.publish import publish
from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.io.configs import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='a checkpoint of a training')
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument('--out', metavar='FILE', help='date and hash are put into its name')
    target.add_argument(
        '--hub', metavar='FOLDER', help='a new folder, or hf-hub:NAME/MODEL, for timm; a classifier with a HaLViT'
    )
    parser.add_argument('--config', help='the config of the training, for --hub')
    parser.add_argument('--metrics', metavar='FILE', help='figures of tools/test.py --out-item metrics, for --hub')
    parser.add_argument(
        '--license', default='apache-2.0', help='licence of the weights, for --hub; apache-2.0 if left out'
    )
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    with errors_in_one_line():
        read_only_data(trust=args.trust_checkpoint)
        if args.out:
            if args.config or args.metrics:
                raise UserError('--config and --metrics belong to --hub, and --out is given; expected one of both ways')
            path = publish(args.checkpoint, args.out)
            print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')
            return
        if not args.config:
            raise UserError('--hub needs the config of the training; expected --config FILE')
        try:
            from halvit_mm.deploy.hub import publish_on_hub
        except ModuleNotFoundError as error:
            raise UserError(f"--hub needs timm, and {error.name} is missing; pip install 'timm>=1.0.24'") from error
        print(publish_on_hub(load_config(args.config), args.checkpoint, args.hub, args.metrics, args.license))


if __name__ == '__main__':
    main()
