"""Ranks that die or hang, and machines that go and come back: torchrun's agents and ranks as processes."""

import subprocess
import time
from pathlib import Path

import pytest

from halvit_mm.io.checkpoints import find_latest_checkpoint, load_file
from tests.utils import ROOT, environment, free_port, kill_tree, run

CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports='tests.train.faults')
custom_hooks = {hooks!r}
model = dict(
    backbone=dict(arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=40)),
    head=dict(in_channels=24),
)
data = dict(data_root={root!r})
train_dataloader = dict(batch_size=8, dataset=dict(indices=80, **data))
val_dataloader = dict(dataset=dict(indices=16, **data))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters={iterations}, val_interval=1000)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=-1))
reliability = dict(hang_limit={limit}, not_finite='skip', bad_images='skip')
"""


@pytest.fixture
def config(digits_root, tmp_path):
    def config(*hooks: dict, iterations: int = 10, limit: float | None = None) -> Path:
        path = tmp_path / 'config.py'
        base = str(ROOT / 'configs/digits/halvit_2xb64_digits.py')
        hooks = [dict(type='Fault', **hook) for hook in hooks]
        path.write_text(
            CONFIG.format(base=base, hooks=hooks, root=str(digits_root), iterations=iterations, limit=limit)
        )
        return path

    return config


@pytest.mark.long
def test_ranks_that_die_and_hang(config, tmp_path):
    """A rank dies, and all start again from the last checkpoint; a loss is NaN on a rank; a rank stands still."""
    faults = (
        # not in iteration 5: rank 0 may still be writing the fourth's checkpoint until the ranks meet in the fifth
        dict(kind='die', iterations=[6], rank=1, once=str(tmp_path / 'once')),
        dict(kind='loss', iterations=[7], rank=1),
        dict(kind='stand', iterations=[9], rank=1),
    )
    path = config(*faults, limit=15)
    ended = run(
        *('tools/dist_train.sh', path, '2', '--work-dir', tmp_path / 'run', '--max-restarts', '1'),
        check=False,
        PYTHONPATH=str(ROOT),
    )
    assert ended.returncode == 2, ended.stdout
    assert 'resumed epoch: 0, iter: 4' in ended.stdout
    assert 'the loss is not finite (' in ended.stdout
    assert 'skipped_steps: 1' in ended.stdout
    assert 'error: rank 0: nothing has moved for 15 s (hang_limit); rank 1 gives no sign of life' in ended.stdout
    assert 'train_step' in ended.stdout  # where the other one stands
    assert ended.stdout.splitlines()[-1] == 'error: rank 0 ended with exit code 2; its output is above'
    assert step_of(tmp_path / 'run') == 8
    load_file(tmp_path / 'run/iter_8.pth')


@pytest.mark.long
def test_a_machine_that_goes_and_comes_back(config, tmp_path):
    """Two agents on the loopback, a rank each; the second is killed with all it started, and started anew."""
    path, work_dir, port = config(iterations=2000), tmp_path / 'run', str(free_port())

    def machine(number: int) -> subprocess.Popen:
        command = ['tools/dist_train.sh', str(path), '1', '--work-dir', str(work_dir), '--max-restarts', '3']
        log = open(tmp_path / f'{number}.log', 'a')  # noqa: SIM115 - the process writes to it
        variables = dict(NNODES='2', NODE_RANK=str(number), MASTER_ADDR='127.0.0.1', PORT=port)
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment(PYTHONPATH=str(ROOT)), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    machines = [machine(0), machine(1)]
    try:
        wait_for_checkpoint(work_dir, after=0, machines=machines)
        kill_tree(machines[1])
        last = step_of(work_dir)
        machines[1] = machine(1)
        wait_for_checkpoint(work_dir, after=last + 4, machines=machines)
    finally:
        for process in machines:
            kill_tree(process)
    logs = [(tmp_path / f'{number}.log').read_text() for number in (0, 1)]
    assert any('resumed epoch' in log for log in logs), logs


def step_of(work_dir: Path) -> int:
    path = find_latest_checkpoint(work_dir)
    return 0 if path is None else int(Path(path).stem.removeprefix('iter_'))


def wait_for_checkpoint(work_dir: Path, after: int, machines: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 240
    while step_of(work_dir) <= after:
        assert all(process.poll() is None for process in machines), 'a machine ended'
        assert time.monotonic() < deadline, f'no checkpoint after {after}'
        time.sleep(0.5)
