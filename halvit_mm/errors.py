"""Mistakes of the user, and warnings, reported in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right; the message names the value at fault and what would be right."""


class RankError(UserError):
    """An error that one rank met and the others did not."""


def warn(message: str) -> None:
    """Print a warning in one line on the standard error, on rank 0 only."""
    if _rank() in (None, '0'):
        print(f'warning: {message}', file=sys.stderr, flush=True)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with exit code 2 and the message of a :class:`UserError`.

    All ranks meet the same error, and rank 0 prints it. The rank that met a :class:`RankError` prints that one.
    """
    try:
        yield
    except UserError as error:
        rank = _rank()
        if isinstance(error, RankError) and rank is not None:
            print(f'error: rank {rank}: {error}', file=sys.stderr, flush=True)
        elif rank in (None, '0'):
            print(f'error: {error}', file=sys.stderr, flush=True)
        sys.exit(2)


def _rank() -> str | None:
    """The number that torchrun, Slurm or MPI gave to this process."""
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank is not None), None)
