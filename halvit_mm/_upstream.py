"""Make ourselves known to the hosts by name, without importing them.

- mmengine resolves ``package::path`` in ``_base_`` only for the packages in its ``MODULE2PACKAGE`` table, and in
  ``Config.fromfile`` for none.
- mmpretrain's ``get_model``, ``list_models`` and inferencers know the models in its ``ModelHub``.
- mmdet's inferencers know the models that ``BaseInferencer`` of mmengine finds in mmdet's metafiles.

Each is told of us as soon as, and only if, it is imported. An installed wheel carries a ``.pth`` file that imports
``halvit_mm`` (and with it only this module) when Python starts, so that all of it holds under the hosts' tools too.
"""

import sys
from collections.abc import Iterator
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

CLASSIFIERS = ('halvit', 'shared_resnet', 'tied', 'warm_start')
DETECTORS = ('mask_rcnn', 'retinanet')


def announce() -> None:
    """Tell the hosts of us, now or when they are first imported."""
    for name, tell in TOLD.items():
        if name in sys.modules:
            tell(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _enter_config_prefix(utils: ModuleType) -> None:
    utils.MODULE2PACKAGE.setdefault('halvit_mm', 'halvit_mm')


def _enter_config_files(config: ModuleType) -> None:
    of_host = config.Config.fromfile

    @wraps(of_host)
    def fromfile(filename, *args, **kwargs):
        package, prefix, path = str(filename).partition('::')
        return of_host(_root() / 'configs' / path if prefix and package == 'halvit_mm' else filename, *args, **kwargs)

    config.Config.fromfile = staticmethod(fromfile)


def _enter_classifiers(model: ModuleType) -> None:
    for metafile in _metafiles(CLASSIFIERS):
        model.ModelHub.register_model_index(metafile, config_prefix=_root())


def _enter_detectors(infer: ModuleType) -> None:
    of_host = infer.BaseInferencer._get_models_from_metafile

    def with_ours(folder: str) -> Iterator[dict]:
        yield from of_host(folder)
        package = Path(sys.modules['mmdet'].__path__[0]) if 'mmdet' in sys.modules else None
        if package and Path(folder) in (package / '.mim', package.parent):
            for metafile in _metafiles(DETECTORS):
                for model in infer.load(metafile)['Models']:
                    # The host joins it to its own folder, which an absolute path overrides.
                    yield {**model, 'Config': str(_root() / model['Config'])}

    infer.BaseInferencer._get_models_from_metafile = staticmethod(with_ours)


TOLD = {
    'mmengine.config.utils': _enter_config_prefix,
    'mmengine.config.config': _enter_config_files,
    'mmpretrain.apis.model': _enter_classifiers,
    'mmengine.infer.infer': _enter_detectors,
}


def _root() -> Path:
    """The folder that ``configs`` is in: in an installed package, and in a checkout that is only on the path."""
    package = Path(__file__).resolve().parent
    return package / '.mim' if (package / '.mim').is_dir() else package.parent


def _metafiles(families: tuple[str, ...]) -> list[Path]:
    return [_root() / 'configs' / family / 'metafile.yml' for family in families]


class _Finder(MetaPathFinder):
    """Finds the modules in ``TOLD`` as Python would, and has them told after they have run."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname not in TOLD:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, TOLD[fullname])
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, tell) -> None:
        self._loader = loader
        self._tell = tell

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._tell(module)
