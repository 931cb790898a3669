import atexit
import functools
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Two workers and the processes that they start share two cores: threads that wait for one another cost more than they
# give. Before torch is imported, which reads it.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# Where Python may write no bytecode, as containers often have it, each of a hundred processes compiles all of upstream
# anew, which takes longer than its import. The workers inherit the folder of the first process.
if os.environ.pop('PYTHONDONTWRITEBYTECODE', None):
    sys.pycache_prefix = os.environ['PYTHONPYCACHEPREFIX'] = tempfile.mkdtemp(prefix='bytecode')
    sys.dont_write_bytecode = False
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

import mmengine.config.utils
import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.registry import DefaultScope
from PIL import Image

from tests.stacks import STACKS, left_out
from tests.utils import ROOT

# What is compiled is compiled anew: Inductor's caches on disk do not tell one attention backend from another, and
# switching them off leaves some of them on.
os.environ['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'
os.environ['TORCHINDUCTOR_CACHE_DIR'] = tempfile.mkdtemp(prefix='inductor')
# Which vector instructions there are is read from the processor, without compiling a program for each.
os.environ['TORCHINDUCTOR_VEC_ISA_OK'] = '1'
atexit.register(shutil.rmtree, os.environ['TORCHINDUCTOR_CACHE_DIR'], ignore_errors=True)

# For each config that is inherited from a package upstream reads all of its metafiles, in a third of a second.
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)


def pytest_report_header() -> list[str]:
    return [f'left out, since {why}: {", ".join(names)}' for why, (holds, names) in STACKS.items() if holds]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A file that cannot even be imported on this stack."""
    inside = collection_path.is_relative_to(ROOT)
    return True if inside and left_out(collection_path.relative_to(ROOT).as_posix()) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each of two workers begin with half of the long tests, so that none is left over at the end."""
    config.hook.pytest_deselected(items=[item for item in items if left_out(item.nodeid)])
    items[:] = [item for item in items if not left_out(item.nodeid)]
    long = [item for item in items if item.get_closest_marker('long')]
    short = [item for item in items if not item.get_closest_marker('long')]
    half = len(short) // 2
    items[:] = long[::2] + short[:half] + long[1::2] + short[half:]


@pytest.fixture(autouse=True)
def _quiet_and_repeatable():
    """mmengine's reports on initialization would fill the log of a failure."""
    torch.manual_seed(0)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
    if '_dynamo' in vars(torch):  # torch 2.1 would import it
        torch.compiler.reset()


@pytest.fixture
def images(tmp_path):
    """A folder with two images, one of them in a folder of its own, and files that are none."""
    folder = tmp_path / 'images'
    (folder / 'more').mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for name, size in (('a.png', (8, 8)), ('more/b.png', (40, 60, 3)), ('cut.png', (50, 50, 3)), ('cut.jpg', (90, 90))):
        Image.fromarray(pixels.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    for name in ('cut.png', 'cut.jpg'):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / 'text.jpg').write_text('no image')
    (folder / 'empty.jpeg').touch()
    (folder / 'notes.txt').write_text('not looked at')
    return folder


@pytest.fixture
def mmdet_scope():
    """Models of mmdet's are built by names without a scope."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
