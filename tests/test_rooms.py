"""The rooms of the package: what imports what, and what the building of a model imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils import ROOT, run

PACKAGE = ROOT / 'halvit_mm'
# From the ground up: a room imports from rooms before it only.
ROOMS = (
    'errors',
    '_upstream',
    '_torch',
    'registry',
    'arguments',
    'names',
    'layers',
    'timm',
    'io',
    'tying',
    'models',
    'data',
    'train',
    'cost',
    'deploy',
    'launch',
)
# Not code of a module of its own
WITHOUT_TEST = {'__init__.py', '__main__.py'}


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, at the top or later, by their full names."""
    package, found = path.relative_to(ROOT).parent.parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = '.'.join((*base, *filter(None, [node.module])))
            found |= {f'{module}.{alias.name}' for alias in node.names}
    return {name for name in found if name.startswith('halvit_mm.')}


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_runs_upwards(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if room not in ROOMS:  # __init__, _upstream, check_env
        return
    for name in imports(path):
        assert ROOMS.index(name.split('.')[1]) <= ROOMS.index(room), f'{path} imports {name}'


def test_no_circle_within_a_room():
    """Of modules, with the imports that are not at the top."""
    files = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path for path in PACKAGE.rglob('*.py')}
    arrows = {
        name: {target for one in imports(path) for target in (one, one.rpartition('.')[0]) if target in files}
        for name, path in files.items()
    }
    done, under_way = set(), []

    def visit(name: str) -> None:
        assert name not in under_way, ' -> '.join([*under_way, name])
        if name not in done:
            under_way.append(name)
            for target in arrows[name]:
                visit(target)
            done.add(under_way.pop())

    for name in files:
        visit(name)


def test_building_a_halvit_imports_layers_and_models_only(tmp_path):
    # mmpretrain imports SciPy for itself.
    code = (
        'import sys, mmpretrain.models\n'
        'before = {*sys.modules}\n'
        'from mmengine.registry import MODELS\n'
        "MODELS.build(dict(type='halvit_mm.HaLViT', arch='micro'))\n"
        'print(*({*sys.modules} - before))'
    )
    loaded = run(sys.executable, '-c', code, cwd=tmp_path).stdout.split()
    rooms = {name.split('.')[1] for name in loaded if name.startswith('halvit_mm.')}
    assert 'models' in rooms
    assert not rooms & {'tying', 'train', 'cost', 'deploy', 'launch', 'data'}
    assert not any(name.startswith('scipy') for name in loaded)


@pytest.mark.parametrize('room', ['errors', '_torch', 'arguments', 'names', 'layers', 'timm'])
def test_what_needs_no_package_of_openmmlab(room):
    """Only tests/timm/test_main.py shows that nothing else brings one in."""
    files = [file for file in PACKAGE.rglob('*.py') if file.relative_to(PACKAGE).parts[0].removesuffix('.py') == room]
    plain = [file for file in files if 'openmmlab' not in file.parts]
    assert plain
    for file in plain:
        assert not re.search(r'^ *(from|import) (mm\w+|halvit_mm.registry)\b', file.read_text(), re.MULTILINE), file


def test_every_module_has_its_tests_under_its_path():
    missing = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob('*.py')
        if path.name not in WITHOUT_TEST
        and not Path(ROOT, 'tests', path.relative_to(PACKAGE).parent, f'test_{path.name.lstrip("_")}').is_file()
    ]
    assert not missing


@pytest.mark.parametrize(
    ('pattern', 'home'),
    [
        (r'MODELS\.build(cfg\.model\|MODELS\.build(model)', {'io/build.py'}),
        (r'conv_transpose2d\|torch\.mm(\|torch\.addmm(', {'layers/shared.py'}),
        (r"'datasets'", {'io/datasets.py'}),
        (r'\.unplaced\|unexpected_keys', {'io/weights.py'}),
    ],
)
def test_each_decision_has_one_home(pattern, home):
    found = subprocess.run(['grep', '-rl', '--include=*.py', pattern, str(PACKAGE)], capture_output=True, text=True)
    assert {str(Path(path).relative_to(PACKAGE)) for path in found.stdout.split()} == home
