"""What differs between the versions of torch that this package runs with, from 2.1 on.

Each function has the meaning that today's torch gives to its name. No other module asks for torch's version.
"""

import os
import pickle
import zipfile
from _codecs import encode
from _compat_pickle import IMPORT_MAPPING
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import torch
from torch import nn

from .errors import UserError

# Within dynamo's graphs only; before 2.3 nothing tells them apart, and what is asked for here changes no result.
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)
is_dynamo_compiling = getattr(torch.compiler, 'is_dynamo_compiling', lambda: False)
is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def require(version: str, what: str) -> None:
    """Raise a :class:`UserError` if torch is older than a version that something needs.

    Args:
        version (str): The version, such as ``'2.7'``.
        what (str): What needs it, for the message.
    """
    if torch.__version__ < version:
        raise UserError(f'{what} needs torch {version} or newer; this is torch {torch.__version__}')


def unfused_attention() -> AbstractContextManager:
    """Compute ``scaled_dot_product_attention`` as products and a softmax."""
    if torch.__version__ < '2.3':
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one that has this name in a model."""
    owner, _, own_name = name.rpartition('.')
    setattr(model.get_submodule(owner), own_name, module)


def custom_op(name: str, fake: Callable) -> Callable[[Callable], Callable]:
    """Make a function that changes no argument an operator of torch; before 2.4 the function stays as it is.

    Args:
        name (str): ``'namespace::name'``.
        fake (Callable): The function for tensors without values.
    """

    def register(function: Callable) -> Callable:
        if torch.__version__ < '2.4':
            return function
        operator = torch.library.custom_op(name, function, mutates_args=())
        operator.register_fake(fake)
        return operator

    return register


def keep_products() -> tuple[AbstractContextManager, AbstractContextManager]:
    """What ``checkpoint`` takes as ``context_fn`` to keep what matrix products return.

    Before torch 2.4 this keeps nothing more: all products but the last of a function are done twice.
    """
    if torch.__version__ < '2.4':
        return nullcontext(), nullcontext()
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    # Where a device has a kernel of its own for linear, no product stands below linear.
    products = [getattr(torch.ops.aten, name).default for name in ('mm', 'addmm', 'linear')]
    return create_selective_checkpoint_contexts(products)


class ListedTypesUnpickler(pickle._Unpickler):
    """Reads a pickle that holds nothing but what a list allows, where torch's own reader takes no list.

    It is Python's reader, so it knows operations that torch's refuses. None of them reaches what is not on the list,
    and none changes a class or a function.

    Attributes:
        listed (dict): The types and functions by full name, besides those on torch's list.
    """

    listed: dict[str, Callable] = {
        '_codecs.encode': encode,
        'builtins.bytearray': bytearray,
        'builtins.complex': complex,
        'builtins.set': set,
        'collections.Counter': Counter,
        'torch.device': torch.device,
    }
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Callable:
        name = f'{IMPORT_MAPPING.get(module, module)}.{name}'
        known = torch._weights_only_unpickler._get_allowed_globals() | self.listed
        dtype = getattr(torch, name.removeprefix('torch.'), None)
        if isinstance(dtype, torch.dtype):
            return dtype
        if name not in known:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {name.removeprefix("builtins.")}')
        return known[name]

    def load_build(self) -> None:
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(f'Can only build objects, but got {self.stack[-2]}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def add_safe_globals(items: list) -> None:
    """Add types and functions to those that ``torch.load(..., weights_only=True)`` reads.

    Args:
        items (list): Types and functions, or pairs of one and its full name in a file.
    """
    if torch.__version__ >= '2.6':
        torch.serialization.add_safe_globals(items)
        return
    pairs = [item if isinstance(item, tuple) else (item, f'{item.__module__}.{item.__qualname__}') for item in items]
    ListedTypesUnpickler.listed |= {name: item for item, name in pairs}
    torch.serialization._weights_only_unpickler = SimpleNamespace(
        **{
            **vars(torch._weights_only_unpickler),
            'Unpickler': ListedTypesUnpickler,
            'load': lambda file, **options: ListedTypesUnpickler(file, **options).load(),
        }
    )


def opens_as_program(path: str | os.PathLike) -> bool:
    """Whether ``torch.load(path, weights_only=True)`` would load a TorchScript program instead of refusing it."""
    if torch.__version__ >= '2.6' or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('/constants.pkl') for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
