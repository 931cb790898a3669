"""What stops the set-up is named in one line; the workflow and the images set up by what is here."""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.utils import ROOT, run


@pytest.fixture
def clone(tmp_path) -> Path:
    for name in ('requirements', 'setup.py'):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, tmp_path / name)
    return tmp_path


def told(clone: Path, **variables: str) -> str:
    failed = run(clone / 'requirements/install.sh', cwd=clone, check=False, **variables)
    assert failed.returncode != 0
    assert 'Traceback' not in failed.stdout
    errors = [line for line in failed.stdout.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, failed.stdout
    assert failed.stdout.splitlines()[-1] == errors[0]
    return errors[0]


def fake_python(folder: Path, body: str) -> str:
    python = folder / 'fake-python'
    python.write_text(f'#!/bin/sh\n{body}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_no_python(clone):
    assert 'there is no absent-python' in told(clone, PYTHON='absent-python')


@pytest.mark.parametrize('version', ['3.9', '3.13'])
def test_wrong_python(clone, version):
    python = fake_python(clone, f'case "$*" in *version_info*) echo {version}; exit;; esac')
    assert f'is Python {version}; 3.10, 3.11 or 3.12 is needed' in told(clone, PYTHON=python)


def test_no_compiler(clone):
    assert 'there is no C++ compiler (absent-c++)' in told(clone, CXX='absent-c++', PYTHON=sys.executable)


def test_no_headers(clone):
    python = fake_python(clone, 'case "$*" in *include*) echo /nowhere; exit;; esac')
    assert "Python's headers are missing (/nowhere/Python.h)" in told(clone, PYTHON=python)


def test_no_venv(clone):
    python = fake_python(clone, 'case "$*" in *ensurepip*) exit 1;; esac')
    assert 'has no venv; install it' in told(clone, PYTHON=python)


def test_no_network(clone):
    dead = 'http://127.0.0.1:9/simple'
    variables = dict(
        PIP_INDEX_URL=dead, PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='', PIP_RETRIES='0', PIP_NO_CACHE_DIR='1'
    )
    assert Path(sysconfig.get_paths()['include'], 'Python.h').is_file()
    line = told(clone, PYTHON=sys.executable, PIP_CONFIG_FILE=os.devnull, **variables)
    assert 'the package index cannot be reached' in line


def test_a_gpu_without_a_compiler_for_it(clone):
    """It is said that mmcv's operators will be for the CPU, before they are compiled."""
    programs = clone / 'programs'
    programs.mkdir()
    (programs / 'nvidia-smi').write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'\n")
    (programs / 'nvidia-smi').chmod(0o755)
    # What the set-up needs besides; nvcc is not among it.
    for name in ('sh', 'bash', 'cat', 'cksum', 'dirname', 'grep', 'rm', 'mkdir', 'chmod', 'getconf', 'c++', 'env'):
        (programs / name).symlink_to(shutil.which(name))
    # An environment in which nothing can be installed
    make = 'mkdir -p "$3/bin"; printf "#!/bin/sh\\nexit 1\\n" >"$3/bin/python"; chmod +x "$3/bin/python"'
    python = fake_python(clone, f'case "$*" in "-m venv "*) {make}; exit;; esac')
    shown = run(clone / 'requirements/install.sh', cwd=clone, check=False, PATH=str(programs), PYTHON=python).stdout
    assert "there is a GPU and no nvcc: mmcv's operators are built for the CPU only" in shown
    assert 'a ready wheel' in shown
    (programs / 'nvidia-smi').write_text('#!/bin/sh\nexit 9\n')
    shown = run(clone / 'requirements/install.sh', cwd=clone, check=False, PATH=str(programs), PYTHON=python).stdout
    assert 'Setting up' in shown
    assert 'nvcc' not in shown


def test_second_call_finds_it_done():
    if not (ROOT / '.venv/.installed').is_file():
        pytest.skip('this checkout was not set up by requirements/install.sh')
    assert run(ROOT / 'requirements/install.sh').stdout == ''


def test_commands_of_the_workflow():
    """The runner of GitHub has what they call, and runs the stacks of ``make test-matrix``, each with its Python."""
    jobs = yaml.safe_load((ROOT / '.github/workflows/test.yml').read_text())['jobs']
    commands = [step['run'] for job in jobs.values() for step in job['steps'] if 'run' in step]
    assert commands == ['.ci/run', 'make test-matrix STACKS=${{ matrix.stack }}']
    assert os.access(ROOT / '.ci/run', os.X_OK)
    makefile = (ROOT / 'Makefile').read_text()
    [targets] = re.findall(r'^\.PHONY: (.*)$', makefile, re.MULTILINE)
    assert {*re.findall(r'make ([\w-]+)', (ROOT / '.ci/run').read_text())} <= {*targets.split()}
    [stacks] = re.findall(r'^STACKS \?= (.*)$', makefile, re.MULTILINE)
    entries = {one['stack']: one['python'] for one in jobs['matrix']['strategy']['matrix']['include']}
    assert [*entries] == stacks.split()
    assert all(python == stack.partition('onedl-')[2] for stack, python in entries.items() if stack != 'openmmlab')


def test_build_context_of_the_images():
    """It has all that a clone has: .dockerignore, whose patterns begin at the top, names nothing that git holds."""
    patterns = (ROOT / '.dockerignore').read_text().split()
    excluded = [f'--exclude={"" if pattern.startswith("**") else "/"}{pattern}' for pattern in patterns]
    assert run('git', 'ls-files', '--cached', '--ignored', *excluded, cwd=ROOT).stdout == ''
    for name in ('Dockerfile', 'cpu.Dockerfile'):
        lines = (ROOT / 'docker' / name).read_text()
        assert re.search(r'^COPY \. \.\nRUN|^COPY \. \.$', lines, re.MULTILINE)
        assert re.search(r'^RUN .*requirements/install\.sh && rm -rf ~/\.cache$', lines, re.MULTILINE)
