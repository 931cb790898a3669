import sys

import pytest

from halvit_mm import check_env
from tests.utils import run

ONEDL = {onedl: '1' for onedl, _ in check_env.PACKAGES.values()}
OPENMMLAB = {openmmlab: '1' for _, openmmlab in check_env.PACKAGES.values()}


def test_this_environment_is_sound(tmp_path):
    shown = run(sys.executable, '-m', 'halvit_mm.check_env', cwd=tmp_path).stdout
    for line in ('torch ', 'onedl-mmengine ', 'halvit_mm ', 'CUDA devices: ', 'mmcv._ext: loads', 'No faults found.'):
        assert line in shown
    assert run(sys.executable, '-m', 'halvit_mm.check_env', '--quiet', cwd=tmp_path).stdout == ''


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
        assert f"fault: {name} is not installed: pip install 'halvit_mm[onedl]'" in shown.stdout
    assert 'fault: import torch fails' in shown.stdout


def test_either_family_is_sound():
    assert check_env.check_families(ONEDL.get) == []
    assert check_env.check_families(OPENMMLAB.get) == []
    assert check_env.check_families({k: v for k, v in ONEDL.items() if k != 'onedl-mmdetection'}.get) == []


def test_families_over_each_other():
    (fault,) = check_env.check_families({**ONEDL, 'mmcv': '2.1.0'}.get)
    assert fault.startswith('onedl-mmcv and mmcv are installed over each other')
    assert 'pip uninstall -y onedl-mmcv mmcv' in fault


def test_families_side_by_side():
    found = {'mmengine': '1', 'onedl-mmcv': '2', 'onedl-mmpretrain': '1'}
    (fault,) = check_env.check_families(found.get)
    assert 'mmcv, mmpretrain come from OneDL and mmengine from OpenMMLab' in fault


def test_missing_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    assert check_env.check_operators().startswith('mmcv has no compiled operators')
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
