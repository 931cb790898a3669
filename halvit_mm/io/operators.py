"""The operators that mmcv compiles, such as RoIAlign and NMS, which detectors call."""

from collections.abc import Mapping
from importlib.metadata import packages_distributions


def lack_cuda() -> bool:
    """Whether there is a GPU, and mmcv's operators are compiled for the CPU only."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        from mmcv.ops import get_compiling_cuda_version
    except ImportError:
        return False  # There are no operators at all.
    return get_compiling_cuda_version() == 'not available'


def how_to_get_cuda() -> str:
    """What to do where :func:`lack_cuda` is true."""
    [package, *_] = packages_distributions().get('mmcv', ['onedl-mmcv'])
    return (
        f'the installation page of {package} has ready wheels with CUDA; where there is nvcc, MMCV_WITH_OPS=1 '
        f'FORCE_CUDA=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps {package} compiles '
        'them'
    )


def calls_operators(model: object) -> bool:
    """Whether the config of a model names NMS or the pooling of regions, which are operators of mmcv."""
    if isinstance(model, Mapping):
        return any(
            (value and (key == 'nms' or key.endswith('roi_extractor'))) or calls_operators(value)
            for key, value in model.items()
        )
    return isinstance(model, (list, tuple)) and any(map(calls_operators, model))
