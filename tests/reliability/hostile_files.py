"""Load hostile and damaged checkpoints and images, each in a process of its own, and print what became of them.

    python -m tests.reliability.hostile_files [--write]

--write puts the table into docs/hostile_files.md.
"""

import argparse
import os
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import load_file, read_only_data
from halvit_mm.train.hooks.bad_images import CheckedDataset
from tests.reliability.files import DAMAGED, LOADED, MARK, REFUSED, checkpoints, images, write
from tests.utils import ROOT, put_between_marks

LIMIT = 60  # seconds that a file may take


def outcome_of_checkpoint(path: Path) -> str:
    try:
        load_file(path)
    except UserError as error:
        return REFUSED if 'carries code' in str(error) else DAMAGED
    return LOADED


def outcome_of_image(path: Path) -> str:
    Path('images.txt').write_text(f'{path} 0\n')
    dataset = CheckedDataset(
        dict(
            type='mmpretrain.CustomDataset',
            ann_file='images.txt',
            pipeline=[dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')],
        )
    )
    try:
        height, width = dataset[0]['inputs'].shape[1:]
    except UserError as error:
        return f'error: {error}'.replace(str(path), path.name)
    return f'read, {width} x {height}'


def in_a_process(function: Callable[[Path], str], path: Path) -> tuple[str, float]:
    """Call a function in a fork.

    Returns:
        tuple: What it returned, or how the process ended; and the seconds that it took.
    """
    start = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            os.write(writer, function(path).encode())
        except BaseException as error:
            os.write(writer, f'{type(error).__name__}: {error}'.encode()[:1000])
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], LIMIT)
    if not ready:
        os.kill(child, signal.SIGKILL)
    result = os.read(reader, 4096).decode() if ready else f'hung for {LIMIT} s'
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return result or f'crashed with {status}', time.monotonic() - start


def try_all(folder: Path, large: bool) -> tuple[list[list[str]], list[str]]:
    """Try every file in turn.

    Args:
        folder (Path): Folder to write to; the working folder from here on.
        large (bool): With the image of 20,000 x 20,000 pixels.

    Returns:
        tuple: Rows of a table, and what did not go as it should.
    """
    import mmpretrain.datasets  # noqa: F401 - once, and not in each process

    os.chdir(folder)
    read_only_data()
    rows, faults = [], []
    for kind, files, outcome in (
        ('checkpoint', checkpoints(), outcome_of_checkpoint),
        ('image', images(large), outcome_of_image),
    ):
        for what, name, content, expected in files:
            result, seconds = in_a_process(outcome, write(folder, name, content))
            if isinstance(expected, tuple):
                expected = f'read, {expected[1]} x {expected[0]}'
            executed = Path(MARK).exists()
            if expected not in result or executed:
                faults.append(f'{what}: {result}, and not: {expected}{", and it was executed" * executed}')
            rows.append([kind, what, result, f'{seconds:.1f}'])
    return rows, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help='put the table into docs/hostile_files.md')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as folder:
        rows, faults = try_all(Path(folder), large=True)
    table = markdown_table(['', 'file', 'result', 's'], rows)
    counts = {kind: sum(row[0] == kind for row in rows) for kind in ('checkpoint', 'image')}
    summary = (
        f'{counts["checkpoint"]} checkpoints and {counts["image"]} images: none executed, crashed or hung.'
        if not faults
        else f'{len(faults)} did not go as they should.'
    )
    print(table, '', summary, *faults, sep='\n')
    if args.write:
        put_between_marks(ROOT / 'docs/hostile_files.md', 'files', f'{table}\n\n{summary}')
    sys.exit(1 if faults else 0)


if __name__ == '__main__':
    main()
