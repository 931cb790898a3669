"""Write docs/exports.md's tables: models in every format, precision and kind of size, each file compared with PyTorch.

A cell says how far the file is from the model on images of the digits, or why it was refused: tools/export.py's own
words. Models have random weights. Images are read from data/digits, data/digits_coco and data/digits_seg: make demo,
demo-det and demo-seg write them. Cells are kept in a JSON file beside the page, and a second run goes on behind them.
"""

import argparse
import json
import logging
import re
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
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import scope_of
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
    ('configs/halvit/halvit-tiny_8xb128_in1k.py', {'model.backbone.share': 2}),
    ('configs/halvit/halvit-tiny_8xb128_in1k.py', {'model.backbone.tie_rank': 16}),
    ('configs/baselines/mini-deit-small_8xb128_in1k.py', {}),
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
    ('mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py', {}),
    ('configs/baselines/regnety-16gf_8xb128_in1k.py', {}),
    ('configs/baselines/t2t-vit-t-14_8xb64_in1k.py', {}),
    ('configs/baselines/tnt-s-p16_16xb64_in1k.py', {}),
    ('configs/baselines/cvt-13_8xb128_in1k.py', {}),
    ('configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_halvit-tiny_fpn_1x_coco.py', {'model.backbone.tie': 'none'}),
    ('configs/mask_rcnn/mask-rcnn_resnet50-pe1_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_pvt-t_fpn_1x_coco.py', {}),
    ('configs/mask_rcnn/mask-rcnn_pvt-v2-b0_fpn_1x_coco.py', {}),
    ('configs/retinanet/retinanet_halvit-tiny_fpn_1x_coco.py', {}),
    ('configs/retinanet/retinanet_halvit-tiny_fpn_1x_coco.py', {'model.backbone.tie': 'none'}),
    ('configs/tied/tied-detr_r50_8xb2-150e_coco.py', {}),
    ('mmdet::detr/detr_r50_8xb2-150e_coco.py', {}),
    ('configs/upernet/upernet_halvit-tiny_8xb2-160k_ade20k-512x512.py', {}),
    ('configs/upernet/upernet_deit-small_8xb2-160k_ade20k-512x512.py', {}),
    ('configs/upernet/upernet_resnet50-pe1_4xb4-160k_ade20k-512x512.py', {}),
    ('configs/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', {}),
    ('configs/segmenter/segmenter_halvit-tiny_mask_8xb1-160k_ade20k-512x512.py', {}),
    ('configs/segmenter/segmenter_deit-small_mask_8xb1-160k_ade20k-512x512.py', {}),
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
IMAGES = {'mmpretrain': 8, 'mmdet': 2, 'mmseg': 2}  # to compare on
CALIBRATION_IMAGES = 64  # the tool's 512 take most of the time, and change no file's structure
SHAPES = {'mmdet': (192, 256), 'mmseg': (128, 160)}  # of a classifier's images its own
BEGIN, END = '<!-- table -->', '<!-- end of table -->'


def name_of(kind: tuple[str, str, bool, bool]) -> str:
    suffix, precision, any_size, boxes = kind
    return f'{suffix} {precision} {"any size" if any_size else "one size"}{", boxes" if boxes else ""}'


def read_config(path: str, options: dict, data: Path) -> Config:
    """A config whose images are the digits, read by its own test pipeline."""
    cfg = Subject(path if '::' in path else str(ROOT / path), options=options).config()
    # No weights from the network
    for part in (cfg.model, cfg.model.get('backbone', {})):
        part.pop('init_cfg', None)
    pipeline, scope = test_pipeline(cfg), scope_of(cfg)
    for loader, split in (('train_dataloader', 'train'), ('test_dataloader', 'val')):
        if scope == 'mmdet':
            ann_file = f'annotations/instances_{split}.json'
            classes = tuple(map(str, range(10)))
            dataset = dict(type='CocoDataset', ann_file=ann_file, data_prefix=dict(img=f'{split}/'))
            dataset |= dict(data_root=str(data / 'digits_coco'), metainfo=dict(classes=classes))
        elif scope == 'mmseg':  # whose pipeline goes with the type of the dataset
            dataset = dict(type=cfg[loader].dataset.type, data_root=str(data / 'digits_seg'), img_suffix='.png')
            dataset |= dict(data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))
        else:
            dataset = dict(type='CustomDataset', data_root=str(data / 'digits'), data_prefix=split)
        cfg[loader] = dict(dataset=dict(**dataset, pipeline=pipeline))
    return cfg


def spread_scores(cfg: Config, path: str) -> None:
    """Write weights of a detector of one stage whose head is drawn wider: all of its boxes start with one score."""
    model = build_model(cfg)
    for parameter in model.bbox_head.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    torch.save(dict(state_dict=model.state_dict()), path)


def check(cfg: Config, kind: tuple[str, str, bool, bool]) -> dict[str, object]:
    """Export a model, and return what ``export`` says of the file: the sizes and errors, or why there is none."""
    suffix, precision, any_size, boxes = kind
    said, checkpoint = [], None
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'model{suffix}')
        if cfg.model.get('bbox_head'):
            checkpoint = str(Path(folder, 'weights.pth'))
            spread_scores(cfg, checkpoint)
        options = dict(shape=SHAPES.get(scope_of(cfg)), dynamic_size=any_size, boxes=boxes)
        options |= dict(verify=IMAGES[scope_of(cfg)], calibrate=CALIBRATION_IMAGES)
        try:
            export(cfg, checkpoint, path, precision, say=said.append, **options)
        except UserError as error:
            return dict(refused=re.sub(rf'{tempfile.gettempdir()}/[^ ]*/', '', str(error)))
        except Exception as error:
            return dict(failed=f'{type(error).__name__}: {" ".join(str(error).split())}'[:300])
    compared = [line for line in said if 'largest difference' in line]
    agreements = [float(line.rpartition(' %')[0].rpartition(' ')[2]) for line in compared if ', same ' in line]
    return dict(
        sizes=len(compared),
        error=max(float(line.partition(', error ')[2].partition(' %')[0]) for line in compared),
        **(dict(same=min(agreements)) if agreements else {}),
    )


def in_short(cell: dict[str, object] | None, notes: list[str]) -> str:
    """The text of a cell; what was refused or failed becomes a note, which cells share."""
    if cell is None:
        return ''
    if 'error' in cell:
        same = '' if cell.get('same', 100.0) == 100.0 else f', same class {cell["same"]:.0f} %'
        return f'{cell["error"]:.3f} %{same}'
    (state, text), *_ = cell.items()
    # One note for all suffixes of a message
    text = f'{state}: {re.sub("(--out )?model[.][a-z0-9]+", "the file", text)}'.replace('|', '/')
    if text not in notes:
        notes.append(text)
    return f'[{notes.index(text) + 1}]'


def tables(cells: dict[str, dict[str, dict]]) -> str:
    """A table for each format, of a row for each model that has results, and the notes of all."""
    notes, parts = [], []
    for suffix in dict.fromkeys(kind[0] for kind in KINDS):
        kinds = [name_of(kind) for kind in KINDS if kind[0] == suffix]
        rows = [[name, *(in_short(row.get(kind), notes) for kind in kinds)] for name, row in cells.items() if row]
        parts.append(markdown_table([suffix, *(kind.removeprefix(f'{suffix} ') for kind in kinds)], rows))
    parts.append('\n'.join(f'{number}. {note}' for number, note in enumerate(notes, 1)))
    return '\n\n'.join(filter(None, parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', metavar='WORD', default=[''], help='only configs whose paths have these')
    parser.add_argument('--kinds', nargs='+', metavar='WORDS', default=[''], help='only columns whose names have these')
    parser.add_argument('--again', action='store_true', help='these cells anew, not only those that are missing')
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
        missing = [folder for folder in ('digits', 'digits_coco', 'digits_seg') if not (args.data / folder).is_dir()]
        if missing:
            raise UserError(
                f'--data {args.data} has no folder {missing[0]}; expected what make demo, demo-det and demo-seg write'
            )
        kept, stack = args.out.with_suffix('.json'), environment_line(environment(Settings()))
        results = json.loads(kept.read_text()) if kept.exists() else {}
        results = results or dict(environment=stack, cells={})
        if results['environment'] != stack:  # figures of another stack do not go beside those of this one
            raise UserError(f'{kept} is of "{results["environment"]}", not of "{stack}"; move it away to begin again')
        say, cells = elapsed(), {Subject(path, options=options).name: {} for path, options in MODELS} | results['cells']
        for path, options in models:
            name = Subject(path, options=options).name
            row = cells[name]
            for kind in kinds:
                if name_of(kind) in row and not args.again:
                    continue
                cfg = read_config(path, options, args.data)
                if kind[3] and scope_of(cfg) != 'mmdet':
                    continue
                row[name_of(kind)] = check(cfg, kind)
                say(f'{name}, {name_of(kind)}: {row[name_of(kind)]}')
                kept.write_text(json.dumps(results | dict(cells=cells), indent=1) + '\n')
        text = args.out.read_text() if args.out.exists() else f'{BEGIN}\n{END}\n'
        before, _, rest = text.partition(BEGIN)
        table = f'{BEGIN}\n\n{stack}.\n\n{tables(cells)}\n\n{END}'
        args.out.write_text(before + table + rest.partition(END)[2])


if __name__ == '__main__':
    main()
