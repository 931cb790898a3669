"""Inputs and ground truth for calls of upstream's classifiers, detectors and segmentors."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

# A COCO image shows 7.3 objects on average.
OBJECTS_PER_IMAGE = 8


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of mmdet, which needs metadata of each image."""
    return _has_base(model, 'mmdet.models.detectors')


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model is a segmentor of mmseg, which has a class for each pixel."""
    return _has_base(model, 'mmseg.models.segmentors')


def _has_base(model: nn.Module, module: str) -> bool:
    model = getattr(model, '_orig_mod', model)  # torch.compile's wrapper has it
    return any(base.__module__.startswith(module) for base in type(model).__mro__)


def input_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of the first convolution of its backbone.

    A model without convolutions, such as T2T-ViT, is taken to read color images.
    """
    parts = getattr(model, 'backbone', model).modules()
    return next((part.in_channels for part in parts if isinstance(part, nn.Conv2d)), 3)


def ground_truth(model: nn.Module, images: Tensor) -> list:
    """Labels, boxes and masks, or classes of pixels, for a training step on images of noise.

    Args:
        model (nn.Module): A classifier of mmpretrain, a detector of mmdet or a segmentor of mmseg.
        images (Tensor): Shape (B, C, H, W).

    Returns:
        list: For each image mmpretrain's ``DataSample`` of classes 0 and 1, mmdet's ``DetDataSample`` with 8 objects of
        different sizes and classes, or mmseg's ``SegDataSample`` with columns of all classes.
    """
    if is_segmentor(model):
        return [_columns(model, images[0].shape[-2:], images.device) for _ in images]
    if not is_detector(model):
        from mmpretrain.structures import DataSample

        return [DataSample().set_gt_label(i % 2).to(images.device) for i in range(len(images))]
    return [_objects(model, images[0].shape[-2:], images.device) for _ in images]


def _objects(model: nn.Module, size: tuple[int, int], device: torch.device):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = size
    sample = DetDataSample(metainfo=_metainfo(size))
    places = np.arange(OBJECTS_PER_IMAGE) / OBJECTS_PER_IMAGE
    extent = 0.1 + 0.4 * places
    left, top = places * (1 - extent), places[::-1] * (1 - extent)
    boxes = np.stack((left * width, top * height, (left + extent) * width, (top + extent) * height), axis=1)
    masks = np.zeros((OBJECTS_PER_IMAGE, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32, device=device),
        labels=torch.arange(OBJECTS_PER_IMAGE, device=device) % 2,
        masks=BitmapMasks(masks, height, width),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4, device=device), labels=torch.zeros(0, dtype=torch.long, device=device)
    )
    return sample


def _columns(model: nn.Module, size: tuple[int, int], device: torch.device):
    from mmseg.structures import SegDataSample

    model = getattr(model, '_orig_mod', model)
    columns = torch.arange(size[1], device=device) * model.num_classes // size[1]
    truth = PixelData(data=columns.expand(1, *size).clone())
    return SegDataSample(metainfo=_metainfo(size), gt_sem_seg=truth)


def _metainfo(size: tuple[int, int]) -> dict:
    size = tuple(size)
    return dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))


@contextmanager
def all_proposals(model: nn.Module) -> Iterator[None]:
    """Let a detector's region proposal network give the largest allowed number of proposals, whatever its weights.

    Other models are not changed.
    """
    if not is_detector(model) or not getattr(model, 'with_rpn', False) or not hasattr(model, 'roi_head'):
        yield
        return
    number = model.test_cfg['rpn']['max_per_img']

    def predict(maps: tuple[Tensor, ...], samples: list, rescale: bool = False) -> list[InstanceData]:
        model.rpn_head(maps)
        height, width = samples[0].img_shape
        boxes = maps[0].new_tensor([[0.0, 0.0, width / 2, height / 2]]).expand(number, 4)
        return [InstanceData(bboxes=boxes) for _ in samples]

    model.rpn_head.predict = predict  # hides the class's method
    try:
        yield
    finally:
        del model.rpn_head.predict


def forward_tensor(model: nn.Module, images: Tensor):
    """Run a model without the step that makes results of its outputs.

    Args:
        model (nn.Module): A classifier, a detector, a segmentor, or any module that takes images.
        images (Tensor): Shape (B, C, H, W).

    Returns:
        What the model returns. A detector returns the outputs of its heads for all proposals, a segmentor the logits of
        its decode head, which are not resized to the image.
    """
    if not is_detector(model):
        return model(images)
    from mmdet.structures import DetDataSample

    samples = [DetDataSample(metainfo=_metainfo(images.shape[-2:])) for _ in images]
    return model(images, samples, mode='tensor')
