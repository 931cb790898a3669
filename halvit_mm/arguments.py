"""Checks of a constructor's arguments: an error names the class, the argument, its value and the expected value."""

from collections.abc import Callable, Mapping
from functools import partialmethod, wraps
from inspect import getfullargspec
from math import inf
from numbers import Integral, Real
from types import NoneType

from .errors import did_you_mean

SEQUENCES = (list, tuple, range)


class Expect:
    """Checks of arguments that are given by name: ``Expect(self).positive(depth=depth)``.

    A value of a wrong type raises a ``TypeError``. A wrong value of the right type raises a ``ValueError``. A whole
    number of more than 32 bits raises a ``ValueError`` too. A bool is not a number here.

    Args:
        owner (object): The object under construction; errors name its class.
    """

    def __init__(self, owner: object) -> None:
        self._owner = type(owner).__name__

    def instance(self, types: tuple, fault: str, expected: str, holds: Callable = lambda value: True, /, **arguments):
        """Refuse values of other types, and values for which ``holds`` is false."""
        for name, value in arguments.items():
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                error = TypeError
            elif not holds(value):
                error = ValueError
            elif isinstance(value, Integral) and abs(value) >= 2**31:
                error, fault, expected = ValueError, 'is not a number of 32 bits', 'one between -2**31 and 2**31'
            else:
                continue
            raise error(f'{self._owner}: {name}={value!r} {fault}; expected {expected}')

    whole = partialmethod(instance, (Integral,), 'is not a whole number', 'an int')
    positive = partialmethod(instance, (Integral,), 'is not a positive whole number', '1 or more', lambda n: n >= 1)
    number = partialmethod(instance, (Real,), 'is not a finite number', 'an int or a float', lambda x: abs(x) < inf)
    fraction = partialmethod(instance, (Real,), 'is not a fraction', '0 to 1', lambda x: 0 <= x <= 1)
    flag = partialmethod(instance, (bool,), 'is not a bool', 'True or False')
    string = partialmethod(instance, (str,), 'is not a string', 'a name in quotes')
    sequence = partialmethod(instance, SEQUENCES, 'is not a sequence', 'a list or a tuple')
    config = partialmethod(instance, (Mapping,), 'is not a config', 'a dict')
    init_cfg = partialmethod(instance, (Mapping, list, NoneType), 'is not a config', 'a dict, a list of dicts or None')

    def part(self, example: str, /, **arguments) -> None:
        """Refuse all but configs of a component (a norm, an activation), such as ``dict(type=example)``."""
        expected = f'a dict such as dict(type={example!r})'
        self.instance((Mapping,), "has no 'type'", expected, lambda value: 'type' in value, **arguments)

    def choice(self, choices: tuple[str, ...], /, **arguments) -> None:
        """Refuse all but these strings."""
        expected = f'one of {", ".join(map(repr, choices))}'
        self.instance((str,), 'is not a choice', expected, choices.__contains__, **arguments)

    def each(self, check: Callable, /, **arguments) -> None:
        """Apply another check to each value, or to each entry of a value that is a sequence."""
        for name, value in arguments.items():
            if isinstance(value, SEQUENCES):
                check(**{f'{name}[{i}]': entry for i, entry in enumerate(value)})
                continue
            try:
                check(**{name: value})
            except TypeError as error:
                raise TypeError(f'{error}, or a list of these') from None


def refuse_unknown_arguments(init: Callable, parent: type | None = None) -> Callable:
    """Let a constructor refuse a misspelled argument and name the nearest argument.

    Args:
        init (Callable): The ``__init__``.
        parent (type, optional): The class whose arguments ``init`` takes as ``**kwargs``. Defaults to None.

    Returns:
        Callable: The ``__init__``, which now raises a ``TypeError`` for a keyword that is not an argument.
    """
    specs = [getfullargspec(function) for function in ([init, parent.__init__] if parent else [init])]
    known = [name for spec in specs for name in spec.args[1:] + spec.kwonlyargs]

    @wraps(init)
    def refusing(self, *args, **kwargs) -> None:
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known) or f'there are {", ".join(known)}'
                raise TypeError(f'{type(self).__name__}: there is no argument {name!r}; {hint}')
        init(self, *args, **kwargs)

    return refusing
