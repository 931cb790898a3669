"""Print in one line what a classifier reached, its parameters, and those of its untied twin."""

import argparse
import json
from pathlib import Path

from mmengine.config import Config, DictAction
from mmpretrain.registry import MODELS

from halvit_mm.cost import count_parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the tied model')
    parser.add_argument('--metrics', required=True, help='JSON file that test.py --out-item metrics has written')
    parser.add_argument(
        '--twin', nargs='+', action=DictAction, required=True, help='options that make the twin of the config'
    )
    args = parser.parse_args()

    cfg = Config.fromfile(args.config)
    twin_cfg = Config.fromfile(args.config)
    twin_cfg.merge_from_dict(args.twin)
    ours, twins = (count_parameters(MODELS.build(c.model)) for c in (cfg, twin_cfg))
    top1 = json.loads(Path(args.metrics).read_text())['accuracy/top1']
    name = cfg.model.backbone.type
    share = ours / twins
    print(f'{name}: top-1 {top1:.2f} %, {ours:,} parameters; its twin has {twins:,} ({share:.2f} times)')


if __name__ == '__main__':
    main()
