"""Mistakes of the user, reported in one line."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """Something that the user can put right; the message names the value at fault and what would be right."""


class RankError(UserError):
    """An error that one rank met and the others did not."""


DEBUG = 'HALVIT_MM_DEBUG'


def _rank() -> str | None:
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank is not None), None)


def warn(message: str) -> None:
    """Print a line that begins with ``warning:``, once: not again on the ranks that torchrun starts."""
    if 'RANK' not in os.environ and _rank() in (None, '0'):
        print(f'warning: {message}', file=sys.stderr, flush=True)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """A question for the nearest of the known names; empty if none is near.

    Upper and lower case count for less than other letters.

    Args:
        name (str): What was given.
        known (Iterable[str]): What there is; of a mapping, the value of the nearest key is asked for.
        cutoff (float): Least likeness, 0 to 1. Defaults to 0.7.
    """
    folded = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    near = get_close_matches(name.casefold(), folded, 1, cutoff)
    if not near:
        return ''
    one = folded[near[0]]
    return f'did you mean {known[one] if isinstance(known, dict) and isinstance(known[one], str) else one!r}?'


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with exit code 2 and the message of a :class:`UserError`.

    All ranks meet the same error, and rank 0 prints it. The rank that met a :class:`RankError` prints that one. With
    ``HALVIT_MM_DEBUG=1`` in the environment the traceback comes before.
    """
    try:
        yield
    except UserError as error:
        rank = _rank()
        if isinstance(error, RankError) and rank is not None:
            prefix = f'error: rank {rank}'
        elif rank in (None, '0'):
            prefix = 'error'
        else:
            sys.exit(2)
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f'{prefix}: {error}', file=sys.stderr, flush=True)
        sys.exit(2)
