"""Write a trained model to a file for another runtime: ONNX (M.onnx), torch.export (M.pt2), TorchScript (M.pt) or
OpenVINO (M.xml). Of a detector that is backbone and neck, or, with --boxes, all of it; of a segmentor it is all up to
the logits of each pixel. Each shared matrix is in the file once.

The file is run beside the model before it gets its name. If the two differ too much, no file is left, and the exit
status is 2.

example:
  python tools/export.py configs/digits/halvit_2xb64_digits.py work_dirs/demo/epoch_100.pth --out digits.onnx
"""

import argparse
import logging
from pathlib import Path

from halvit_mm.deploy.export import export
from halvit_mm.deploy.formats import PRECISIONS
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.checkpoints import read_only_data
from halvit_mm.io.configs import OptionAction, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier, a detector or a segmentor')
    parser.add_argument('checkpoint', help='its weights: .pth or .safetensors')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='the suffix says the format')
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32', help='of the weights (default: fp32)')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help="(default: the test pipeline's)"
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='take any number of images at a time')
    parser.add_argument('--dynamic-size', action='store_true', help='take images of any height and width')
    parser.add_argument(
        '--external-data', action='store_true', help='put the weights beside the ONNX graph, where they can be mapped'
    )
    parser.add_argument(
        '--boxes', action='store_true', help='export a detector as a whole, to boxes, scores, labels and masks (ONNX)'
    )
    parser.add_argument(
        '--attention',
        action='store_true',
        help="add a second output to a classifier's file: what its class token attends to",
    )
    parser.add_argument(
        '--verify', type=int, default=16, metavar='N', help='images to compare on, 0 for none (default: %(default)s)'
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        default=512,
        metavar='N',
        help='images of the training data that int8 is calibrated on (default: %(default)s)',
    )
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
        export(
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.out,
            args.precision,
            args.shape and tuple(args.shape),
            args.dynamic_batch,
            args.dynamic_size,
            args.external_data,
            args.verify,
            args.boxes,
            args.attention,
            args.calibration_images,
        )


if __name__ == '__main__':
    main()
