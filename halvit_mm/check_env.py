"""Check whether this environment can run halvit_mm: ``python -m halvit_mm.check_env [--quiet]``.

It prints versions and devices, and each fault with its remedy. It exits with 1 if there is a fault.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

# Import name: (OneDL's maintained package, OpenMMLab's package)
PACKAGES = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
}
# Without mmdet everything but detection works.
OPTIONAL = {'mmdet', 'transformers'}


def installed(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_python() -> str | None:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return f'Python {sys.version.split()[0]} is not supported: make an environment with Python 3.10, 3.11 or 3.12'
    return None


def check_families(find: Callable[[str], str | None] = installed) -> list[str]:
    """Find upstream packages that are missing, installed twice, or from both families.

    Args:
        find (Callable): Returns the version of an installed distribution, or None. Defaults to :func:`installed`.

    Returns:
        list[str]: The faults.
    """
    faults = []
    maintained = [name for name, (onedl, _) in PACKAGES.items() if find(onedl)]
    original = [name for name, (_, openmmlab) in PACKAGES.items() if find(openmmlab)]
    for name in sorted({*maintained} & {*original}):
        faults.append(
            f'{" and ".join(PACKAGES[name])} are installed over each other, and {name} is a mixture of both: '
            f'pip uninstall -y {" ".join(PACKAGES[name])} and install one of them again'
        )
    if not faults and maintained and original:
        faults.append(
            f'{", ".join(maintained)} come from OneDL and {", ".join(original)} from OpenMMLab: install all of them '
            "from one family (pip install 'halvit_mm[onedl]' or 'halvit_mm[openmmlab]' in a new environment)"
        )
    for name, packages in PACKAGES.items():
        if name not in OPTIONAL and not any(map(find, packages)):
            faults.append(f"{name} is not installed: pip install 'halvit_mm[onedl]'")
    return faults


def check_import(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:
        advice = dict(
            torch='install torch as its site says for your CUDA version',
            torchvision='install the torchvision that belongs to your torch, of the same kind (CPU or CUDA)',
        ).get(name, f'reinstall the package that brings {name}')
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        return f'import {name} fails ({reason}): {advice}'
    return None


def check_operators() -> str | None:
    compile_again = (
        'with "setuptools>=77,<81", ninja and psutil installed beside torch, run MMCV_WITH_OPS=1 pip install '
        '--no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv'
    )
    try:
        importlib.import_module('mmcv._ext')
    except ModuleNotFoundError:
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
    faults = [check_python(), *check_families(), check_transformers()]
    modules = ['torch', 'torchvision', *(name for name, packages in PACKAGES.items() if any(map(installed, packages)))]
    imports = {name: check_import(name) for name in modules}
    faults += imports.values()
    if imports.get('mmcv', 'absent') is None:
        faults += check_operators(), check_cuda_operators()
    return [fault for fault in faults if fault]


def describe() -> list[str]:
    """Versions and devices, a line each."""
    lines = [f'Python {sys.version.split()[0]}']
    packages = ['halvit_mm', 'torch', 'torchvision', *(name for pair in PACKAGES.values() for name in pair)]
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
    lines.append(f'mmcv._ext: {"does not load" if check_operators() else "loads"}')
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quiet', action='store_true', help='print faults only')
    args = parser.parse_args()
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
