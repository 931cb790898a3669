"""The processors of this machine, and those of each of its ranks."""

import os


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def loader_workers(most: int = 16) -> int:
    """Worker processes for the data loader of a rank: as many as its GPU, or the rank itself, has cores.

    ``num_workers=__import__('halvit_mm').loader_workers()`` is what this package's configs say. Images do not depend on
    the number (see :mod:`halvit_mm.train.seeds`).

    Args:
        most (int): The largest number. Defaults to 16.

    Returns:
        int: The cores of this process, divided by the ranks that torchrun or MPI has started on this machine; under
        Slurm the cores that were asked for each task.
    """
    variables = {name: os.environ.get(name, '') for name in ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE')}
    ranks = next((int(value) for value in variables.values() if value.isdigit()), 1)
    own = cores() // ranks
    if (asked := os.environ.get('SLURM_CPUS_PER_TASK', '')).isdigit():
        own = min(own, int(asked))
    return max(1, min(own, most))
