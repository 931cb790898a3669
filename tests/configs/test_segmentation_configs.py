import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint
from mmpretrain.registry import MODELS as CLASSIFIERS
from mmseg.models.decode_heads import SegmenterMaskTransformerHead
from mmseg.structures import SegDataSample
from torch import nn

from halvit_mm.cost import count_macs
from halvit_mm.cost.samples import ground_truth
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import load_config
from tests.configs.test_configs import CONFIGS, INDEX
from tests.utils import ROOT, groups_of, run_tool

SEGMENTORS = [path for path in CONFIGS if 'ade20k' in path.stem or 'digits-seg' in path.stem]
INDEXED = {ROOT / entry['Config']: entry['Metadata'] for entry in INDEX if 'ade20k' in entry['Name']}


@pytest.fixture(autouse=True)
def _mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def load(name: str) -> Config:
    """By the beginning of the name."""
    cfg = Config.fromfile(next(path for path in SEGMENTORS if path.stem.startswith(name)))
    cfg.model.pretrained = None  # which r50 downloads
    return cfg


@pytest.mark.parametrize('path', SEGMENTORS, ids=lambda path: path.stem)
def test_builds_and_learns(path):
    cfg = load(path.stem)
    assert cfg.default_scope == 'mmseg'
    ours = 'halvit' in path.stem or '-pe' in path.stem
    if path.parent.name != 'digits':
        # The number of images in a step is that of the name.
        ranks, batch = map(int, re.search(r'_(\d)xb(\d)-160k_', path.stem).groups())
        assert cfg.train_dataloader.batch_size == batch
        assert ranks * batch == (8 if 'segmenter' in path.stem else 16)
        assert cfg.train_cfg.max_iters == 160000
        assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3
        if cfg.model.backbone.type.startswith('halvit_mm'):
            assert 'halvit_mm.PretrainedBackboneHook' in [hook.type for hook in cfg.custom_hooks]
    assert (path in INDEXED) == (ours and path.parent.name != 'digits')
    model = build_model(cfg)
    if path in INDEXED:
        assert INDEXED[path]['Iterations'] == cfg.train_cfg.max_iters
        assert INDEXED[path]['Parameters'] == sum(p.numel() for p in model.parameters())
    assert groups_of(cfg, model).keys() == {name for name, _ in model.named_parameters()}

    # 5 and 4 patches of 16
    images = torch.randn(2, 3, 80, 64)
    losses, _ = model.parse_losses(model(images, ground_truth(model, images), mode='loss'))
    losses.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        results = model(torch.randn(1, 3, 80, 64), [sample_of(80, 64)], mode='predict')
    assert results[0].seg_logits.shape == (80, 64)
    assert len(results[0].seg_logits.data) == model.num_classes


def sample_of(height: int, width: int) -> SegDataSample:
    return SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))


@pytest.mark.parametrize('path', [path for path in INDEXED if 'segmenter' in path.stem or 'pe1' in path.stem])
def test_index_counts(path):
    assert INDEXED[path]['FLOPs'] == count_macs(build_model(load(path.stem)), (3, 512, 512))


@pytest.mark.parametrize(
    ('tied', 'untied'),
    [
        ('upernet_halvit-tiny', 'upernet_deit-small'),
        ('upernet_halvit-medium', 'upernet_deit-base'),
        ('segmenter_halvit-tiny_mask', 'segmenter_deit-small_mask'),
    ],
)
def test_twin_by_one_field(tied, untied):
    ours, theirs = load(tied), load(untied)
    ours.model.backbone.tie = 'none'
    assert ours.to_dict() == theirs.to_dict()


def test_upernet_has_the_recipe_of_mmseg():
    """But for the vectors that do not decay: mmseg's three keys miss the biases."""
    ours = load('upernet_halvit-tiny')
    theirs = Config.fromfile(ROOT / 'tests/configs/upernet_of_mmseg.py')
    for key in ('param_scheduler', 'train_cfg', 'val_evaluator'):
        assert ours[key] == theirs[key], key
    assert ours.optim_wrapper.optimizer == {**theirs.optim_wrapper.optimizer, '_scope_': 'mmseg'}
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size
    assert ours.train_dataloader.dataset == theirs.train_dataloader.dataset
    for key in ('decode_head', 'auxiliary_head'):
        assert {**ours.model[key], 'in_channels': None} == {**theirs.model[key], 'in_channels': None}
    groups = groups_of(ours, build_model(ours))
    decayed = {name.rpartition('.')[2] for name, group in groups.items() if group['weight_decay'] > 0}
    assert decayed == {'weight', 'q_weight', 'kv_weight'}


def test_resnets_differ_by_the_backbone():
    ours, theirs = load('upernet_resnet50-pe1'), load('upernet_r50')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'val_evaluator'):
        assert ours[key] == theirs[key]
    for key in ('decode_head', 'auxiliary_head', 'data_preprocessor'):
        assert ours.model[key] == theirs.model[key]
    ours, theirs = (build_model(cfg).backbone.state_dict() for cfg in (ours, theirs))
    assert ours['conv1.weight'].shape == theirs['conv1.weight'].shape
    alone = {name for name in theirs if name not in ours}
    assert alone
    assert all(part.partition('.')[2][2:].startswith(('conv1', 'conv3', 'downsample')) for part in alone)


def test_classifiers_checkpoint_starts_the_backbone(tmp_path):
    classifier = CLASSIFIERS.build(Config.fromfile(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py').model)
    for p in classifier.parameters():
        nn.init.normal_(p)
    save_checkpoint(dict(state_dict=classifier.state_dict()), str(tmp_path / 'w.pth'))
    words = ['type=Pretrained', f'checkpoint={tmp_path / "w.pth"}', 'prefix=backbone.']
    options = dict(f'model.backbone.init_cfg.{word}'.split('=') for word in words)
    for path in INDEXED:
        if 'halvit-tiny' in path.stem:
            backbone = build_model(load_config(str(path), options)).backbone
            backbone.init_weights()
            given = classifier.backbone.state_dict()
            for name, value in backbone.state_dict().items():
                assert torch.equal(value, given[name][:, 1:] if name == 'pos_embed' else given[name]), name


def test_segmenter_reads_the_last_layer():
    model = build_model(load('segmenter_halvit-tiny_mask'))
    assert isinstance(model.decode_head, SegmenterMaskTransformerHead)
    [last] = model.backbone.eval()(torch.randn(1, 3, 64, 80))
    assert last.shape == (1, 384, 4, 5)
    assert model(torch.randn(1, 3, 64, 80)).shape == (1, 150, 4, 5)


def test_mmseg_is_imported_for_its_configs_only(tmp_path):
    """By the tools that know its configs."""
    code = tmp_path / 'code.py'
    code.write_text(
        'import sys\n'
        'from halvit_mm.launch.command import parse_command\n'
        'from halvit_mm.launch.checks import check_run\n'
        'import halvit_mm.deploy.export, halvit_mm.deploy.infer, halvit_mm.cost.benchmark\n'
        'from halvit_mm.io.build import load_model\n'
        f"command = parse_command('train', [{str(ROOT / 'configs/halvit/halvit-micro_8xb128_in1k.py')!r}])\n"
        'load_model(command.cfg)\n'
        "print([name for name in sys.modules if name.startswith('mmseg')])\n"
    )
    assert run_tool(code).stdout.splitlines()[-1] == '[]'
