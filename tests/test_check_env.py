import re
import sys
from types import ModuleType

import pytest

from halvit_mm import check_env
from tests.utils import run

ONEDL = {packages['onedl'][0]: '1' for packages in check_env.PACKAGES.values()}
OPENMMLAB = {packages['openmmlab'][0]: '1' for packages in check_env.PACKAGES.values()}


def test_this_environment_is_sound(tmp_path, monkeypatch, capsys):
    shown = run(sys.executable, '-m', 'halvit_mm.check_env', cwd=tmp_path).stdout
    mmengine = dict(onedl='onedl-mmengine ', openmmlab='mmengine 0.10.7')[check_env.family()]
    for line in ('torch ', mmengine, 'numpy ', 'CUDA devices: ', 'mmcv._ext: loads', 'No faults found.'):
        assert line in shown
    monkeypatch.setattr(sys, 'argv', ['check_env', '--quiet'])
    assert check_env.main() == 0
    assert capsys.readouterr() == ('', '')


def test_without_any_host(tmp_path):
    """A Python that sees this package only."""
    import halvit_mm

    root = str(next(iter(halvit_mm.__path__)).rsplit('/', 1)[0])
    code = (
        f'import runpy, sys\nsys.path.insert(0, {root!r})\nrunpy.run_module("halvit_mm.check_env", run_name="__main__")'
    )
    shown = run(sys.executable, '-S', '-c', code, cwd=tmp_path, check=False)
    assert shown.returncode == 1
    assert 'Traceback' not in shown.stdout
    for name in ('mmengine', 'mmcv', 'mmpretrain'):
        assert f"fault: {name} is not installed: in a clone of halvit_mm, pip install '.[onedl]'" in shown.stdout
    assert 'fault: import torch fails' in shown.stdout


def test_either_family_is_sound():
    assert check_env.check_families(ONEDL.get) == []
    assert check_env.check_families(OPENMMLAB.get) == []
    optional = ('onedl-mmdetection', 'onedl-mmsegmentation')
    assert check_env.check_families({k: v for k, v in ONEDL.items() if k not in optional}.get) == []
    lite = {('mmcv-lite' if k == 'mmcv' else k): v for k, v in OPENMMLAB.items()}
    assert check_env.check_families(lite.get) == []


def test_timm_alone(monkeypatch):
    assert check_env.check_families({'timm': '1.0.31'}.get) == []
    assert len(check_env.check_families({'timm': '1.0.31', 'mmengine': '0.10.7'}.get)) == 2
    monkeypatch.setattr(check_env, 'requires', absent)
    assert check_env.check_versions({'timm': '1.0.24', 'torch': '2.10.0'}.get) == []
    (fault,) = check_env.check_versions({'timm': '1.0.22'}.get)
    assert fault.startswith('timm 1.0.22 is not a version that halvit_mm is for; expected >=1.0.24')
    monkeypatch.setattr(check_env, 'timm_alone', lambda: True)
    assert check_env.describe()[-1].startswith("OpenMMLab's packages: none; timm's models work without them")


def absent(name: str):
    raise check_env.PackageNotFoundError(name)


@pytest.mark.parametrize(('both', 'name'), [('onedl-mmcv', 'mmcv'), ('mmcv', 'mmcv-lite')])
def test_families_over_each_other(both, name):
    found = {**(ONEDL if both in ONEDL else OPENMMLAB), name: '2.1.0'}
    (fault,) = check_env.check_families(found.get)
    assert fault.startswith(f'{both} and {name} are installed over each other')
    assert f'pip uninstall -y {both} {name}' in fault


def test_families_side_by_side():
    found = {'mmengine': '1', 'onedl-mmcv': '2', 'onedl-mmpretrain': '1'}
    (fault,) = check_env.check_families(found.get)
    assert fault.startswith('mmcv, mmpretrain from OneDL and mmengine from OpenMMLab do not fit each other')


@pytest.mark.parametrize(('found', 'extra'), [(ONEDL, 'onedl'), (OPENMMLAB, 'openmmlab'), ({}, 'onedl')])
def test_the_installed_family_is_advised(found, extra):
    found = {key: value for key, value in found.items() if 'mmpretrain' not in key}
    *_, fault = check_env.check_families(found.get)
    assert fault.startswith(f"mmpretrain is not installed: in a clone of halvit_mm, pip install '.[{extra}]'")


@pytest.mark.parametrize(
    ('found', 'fault'),
    [
        ({'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmpretrain': '1.2.0', 'mmdet': '3.3.0', 'torch': '2.1.2'}, None),
        ({'mmengine': '0.10.7', 'mmcv': '2.2.0'}, "mmcv 2.2.0 .*; expected <2.2.0,>=2.1.0: pip install 'mmcv<2.2.0,>"),
        ({'mmengine': '0.10.7', 'mmcv-lite': '2.2.0'}, "mmcv-lite 2.2.0 .*: pip install 'mmcv-lite<2.2.0"),
        (
            {'mmpretrain': '1.0.0'},
            "mmpretrain 1.0.0 .* expected >=1.2.0: pip install 'mmpretrain>=1.2.0'",
        ),
        ({'onedl-mmcv': '2.3.6', 'torch': '1.13.1'}, "torch 1.13.1 .* expected >=2.1: pip install 'torch>=2.1'"),
    ],
)
@pytest.mark.parametrize('metadata', [True, False])
def test_versions(found, fault, metadata, monkeypatch):
    """They are read from the package's metadata or, of a checkout on the path, from its folder."""

    if not metadata:
        monkeypatch.setattr(check_env, 'requires', absent)
    faults = check_env.check_versions(found.get)
    assert len(faults) == (fault is not None)
    if fault:
        assert re.match(fault, faults[0])


def test_numpy_that_torch_cannot_take(monkeypatch):
    class Torch(ModuleType):
        __version__ = '2.1.2'

        @staticmethod
        def zeros(n):
            raise RuntimeError('Numpy is not available')

    monkeypatch.setitem(sys.modules, 'torch', Torch('torch'))
    fault = check_env.check_numpy()
    assert re.match(r'torch 2\.1\.2 does not work with NumPy \S+ \(Numpy is not available\): .*"numpy<2"$', fault)


def test_what_only_a_training_imports_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'halvit_mm.launch.checks', None)
    [fault] = check_env.find_faults()
    assert fault.startswith('import halvit_mm.launch.checks fails')


def test_missing_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    monkeypatch.setattr(check_env, 'installed', ONEDL.get)
    assert check_env.check_operators().startswith('mmcv has no compiled operators')
    assert check_env.check_operators().endswith('--no-deps onedl-mmcv')
    monkeypatch.setattr(check_env, 'installed', OPENMMLAB.get)
    assert check_env.check_operators().endswith('--no-deps mmcv==1')
    monkeypatch.setattr(check_env, 'installed', {'mmengine': '1', 'mmcv-lite': '2.1.0'}.get)
    assert 'pip uninstall -y mmcv-lite; then, ' in check_env.check_operators()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    assert any('mmcv._ext' in fault for fault in check_env.find_faults())


def test_operators_of_another_torch(monkeypatch):
    real = check_env.importlib.import_module

    def fail(name):
        if name == 'mmcv._ext':
            raise ImportError('undefined symbol: _ZN3c10')
        return real(name)

    monkeypatch.setattr(check_env.importlib, 'import_module', fail)
    assert (
        'does not load (undefined symbol: _ZN3c10); it was compiled against another torch'
        in check_env.check_operators()
    )


@pytest.mark.parametrize(('version', 'sound'), [('4.57.1', True), ('5.0.0', False), (None, True)])
def test_transformers(monkeypatch, version, sound):
    monkeypatch.setattr(check_env, 'installed', lambda name: version)
    assert (check_env.check_transformers() is None) == sound


def test_python_version(monkeypatch):
    monkeypatch.setattr(check_env.sys, 'version_info', (3, 13, 0))
    assert 'is not supported' in check_env.check_python()
