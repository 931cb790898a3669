"""Start the ranks of a training or a test with torchrun."""

import argparse
import os
import signal
import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from halvit_mm.errors import UserError
from halvit_mm.io.cores import cores

from .command import parse_command


def check_ranks(ranks: int, node_rank: int, master_addr: str, port: int) -> None:
    """Raise a :class:`UserError` if this machine has fewer GPUs than ranks, or if the rendezvous port is taken."""
    if ranks < 1:
        raise UserError(f'{ranks} is not a number of ranks; expected at least 1')
    gpus = torch.cuda.device_count()
    if 0 < gpus < ranks:
        raise UserError(
            f'{ranks} is not a number of ranks that this machine has GPUs for; expected at most {gpus}, or '
            "CUDA_VISIBLE_DEVICES='' for CPU ranks"
        )
    if node_rank == 0:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('', port))
            except OSError as error:
                raise UserError(
                    f'port {port} on {master_addr} cannot be used ({error.strerror}); expected a free one, such as '
                    f'PORT={port + 1}'
                ) from None


def main(argv: list[str]) -> None:
    """Check what can be checked, then start the ranks with torchrun.

    ``NNODES``, ``NODE_RANK``, ``MASTER_ADDR`` and ``PORT`` are read from the environment; their defaults are one
    machine and port 29500.

    Args:
        argv (list[str]): The tool (``.../train.py`` or ``.../test.py``), the number of ranks on this machine, then
            the tool's own arguments, the config first.

    Raises:
        UserError: If the ranks cannot be started, if one of them fails, or if the tool would refuse its config.
    """
    if len(argv) < 3:
        raise UserError(
            'too few arguments; usage: dist_train.sh CONFIG GPUS [...] or dist_test.sh CONFIG CHECKPOINT GPUS [...]'
        )
    script, ranks, *tool_argv = argv
    restarts, tool_argv = _take_max_restarts(tool_argv)
    try:
        ranks, nnodes, node_rank, port = map(
            int, (ranks, *(os.environ.get(*pair) for pair in (('NNODES', 1), ('NODE_RANK', 0), ('PORT', 29500))))
        )
    except ValueError as error:
        raise UserError(f'{error}; expected whole numbers for GPUS, NNODES, NODE_RANK and PORT') from None
    master_addr = os.environ.get('MASTER_ADDR', '127.0.0.1')

    tool = Path(script).stem
    command = parse_command(tool, tool_argv)
    if restarts:
        if tool != 'train' or command.args.resume not in (None, 'auto'):
            raise UserError(
                '--max-restarts is not an option of a test or of --resume FILE; expected a training, which it resumes '
                'from the last checkpoint of its work_dir'
            )
        if command.args.resume is None:
            tool_argv.append('--resume')
    check_ranks(ranks, node_rank, master_addr, port)
    # What is imported for the checks takes hundreds of MB, and this process stays beside the ranks.
    with ProcessPoolExecutor(1, mp_context=get_context('fork')) as process:
        process.submit(_check, tool, tool_argv, nnodes * ranks).result()

    if not torch.cuda.is_available():
        os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cores() // ranks)))
    if restarts:
        # Restarted machines meet at the first machine's port, and restarted ranks at a new port each time: a store kept
        # from the attempt before has the addresses of dead ranks.
        os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
        meeting = [
            '--rdzv-backend=c10d',
            f'--rdzv-endpoint={master_addr}:{port}',
            f'--rdzv-id={port}',
            f'--rdzv-conf=is_host={int(node_rank == 0)}',
        ]
    else:
        meeting = [f'--node-rank={node_rank}', f'--master-addr={master_addr}', f'--master-port={port}']
    try:
        torchrun(
            [
                f'--nnodes={nnodes}',
                *meeting,
                f'--nproc-per-node={ranks}',
                f'--max-restarts={restarts}',
                script,
                *tool_argv,
                '--launcher=pytorch',
            ]
        )
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f'exit code {failure.exitcode}'
        if failure.exitcode < 0:
            how = f'signal {-failure.exitcode} ({signal.strsignal(-failure.exitcode)})'
        raise UserError(f'rank {rank} ended with {how}; its output is above') from None


def _check(tool: str, argv: list[str], ranks: int) -> None:
    from .checks import check_run

    command = parse_command(tool, argv)
    check_run(command.cfg, tool, command.args, ranks)


def _take_max_restarts(argv: list[str]) -> tuple[int, list[str]]:
    """Take torchrun's one argument out of the tool's arguments."""
    parser = argparse.ArgumentParser(prog='dist_train.sh', add_help=False, allow_abbrev=False)
    parser.add_argument('--max-restarts', type=int, default=0)
    args, others = parser.parse_known_args(argv)
    if args.max_restarts < 0:
        raise UserError(f'--max-restarts {args.max_restarts} is not a number of restarts; expected 0 or more')
    return args.max_restarts, others
