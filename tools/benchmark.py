"""Time classifiers side by side: inference and a training step, interleaved in one process.

A config is a file, or package::path for one that an installed package carries, such as
mmpretrain::deit/deit-small_4xb256_in1k.py. Ratios are to the first config.
"""

import argparse
import logging
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS

from halvit_mm.cost import inference, ratios_to_first, time_interleaved, training_step
from halvit_mm.engine.runner import load_config
from halvit_mm.errors import told_in_one_line


def load(path: str) -> Config:
    if '::' in path:
        return Config.fromstring(f'_base_ = {path!r}', '.py')
    return load_config(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--shape', type=int, default=224, help='height and width of an image (default: %(default)s)')
    parser.add_argument('--batch', nargs='+', type=int, default=[1, 16], help='(default: 1 16)')
    parser.add_argument('--modes', nargs='+', choices=['infer', 'train'], default=['infer', 'train'])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--channels-last', action='store_true', help='images and weights in channels_last layout')
    parser.add_argument('--rounds', type=int, default=20, help='runs that are counted (default: %(default)s)')
    args = parser.parse_args()

    logging.disable(logging.INFO)  # mmengine lists each parameter's group
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    models, optimizers = {}, {}
    with told_in_one_line():
        for path in args.configs:
            cfg = load(path)
            cfg.model.pop('train_cfg', None)  # Mixup and CutMix would need labels in another form
            name = Path(path).stem
            models[name] = MODELS.build(cfg.model).to(args.device, memory_format=layout)
            optimizers[name] = build_optim_wrapper(
                models[name], {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
            ).optimizer

    print(f'torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, fp32')
    print('| config | batch | mode | median ms | min ms | ratio |')
    print('|---|---|---|---|---|---|')
    for batch in args.batch:
        images = torch.randn(batch, 3, args.shape, args.shape, device=args.device).to(memory_format=layout)
        for mode in args.modes:
            runs = {
                name: inference(model, images) if mode == 'infer' else training_step(model, images, optimizers[name])
                for name, model in models.items()
            }
            times = time_interleaved(runs, args.rounds)
            for name, ratio in ratios_to_first(times).items():
                middle, least = 1e3 * median(times[name]), 1e3 * min(times[name])
                print(f'| {name} | {batch} | {mode} | {middle:.1f} | {least:.1f} | {ratio:.3f} |', flush=True)


if __name__ == '__main__':
    main()
