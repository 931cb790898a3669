"""Print in one line what a classifier reached, its parameters, and those of its untied counterpart."""

import argparse
import json
from pathlib import Path

from mmengine.config import DictAction

from halvit_mm.cost import count_parameters
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the tied model')
    parser.add_argument('--metrics', required=True, help='JSON file that test.py --out-item metrics has written')
    parser.add_argument(
        '--untied', nargs='+', action=DictAction, required=True, help='options that make the untied counterpart'
    )
    args = parser.parse_args()

    cfg = load_config(args.config)
    ours, untied = (count_parameters(build_model(one)) for one in (cfg, load_config(args.config, args.untied)))
    top1 = json.loads(Path(args.metrics).read_text())['accuracy/top1']
    name = cfg.model.backbone.type
    print(
        f'{name}: top-1 {top1:.2f} %, {ours:,} parameters; its untied counterpart has {untied:,} '
        f'({ours / untied:.2f} times)'
    )


if __name__ == '__main__':
    main()
