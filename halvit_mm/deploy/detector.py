"""Whole detectors as networks of tensors: boxes, scores, labels and masks of one image, by ONNX's standard operators.

The operators ``NonMaxSuppression`` and ``RoiAlign`` stand for what mmcv computes in C++. Up to them all shapes are
fixed: the regions of a two-stage detector are filled up to their largest number.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halvit_mm._torch import custom_op
from halvit_mm.cost import input_channels, is_detector
from halvit_mm.errors import UserError, warn

from .network import Network

OUTPUTS = ('boxes', 'scores', 'labels')


def _suppressed(boxes, scores, groups, iou, least, most, fill) -> Tensor:
    return boxes.new_empty(most if fill else torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@custom_op('halvit_mm::suppress', _suppressed)
def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, least: float, most: int, fill: bool) -> Tensor:
    """Non-maximum suppression within groups.

    Args:
        boxes (Tensor): Shape (N, 4).
        scores (Tensor): Shape (N, ).
        groups (Tensor): Whole numbers, shape (N, ); boxes suppress those of their group only.
        iou (float): Overlap above which the box of the lower score goes.
        least (float): Boxes with this score or a lower one go first.
        most (int): Most boxes to keep.
        fill (bool): Whether the result is filled up by -1 to ``most``.

    Returns:
        Tensor: Indices of the kept boxes, best first.
    """
    from mmcv.ops import batched_nms

    [kept] = torch.where(scores > least)
    if len(kept):
        _, best = batched_nms(boxes[kept], scores[kept], groups[kept], dict(type='nms', iou_threshold=iou))
        kept = kept[best[:most]]
    return F.pad(kept, (0, most - len(kept) if fill else 0), value=-1)


def _aligned(maps, rois, levels, scales, size, samples) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], *size)


@custom_op('halvit_mm::align', _aligned)
def align(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], size: Sequence[int], samples: int
) -> Tensor:
    """RoIAlign, aligned to half pixels, each region from one of several maps of one image.

    Args:
        maps (Sequence[Tensor]): Shape (1, C, H_i, W_i) each.
        rois (Tensor): Regions in pixels of the image, shape (N, 4).
        levels (Tensor): The map of each region, shape (N, ).
        scales (Sequence[float]): Pixels of each map for a pixel of the image.
        size (Sequence[int]): Height and width of the result.
        samples (int): Samples along a side of a pixel of the result; 0 means as many as the region has pixels.

    Returns:
        Tensor: Shape (N, C, height, width).
    """
    from mmcv.ops import roi_align

    out = maps[0].new_zeros(len(rois), maps[0].shape[1], *size)
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        [chosen] = torch.where(levels == level)
        if len(chosen):
            boxes = F.pad(rois[chosen], (1, 0))
            out[chosen] = roi_align(one.contiguous(), boxes, tuple(size), scale, samples, 'avg', True)
    return out


def onnx_translations() -> dict[Callable, Callable]:
    """What torch's exporter writes for the operators of this module."""
    from onnxscript import INT64
    from onnxscript import opset20 as op

    def suppress_in_onnx(boxes, scores, groups, iou: float, least: float, most: int, fill: bool):
        # Each group lies in a place of its own.
        width = op.Add(op.ReduceMax(boxes, keepdims=0), op.Constant(value_float=1.0))
        shifted = op.Add(boxes, op.Unsqueeze(op.Mul(op.CastLike(groups, boxes), width), [1]))
        found = op.NonMaxSuppression(
            op.Unsqueeze(shifted, [0]),
            op.Unsqueeze(scores, [0, 1]),
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[least]),
        )
        kept = op.Reshape(op.Slice(found, [2], [3], [1]), [-1])
        if not fill:
            return kept
        return op.Slice(op.Concat(kept, op.Constant(value_ints=[-1] * most), axis=0), [0], [most], [0])

    def align_in_onnx(maps, rois, levels, scales, size, samples: int):
        parts, places = [], []
        for level, (one, scale) in enumerate(zip(maps, scales)):
            chosen = op.Reshape(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), [-1])
            boxes = op.Gather(rois, chosen, axis=0)
            aligned = op.RoiAlign(
                one,
                boxes,
                op.Mul(chosen, op.Constant(value_int=0)),
                coordinate_transformation_mode='half_pixel',
                output_height=size[0],
                output_width=size[1],
                sampling_ratio=samples,
                spatial_scale=scale,
            )
            parts.append(aligned)
            places.append(chosen)
        order = op.Concat(*places, axis=0)
        count = op.Range(op.Constant(value_int=0), op.Size(order), op.Constant(value_int=1))
        inverse = op.ScatterElements(order, order, count, axis=0)
        return op.Gather(op.Concat(*parts, axis=0), op.Cast(inverse, to=INT64.dtype), axis=0)

    ops = torch.ops.halvit_mm
    return {ops.suppress.default: suppress_in_onnx, ops.align.default: align_in_onnx}


class DetectorNetwork(Network):
    """A detector with its heads, for one image of one size.

    Args:
        model (nn.Module): mmdet's Mask R-CNN, Faster R-CNN or RetinaNet; it is put into evaluation mode.
        shape (tuple[int, int]): Height and width of the image.

    Raises:
        UserError: If the detector is not one of these.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__(model)
        if reason := _why_not(model):
            raise UserError(
                f'--boxes: {type(model).__name__} is not a detector whose boxes can be exported: {reason}; expected '
                'Mask R-CNN, Faster R-CNN or RetinaNet of mmdet, or no --boxes, for backbone and neck'
            )
        self.shape = shape
        self.two_stages = hasattr(model, 'rpn_head')
        self.head = model.rpn_head if self.two_stages else model.bbox_head
        self.masks = self.two_stages and model.roi_head.with_mask
        if self.masks and (reason := _why_no_masks(model.roi_head)):
            warn(f'the file has boxes, scores and labels, and no masks: {reason}')
            self.masks = False
        with torch.no_grad():
            maps = self.head(model.extract_feat(next(model.parameters()).new_zeros(1, input_channels(model), *shape)))[
                0
            ]
        priors = self.head.prior_generator.grid_priors([one.shape[-2:] for one in maps], device=maps[0].device)
        self.priors = [f'priors{i}' for i in range(len(priors))]
        for name, values in zip(self.priors, priors, strict=True):
            self.register_buffer(name, values, persistent=False)

    def output_names(self, images: Tensor) -> list[str]:
        return [*OUTPUTS, *(['masks'] if self.masks else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images (Tensor): One normalized image, shape (1, C, H, W).

        Returns:
            tuple[Tensor]: Boxes in pixels of the image as x1, y1, x2, y2, shape (N, 4), their scores and their labels,
            both of shape (N, ), best first. Of a detector with masks also the probability that a pixel of a box is of
            the object, shape (N, height, width) of the mask head's output, as a box is divided into as many pixels.
        """
        maps = self.model.extract_feat(images)
        boxes, scores, labels = self._dense(maps)
        cfg = self.head.test_cfg
        if not self.two_stages:
            return self._best(boxes, scores, labels, cfg)
        cfg = self.model.rpn_head.test_cfg
        wide = boxes[:, 2:] - boxes[:, :2] > max(cfg.get('min_bbox_size', -1), -1)
        scores = torch.where(wide.all(1), scores, -torch.ones_like(scores))
        most = min(cfg.max_per_img, len(scores))
        kept = torch.ops.halvit_mm.suppress(boxes, scores, labels, cfg.nms['iou_threshold'], 0.0, most, True)
        boxes, scores, labels = self._refine(maps, boxes[kept.clamp(min=0)], kept >= 0)
        return boxes, scores, labels, *([self._masks(maps, boxes, labels)] if self.masks else [])

    def _dense(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores, and labels (of a region proposal network its levels) of the best of each level."""
        head, cfg = self.head, self.head.test_cfg
        levels = []
        for level, (cls_score, bbox_pred, name) in enumerate(zip(*head(maps), self.priors, strict=True)):
            logits = cls_score[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            deltas = bbox_pred[0].permute(1, 2, 0).reshape(-1, 4)
            scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]
            classes = scores.shape[1]
            scores = scores.flatten()
            most = cfg.get('nms_pre', -1)
            scores, best = scores.topk(min(most if most > 0 else len(scores), len(scores)))
            rows = best // classes
            boxes = _decode(head.bbox_coder, getattr(self, name)[rows], deltas[rows], self.shape)
            levels.append((boxes, scores, torch.full_like(best, level) if self.two_stages else best % classes))
        return tuple(torch.cat(parts) for parts in zip(*levels, strict=True))

    def _refine(self, maps: tuple[Tensor, ...], rois: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.model.roi_head
        head = heads.bbox_head
        logits, deltas = head(_regions(heads.bbox_roi_extractor, maps, rois))
        scores = logits.softmax(-1)[:, :-1] * valid[:, None]
        number, classes = scores.shape
        times = 1 if head.reg_class_agnostic else classes
        boxes = _decode(head.bbox_coder, rois.repeat_interleave(times, 0), deltas.view(-1, 4), self.shape)
        boxes = boxes.view(number, times, 4).expand(number, classes, 4).reshape(-1, 4)
        labels = torch.arange(classes).repeat(number)
        return self._best(boxes, scores.flatten(), labels, heads.test_cfg)

    def _masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        heads = self.model.roi_head
        # With one region more, since ONNX Runtime's convolutions take no empty batch
        logits = heads.mask_head(_regions(heads.mask_roi_extractor, maps, F.pad(boxes, (0, 0, 0, 1))))[:-1]
        rows = torch.arange(labels.shape[0]) * logits.shape[1]
        return logits.flatten(0, 1)[rows if heads.mask_head.class_agnostic else rows + labels].sigmoid()

    def _best(self, boxes: Tensor, scores: Tensor, labels: Tensor, cfg: Any) -> tuple[Tensor, Tensor, Tensor]:
        most = min(cfg.max_per_img, len(scores))
        iou, least = cfg.nms['iou_threshold'], float(cfg.get('score_thr', 0.0))
        kept = torch.ops.halvit_mm.suppress(boxes, scores, labels, iou, least, most, False)
        return boxes[kept], scores[kept], labels[kept]

    def detect(self, images: Tensor) -> tuple[Tensor, ...]:
        """What mmdet's own code detects in the image that :meth:`forward` takes, as :meth:`forward` returns it."""
        from mmdet.structures import DetDataSample

        sample = DetDataSample(metainfo=dict(img_shape=self.shape, ori_shape=self.shape, scale_factor=(1.0, 1.0)))
        maps = self.model.extract_feat(images)
        if self.two_stages:
            regions = self.model.rpn_head.predict(maps, [sample], rescale=False)
            heads = self.model.roi_head
            [found] = heads.predict_bbox(maps, [sample.metainfo], regions, heads.test_cfg, rescale=False)
        else:
            [found] = self.head.predict(maps, [sample], rescale=False)
        if not self.masks:
            return found.bboxes, found.scores, found.labels
        masks = heads._mask_forward(maps, F.pad(found.bboxes, (1, 0)))['mask_preds'].sigmoid()
        chosen = torch.zeros_like(found.labels) if heads.mask_head.class_agnostic else found.labels
        return found.bboxes, found.scores, found.labels, masks[torch.arange(len(masks)), chosen]


def _regions(extractor: nn.Module, maps: tuple[Tensor, ...], rois: Tensor) -> Tensor:
    """What an extractor of upstream reads of maps, shape (N, C, height, width), for regions of shape (N, 4)."""
    layers = extractor.roi_layers
    levels = extractor.map_roi_levels(F.pad(rois, (1, 0)), len(layers))
    scales = [layer.spatial_scale for layer in layers]
    size, samples = [*layers[0].output_size], layers[0].sampling_ratio
    return torch.ops.halvit_mm.align([*maps[: len(layers)]], rois, levels, scales, size, samples)


def _decode(coder: Any, boxes: Tensor, deltas: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes that the deltas make of others, both of shape (N, 4), by a ``DeltaXYWHBBoxCoder`` in an image of a shape.

    While torch exports to ONNX, ``coder.decode`` itself imports a module that mmdet no longer has.
    """
    from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox

    options = dict(clip_border=coder.clip_border, add_ctr_clamp=coder.add_ctr_clamp, ctr_clamp=coder.ctr_clamp)
    return delta2bbox(boxes, deltas, coder.means, coder.stds, shape, **options)


def _why_no_masks(roi_head: nn.Module) -> str | None:
    """What of a mask head's masks :class:`DetectorNetwork` does not compute."""
    if type(roi_head.mask_head).__name__ != 'FCNMaskHead':
        return f'its mask head is {type(roi_head.mask_head).__name__}; expected FCNMaskHead'
    return _why_no_regions(roi_head.mask_roi_extractor)


def _why_no_regions(extractor: nn.Module) -> str | None:
    """What of an extractor :func:`_regions` does not compute."""
    if type(extractor).__name__ != 'SingleRoIExtractor':
        return f'it reads its regions by {type(extractor).__name__}'
    if any(type(layer).__name__ != 'RoIAlign' or not layer.aligned for layer in extractor.roi_layers):
        return 'it reads its regions by another layer than RoIAlign with aligned=True'
    return None


def _why_not(model: nn.Module) -> str | None:
    """What of a detector :class:`DetectorNetwork` does not compute."""
    if not is_detector(model):
        return 'it is not a detector'
    first = getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None)
    if type(first).__name__ not in ('RPNHead', 'RetinaHead'):
        return f'its head is {type(first).__name__}'
    heads = [first]
    if hasattr(model, 'rpn_head'):
        roi_head = model.roi_head
        if type(roi_head).__name__ != 'StandardRoIHead' or not hasattr(roi_head.bbox_head, 'reg_class_agnostic'):
            return f'its second stage is {type(roi_head).__name__}'
        if reason := _why_no_regions(roi_head.bbox_roi_extractor):
            return reason
        heads.append(roi_head.bbox_head)
        if roi_head.bbox_head.custom_cls_channels:
            return f'its loss is {type(roi_head.bbox_head.loss_cls).__name__}'
    for head in heads:
        if type(head.bbox_coder).__name__ != 'DeltaXYWHBBoxCoder':
            return f'its boxes are coded by {type(head.bbox_coder).__name__}'
    for cfg in [first.test_cfg, *([model.roi_head.test_cfg] if len(heads) > 1 else [])]:
        if cfg.nms.get('type', 'nms') != 'nms' or cfg.nms.get('class_agnostic'):
            return f'it has test_cfg.nms={dict(cfg.nms)}'
    return None
