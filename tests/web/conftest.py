"""Node.js with the packages of web/package-lock.json, and the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.utils import ROOT, run

WEB = ROOT / 'web'
LEAST_NODE = (20, 11)  # which web/package.json asks for


@pytest.fixture(scope='session')
def node() -> str:
    """Node.js; the modules of the page have no dependencies without the browser."""
    found = shutil.which('node')
    if found is None or shutil.which('npm') is None:
        pytest.skip('node and npm are not on PATH; expected Node.js 20.11 or newer')
    version = subprocess.check_output([found, '--version'], text=True).strip()
    if tuple(map(int, version.removeprefix('v').split('.')[:2])) < LEAST_NODE:
        pytest.skip(f'Node.js {version} is too old; expected 20.11 or newer')
    return found


@pytest.fixture(scope='session')
def browser(node) -> str:
    """Node.js with headless Chromium, which comes in a package of npm."""
    if not (WEB / 'node_modules/@sparticuz/chromium').exists():
        installed = run('npm', 'ci', '--no-audit', '--no-fund', cwd=WEB, check=False)
        if installed.returncode:
            pytest.skip(f'npm cannot install the browser: {installed.stdout.strip().splitlines()[-1]}')
    started = subprocess.run(
        [node, '--input-type=module', '--eval', START], cwd=WEB, capture_output=True, text=True, timeout=120
    )
    if started.returncode:
        reason = [line for line in started.stderr.splitlines() if line.strip()]
        pytest.skip(f'Chromium cannot be started here: {" ".join(reason)[:300]}')
    return node


START = """
import chromium from '@sparticuz/chromium'
import puppeteer from 'puppeteer-core'
const executablePath = await chromium.executablePath()
await (await puppeteer.launch({ executablePath, headless: 'shell', args: ['--no-sandbox'] })).close()
"""


@pytest.fixture(scope='session')
def site(browser, tmp_path_factory) -> Path:
    """The page as web/build.sh writes it, without a model."""
    folder = tmp_path_factory.mktemp('site')
    run(WEB / 'build.sh', folder)
    for model in (folder / 'models').iterdir():
        model.unlink()
    return folder
