"""Process groups, on GPUs and without an accelerator, where mmengine cannot join them."""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_main_process
from torch import distributed as dist

from halvit_mm.errors import UserError


def join_ranks(launcher: str, dist_cfg: dict, exchange: bool = True) -> None:
    """Join the process group of a run, over gloo on a machine without an accelerator.

    mmengine sets the current CUDA device when it joins a group, and keeps a group that exists already. It takes the
    number of a rank on its machine for that of its GPU. That is wrong where each rank sees one GPU of its own, as with
    ``--gpus-per-task=1`` of Slurm. Under MPI it does not tell the number to its runner.

    Args:
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_cfg (dict): ``env_cfg.dist_cfg`` of the config: ``backend``, which is for GPUs, and ``timeout`` in seconds.
        exchange (bool): Whether the ranks exchange tensors. If not, they communicate over gloo everywhere, and several
            may share a GPU. Defaults to True.

    Raises:
        UserError: If the launcher's environment variables are missing, or if the machine has no GPU for this rank.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    device = get_device()
    if launcher in ('slurm', 'mpi') and 'port' in dist_cfg:
        os.environ['MASTER_PORT'] = str(dist_cfg['port'])
    _RENDEZVOUS[launcher]()
    if device == 'cuda' and not exchange:
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
    elif device == 'cuda':
        os.environ['LOCAL_RANK'] = str(_gpu_of(int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()))
    if device != 'cpu' and exchange:
        init_dist('pytorch', **{name: value for name, value in dist_cfg.items() if name != 'port'})
        return
    timeout = dist_cfg.get('timeout')
    dist.init_process_group('gloo', **(dict(timeout=timedelta(seconds=timeout)) if timeout else {}))


def _gpu_of(local_rank: int, gpus: int) -> int:
    """The number of the GPU of a rank, which may see no other one."""
    if gpus == 1:
        return 0
    if local_rank >= gpus:
        raise UserError(
            f'{local_rank + 1} is not a number of ranks that this machine has GPUs for; expected at most {gpus}, or '
            'one GPU in sight of each rank'
        )
    return local_rank


def from_the_first_rank(function: Callable, *args):
    """Call a function on the first rank; return its result, or raise its :class:`UserError`, on every rank."""
    answer = [None, None]
    if is_main_process():
        try:
            answer[0] = function(*args)
        except UserError as error:
            answer[1] = error
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def wrapper_for_cpu(model_wrapper_cfg: dict | None, find_unused_parameters: bool = False) -> dict:
    """The config of a model's distributed wrapper, completed for CPU ranks.

    mmengine passes DistributedDataParallel the number of a CUDA device unless the config has ``device_ids``.

    Args:
        model_wrapper_cfg (dict, optional): The wrapper of the run's config; it is not changed.
        find_unused_parameters (bool): Option of the default wrapper. Defaults to False.
    """
    default = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=find_unused_parameters
    )
    return {'device_ids': None, **(model_wrapper_cfg or default)}


def _rendezvous_pytorch() -> None:
    if 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch is not a launcher without torchrun; expected tools/dist_train.sh, which starts it'
        )


def _rendezvous_slurm() -> None:
    if 'SLURM_PROCID' not in os.environ:
        raise UserError('--launcher slurm is not a launcher without srun; expected tools/slurm_train.sh, which runs it')
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']
    os.environ.setdefault('MASTER_PORT', _port_of_the_job())
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ['SLURM_NODELIST']
        machines = subprocess.check_output(['scontrol', 'show', 'hostnames', nodes], text=True)
        os.environ['MASTER_ADDR'] = machines.split()[0]


def _port_of_the_job() -> str:
    """A port that other jobs on the machine do not take, nor other steps of this job; 29500 outside of Slurm."""
    job, step = os.environ.get('SLURM_JOB_ID', ''), os.environ.get('SLURM_STEP_ID', '0')
    if not job.isdigit():
        return '29500'
    # Below the ports that Linux gives to connections
    return str(20000 + (7 * int(job) + (int(step) if step.isdigit() else 0)) % 10000)


def _rendezvous_mpi() -> None:
    if 'OMPI_COMM_WORLD_RANK' not in os.environ:
        raise UserError("--launcher mpi is not a launcher without Open MPI's mpirun; expected that, or dist_train.sh")
    os.environ['RANK'] = os.environ['OMPI_COMM_WORLD_RANK']
    os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
    os.environ['LOCAL_RANK'] = os.environ['OMPI_COMM_WORLD_LOCAL_RANK']
    os.environ.setdefault('MASTER_PORT', _port_of_the_job())
    if 'MASTER_ADDR' not in os.environ:
        raise UserError('--launcher mpi needs MASTER_ADDR, the address of the machine of rank 0')


_RENDEZVOUS = dict(pytorch=_rendezvous_pytorch, slurm=_rendezvous_slurm, mpi=_rendezvous_mpi)
