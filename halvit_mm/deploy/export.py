"""Export a checkpoint to a file that is compared with the model."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from halvit_mm.cost import input_channels
from halvit_mm.errors import UserError, warn
from halvit_mm.io.build import load_model
from halvit_mm.io.datasets import walk_datasets

from .detector import DetectorNetwork
from .formats import check_network, check_target, open_size, read, write
from .network import Network, description, input_shape, load_network, missing_data, read_images
from .verify import compare, compare_boxes


def export(
    cfg: Config,
    checkpoint: str | None,
    path: Path,
    precision: str = 'fp32',
    shape: tuple[int, int] | None = None,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    external_data: bool = False,
    verify: int = 16,
    boxes: bool = False,
    attention: bool = False,
    calibrate: int = 512,
    say: Callable[[str], None] = print,
) -> None:
    """Write a model to a file and compare the two. The file gets its name only if they agree.

    Images come from the config's data if it exists. Otherwise they are noise, and a warning says so. The comparison
    takes the test split; the calibration of ``'int8'`` takes the training split. A file for any size is compared at
    sizes that are odd, smaller, larger and thin, too.

    Args:
        cfg (Config): Config of a classifier or a segmentor, or of a detector, of which backbone and neck are exported.
        checkpoint (str, optional): Its weights; None keeps them as they are drawn.
        path (Path): The file; its suffix is one of :data:`halvit_mm.deploy.formats.FORMATS`.
        precision (str): ``'fp32'``, ``'fp16'`` or ``'int8'``. Defaults to ``'fp32'``.
        shape (tuple[int, int], optional): Height and width of the images. Defaults to None, which means those of the
            test pipeline.
        dynamic_batch (bool): Whether the file takes any number of images. Defaults to False.
        dynamic_size (bool): Whether the file takes images of any size. Defaults to False.
        external_data (bool): Whether an ONNX graph's weights go into a file beside it. Defaults to False.
        verify (int): Number of images to compare on; 0 skips the comparison. Defaults to 16.
        boxes (bool): Whether a detector is exported as a whole, to boxes, scores, labels and masks of one image of one
            size: an ONNX file in single precision. Defaults to False.
        attention (bool): Whether the file of a classifier has the attention of its class token as a second output;
            see :class:`~halvit_mm.deploy.network.Network`. Defaults to False.
        calibrate (int): Number of images that ``'int8'`` is calibrated on. Defaults to 512.
        say (Callable[[str], None]): Receives progress messages. Defaults to ``print``.

    Raises:
        UserError: If the file cannot be written, if the weights are not the model's, if ``shape``, ``verify`` or
            ``calibrate`` are not sizes or numbers, or if the file differs too much. No file is left then.
    """
    if shape is not None and min(shape) < 1:
        raise UserError(
            f'--shape {shape[0]} {shape[1]} is not a size of images; expected a height and a width of 1 pixel or more'
        )
    if verify < 0:
        raise UserError(f'--verify {verify} is not a number of images; expected 0 or more')
    if calibrate < 1:
        raise UserError(f'--calibration-images {calibrate} is not a number of images; expected 1 or more')
    check_target(path, precision, dynamic_batch, dynamic_size, external_data, boxes, attention)
    if boxes and attention:
        raise UserError('--attention is for classifiers, and --boxes is of a detector; expected one of them')
    shape = shape or input_shape(cfg)
    network = DetectorNetwork(load_model(cfg, checkpoint), shape) if boxes else load_network(cfg, checkpoint, attention)
    check_network(network, path, precision, dynamic_batch, dynamic_size)
    calibration = None
    if precision == 'int8':
        calibration = _images(cfg, network, 'train_dataloader', calibrate, shape, say, 'calibrated')
    batches, others, channels = [], [], input_channels(network.model)
    if verify:
        tried = _images(cfg, network, 'test_dataloader', verify, shape, say, 'compared')
        batches, channels = [*tried.split(1)], tried.shape[1]
        if dynamic_batch:
            batches.append(tried[:3])
        if dynamic_size:
            others = [F.interpolate(tried[:1], size, mode='bilinear', antialias=True) for size in other_sizes(shape)]
    with torch.no_grad():
        expected = [_run(network.detect if boxes else network, images) for images in batches]
        expected_of_others = [_run(network, images) for images in others]
    # Two images for a dynamic batch: the exporter treats dimensions of 1 as fixed.
    example = torch.randn(2 if dynamic_batch else 1, channels, *shape)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's warnings of deprecations and of constants in a trace
        written = Path(folder, path.name)
        metadata = description(cfg, network, checkpoint)
        try:
            write(
                network, example, written, precision, dynamic_batch, dynamic_size, external_data, calibration, metadata
            )
        except Exception as error:
            if dynamic_size:
                raise UserError(
                    f'--dynamic-size: this model cannot be written to {path.suffix} for any size; leave it out: '
                    f'{_reason(error)}'
                ) from error
            raise UserError(f'{path} cannot be written in {precision}: {_reason(error)}') from error
        if batches:
            run = _runner(written, path)
            difference = (
                compare_boxes(expected, run, batches) if boxes else compare(expected, run, batches, network.task)
            )
            if boxes and difference.agreement is None:
                warn(f'no box was compared: the model finds none in {verify} images; expected a trained model')
            difference.check(str(path), precision)
            say(f'{difference.images} images: {difference}')
            for outputs, images in zip(expected_of_others, others, strict=True):
                difference = compare([outputs], run, [images], None)  # of one image, whose top-1 may be close
                size = f'{images.shape[2]} x {images.shape[3]}'
                difference.check(f'--dynamic-size: {path}, for an image of {size},', precision)
                say(f'an image of {size}: {difference}')
        if path.suffix == '.pt2' and dynamic_size:
            say(f'{path} takes {open_size(written)}')
        for file in Path(folder).iterdir():
            os.replace(file, path.with_name(file.name))
            say(f'{path.with_name(file.name)}: {path.with_name(file.name).stat().st_size / 1e6:.2f} MB')


def other_sizes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes to try a file for any size at: odd, smaller, larger, and thin in both directions.

    None is a whole number of patches: the remainder is what files have been wrong at.
    """
    h, w = shape
    return [
        (h + 7, w + 1),
        (h // 2 + 1, w // 2 + 3),
        (h + h // 4 + 1, w + w // 4 + 5),
        (h // 4 + 1, 2 * w + 1),
        (2 * h + 1, w // 4 + 1),
    ]


def _images(
    cfg: Config,
    network: Network,
    loader: str,
    number: int,
    shape: tuple[int, int],
    say: Callable[[str], None],
    purpose: str,
) -> Tensor:
    """Images of a data loader, or noise and a warning."""
    if (missing := missing_data(cfg, loader)) is None:
        found = read_images(cfg, network.model, loader, number, shape)
        [(_, first), *_] = walk_datasets(cfg[loader])
        say(f'{len(found)} images of {shape[0]} x {shape[1]} from {first.get("data_root") or first["type"]}')
        return found
    warn(
        f'the file is {purpose} on {number} images of noise, since {missing} does not exist; expected images of the '
        f'config in {loader}'
    )
    return torch.randn(number, input_channels(network.model), *shape, generator=torch.Generator().manual_seed(0))


def _run(network: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
    try:
        return network(images)
    except Exception as error:
        raise UserError(
            f'the model itself does not take images of shape {tuple(images.shape)}; expected what it was built for in '
            f'--shape, and --dynamic-size only where it takes any size: {_reason(error)}'
        ) from error


def _runner(written: Path, path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What runs a file that will be named ``path``."""

    def fail(error: Exception, with_what: str) -> UserError:
        reason = _reason(error).replace(str(written), path.name)
        return UserError(f'{path} cannot be run{with_what}, and nothing was written: {reason}')

    try:
        run = read(written)
    except Exception as error:
        raise fail(error, '') from error

    def run_or_say(images: Tensor) -> tuple[Tensor, ...]:
        try:
            return run(images)
        except Exception as error:
            raise fail(error, f' on images of shape {tuple(images.shape)}') from error

    return run_or_say


def _reason(error: Exception) -> str:
    # torch.onnx's own errors are advice for torch's developers; what went wrong is their cause.
    while type(error).__module__.startswith('torch.onnx') and error.__cause__ is not None:
        error = error.__cause__
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
