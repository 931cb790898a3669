"""Train variants of a config as processes and read what they reached."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from halvit_mm.errors import UserError


def train_variant(command: Sequence[str], work_dir: Path, options: Sequence[str] = ()) -> float:
    """Train and return the top-1 of the last validation; see :func:`train_curve`."""
    return [*train_curve(command, work_dir, options).values()][-1]


def train_curve(
    command: Sequence[str], work_dir: Path, options: Sequence[str] = (), **variables: str
) -> dict[int, float]:
    """Train and return the top-1 of every validation.

    Args:
        command (Sequence[str]): What trains, with the config: ``tools/dist_train.sh CONFIG RANKS``, or
            ``tools/train.py CONFIG`` for one process of one thread.
        work_dir (Path): Where the run goes; its output is kept in ``output.log``.
        options (Sequence[str]): ``KEY=VALUE``, merged into the config. Defaults to none.
        **variables (str): Of the environment, besides those of this process; ``PORT`` for ranks beside other ranks.

    Returns:
        dict[int, float]: The accuracy in percent by epoch.

    Raises:
        UserError: If the training fails.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [*command, '--work-dir', str(work_dir), *(['--cfg-options', *options] if options else [])]
    environment = {**os.environ, **variables}
    if command[0].endswith('.py'):
        command.insert(0, sys.executable)
        environment['OMP_NUM_THREADS'] = '1'
    with open(work_dir / 'output.log', 'w') as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment)
    if done.returncode:
        raise UserError(f'the training in {work_dir} failed; see {log.name}')
    scalars = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    records = map(json.loads, scalars.read_text().splitlines())
    return {record['step']: record['accuracy/top1'] for record in records if 'accuracy/top1' in record}
