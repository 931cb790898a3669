"""The components that a config names, held against the registries before any of them is built."""

import ast
import inspect
import logging
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import chain
from types import NoneType

import mmengine.registry
from mmengine.logging import MMLogger
from mmengine.registry import Registry
from mmengine.utils import ManagerMixin

from halvit_mm._upstream import UPSTREAM
from halvit_mm.errors import UserError, did_you_mean

# Packages whose classes hand on a config with a ``type`` to a registry. What a user's class does with one is its own.
HOSTS = ('halvit_mm', 'mmcv', 'mmengine', 'torch', *UPSTREAM)
# Arguments whose ``type`` is of another list: an operation of mmcv's, a module for LoRA, a transform of Albumentations'
NO_COMPONENT = ('nms', 'roi_layer', 'targets', 'Albu.transforms', 'Albumentations.transforms')
PARTS = ('backbone', 'neck', 'head')
# Keys that a builder takes out before the constructor sees the rest
TAKEN = dict(
    hook={'priority'},
    param_scheduler={'convert_to_iter_based', 'epoch_length'},
    norm={'requires_grad'},
    initializer={'override', 'name'},
)


def check_components(cfg: object, key: str, scope: str, registry: str | None = None, arguments: bool = True) -> None:
    """Refuse a part of a config if it names a class that no registry has, or an argument that a class does not take.

    An argument is refused only where that is certain: of a class that takes others (``**kwargs``), and does more with
    them than to hand them to its base class, all are let through.

    Args:
        cfg (object): A dict, a list of such, or any other value of the config.
        key (str): Its key in the whole config.
        scope (str): The ``default_scope``.
        registry (str, optional): Name of the registry in mmengine's root, such as ``'MODELS'``, which has the class.
            Defaults to None, which means any.
        arguments (bool): Whether to hold the other keys of ``cfg`` against the class. Defaults to True. If not, ``key``
            is that of the class's name.

    Raises:
        UserError: At the first that is not there. The message has the key and the nearest name.
    """
    with quiet():
        _walk(cfg, key, scope, registry, (), arguments)


def _walk(
    cfg: object, key: str, scope: str, registry: str | None, owners: tuple[Callable, ...], check: bool = True
) -> None:
    if isinstance(cfg, (list, tuple)):
        for i, item in enumerate(cfg):
            _walk(item, f'{key}.{i}', scope, registry, owners, check)
    elif not isinstance(cfg, Mapping):
        part = bool(owners) and key.endswith(PARTS) and all(map(_of_a_host, owners))
        if isinstance(cfg, (str, int, float)) and (part or registry):
            raise UserError(f'{key}={cfg!r} is not the config of a component; expected dict(type=...)')
    if not isinstance(cfg, Mapping):
        return
    scope = cfg.get('_scope_') or scope
    kind = cfg.get('type')
    if kind is not None:
        found = [kind] if callable(kind) else candidates(kind, scope, registry) if isinstance(kind, str) else []
        if not found:
            hint = _broken_models(scope) or _suggest(kind, scope, registry)
            # What a class does with a config is its own matter: it may mean another thing by ``type``.
            if not owners or (hint and all(map(_of_a_host, owners)) and kind not in words(owners)):
                where = f'{key}.type' if check else key
                raise UserError(
                    f'{where}={kind!r} is not a registered class; {hint or f"expected one that {scope} has"}'
                )
            return
        if any(one.__module__.endswith('utils.dependency') for one in found if hasattr(one, '__module__')):
            return  # mmpretrain's stand-in for a class whose requirements are not installed; it tells when it is built
        if check:
            _check_arguments(cfg, key, found, owners)
        owners = (*owners, *found)
    for name, value in cfg.items():
        if name not in ('type', '_scope_', *NO_COMPONENT) and f'{kind}.{name}' not in NO_COMPONENT:
            _walk(value, f'{key}.{name}', scope, None, owners)


def _check_arguments(cfg: Mapping, key: str, found: list[Callable], owners: tuple[Callable, ...]) -> None:
    """Refuse an argument that none of the classes takes, and that no class around them may take out before."""
    last = key.rstrip('.0123456789').rpartition('.')[2]
    taken = {'type', '_scope_'} | next((keys for word, keys in TAKEN.items() if word in _role(key, last)), set())
    known = [arguments_of(one) for one in found]
    for name in cfg:
        if name in taken or any(names is None or name in names for names in known):
            continue
        if name not in words(owners):
            hint = did_you_mean(name, known[0]) or f'there are {", ".join(known[0])}'
            raise UserError(f'{key}.{name} is not an argument of {found[0].__name__}; {hint}')


def _package(kind: Callable) -> str:
    return getattr(kind, '__module__', '').partition('.')[0]


def _of_a_host(kind: Callable) -> bool:
    return _package(kind) in HOSTS


def words(kinds: tuple[Callable, ...]) -> set[str]:
    """The strings in the code of classes, and of their base classes."""
    modules = {one.__module__ for kind in kinds for one in getattr(kind, '__mro__', [kind])}
    return set().union(*map(_words_of, modules))


@cache
def _words_of(module: str) -> set[str]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError):
        return set()
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _role(key: str, last: str) -> str:
    """What a component at this key is to the builder, in a word that :data:`TAKEN` knows."""
    if last.startswith('norm') or last.endswith('norm_cfg'):
        return 'norm'
    if 'init_cfg' in key:
        return 'initializer'
    return 'hook' if key.startswith(('default_hooks', 'custom_hooks')) else key


def candidates(name: str, scope: str, registry: str | None = None) -> list[Callable]:
    """What a name stands for in the registries that are reached from a scope.

    Args:
        name (str): A name, which may begin with another scope (``'mmdet.ResNet'``) or be that of a module's class.
        scope (str): The scope.
        registry (str, optional): Name of one registry in mmengine's root. Defaults to None, which means any.
    """
    found = []
    for one in _registries(scope, registry):
        try:
            kind = one.get(name)
        except Exception:  # RuntimeError of mmengine 0.10.12, None of 0.10.7, whatever an import raises
            continue
        if kind is not None and not any(kind is other for other in found):
            found.append(kind)
    return found


def _registries(scope: str, name: str | None = None) -> Iterator[Registry]:
    """The registries that mmengine's builders use in a scope."""
    for root_name, root in _roots().items():
        if name in (None, root_name):
            with root.switch_scope_and_registry(scope) as registry:
                yield registry
    if name is None:
        # Those without a root, such as mmpretrain's BATCH_AUGMENTS
        for one in vars(_registry_module(scope)).values() if _registry_module(scope) else ():
            if isinstance(one, Registry) and one.parent is None:
                yield one


def _roots() -> dict[str, Registry]:
    return {name: one for name, one in vars(mmengine.registry).items() if isinstance(one, Registry)}


@cache
def _registry_module(scope: str) -> object | None:
    try:
        return import_module(f'{scope}.registry')
    except ImportError:
        return None


def _suggest(name: object, scope: str, registry: str | None) -> str:
    """The question for the nearest name of a class, with its scope where it has another; empty if none is near."""
    if not isinstance(name, str):
        return ''
    scopes = [scope, *(other for other in ('halvit_mm', 'mmpretrain', 'mmdet', 'mmengine') if other != scope)]
    known = {}
    for one in scopes:
        if _registry_module(one) or one == 'mmengine':
            for place in _registries(one, registry):
                try:
                    place.import_from_location()
                except ImportError:  # mmdet beside an mmcv without operators
                    continue
                front = '' if place.scope in (scope, 'mmengine') else f'{place.scope}.'
                for entry in place.module_dict:
                    known.setdefault(entry, f'{front}{entry}')
    return did_you_mean(name.rpartition('.')[2], known)


def _broken_models(scope: str) -> str:
    """Why the models of a package cannot be imported, which mmengine passes over; empty if they can be."""
    try:
        import_module(f'{scope}.models')
    except ImportError as error:
        if error.name not in (scope, f'{scope}.models'):
            return f'{scope}.models cannot be imported: {error}'
    return ''


@contextmanager
def quiet() -> Iterator[None]:
    """Without what registries log of their search."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
        # An MMLogger keeps what was disabled until a level is set: the training after a check would warn of nothing.
        logger = MMLogger.get_current_instance()
        logger.setLevel(logger.level)


@cache
def arguments_of(kind: Callable) -> dict[str, NoneType] | None:
    """Names of the keyword arguments that a class or a function takes; None if it may take others."""
    names, owners = {}, [kind]
    if inspect.isclass(kind):
        owners = list(kind.__mro__)
        if issubclass(kind, ManagerMixin):
            names['name'] = None
        if '__new__' in chain(*map(vars, owners[:-1])):
            return None
    while owners:
        owner = owners.pop(0)
        init = vars(owner).get('__init__') if inspect.isclass(kind) else owner
        if init is None:
            continue
        if _package(init) == 'halvit_mm':
            init = inspect.unwrap(init)  # of :func:`halvit_mm.arguments.refuse_unknown_arguments`
        try:
            parameters = inspect.signature(init, follow_wrapped=False).parameters.values()
        except (TypeError, ValueError):
            return None
        names |= dict.fromkeys(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            names.pop('self', None)
            return names
        base = _handed_to(init, *rest) if inspect.isclass(kind) else None
        if base is None:
            return None
        # ``super(Base, self)`` passes over Base.
        while base and owners and owner.__name__ != base:
            owner = owners.pop(0)
    return None


def _handed_to(init: Callable, rest: str) -> str | None:
    """Where a constructor gives its ``**rest``, if that is all that it does with them.

    Returns:
        str, optional: ``''`` for ``super().__init__``, ``'Base'`` for ``super(Base, self).__init__``; None for anything
        else.
    """
    if hasattr(init, '__wrapped__'):  # as mmcv does, to rename arguments
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError, TypeError):
        return None
    given = {}
    for call in ast.walk(tree):
        match = isinstance(call, ast.Call) and re.fullmatch(r'super\((\w*).*\)\.__init__', ast.unparse(call.func))
        if match:
            given |= {id(argument.value): match[1] for argument in call.keywords if argument.arg is None}
    uses = [id(node) for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    bases = {given.get(use) for use in uses}
    return bases.pop() if len(bases) == 1 else None
