"""Write docs/exports.md's table: models in every format, precision and kind of size, each file compared with PyTorch.

A cell says how far the file is from the model on images of the digits, or why it was refused: tools/export.py's own
words. Models have random weights, and images are read from data/digits and data/digits_coco: make demo and make
demo-det write them.
"""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from mmengine.config import Config

from halvit_mm.cost.benchmark import elapsed, environment
from halvit_mm.cost.report import environment_line, markdown_table
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.deploy.export import export
from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.io.datasets import test_pipeline

ROOT = Path(__file__).resolve().parents[1]
# A model of each family, and what unties it if its untied counterpart has no config here
MODELS = (
    ('configs/digits/halvit_2xb64_digits.py', {}),
    ('configs/digits/halvit_2xb64_digits.py', {'model.backbone.tie': 'none'}),
    ('configs/digits/resnet50-pe_2xb64_digits.py', {}),
    ('configs/digits/resnet50-pe_2xb64_digits.py', {'model.backbone.shared_stages': ()}),
    ('configs/halvit/halvit-tiny_8xb128_in1k.py', {}),
    ('configs/halvit/halvit-tiny_8xb128_in1k.py', {'model.backbone.tie': 'none'}),
    ('configs/baselines/deit-small_4xb256_in1k.py', {}),
    ('configs/shared_resnet/resnet50-pe1_8xb32_in1k.py', {}),
    ('configs/baselines/resnet50_8xb32_in1k.py', {}),
    ('configs/tied/tied-swin-tiny_16xb64_in1k.py', {}),
    ('configs/baselines/swin-tiny_16xb64_in1k.py', {}),
    ('configs/tied/tied-pvt-s_8xb128_in1k.py', {}),
    ('configs/baselines/pvt-s_8xb128_in1k.py', {}),
    ('configs/baselines/pvt-v2-b0_8xb128_in1k.py', {}),
    ('configs/tied/tied-twins-svt-small_8xb128_in1k.py', {}),
    ('configs/baselines/twins-svt-small_8xb128_in1k.py', {}),
    ('configs/tied/tied-resnext50-32x4d_8xb32_in1k.py', {}),
    ('configs/baselines/t2t-vit-t-14_8xb64_in1k.py', {}),
    ('configs/baselines/tnt-s-p16_16xb64_in1k.py', {}),
    ('configs/baselines/cvt-13_8xb128_in1k.py', {}),
    ('configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py', {'model.backbone.tie': 'none'}),
    ('configs/mask_rcnn/mask-rcnn_resnet50-pe1_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_pvt-t_fpn_1x_coco.py', {}),
    ('configs/retinanet/retinanet_halvit-tiny_fpn_1x_coco.py', {}),
    ('configs/tied/tied-detr_r50_8xb2-150e_coco.py', {}),
)
# Suffix, precision, whether any size is taken, whether a detector is exported as a whole
KINDS = (
    ('.onnx', 'fp32', False, False),
    ('.onnx', 'fp32', True, False),
    ('.onnx', 'fp16', False, False),
    ('.onnx', 'fp16', True, False),
    ('.onnx', 'int8', False, False),
    ('.onnx', 'int8', True, False),
    ('.onnx', 'fp32', False, True),
    ('.pt2', 'fp32', False, False),
    ('.pt2', 'fp32', True, False),
    ('.pt2', 'fp16', True, False),
    ('.pt', 'fp32', False, False),
    ('.pt', 'fp32', True, False),
    ('.pt', 'fp16', False, False),
    ('.xml', 'fp32', False, False),
    ('.xml', 'fp32', True, False),
    ('.xml', 'fp16', False, False),
    ('.xml', 'int8', False, False),
)
BEGIN, END = '<!-- table -->', '<!-- end of table -->'


def name_of(kind: tuple[str, str, bool, bool]) -> str:
    suffix, precision, any_size, boxes = kind
    return f'{suffix} {precision} {"any size" if any_size else "one size"}{", boxes" if boxes else ""}'


def read_config(path: str, options: dict, data: Path) -> Config:
    """A config whose images are the digits, read by its own test pipeline."""
    cfg = Subject(str(ROOT / path)).config()
    cfg.merge_from_dict(options)
    # No weights from the network
    for part in (cfg.model, cfg.model.get('backbone', {})):
        part.pop('init_cfg', None)
    pipeline = test_pipeline(cfg)
    for loader, split in (('train_dataloader', 'train'), ('test_dataloader', 'val')):
        if cfg.get('default_scope') == 'mmdet':
            ann_file = f'annotations/instances_{split}.json'
            classes = tuple(map(str, range(10)))
            dataset = dict(type='CocoDataset', ann_file=ann_file, data_prefix=dict(img=f'{split}/'))
            dataset |= dict(data_root=str(data / 'digits_coco'), metainfo=dict(classes=classes))
        else:
            dataset = dict(type='CustomDataset', data_root=str(data / 'digits'), data_prefix=split)
        cfg[loader] = dict(dataset=dict(**dataset, pipeline=pipeline))
    return cfg


def check(cfg: Config, kind: tuple[str, str, bool, bool], images: int) -> str:
    """Export a model, and say what ``export`` says of the file."""
    suffix, precision, any_size, boxes = kind
    detects = cfg.get('default_scope') == 'mmdet'
    if boxes and not detects:
        return 'no detector'
    said = []
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'model{suffix}')
        options = dict(shape=(192, 256) if detects else None, dynamic_size=any_size, boxes=boxes, verify=images)
        try:
            export(cfg, None, path, precision, say=said.append, **options)
        except UserError as error:
            return 'refused: ' + str(error).replace(str(path), path.name).replace('|', '/')[:160]
        except Exception as error:
            return 'failed: ' + f'{type(error).__name__}: {" ".join(str(error).split())}'.replace('|', '/')[:160]
    compared = [line for line in said if 'largest difference' in line]
    errors = [line.partition(', error ')[2].partition(' %')[0] for line in compared]
    agreements = [line.partition(', same ')[2] for line in compared if ', same ' in line]
    text = f'{len(compared)} size{"s" if len(compared) > 1 else ""}: error at most {max(map(float, errors)):.3f} %'
    return f'{text}, same {agreements[0]}' if agreements else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', metavar='WORD', default=[''], help='only configs whose paths have these')
    parser.add_argument('--kinds', nargs='+', metavar='WORDS', default=[''], help='only columns whose names have these')
    parser.add_argument('--images', type=int, default=8, help='to compare on (default: %(default)s)')
    parser.add_argument('--data', type=Path, default=ROOT / 'data', help='folder of the digits (default: data)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/exports.md', help='(default: docs/exports.md)')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    with errors_in_one_line():
        models = [model for model in MODELS if any(word in model[0] for word in args.models)]
        kinds = [kind for kind in KINDS if any(words in name_of(kind) for words in args.kinds)]
        if not models or not kinds:
            raise UserError(f'--models {args.models} --kinds {args.kinds} is not a cell of the table')
        missing = [folder for folder in ('digits', 'digits_coco') if not (args.data / folder).is_dir()]
        if missing:
            raise UserError(
                f'--data {args.data} has no folder {missing[0]}; expected what make demo and demo-det write'
            )
        say, rows = elapsed(), []
        for path, options in models:
            for kind in kinds:
                words = ', '.join(f'{key.rpartition(".")[2]}={value}' for key, value in options.items())
                rows.append([Path(path).stem, words, name_of(kind)])
                rows[-1].append(check(read_config(path, options, args.data), kind, args.images))
                say(': '.join(filter(None, rows[-1])))
                table = markdown_table(['config', 'changed', 'file', 'compared with PyTorch'], rows)
                table = f'{environment_line(environment(Settings()))}.\n\n{table}'
                text = args.out.read_text() if args.out.exists() else f'{BEGIN}\n{END}\n'
                before, _, rest = text.partition(BEGIN)
                args.out.write_text(f'{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}')


if __name__ == '__main__':
    main()
