"""Draw where a HaLViT or ViT looks: the attention of its class token over an image, per layer and head.

For Grad-CAM use mmpretrain's own tool, vis_cam.py, with --vit-like.

example:
  python tools/visualize_attention.py configs/digits/halvit_2xb64_digits.py work_dirs/demo/epoch_100.pth \\
      data/digits/val/3/0045.png --layers 0 -1 --out pictures
"""

import argparse
import logging
from pathlib import Path

from halvit_mm.deploy.attention_maps import visualize
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.build import load_model
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.io.configs import OptionAction, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier')
    parser.add_argument('checkpoint', help='its weights: .pth or .safetensors')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for one picture an image')
    parser.add_argument('--layers', nargs='+', type=int, metavar='LAYER', help='from 0, or from the end (default: all)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE', help='values merged into the config'
    )
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    logging.disable(logging.INFO)
    with errors_in_one_line():
        read_only_data(trust=args.trust_checkpoint)
        cfg = load_config(args.config, args.cfg_options)
        model = load_model(cfg, args.checkpoint)
        for path in visualize(cfg, model, args.images, args.out, args.layers):
            print(path)


if __name__ == '__main__':
    main()
