"""Store a teacher's largest logits of the augmented images of a training, which then needs no teacher that runs.

Prints their size before it starts. If it is cut, the same command goes on. With Mixup or CutMix it runs on as many
ranks as the training, which may share a GPU.

example:
  python tools/save_logits.py configs/digits/halvit_2xb64_digits.py configs/digits/halvit_2xb64_digits.py \\
      work_dirs/untied/epoch_100.pth --teacher-options model.backbone.tie=none --topk 3 --out work_dirs/logits
"""

import argparse
import gc

from torch import distributed as dist

from halvit_mm.errors import errors_in_one_line
from halvit_mm.io.configs import OptionAction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the training's: a file, or package::path for one of an installed package")
    parser.add_argument('teacher', help="the teacher's config")
    parser.add_argument('checkpoint', help="the teacher's weights: mmpretrain's, timm's or torchvision's")
    parser.add_argument('--topk', type=int, default=10, help='logits of an image (default: %(default)s)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the logits')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionAction, help="values merged into the training's config"
    )
    parser.add_argument('--teacher-options', nargs='+', action=OptionAction, help="values merged into the teacher's")
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='(default: %(default)s)'
    )
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='load a checkpoint that carries code, and execute it'
    )
    args = parser.parse_args()
    if args.topk < 1:
        parser.error(f'--topk {args.topk} is not a number of logits; expected 1 or more')
    with errors_in_one_line():
        from halvit_mm.io.checkpoints import read_only_data
        from halvit_mm.io.configs import load_config
        from halvit_mm.launch.checks import check_data
        from halvit_mm.launch.config import check_config, check_numbers, try_to_build
        from halvit_mm.train.save_logits import save_logits

        read_only_data(trust=args.trust_checkpoint)
        cfg = load_config(args.config, args.cfg_options)
        # As of a training without validation, whose first weights do not matter
        run = argparse.Namespace(no_validate=True, resume='auto', trust_checkpoint=args.trust_checkpoint)
        check_numbers(cfg)
        check_data(cfg, ['train_dataloader'])
        check_config(cfg, 'train', run)
        try_to_build(cfg, 'train', run)
        teacher = load_config(args.teacher, args.teacher_options)
        save_logits(cfg, teacher, args.checkpoint, args.out, args.topk, args.launcher)
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


if __name__ == '__main__':
    main()
