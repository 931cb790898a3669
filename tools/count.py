"""Print parameters, with and without head, and multiply-accumulates of classifiers."""

import argparse

from halvit_mm.cost import count_macs, count_parameters, input_channels
from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import OptionAction, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config of a classifier')
    parser.add_argument(
        '--shape', nargs='+', type=int, default=[224], help='height and width of an image (default: %(default)s)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='values merged into each config')
    args = parser.parse_args()

    height, width = args.shape[0], args.shape[-1]
    print(f'{"parameters":>14} {"without head":>14} {"MACs":>16}  config ({height} x {width})')
    with errors_in_one_line():
        for path in args.configs:
            cfg = load_config(path, args.cfg_options)
            model = build_model(cfg)
            everything, body = count_parameters(model), count_parameters(model, without_head=True)
            macs = count_macs(model, (input_channels(model), height, width))
            print(f'{everything:>14,} {body:>14,} {macs:>16,}  {path}', flush=True)


if __name__ == '__main__':
    main()
