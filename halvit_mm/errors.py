"""Mistakes of the user, reported in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right; the message names the value at fault and what would be right."""


class RankError(UserError):
    """An error that one rank met and the others did not."""


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with exit code 2 and the message of a :class:`UserError`.

    All ranks meet the same error, and rank 0 prints it. The rank that met a :class:`RankError` prints that one.
    """
    try:
        yield
    except UserError as error:
        ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
        rank = next((rank for rank in ranks if rank is not None), None)
        if isinstance(error, RankError) and rank is not None:
            print(f'error: rank {rank}: {error}', file=sys.stderr, flush=True)
        elif rank in (None, '0'):
            print(f'error: {error}', file=sys.stderr, flush=True)
        sys.exit(2)
