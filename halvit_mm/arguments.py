"""Arguments of the wrong type or size, named where they come in and not where they fail."""

import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence

# Endings of the names of arguments that are sizes, and of those that are shares
SIZES = (
    '_dims',
    '_heads',
    '_channels',
    '_size',
    'num_blocks',
    'num_stages',
    'depth',
    'groups',
    'per_group',
    'expansion',
)
SIZES += ('stride', 'strides', 'dilation', 'dilations', 'interval')
SHARES = ('_drop', '_rate')
PARTS = ('norm_cfg', 'act_cfg', 'conv_cfg', 'dropout_layer')
# Refused by the class itself, with the reason
OWN = ('window_size', 'num_heads', 'groups', 'in_stride', 'out_strides')


def checked(init: Callable) -> Callable:
    """Let a constructor hold its arguments against its annotations before it runs.

    An ``int`` is no ``bool``; a ``float`` may be a whole number and is finite. Sizes, by the ending of their name, are
    at least 1, and shares lie from 0 to 1. A config of a part (``norm_cfg``, ``dropout_layer``) names its ``type``.

    Args:
        init (Callable): An annotated ``__init__``.

    Returns:
        Callable: The same, which raises a ``TypeError`` or a ``ValueError`` that names class, argument and value.
    """
    signature, hints = inspect.signature(init), typing.get_type_hints(init)

    @functools.wraps(init)
    def checking(self, *args, **kwargs) -> None:
        for name, value in signature.bind(self, *args, **kwargs).arguments.items():
            # The host's tests expect its own assertion for a dict of indices.
            if name == 'self' or (name == 'out_indices' and isinstance(value, Mapping)):
                continue
            place = f'{type(self).__name__}: {name}={value!r}'
            if not _fits(value, hints[name]):
                raise TypeError(f'{place} is no {_written(hints[name])}')
            for number in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(number, numbers.Integral) and number >= 2**31:
                    raise ValueError(f'{place} is too large')
                if isinstance(number, numbers.Real) and name.endswith(SIZES):
                    if number < 1 and name not in OWN:
                        raise ValueError(f'{place} is too small')
                elif isinstance(number, numbers.Real) and name.endswith(SHARES) and not 0 <= number <= 1:
                    raise ValueError(f'{place} is no share from 0 to 1')
            if (
                name in ('norm_cfg', 'act_cfg', 'conv_cfg', 'dropout_layer')
                and value is not None
                and 'type' not in value
            ):
                raise ValueError(f"{place} has no 'type'")
        init(self, *args, **kwargs)

    return checking


def _fits(value: object, hint: object) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if origin is tuple and inner[-1] is not Ellipsis:
        return isinstance(value, (tuple, list)) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin in (tuple, list, Sequence):
        return (
            isinstance(value, Sequence)
            and not isinstance(value, (str, bytes))
            and all(_fits(v, inner[0]) for v in value)
        )
    return isinstance(value, Mapping if hint is dict else hint)


def _written(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace('typing.', '')
