"""Make this package known to upstream by name, without importing upstream.

- mmengine resolves ``package::path`` in ``_base_`` for the packages in its ``MODULE2PACKAGE`` table.
- mmpretrain's ``get_model``, ``list_models`` and inferencers know the models in its ``ModelHub``.
- mmdet's and mmseg's inferencers know the models that ``BaseInferencer`` of mmengine finds in the package's metafiles.

Each of the three is extended once it and ``halvit_mm`` are both imported. One line that upstream prints is left out.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .errors import UserError, did_you_mean

# Copies in a wheel; in a checkout, links to the folders of the same name.
MIM = Path(__file__).parent / '.mim'
# The packages that a config can belong to, by its ``default_scope``: the first if it has none
UPSTREAM = ('mmpretrain', 'mmdet', 'mmseg')
# The folders in configs/ whose metafiles have the models of each
FAMILIES = dict(
    mmpretrain=('halvit', 'shared_resnet', 'tied', 'warm_start'),
    mmdet=('mask_rcnn', 'retinanet'),
    mmseg=('upernet', 'segmenter'),
)


def config_path(name: str, package: str = 'halvit_mm') -> str:
    """Find a config that a package carries.

    ``_base_ = __import__('halvit_mm').config_path('halvit/halvit-tiny_8xb128_in1k.py')`` inherits a config of this
    package under any tool, because mmengine evaluates the expression after ``_base_``.

    Args:
        name (str): Its path in the package's folder ``configs``.
        package (str): The package. Defaults to ``'halvit_mm'``.

    Returns:
        str: Its absolute path.

    Raises:
        UserError: If the package or the config does not exist; the message has the nearest names.
    """
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        hint = did_you_mean(package, ('halvit_mm', *UPSTREAM)) or 'expected halvit_mm or another that has configs'
        raise UserError(f'{package!r} is not an installed package; {hint}')
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    if not (folder / name).is_file():
        names = [path.relative_to(folder).as_posix() for path in folder.rglob('*.py')]
        nearest = ', '.join(get_close_matches(name, names, cutoff=0)) or f'a file in {folder}, which has none'
        raise UserError(f'{name!r} is not a config of {package}; expected one such as {nearest}')
    return str(folder / name)


def announce() -> None:
    """Extend the modules in ``EXTENSIONS``, now or when they are first imported."""
    for name, extend in EXTENSIONS.items():
        if name in sys.modules:
            extend(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _enter_config_prefix(utils: ModuleType) -> None:
    # mmengine looks for a distribution of this name before it looks for a module. The distribution may be another copy
    # than the imported one. No distribution has this module's name.
    utils.MODULE2PACKAGE['halvit_mm'] = __name__
    # OneDL's table has OpenMMLab's distribution, mmsegmentation. The name of the module stands for both.
    utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def _enter_classifiers(model: ModuleType) -> None:
    for metafile in _metafiles('mmpretrain'):
        model.ModelHub.register_model_index(metafile, config_prefix=MIM)


def _enter_models(infer: ModuleType) -> None:
    upstream = infer.BaseInferencer._get_models_from_metafile

    def with_ours(folder: str) -> Iterator[dict]:
        yield from upstream(folder)
        for name in UPSTREAM[1:]:
            package = Path(sys.modules[name].__path__[0]) if name in sys.modules else None
            if package is None or Path(folder) not in (package / '.mim', package.parent):
                continue
            for metafile in _metafiles(name):
                for model in infer.load(metafile)['Models']:
                    # The package joins this path to its own folder; an absolute path overrides the folder.
                    yield {**model, 'Config': str(MIM / model['Config'])}

    infer.BaseInferencer._get_models_from_metafile = staticmethod(with_ours)


EXTENSIONS = {
    'mmengine.config.utils': _enter_config_prefix,
    'mmpretrain.apis.model': _enter_classifiers,
    'mmengine.infer.infer': _enter_models,
}


def _metafiles(package: str) -> list[Path]:
    return [MIM / 'configs' / family / 'metafile.yml' for family in FAMILIES[package]]


# OneDL's packages print at the import of these what they mean to log for those who debug.
NOISY = {
    *('mmpretrain.datasets', 'mmdet.datasets', 'mmdet.datasets.transforms'),
    *('mmseg.datasets', 'mmseg.datasets.transforms'),
}
NOISE = 'Could not import OneDL'


class _Finder(MetaPathFinder):
    """Finds the modules in ``EXTENSIONS`` and ``NOISY`` as Python does, and extends the former after they have run."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in {*EXTENSIONS, *NOISY} else None
        if spec is not None:
            run = spec.loader.exec_module

            def run_and_extend(module: ModuleType) -> None:
                printed = io.StringIO()
                try:
                    with redirect_stdout(printed) if fullname in NOISY else nullcontext():
                        run(module)
                finally:
                    lines = printed.getvalue().splitlines(keepends=True)
                    sys.stdout.write(''.join(line for line in lines if not line.startswith(NOISE)))
                EXTENSIONS.get(fullname, lambda module: None)(module)

            spec.loader.exec_module = run_and_extend
        return spec
