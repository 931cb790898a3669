"""The part of a model that is exported, and its images."""

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn

from halvit_mm.cost import is_detector
from halvit_mm.errors import UserError
from halvit_mm.io.build import load_model
from halvit_mm.io.datasets import class_names, local_files, test_pipeline, walk_datasets, with_pipeline


class Network(nn.Module):
    """The part of a model that takes and returns tensors only.

    Args:
        model (nn.Module): A classifier of mmpretrain or a detector of mmdet; it is put into evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.detector = is_detector(model)
        self.eval()

    @property
    def output_names(self) -> list[str]:
        """``logits`` of a classifier, or ``map0``, ``map1``... of a detector's neck."""
        if not self.detector:
            return ['logits']
        necks = self.model.neck if isinstance(self.model.neck, nn.Sequential) else [self.model.neck]
        return [f'map{i}' for i in range(necks[-1].num_outs)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs in single precision, whatever the weights are kept in.

        Args:
            images (Tensor): Normalized images, shape (B, C, H, W).

        Returns:
            tuple[Tensor]: The logits, shape (B, classes), or a detector's maps, shape (B, C, H_i, W_i) each.
        """
        images = images.to(next(self.model.parameters()).dtype)
        outs = self.model.extract_feat(images) if self.detector else (self.model(images),)
        return tuple(out.float() for out in outs)


def load_network(cfg: Config, checkpoint: str | None = None) -> Network:
    """The :class:`Network` of the model that :func:`~halvit_mm.io.build.load_model` returns for these arguments."""
    return Network(load_model(cfg, checkpoint))


def input_shape(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the images that a config's test pipeline makes.

    A detector's images have many shapes; for a detector it is the largest in landscape.

    Raises:
        UserError: If the pipeline has no fixed size.
    """
    for transform in reversed(test_pipeline(cfg)):
        size = transform.get('crop_size', transform.get('scale'))
        if isinstance(size, int):
            return size, size
        if size is not None:
            width, height = size
            divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
            return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
    raise UserError(f'{cfg.filename} has no size for its test images; name one with --shape HEIGHT WIDTH')


def missing_data(cfg: Config, loader: str) -> str | None:
    """The first file or folder of a data loader that does not exist, or ``loader`` if the config has no such loader."""
    datasets = [dataset for _, dataset in walk_datasets(cfg.get(loader))]
    if not datasets:
        return loader
    return next((str(path) for dataset in datasets for path in local_files(dataset) if not path.exists()), None)


def read_images(cfg: Config, model: nn.Module, loader: str, number: int, shape: tuple[int, int]) -> Tensor:
    """Read images of a config's dataset through its test pipeline and the model's preprocessor.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.
        loader (str): ``'train_dataloader'`` or ``'test_dataloader'``.
        number (int): Most images to read, at equal distances in the dataset.
        shape (tuple[int, int]): Height and width; images of another shape are resized.

    Returns:
        Tensor: Normalized images, shape (N, C, H, W).
    """
    dataset = with_pipeline(cfg[loader].dataset, test_pipeline(cfg))
    collate = pseudo_collate if is_detector(model) else default_collate
    images = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')), torch.no_grad():
        dataset = DATASETS.build(dataset)
        for index in torch.linspace(0, len(dataset) - 1, min(number, len(dataset))).long().tolist():
            image = model.data_preprocessor(collate([dataset[index]]))['inputs'].float()
            if image.shape[-2:] != shape:
                image = nn.functional.interpolate(image, shape, mode='bilinear', antialias=True)
            images.append(image)
    return torch.cat(images)


def description(cfg: Config, model: nn.Module) -> dict[str, Any]:
    """Metadata for the users of an exported file.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.

    Returns:
        dict[str, Any]: ``config``, ``mean``, ``std`` (of channels in RGB order, from 0 to 255) and, if the config
        names them, ``classes``.
    """
    metadata = dict(config=Path(cfg.filename).name)
    for key in ('mean', 'std'):
        if (values := getattr(model.data_preprocessor, key, None)) is not None:
            metadata[key] = values.flatten().tolist()
    if classes := class_names(cfg):
        metadata['classes'] = list(classes)
    return metadata
