"""Process groups without an accelerator, which mmengine cannot join."""

import os
import subprocess
from datetime import timedelta

from mmengine.device import get_device
from mmengine.dist import init_dist
from torch import distributed as dist

from halvit_mm.errors import UserError


def join_ranks(launcher: str, dist_cfg: dict) -> None:
    """Join the process group of a run, over gloo on a machine without an accelerator.

    mmengine sets the current CUDA device when it joins a group, and keeps a group that exists already.

    Args:
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_cfg (dict): ``env_cfg.dist_cfg`` of the config: ``backend``, which is for GPUs, and ``timeout`` in seconds.

    Raises:
        UserError: If the launcher's environment variables are missing.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    if get_device() != 'cpu':
        init_dist(launcher, **dist_cfg)
        return
    _RENDEZVOUS[launcher]()
    timeout = dist_cfg.get('timeout')
    dist.init_process_group('gloo', **(dict(timeout=timedelta(seconds=timeout)) if timeout else {}))


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
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        machines = subprocess.check_output(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], text=True)
        os.environ['MASTER_ADDR'] = machines.split()[0]


def _rendezvous_mpi() -> None:
    os.environ['RANK'] = os.environ['OMPI_COMM_WORLD_RANK']
    os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
    os.environ['LOCAL_RANK'] = os.environ['OMPI_COMM_WORLD_LOCAL_RANK']
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        raise UserError('--launcher mpi needs MASTER_ADDR, the address of the machine of rank 0')


_RENDEZVOUS = dict(pytorch=_rendezvous_pytorch, slurm=_rendezvous_slurm, mpi=_rendezvous_mpi)
