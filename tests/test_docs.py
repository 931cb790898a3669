"""README and pages: each command is run by a test or says why not; links and quoted lines of code exist."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from halvit_mm.io.build import build_model
from tests.utils import ROOT, run, run_tool

PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *sorted(ROOT.glob('docs/**/*.md')),
]
# Pages whose blocks a test reads and runs, all of them
RUN_WHOLE = {'docs/own_data.md': 'tests/test_own_data.py'}
BLOCK = re.compile(r'^( *)```(\w+)\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
# What a line of a block runs: a script, a module, a target of make, or a name that is imported
COMMAND = re.compile(r'(?:tools|research)/(\w+)\.|python -m ([\w.]+)|make ([\w-]+)|import (\w+)')


@dataclass
class Block:
    """A block of code on a page.

    Attributes:
        page (str): Path of the page.
        language (str): What stands after the fence.
        text (str): The code, without its indentation.
        mark (str): The comment in the line before: ``not run: REASON``, ``run by TESTS``, ``run here`` or ``config``.
    """

    page: str
    language: str
    text: str
    mark: str


def blocks() -> list[Block]:
    found = []
    for path in PAGES:
        page = path.read_text()
        for match in BLOCK.finditer(page):
            indent, language, text = match.groups()
            mark = re.fullmatch(r' *<!-- (.*) -->', page[: match.start()].rstrip('\n').rpartition('\n')[2])
            text = ''.join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
            found.append(Block(str(path.relative_to(ROOT)), language, text, mark[1] if mark else ''))
    return found


BLOCKS = blocks()
COMMANDS = [block for block in BLOCKS if block.language in ('bash', 'python') and block.page not in RUN_WHOLE]
CONFIGS = [block for block in COMMANDS if block.mark == 'config']


@pytest.mark.parametrize('block', COMMANDS, ids=lambda block: f'{block.page}: {block.text.splitlines()[0][:50]}')
def test_each_command_is_run_or_says_why_not(block):
    kind, _, rest = block.mark.partition(' ')
    if block.mark in ('run here', 'config'):
        assert (block.page, block.language) == ('README.md', 'bash') or block in CONFIGS
    elif block.mark.startswith('not run: '):
        assert len(rest.split()) > 2, block
    else:
        assert kind == 'run', f'{block.page} has a block without a mark: {block.text}'
        tests = ''.join((ROOT / name).read_text() for name in rest.removeprefix('by ').split())
        commands = {next(filter(None, match)).rpartition('.')[2] for match in COMMAND.findall(block.text)}
        assert commands
        for command in commands:
            # The scripts dist_train.sh and dist_test.sh are thin: their Python tools may be run instead.
            assert re.search(rf'\b({command}|{command.removeprefix("dist_")})\b', tests), f'{block.mark}: no {command}'


@pytest.mark.parametrize('page', RUN_WHOLE)
def test_pages_that_a_test_runs_as_a_whole(page):
    assert page in (ROOT / RUN_WHOLE[page]).read_text()


@pytest.mark.parametrize('block', CONFIGS, ids=lambda block: f'{block.page}: {block.text.splitlines()[0][:50]}')
def test_configs_build(block, tmp_path):
    """Of a fragment, what it names; a paragraph on optimizers is read only."""
    (tmp_path / 'config.py').write_text(block.text)
    cfg = Config.fromfile(tmp_path / 'config.py')
    if 'type' in cfg.get('model', {}):
        assert build_model(cfg).backbone is not None
    elif 'model' in cfg:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            MODELS.build(cfg.model.backbone)
    else:
        assert cfg.optim_wrapper.paramwise_cfg


@pytest.fixture
def clone(tmp_path) -> Path:
    """What git holds, whose set-up is done: the environment of the tests."""
    names = run('git', 'ls-files', '--cached', '--others', '--exclude-standard').stdout.split()
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / '.venv').mkdir()
    wanted = subprocess.check_output(
        'cat requirements/*.txt requirements/install.sh setup.py | cksum', shell=True, cwd=tmp_path
    )
    (tmp_path / '.venv/.installed').write_bytes(wanted)
    return tmp_path


@pytest.mark.long
def test_commands_of_the_readme(clone):
    """As they are printed, with one epoch in place of a hundred."""
    demo, export = [block.text for block in BLOCKS if block.mark == 'run here']
    short = '--cfg-options train_cfg.max_epochs=1 param_scheduler=None'
    shown = run('bash', '-ec', demo, cwd=clone, timeout=500, PYTHONPATH=str(clone), DEMO_ARGS=short).stdout
    assert 'data/digits: 1437 images in train, 360 in val' in shown  # by tools/prepare_digits.py
    assert 'Distributed launcher: pytorch' in shown
    assert 'GPU number: 2' in shown
    top1 = json.loads((clone / 'work_dirs/demo/metrics.json').read_text())['accuracy/top1']
    # The same number in training and testing, and of all 360 images
    assert shown.count(f'accuracy/top1: {top1:.4f}') == 2
    assert (top1 * 3.6) == pytest.approx(round(top1 * 3.6), abs=1e-3)
    assert (
        f'halvit_mm.HaLViT: top-1 {top1:.2f} %, 360,682 parameters; its untied counterpart has 692,458 (0.52 times)'
        in shown
    )
    run('bash', '-ec', export, cwd=clone, PYTHONPATH=str(clone))
    assert (clone / 'digits.onnx').stat().st_size > 4 * 360_682


def test_the_readme_is_short_and_in_order():
    readme = (ROOT / 'README.md').read_text()
    assert len(readme.splitlines()) <= 150
    headings = re.findall(r'^## (.*)$', readme, re.MULTILINE)
    assert headings == ['What you save', 'Install', 'Five commands', 'Models', 'Read on']


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    """Anchors too, and pages that are made of docstrings, are checked by `make docs`."""
    for target in re.findall(r'\]\(([^)#\s]+)', path.read_text()):
        assert '://' in target or (path.parent / target).exists(), target


def test_quoted_lines_of_code_exist():
    lines = 0
    file = ''
    for row in (ROOT / 'docs/method.md').read_text().splitlines():
        if named := re.search(r'line in `([\w/]+\.py)` \|$', row):
            file = (ROOT / named[1]).read_text()
        elif quoted := re.search(r'`([^`]+)` \|$', row):
            assert quoted[1] in file, quoted[1]
            lines += 1
        elif not row.startswith('|'):
            file = ''
    assert lines == 9


def test_the_api_has_every_module():
    pages = ''.join(page.read_text() for page in ROOT.glob('docs/api/*.md'))
    for path in ROOT.glob('halvit_mm/**/*.py'):
        if not path.stem.startswith('_'):
            name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
            assert re.search(rf'^::: {name}(\._\w+)?$', pages, re.MULTILINE), name


TOOLS = sorted(path.name for path in (ROOT / 'tools').iterdir() if path.suffix in ('.py', '.sh'))


# export_onnx.py is export.py.
@pytest.mark.parametrize('tool', [name for name in TOOLS if name != 'export_onnx.py'])
def test_help_has_an_example_and_explains_each_option(tool):
    start = run_tool if tool.endswith('.py') else run
    lines = start(ROOT / 'tools' / tool, '--help', COLUMNS='120').stdout.splitlines()
    example = lines.index(next(line for line in lines if line.startswith('example')))
    assert f'tools/{tool}' in lines[example + 1]
    # Upstream explains the options of train.py and test.py.
    for i, line in enumerate(lines if tool not in ('train.py', 'test.py') else ()):
        if line.startswith('  -'):
            assert re.search(r'\S  +\S', line) or lines[i + 1].startswith(' ' * 20), line


def test_which_model_is_what_was_published():
    """The highest published top-1 at each number of bytes, and no row that does not exist."""
    rows = json.loads((ROOT / 'docs/published.json').read_text())['beyond']['rows']
    cells = {f'{r["method"]}, {r["params"] * r.get("bits", 32) / 8:.1f} MB, {r["top1"]}': r for r in rows}
    text = (ROOT / 'docs/which_model.md').read_text()
    lines = re.findall(r'^\| (\d+) \| (.+) \| (.+) \|$', text, re.MULTILINE)
    assert len(lines) == 6
    for limit, highest, ours in lines:
        fitting = {text: row for text, row in cells.items() if row['params'] * row.get('bits', 32) / 8 <= int(limit)}
        assert fitting[highest]['top1'] == max(row['top1'] for row in fitting.values())
        assert {*ours.split('; ')} <= {*fitting}
