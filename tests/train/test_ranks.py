import os

import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.train.ranks import join_ranks, wrapper_for_cpu


def test_a_wrapper_that_the_user_chose_is_completed():
    chosen = dict(type='MMDistributedDataParallel', find_unused_parameters=True)
    assert wrapper_for_cpu(chosen) == dict(**chosen, device_ids=None)
    assert 'device_ids' not in chosen
    default = wrapper_for_cpu(None, find_unused_parameters=True)
    assert default['find_unused_parameters']
    assert not default['broadcast_buffers']


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the ranks are left to mmengine')
def test_pytorch_launcher_without_ranks(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    join_ranks('none', {})
    with pytest.raises(UserError, match='is not a launcher without torchrun'):
        join_ranks('pytorch', {})


@pytest.fixture
def with_gpus(monkeypatch):
    """What a rank would join with on a machine with GPUs: its device, its variables, its group."""
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_JOB_ID', 'SLURM_STEP_ID'):
        monkeypatch.setenv(name, '')  # and taken back at the end
        monkeypatch.delenv(name)

    def join(launcher: str, gpus: int, variables: dict, **dist_cfg) -> dict:
        found = {}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr('halvit_mm.train.ranks.get_device', lambda: 'cuda')
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        monkeypatch.setattr(torch.cuda, 'set_device', lambda device: found.update(device=device))
        monkeypatch.setattr(torch.distributed, 'init_process_group', lambda **options: found.update(options))
        join_ranks(launcher, dict(backend='nccl', **dist_cfg))
        names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')
        return {**found, **{name.lower(): os.environ.get(name) for name in names}}

    return join


SLURM = dict(SLURM_PROCID='5', SLURM_LOCALID='1', SLURM_NTASKS='8', SLURM_JOB_ID='4711', MASTER_ADDR='10.0.0.1')


def test_slurm_with_one_gpu_for_each_task(with_gpus):
    """Each sees one GPU, number 0; without --gpus-per-task it sees all, and takes that of its number."""
    joined = with_gpus('slurm', 1, SLURM)
    assert (joined['device'], joined['local_rank']) == (0, '0')
    assert (joined['rank'], joined['world_size'], joined['backend']) == ('5', '8', 'nccl')
    assert with_gpus('slurm', 4, SLURM)['device'] == 1
    with pytest.raises(
        UserError, match='4 is not a number of ranks that this machine has GPUs for; expected at most 2'
    ):
        with_gpus('slurm', 2, {**SLURM, 'SLURM_LOCALID': '3'})


def test_the_port_follows_from_the_job(with_gpus, monkeypatch):
    ports = set()
    for job, step in (('4711', '0'), ('4711', '1'), ('4712', '0'), ('4713', '0')):
        monkeypatch.delenv('MASTER_PORT', raising=False)
        ports.add(with_gpus('slurm', 1, {**SLURM, 'SLURM_JOB_ID': job, 'SLURM_STEP_ID': step})['master_port'])
    assert len(ports) == 4
    assert all(20000 <= int(port) < 30000 for port in ports)
    assert with_gpus('slurm', 1, {**SLURM, 'MASTER_PORT': '29511'})['master_port'] == '29511'
    assert with_gpus('slurm', 1, SLURM, port=29512)['master_port'] == '29512'


def test_mpi_on_gpus(with_gpus):
    variables = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='4', OMPI_COMM_WORLD_LOCAL_RANK='1')
    # As upstream's tools set it for every rank
    joined = with_gpus('mpi', 2, {**variables, 'LOCAL_RANK': '0', 'MASTER_ADDR': '10.0.0.1'})
    assert joined['device'] == 1
    assert [joined[name] for name in ('rank', 'local_rank', 'world_size', 'master_port')] == ['3', '1', '4', '29500']


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_a_launcher_that_has_not_launched(with_gpus, launcher, monkeypatch):
    for name in ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=f'--launcher {launcher} is not a launcher without'):
        with_gpus(launcher, 1, {})
