"""What a wheel holds, and that our configs are found in every way that this package comes to be imported."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mmpretrain
import pytest

from tests.utils import ROOT, run

pytestmark = pytest.mark.long

CONFIG = 'digits/halvit_2xb64_digits.py'


def tracked(*folders: str) -> list[str]:
    return run('git', 'ls-files', '--cached', '--others', '--exclude-standard', *folders).stdout.split()


@pytest.fixture(scope='module')
def clone(tmp_path_factory) -> Callable[[], Path]:
    """Make a copy of what git holds, so that nothing passes that a clone would lack."""

    def clone() -> Path:
        folder = tmp_path_factory.mktemp('clone')
        for name in tracked():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        return folder

    return clone


@pytest.fixture(scope='module')
def wheel(clone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', out, clone())
    return next(out.glob('halvit_mm-*.whl'))


def test_wheel_carries_configs_and_tools(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f'halvit_mm/.mim/{name}' for name in tracked('configs', 'tools')} <= names
    assert {'halvit_mm/.mim/model-index.yml', 'halvit_mm/models/backbones/halvit.py', 'halvit_mm/py.typed'} <= names
    assert not any(name.startswith(('tests/', 'configs/', 'tools/')) or '__pycache__' in name for name in names)
    # Nothing of ours runs in processes that do not import us.
    assert not any(name.endswith('.pth') for name in names)


def test_source_distribution_makes_the_same_wheel(clone, wheel, tmp_path):
    source = clone()
    run(sys.executable, 'setup.py', '-q', 'sdist', '-d', tmp_path, cwd=source)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        archive.extractall(tmp_path, filter='data')
    [unpacked] = tmp_path.glob('*/')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path, unpacked)
    second = next(tmp_path.glob('*.whl'))
    assert {*zipfile.ZipFile(second).namelist()} == {*zipfile.ZipFile(wheel).namelist()}


def test_extras(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith('METADATA'))).decode()
    extras = {line.split()[1] for line in metadata.splitlines() if line.startswith('Provides-Extra')}
    assert extras == {'onedl', 'openmmlab', 'segmentation', 'timm', 'baselines', 'export', 'test'}
    hard = [line for line in metadata.splitlines() if line.startswith('Requires-Dist') and 'extra ==' not in line]
    assert not any('mm' in line for line in hard)


@dataclass
class Installation:
    """A Python that has upstream's packages, and the ways in which it finds us.

    Attributes:
        python (Path): The interpreter.
        tools (Path): Our tools.
        package (Path): The package that is imported.
        path (str): ``PYTHONPATH`` outside our scripts.
    """

    python: Path
    tools: Path
    package: Path
    path: str = ''

    def run(self, *command: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess:
        path = f'{self.python.parent}{os.pathsep}{os.environ["PATH"]}'
        return run(*command, cwd=cwd, PYTHONPATH=self.path, PATH=path, **options)


@pytest.fixture(scope='module', params=['wheel', 'wheel and checkout', 'editable', 'clone'])
def installed(request, clone, wheel, tmp_path_factory) -> Installation:
    folder = tmp_path_factory.mktemp('python')
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin/python'
    [site] = folder.glob('lib/python*/site-packages')
    # Adds to the path, but does not read the .pth files there, among which may be one of an editable install of ours.
    (site / 'upstream.pth').write_text(sysconfig.get_path('purelib') + '\n')
    checkout = clone()

    def install(*what: str | Path) -> None:
        # Nothing but the new folder is changed: what stands on the path elsewhere is left as it is.
        options = ('--no-deps', '--no-build-isolation', '--ignore-installed')
        run(sys.executable, '-m', 'pip', '--python', python, 'install', *options, *what)

    if request.param == 'wheel':
        install(wheel)
        return Installation(python, site / 'halvit_mm/.mim/tools', site / 'halvit_mm')
    if request.param == 'wheel and checkout':
        # Built where the checkout is, in which this leaves the metadata of a package.
        install(checkout)
        return Installation(python, checkout / 'tools', checkout / 'halvit_mm', str(checkout))
    if request.param == 'editable':
        install('--editable', checkout)
        return Installation(python, checkout / 'tools', checkout / 'halvit_mm')
    return Installation(python, checkout / 'tools', checkout / 'halvit_mm', str(checkout))


class TestInstallation:
    def test_import_makes_the_prefix_known(self, installed, tmp_path):
        (tmp_path / 'mine.py').write_text(f"_base_ = 'halvit_mm::{CONFIG}'\n")
        code = (
            'import halvit_mm\n'
            'from mmengine.config import Config\n'
            'from mmengine.hub import get_config\n'
            'from mmpretrain import get_model\n'
            "arch = Config.fromfile('mine.py').model.backbone.arch\n"
            f"assert arch == get_config('halvit_mm::{CONFIG}').model.backbone.arch\n"
            "model = get_model('halvit-tiny_8xb128_in1k')\n"
            'print(arch.embed_dims, sum(p.numel() for p in model.parameters()), halvit_mm.__file__)'
        )
        width, count, origin = installed.run(installed.python, '-c', code, cwd=tmp_path).stdout.split()[-3:]
        assert (width, count) == ('96', '11433832')
        assert Path(origin).parent.samefile(installed.package)

    def test_our_tools(self, installed, tmp_path):
        """They read the config and refuse it for its data alone, which is not there."""
        (tmp_path / 'mine.py').write_text(f"_base_ = 'halvit_mm::{CONFIG}'\n")
        failed = installed.run(installed.tools / 'dist_train.sh', 'mine.py', '1', cwd=tmp_path, check=False)
        assert failed.stdout.splitlines()[-1].startswith('error: train_dataloader: data/digits'), failed.stdout

    def test_upstream_s_own_tool(self, installed, tmp_path):
        if installed.path:
            pytest.skip('with a checkout on the path there is nothing else to find than in an editable install')
        (tmp_path / 'mine.py').write_text(f"_base_ = __import__('halvit_mm').config_path('{CONFIG}')\n")
        tool = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
        failed = installed.run(
            'python', tool, 'mine.py', '--cfg-options', 'runner_type=Absent', cwd=tmp_path, check=False
        )
        assert 'Absent is not in the runner registry' in failed.stdout

    def test_scripts_can_be_called(self, installed):
        for script in installed.tools.glob('*.sh'):
            assert os.access(script, os.X_OK), script
