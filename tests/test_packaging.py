"""What a wheel holds, and that it works where the checkout is not."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.utils import ROOT, run

pytestmark = pytest.mark.long


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('wheel')
    source = out / 'source'
    # From what git holds, so that nothing passes that a clone would lack.
    files = run('git', 'ls-files', '--cached', '--others', '--exclude-standard').stdout.split()
    for name in files:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', out, source)
    return next(out.glob('halvit_mm-*.whl'))


def test_wheel_carries_configs_and_tools(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = run('git', 'ls-files', '--cached', '--others', '--exclude-standard', 'configs', 'tools').stdout.split()
    assert {f'halvit_mm/.mim/{name}' for name in tracked} <= names
    assert {'halvit_mm/.mim/model-index.yml', 'halvit_mm_scope.pth', 'halvit_mm/models/backbones/halvit.py'} <= names
    assert not any(name.startswith(('tests/', 'configs/', 'tools/')) or '__pycache__' in name for name in names)


def test_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith('METADATA'))).decode()
    extras = {line.split()[1] for line in metadata.splitlines() if line.startswith('Provides-Extra')}
    assert extras == {'onedl', 'openmmlab', 'baselines', 'export', 'test'}
    hard = [line for line in metadata.splitlines() if line.startswith('Requires-Dist') and 'extra ==' not in line]
    assert not any('mm' in line for line in hard)


def test_installed_wheel_works_from_anywhere(wheel, tmp_path):
    """In a folder of site packages of its own, before the one that holds the hosts."""
    site = tmp_path / 'site'
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--target', site, wheel)
    # The wheel's .pth file is read as it is in site-packages.
    (tmp_path / 'mine.py').write_text("_base_ = 'halvit_mm::halvit/halvit-tiny_8xb128_in1k.py'\n")
    code = (
        f'import sys, site; sys.path.insert(0, {str(site)!r}); site.addsitedir({str(site)!r})\n'
        'from mmengine.config import Config\n'
        "cfg = Config.fromfile('mine.py')\n"
        'from mmpretrain.registry import MODELS\n'
        'model = MODELS.build(cfg.model)\n'
        'print(sum(p.numel() for p in model.parameters()))\n'
        "print(Config.fromfile('halvit_mm::halvit/halvit-micro_8xb128_in1k.py').model.backbone.arch)\n"
        "print(sys.modules['halvit_mm'].__file__)"
    )
    count, arch, origin = run(sys.executable, '-c', code, cwd=tmp_path).stdout.split()[-3:]
    assert (count, arch) == ('11433832', 'micro')
    assert Path(origin).is_relative_to(site)
    for script in (site / 'halvit_mm/.mim/tools').glob('*.sh'):
        assert os.access(script, os.X_OK), script
