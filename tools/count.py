"""Print parameters, with and without head, and multiply-accumulates of classifiers, detectors and segmentors.

example:
  python tools/count.py configs/halvit/halvit-tiny_8xb128_in1k.py mmpretrain::deit/deit-small_4xb256_in1k.py
"""

import argparse
import logging

from halvit_mm.cost import count_macs, count_parameters, input_channels
from halvit_mm.deploy.network import input_shape
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import OptionAction, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='a file, or package::path for one of an installed package',
    )
    parser.add_argument(
        '--shape', nargs='+', type=int, metavar='PIXELS', help="height and width (default: the test pipeline's)"
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, metavar='KEY=VALUE', help='values merged into each config'
    )
    args = parser.parse_args()
    logging.disable(logging.INFO)

    print(f'{"parameters":>14} {"without head":>14} {"MACs":>18} {"image":>12}  config')
    with errors_in_one_line():
        for path in args.configs:
            cfg = load_config(path, args.cfg_options)
            height, width = (args.shape[0], args.shape[-1]) if args.shape else input_shape(cfg)
            model = build_model(cfg)
            everything, body = count_parameters(model), count_parameters(model, without_head=True)
            macs = count_macs(model, (input_channels(model), height, width))
            print(f'{everything:>14,} {body:>14,} {macs:>18,} {f"{height} x {width}":>12}  {path}', flush=True)


if __name__ == '__main__':
    main()
