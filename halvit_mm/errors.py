"""Mistakes of the user, told in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can put right; the message names the value at fault and what would be right."""


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """End the process with exit code 2 and the message of a :class:`UserError`, told by the first rank only."""
    try:
        yield
    except UserError as error:
        ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
        if next((rank for rank in ranks if rank is not None), '0') == '0':
            print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
