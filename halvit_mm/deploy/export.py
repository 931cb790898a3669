"""Export a checkpoint to a file that is compared with the model."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config

from halvit_mm.cost import input_channels
from halvit_mm.errors import UserError
from halvit_mm.io.datasets import walk_datasets

from .formats import check_target, read, write
from .network import description, input_shape, load_network, missing_data, read_images
from .verify import compare

CALIBRATION_IMAGES = 512


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
    say: Callable[[str], None] = print,
) -> None:
    """Write a model to a file and compare the two. The file gets its name only if they agree.

    Images come from the config's data if it exists, and are noise otherwise. The comparison takes the test split; the
    calibration of ``'int8'`` takes the training split.

    Args:
        cfg (Config): Config of a classifier, or of a detector, of which backbone and neck are exported.
        checkpoint (str, optional): Its weights; None keeps them as they are drawn.
        path (Path): The file; its suffix is one of :data:`halvit_mm.deploy.formats.FORMATS`.
        precision (str): ``'fp32'``, ``'fp16'`` or ``'int8'``. Defaults to ``'fp32'``.
        shape (tuple[int, int], optional): Height and width of the images. Defaults to None, which means those of the
            test pipeline.
        dynamic_batch (bool): Whether the file takes any number of images. Defaults to False.
        dynamic_size (bool): Whether the file takes images of any size. Defaults to False.
        external_data (bool): Whether an ONNX graph's weights go into a file beside it. Defaults to False.
        verify (int): Number of images to compare on; 0 skips the comparison. Defaults to 16.
        say (Callable[[str], None]): Receives progress messages. Defaults to ``print``.

    Raises:
        UserError: If the file cannot be written, if the weights are not the model's, or if the file differs too much.
            No file is left then.
    """
    check_target(path, precision, dynamic_batch, dynamic_size, external_data)
    shape = shape or input_shape(cfg)
    network = load_network(cfg, checkpoint)
    channels = input_channels(network.model)

    def images(loader: str, number: int) -> torch.Tensor:
        if (missing := missing_data(cfg, loader)) is None:
            found = read_images(cfg, network.model, loader, number, shape)
            [root, *_] = [dataset.get('data_root') for _, dataset in walk_datasets(cfg[loader])]
            say(f'{len(found)} images of {shape[0]} x {shape[1]} from {root}')
            return found
        say(f'{number} images of noise, since {missing} does not exist')
        return torch.randn(number, channels, *shape, generator=torch.Generator().manual_seed(0))

    calibration = images('train_dataloader', CALIBRATION_IMAGES) if precision == 'int8' else None
    tried = images('test_dataloader', verify) if verify else None
    # Two images for a dynamic batch: the exporter treats dimensions of 1 as fixed.
    example = torch.randn(2 if dynamic_batch else 1, channels, *shape)
    batches = [] if tried is None else [*tried.split(1)]
    if batches and (dynamic_batch or dynamic_size):
        # Another number or size than the example's
        other = tried[:3] if dynamic_batch else tried[:1]
        if dynamic_size:
            other = F.interpolate(other, (tried.shape[-2] + 64, tried.shape[-1] + 32), mode='bilinear')
        batches.append(other)
    with torch.no_grad():
        expected = [network(images) for images in batches]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's warnings of deprecations and of constants in a trace
        written = Path(folder, path.name)
        metadata = description(cfg, network.model)
        write(network, example, written, precision, dynamic_batch, dynamic_size, external_data, calibration, metadata)
        if batches:
            try:
                difference = compare(expected, read(written), batches, not network.detector)
            except Exception as error:
                reason = ' '.join(str(error).split())[:300]
                raise UserError(f'{path} cannot be run, and nothing was written: {reason}') from error
            difference.check(str(path), precision)
            say(f'{difference.images} images: {difference}')
        for file in Path(folder).iterdir():
            os.replace(file, path.with_name(file.name))
            say(f'{path.with_name(file.name)}: {path.with_name(file.name).stat().st_size / 1e6:.2f} MB')
