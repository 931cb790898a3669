"""Make ``halvit_mm::`` a config prefix that mmengine knows, without importing mmengine.

mmengine resolves ``package::path`` only for the packages in its ``MODULE2PACKAGE`` table. The table is
filled here as soon as, and only if, mmengine is imported. An installed wheel carries a ``.pth`` file that
imports ``halvit_mm`` (and with it only this module) when Python starts, so that a user's own config may
inherit from ours under the hosts' tools too.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_TABLE_MODULE = 'mmengine.config.utils'


def announce() -> None:
    """Enter ``halvit_mm`` into mmengine's table of packages, now or when mmengine is first imported."""
    if _TABLE_MODULE in sys.modules:
        _enter(sys.modules[_TABLE_MODULE])
    elif not any(isinstance(finder, _TableFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TableFinder())


def _enter(table_module: ModuleType) -> None:
    table_module.MODULE2PACKAGE.setdefault('halvit_mm', 'halvit_mm')


class _TableFinder(MetaPathFinder):
    """Finds the table's module as Python would, and has it filled after it has run."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname != _TABLE_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TableLoader(spec.loader)
        return spec


class _TableLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _enter(module)
