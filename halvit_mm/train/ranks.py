"""Ranks without an accelerator, which mmengine cannot join by itself."""

import os
import subprocess
from datetime import timedelta

from mmengine.device import get_device
from mmengine.dist import init_dist
from torch import distributed as dist

from halvit_mm.errors import UserError


def join_ranks(launcher: str, dist_cfg: dict) -> None:
    """Join the process group of a run, over gloo on a machine without an accelerator.

    mmengine can only join with CUDA devices: it sets the current one. It leaves a group alone that exists already.

    Args:
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_cfg (dict): ``env_cfg.dist_cfg`` of the config: ``backend``, which is for GPUs, and ``timeout`` in seconds.

    Raises:
        UserError: If the launcher's variables are not there.
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
    """Config of the distributed wrapper of a model on CPU ranks.

    mmengine hands DistributedDataParallel the number of a CUDA device, where the config does not say otherwise.

    Args:
        model_wrapper_cfg (dict, optional): The config's own; it is left as it is.
        find_unused_parameters (bool): Of the config, for the default wrapper. Defaults to False.

    Returns:
        dict: The config, completed.
    """
    default = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=find_unused_parameters
    )
    return {'device_ids': None, **(model_wrapper_cfg or default)}


def _rendezvous_pytorch() -> None:
    if 'RANK' not in os.environ:
        raise UserError('--launcher pytorch, but no rank was started by torchrun; use tools/dist_train.sh')


def _rendezvous_slurm() -> None:
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.check_output(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], text=True)
        os.environ['MASTER_ADDR'] = hosts.split()[0]


def _rendezvous_mpi() -> None:
    os.environ['RANK'] = os.environ['OMPI_COMM_WORLD_RANK']
    os.environ['WORLD_SIZE'] = os.environ['OMPI_COMM_WORLD_SIZE']
    os.environ['LOCAL_RANK'] = os.environ['OMPI_COMM_WORLD_LOCAL_RANK']
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        raise UserError('--launcher mpi needs MASTER_ADDR, the address of the machine of rank 0')


_RENDEZVOUS = dict(pytorch=_rendezvous_pytorch, slurm=_rendezvous_slurm, mpi=_rendezvous_mpi)
