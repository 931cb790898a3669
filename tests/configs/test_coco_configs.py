import json
import re
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import Sequential
from mmengine.runner import save_checkpoint
from mmpretrain.registry import MODELS as CLASSIFIERS
from torch import nn

from halvit_mm.cost import count_macs
from halvit_mm.io.configs import load_config
from tests.configs.test_configs import CONFIGS, INDEX
from tests.utils import ROOT, groups_of, run

COCO = [path for path in CONFIGS if path.parent.name in ('mask_rcnn', 'retinanet') or path.stem.startswith('mask-rcnn')]
FOLDER = ROOT / 'configs/mask_rcnn'
INDEXED = {ROOT / entry['Config']: entry['Metadata'] for entry in INDEX if entry['Name'].endswith('_coco')}
pytestmark = pytest.mark.usefixtures('mmdet_scope')


def load(name: str) -> Config:
    return Config.fromfile(next(path for path in COCO if path.stem == name))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('path', COCO, ids=lambda path: path.stem)
def test_builds_and_learns(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmdet'
    if cfg.model.backbone.type.startswith('halvit_mm'):
        assert 'halvit_mm.PretrainedBackboneHook' in [hook.type for hook in cfg.custom_hooks]
    if path.parent.name != 'digits':
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.train_cfg.max_epochs == 12
        assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3
    cfg.model.backbone.pop('init_cfg', None)
    model = MODELS.build(cfg.model)
    ours = 'halvit' in path.stem or '-pe' in path.stem
    assert (path in INDEXED) == (ours and path.parent.name != 'digits')
    if path in INDEXED:
        assert INDEXED[path]['Parameters'] == parameters(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= groups_of(cfg, model).keys()

    packed = demo_mm_inputs(
        2,
        [[3, 64, 90], [3, 90, 60]],
        num_classes=getattr(model, 'roi_head', model).bbox_head.num_classes,
        with_mask=model.with_mask,
        num_items=[2, 1],
        use_box_type=False,
    )
    data = model.data_preprocessor(packed, True)
    losses, _ = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(packed, False), mode='predict')
    assert len(results) == 2


@pytest.mark.parametrize(
    ('name', 'millions'),
    [
        # The paper prints 63.0 for HaLViT-M
        *(('halvit-medium', 64.020), ('halvit-tiny', 31.346), ('resnet50-pe1', 33.714), ('resnet50-pe2', 34.348)),
        # PVT's paper, tables 3 and 4
        *(('pvt-t', 32.9), ('pvt-s', 44.1), ('pvt-m', 63.9), ('pvt-l', 81.0), ('r50', 44.4), ('r101', 63.4)),
    ],
)
def test_parameters_in_all(name, millions):
    model = MODELS.build(load(f'mask-rcnn_{name}_fpn_1x_coco').model)
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.06 if millions == round(millions, 1) else 6e-4)


def test_index_counts_as_the_tables_do():
    """A forward pass at 800 x 1333 takes long; the tables' tool has done it."""
    published = json.loads((ROOT / 'docs/published.json').read_text())['tables']
    measured = json.loads((ROOT / 'docs/tables.json').read_text())
    compared = 0
    for table, result in zip(published, measured, strict=True):
        for row in table['rows']:
            entry = INDEXED.get(ROOT / 'configs' / row.get('config', ''))
            if entry is not None:
                assert entry['FLOPs'] == result['measured'][row['method']]['macs']
                compared += 1
    assert compared == 4


def test_index_of_detr():
    path = ROOT / 'configs/tied/tied-detr_r50_8xb2-150e_coco.py'
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    assert INDEXED[path]['Epochs'] == cfg.train_cfg.max_epochs
    assert INDEXED[path]['Parameters'] == parameters(model)
    assert INDEXED[path]['FLOPs'] == count_macs(model, (3, 800, 1333))


def test_twin_by_one_field():
    tied, untied = (load(f'mask-rcnn_{name}_fpn_1x_coco').model for name in ('halvit-medium', 'deit-base'))
    assert {**tied.backbone, 'tie': 'none'} == dict(untied.backbone)
    assert tied.neck == untied.neck


def test_classifiers_checkpoint_starts_the_backbone(tmp_path):
    classifier = CLASSIFIERS.build(Config.fromfile(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py').model)
    for p in classifier.parameters():
        nn.init.normal_(p)
    save_checkpoint(dict(state_dict=classifier.state_dict()), str(tmp_path / 'w.pth'))
    words = ['type=Pretrained', f'checkpoint={tmp_path / "w.pth"}', 'prefix=backbone.']
    options = dict(f'model.backbone.init_cfg.{word}'.split('=') for word in words)
    cfg = load_config(str(FOLDER / 'mask-rcnn_halvit-tiny_fpn_1x_coco.py'), options)
    backbone = MODELS.build(cfg.model).backbone
    backbone.init_weights()
    given = classifier.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, given[name][:, 1:] if name == 'pos_embed' else given[name]), name


def test_example_of_the_page(tmp_path):
    page = (ROOT / 'docs/detect.md').read_text()
    [example] = re.findall(r'```python\n(# Cascade R-CNN on.*?)```', page, flags=re.DOTALL)
    file = tmp_path / 'cascade.py'
    file.write_text(example)
    cfg = Config.fromfile(file)
    assert len(cfg.model.roi_head.bbox_head) == 3
    model = MODELS.build(cfg.model)
    assert groups_of(cfg, model).keys() == {name for name, _ in model.named_parameters()}
    data = model.data_preprocessor(demo_mm_inputs(1, [[3, 96, 130]], use_box_type=False), True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert model.backbone.layers[0].attn.q_weight.grad.abs().sum() > 0


def test_list_of_necks_is_built():
    cfg = load('mask-rcnn_halvit-tiny_fpn_1x_coco')
    neck = MODELS.build(cfg.model).neck
    assert isinstance(neck, Sequential)
    assert neck[0].out_channels == tuple(cfg.model.neck[1].in_channels)


@pytest.mark.long
def test_builds_in_a_fresh_process_from_another_folder(tmp_path):
    script = (
        'import sys\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import init_default_scope\n'
        'from mmdet.registry import MODELS\n'
        'from mmengine.optim import build_optim_wrapper\n'
        'for path in sys.argv[1:]:\n'
        '    cfg = Config.fromfile(path)\n'
        '    init_default_scope(cfg.default_scope)\n'
        '    build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper)\n'
        '    print("built", path)\n'
    )
    built = run(sys.executable, '-c', script, *COCO, cwd=tmp_path)
    assert built.stdout.count('\nbuilt ') + built.stdout.startswith('built ') == len(COCO)
