"""Found by name from anywhere, in a new process, with no other import."""

import sys

import mmengine.registry
import pytest

from tests.utils import run


def python(code: str, cwd) -> str:
    return run(sys.executable, '-c', code, cwd=cwd).stdout


@pytest.mark.parametrize(
    ('package', 'name'),
    [('mmpretrain', 'SharedStageResNet'), ('mmdet', 'TiedFFN'), ('mmengine', 'TiedMultiheadAttention')],
)
def test_models_are_found(package, name, tmp_path):
    code = (
        f'from {package}.registry import MODELS\n'
        f"print(MODELS.get('halvit_mm.{name}').__name__)\n"
        "model = MODELS.build(dict(type='halvit_mm.HaLViT', arch='tiny'))\n"
        'print(sum(p.numel() for p in model.parameters()))'
    )
    assert python(code, tmp_path).split()[-2:] == [name, '11048832']


def test_importing_the_package_imports_nothing_heavy(tmp_path):
    code = (
        'import sys, halvit_mm\n'
        "print([name for name in ('torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet') if name in sys.modules])"
    )
    assert python(code, tmp_path).strip() == '[]'


def test_registry_imports_no_upstream_package(tmp_path):
    code = (
        'import sys, halvit_mm.registry\n'
        "print([name for name in ('mmcv', 'mmpretrain', 'mmdet') if name in sys.modules])"
    )
    assert python(code, tmp_path).strip().splitlines()[-1] == '[]'


@pytest.mark.parametrize('first', ['halvit_mm', 'mmengine'])
def test_prefix_is_known_whichever_comes_first(first, tmp_path):
    second = {'halvit_mm': 'mmengine', 'mmengine': 'halvit_mm'}[first]
    code = (
        f'import {first}, {second}\n'
        'from mmengine.config.utils import MODULE2PACKAGE\n'
        "print('halvit_mm' in MODULE2PACKAGE, len(MODULE2PACKAGE) > 10)"
    )
    assert python(code, tmp_path).split()[-2:] == ['True', 'True']


def test_config_is_inherited_by_package_path(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'halvit_mm::halvit/halvit-tiny_8xb128_in1k.py'\nmodel = dict(head=dict(num_classes=7))\n"
    )
    code = (
        'import halvit_mm\n'
        'from mmengine.config import Config\n'
        "cfg = Config.fromfile('mine.py')\n"
        'print(cfg.model.backbone.arch, cfg.model.head.num_classes, cfg.train_cfg.max_epochs)\n'
        "print(Config.fromfile(halvit_mm.config_path('halvit/halvit-micro_8xb128_in1k.py')).model.backbone.arch)"
    )
    assert python(code, tmp_path).split()[-4:] == ['tiny', '7', '300', 'micro']


def test_a_visualizer_in_our_scope_is_upstreams(tmp_path):
    visualizer = dict(_scope_='halvit_mm', type='mmpretrain.UniversalVisualizer', name='ours', save_dir=str(tmp_path))
    # Without registries of ours mmengine would warn and take the root's.
    with mmengine.registry.VISUALIZERS.switch_scope_and_registry('halvit_mm') as registry:
        assert registry.scope == 'halvit_mm'
    built = mmengine.registry.VISUALIZERS.build({**visualizer, 'vis_backends': [dict(type='LocalVisBackend')]})
    assert type(built).__name__ == 'UniversalVisualizer'
    assert [*built._vis_backends] == ['LocalVisBackend']
