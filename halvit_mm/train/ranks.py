"""Ranks without an accelerator, which mmengine cannot join by itself."""

import os
import subprocess
from datetime import timedelta

from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed as dist

from halvit_mm.errors import UserError


def init_cpu_ranks(cfg: Config) -> None:
    """Join the process group of a run that was launched on a machine without an accelerator.

    mmengine can only join with CUDA devices: it sets the current one and hands their numbers to
    DistributedDataParallel. It leaves a group alone that exists already, and takes the wrapper's arguments
    from the config. With an accelerator nothing is done here.

    Args:
        cfg (Config): Config of the run; its ``model_wrapper_cfg`` is completed.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if not dist.is_initialized():
        _RENDEZVOUS[launcher]()
        dist_cfg = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
        dist_cfg['backend'] = 'gloo'
        timeout = dist_cfg.get('timeout')
        dist.init_process_group('gloo', timeout=timeout and timedelta(seconds=timeout))
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper


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
