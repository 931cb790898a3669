"""What of a model goes into a file, the images that it is tried on, and its weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor, nn

from halvit_mm.cost import is_detector
from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import load_file


class Network(nn.Module):
    """The part of a model that computes with tensors alone.

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
        """Names of the outputs: ``logits``, or ``map0``, ``map1``... of a neck."""
        if not self.detector:
            return ['logits']
        necks = self.model.neck if isinstance(self.model.neck, nn.Sequential) else [self.model.neck]
        return [f'map{i}' for i in range(necks[-1].num_outs)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs in single precision, whatever the weights are kept in.

        Args:
            images (Tensor): Normalized images, shape (B, 3, H, W).

        Returns:
            tuple[Tensor]: The logits, shape (B, classes), or a detector's maps, shape (B, C, H_i, W_i) each.
        """
        images = images.to(next(self.model.parameters()).dtype)
        outs = self.model.extract_feat(images) if self.detector else (self.model(images),)
        return tuple(out.float() for out in outs)


def load_network(cfg: Config, checkpoint: str | None = None) -> Network:
    """Build a config's model and fill it.

    Args:
        cfg (Config): Config of a classifier or a detector.
        checkpoint (str, optional): Its weights, ``.pth`` or ``.safetensors``. Defaults to None, which leaves the
            weights as they were drawn.

    Returns:
        Network: In evaluation mode.

    Raises:
        UserError: If the weights are not those of this model.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(cfg.model)
    if checkpoint is not None:
        content = load_file(checkpoint)
        fill(model, content.get('state_dict', content), checkpoint)
    return Network(model)


def fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights that must fit to the last one.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): Its state dict.
        source (str): Where they come from, for the message.

    Raises:
        UserError: If names or shapes differ.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if differences := [
        f'{name} {given.get(name, "is missing")}' + (f' where the model has {own[name]}' if name in given else '')
        for name in own
        if given.get(name) != own[name]
    ] + [f'{name} has no place' for name in given if name not in own]:
        raise UserError(
            f'{source} is not a checkpoint of this model: {len(differences)} entries differ, the first being '
            f'{"; ".join(differences[:3])}'
        )
    model.load_state_dict(weights)


def input_shape(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a config's test pipeline makes.

    Args:
        cfg (Config): The config.

    Returns:
        tuple[int, int]: In pixels; of a detector, whose images have many shapes, the largest in landscape.

    Raises:
        UserError: If the pipeline has no fixed size.
    """
    for transform in reversed(cfg.test_dataloader.dataset.pipeline):
        size = transform.get('crop_size', transform.get('scale'))
        if isinstance(size, int):
            return size, size
        if size is not None:
            width, height = size
            divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
            return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
    raise UserError(f'{cfg.filename} says no size of its test images; name one with --shape HEIGHT WIDTH')


def has_images(cfg: Config, loader: str) -> bool:
    """Whether the folder that a config takes images from is there.

    Args:
        cfg (Config): The config.
        loader (str): ``'train_dataloader'`` or ``'test_dataloader'``.

    Returns:
        bool: Whether it is.
    """
    root = cfg[loader].dataset.get('data_root')
    return root is not None and Path(root).is_dir()


def read_images(cfg: Config, model: nn.Module, loader: str, number: int, shape: tuple[int, int]) -> Tensor:
    """Take images from a config's dataset, as its test pipeline and the model's preprocessor make them.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.
        loader (str): ``'train_dataloader'`` or ``'test_dataloader'``.
        number (int): How many at most; they are taken at equal distances.
        shape (tuple[int, int]): Height and width; images of another shape are resized.

    Returns:
        Tensor: Normalized images, shape (N, 3, H, W).
    """
    dataset = {**cfg[loader].dataset, 'pipeline': cfg.test_dataloader.dataset.pipeline}
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
    """What a user of the file has to know of the images that go in and of the numbers that come out.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.

    Returns:
        dict[str, Any]: ``config``, ``mean``, ``std`` (of channels in RGB order, from 0 to 255) and, where the config
        names them, ``classes``.
    """
    preprocessor = model.data_preprocessor
    facts = dict(config=Path(cfg.filename).name)
    for key in ('mean', 'std'):
        if (values := getattr(preprocessor, key, None)) is not None:
            facts[key] = values.flatten().tolist()
    if classes := cfg.test_dataloader.dataset.get('metainfo', {}).get('classes'):
        facts['classes'] = list(classes)
    return facts
