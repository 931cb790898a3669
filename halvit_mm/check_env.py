"""Check whether this environment can run halvit_mm: ``python -m halvit_mm.check_env [--quiet]``.

It prints versions and devices, and each fault with its remedy. It exits with 1 if there is a fault.
"""

import argparse
import importlib
import logging
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

# Import name: the packages that bring it, by the extra that installs them
PACKAGES = {
    'mmengine': {'onedl': ('onedl-mmengine',), 'openmmlab': ('mmengine',)},
    # mmcv-lite is mmcv without operators.
    'mmcv': {'onedl': ('onedl-mmcv',), 'openmmlab': ('mmcv', 'mmcv-lite')},
    'mmpretrain': {'onedl': ('onedl-mmpretrain',), 'openmmlab': ('mmpretrain',)},
    'mmdet': {'onedl': ('onedl-mmdetection',), 'openmmlab': ('mmdet',)},
    'mmseg': {'onedl': ('onedl-mmsegmentation',), 'openmmlab': ('mmsegmentation',)},
}
FAMILIES = dict(onedl='OneDL', openmmlab='OpenMMLab')
# Without mmdet everything but detection works, and without mmseg everything but segmentation.
OPTIONAL = {'mmdet', 'mmseg'}
# What is imported only when a model is built, a training is started, or a result is drawn
OURS = ('tying', 'models', 'train', 'launch.checks', 'deploy.infer')
Find = Callable[[str], str | None]


def installed(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def family(find: Find = installed) -> str | None:
    """The extra whose packages are installed; None if none is, or some of both."""
    found = {one for packages in PACKAGES.values() for one, names in packages.items() if any(map(find, names))}
    return found.pop() if len(found) == 1 else None


def timm_alone(find: Find = installed) -> bool:
    """Whether timm is installed and no package of OpenMMLab: all that ``halvit_mm.timm`` needs."""
    upstream = [name for packages in PACKAGES.values() for names in packages.values() for name in names]
    return bool(find('timm')) and not any(map(find, upstream))


def install(extra: str | None) -> str:
    """How to install upstream's packages of a family."""
    return f"in a clone of halvit_mm, pip install '.[{extra}]' (docs/get_started.md has the steps before it)"


def check_python() -> str | None:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return f'Python {sys.version.split()[0]} is not supported: make an environment with Python 3.10, 3.11 or 3.12'
    return None


def check_families(find: Find = installed) -> list[str]:
    """Find upstream packages that are missing, installed twice, or from both families.

    Args:
        find (Callable): Returns the version of an installed distribution, or None. Defaults to :func:`installed`.

    Returns:
        list[str]: The faults.
    """
    if timm_alone(find):
        return []
    faults = []
    for name, packages in PACKAGES.items():
        found = [package for names in packages.values() for package in names if find(package)]
        if len(found) > 1:
            faults.append(
                f'{" and ".join(found)} are installed over each other, and {name} is a mixture of both: '
                f'pip uninstall -y {" ".join(found)} and install one of them again'
            )
    sides = {one: [name for name, packages in PACKAGES.items() if any(map(find, packages[one]))] for one in FAMILIES}
    if not faults and all(sides.values()):
        come = ' and '.join(f'{", ".join(names)} from {FAMILIES[one]}' for one, names in sides.items())
        faults.append(f'{come} do not fit each other: install all of them from one family, in a new environment')
    missing = [
        name
        for name, packages in PACKAGES.items()
        if name not in OPTIONAL and not any(find(package) for names in packages.values() for package in names)
    ]
    extra = family(find) or 'onedl'
    return faults + [f'{name} is not installed: {install(extra)}' for name in missing]


def requirements(extra: str) -> list[str]:
    """What this package requires with one of its extras."""
    try:
        lines = requires('halvit_mm') or []
    except PackageNotFoundError:
        # A checkout on the path
        folder = Path(__file__).parents[1] / 'requirements'
        files = [folder / f'{name}.txt' for name in ('runtime', extra)]
        return [line for file in files if file.is_file() for line in file.read_text().splitlines() if line[:1] != '#']
    return [line for line in lines if ' extra ' not in line or f'"{extra}"' in line]


def check_versions(find: Find = installed) -> list[str]:
    """Find packages whose version is not one that this package is for."""
    extra = 'timm' if timm_alone(find) else family(find)
    if extra is None:
        return []
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    faults = []
    for requirement in map(Requirement, filter(None, requirements(extra))):
        names = [requirement.name, 'mmcv-lite'] if requirement.name == 'mmcv' else [requirement.name]
        for name in names:
            found = find(name)
            if found and not requirement.specifier.contains(found, prereleases=True):
                faults.append(
                    f'{name} {found} is not a version that halvit_mm is for; expected {requirement.specifier}: '
                    f"pip install '{name}{requirement.specifier}'"
                )
    return faults


def check_import(name: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(name)
    except Exception as error:
        advice = dict(
            torch='install torch as its site says for your CUDA version',
            torchvision='install the torchvision that belongs to your torch, of the same kind (CPU or CUDA)',
        ).get(name, f'reinstall the package that brings {name}')
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        return f'import {name} fails ({reason}): {advice}'
    return None


def check_numpy() -> str | None:
    """torch of before 2.3 was compiled with NumPy 1, imports beside NumPy 2, and then takes no array."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.zeros(1).numpy()
    except RuntimeError as error:
        return (
            f'torch {torch.__version__} does not work with NumPy {installed("numpy")} ({error}): pip install "numpy<2"'
        )
    return None


def check_operators() -> str | None:
    mmcv = (
        'onedl-mmcv'
        if family(installed) == 'onedl'
        else f'mmcv=={installed("mmcv") or installed("mmcv-lite") or "2.1.0"}'
    )
    compile_again = (
        'with "setuptools>=77,<81", ninja and psutil installed beside torch, run MMCV_WITH_OPS=1 pip install '
        f'--no-build-isolation --no-cache-dir --force-reinstall --no-deps {mmcv}'
    )
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
        if installed('mmcv-lite'):
            compile_again = f'pip uninstall -y mmcv-lite; then, {compile_again}'
        return f'mmcv has no compiled operators (mmcv._ext), and detection will fail: {compile_again}'
    except Exception as error:
        reason = str(error).splitlines()[0]
        return f'mmcv._ext does not load ({reason}); it was compiled against another torch: {compile_again}'
    return None


def check_cuda_operators() -> str | None:
    from halvit_mm.io.operators import how_to_get_cuda, lack_cuda

    if lack_cuda():
        return (
            f"mmcv's operators are compiled for the CPU only, and detection on the GPU will fail: {how_to_get_cuda()}"
        )
    return None


def check_transformers() -> str | None:
    found = installed('transformers')
    if found and int(found.split('.')[0]) >= 5:
        return (
            f'transformers {found} breaks the import of mmpretrain.models: pip install "transformers<5", or remove it'
        )
    return None


def find_faults() -> list[str]:
    """Run all checks; return each fault with its remedy."""
    faults = [check_python(), *check_families(), *check_versions(), check_transformers()]
    found = [name for name, packages in PACKAGES.items() if any(map(installed, sum(packages.values(), ())))]
    imports = {name: check_import(name) for name in ('torch', 'torchvision', *found)}
    if imports['torch'] is None:
        imports['numpy'] = check_numpy()
    if imports.get('mmcv', 'absent') is None and (installed('mmcv-lite') is None or 'mmdet' in found):
        imports['mmcv._ext'] = check_operators()
        faults.append(check_cuda_operators())
    core = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmpretrain')
    # Where these fail, what imports them repeats their fault.
    if not any(imports.get(name, 'absent') for name in core):
        inside = ['mmpretrain.models', *(f'halvit_mm.{room}' for room in OURS)]
        if 'mmdet' in found and imports.get('mmcv._ext') is None:
            inside.append('mmdet.models')
        inside += ['mmseg.models'] if 'mmseg' in found else []
        imports |= {name: check_import(name) for name in inside}
    if timm_alone() and not any(imports.values()):
        imports['halvit_mm.timm'] = check_import('halvit_mm.timm')
    return [fault for fault in (*faults, *imports.values()) if fault]


def describe() -> list[str]:
    """Versions and devices, a line each."""
    lines = [f'Python {sys.version.split()[0]}']
    upstream = [name for packages in PACKAGES.values() for names in packages.values() for name in names]
    packages = ['halvit_mm', 'torch', 'torchvision', *upstream]
    for package in (*packages, 'numpy', 'opencv-python-headless', 'timm', 'transformers', 'onnx', 'onnxruntime'):
        if found := installed(package):
            lines.append(f'{package} {found}')
    try:
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        lines.append(f'CUDA devices: {", ".join(devices) if devices else "none; training runs on CPU ranks"}')
        lines.append(f'CPU threads: {torch.get_num_threads()}')
    except ImportError:
        pass
    if timm_alone():
        return [
            *lines,
            "OpenMMLab's packages: none; timm's models work without them (docs/timm.md), and nothing else does",
        ]
    lite = ' (mmcv-lite has none; detection needs mmcv)' if installed('mmcv-lite') else ''
    lines.append(f'mmcv._ext: {"does not load" if check_operators() else "loads"}{lite}')
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quiet', action='store_true', help='print faults only')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if not args.quiet:
        print('\n'.join(describe()))
    faults = find_faults()
    for fault in faults:
        print(f'fault: {fault}', file=sys.stderr)
    if not faults and not args.quiet:
        print('No faults found.')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
