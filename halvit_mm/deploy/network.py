"""The part of a model that is exported, and its images."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mmcv.cnn
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from halvit_mm.cost import input_channels, is_detector, is_segmentor
from halvit_mm.errors import UserError
from halvit_mm.io.build import in_one_line, load_model
from halvit_mm.io.checkpoints import trained_classes
from halvit_mm.io.configs import scope_of
from halvit_mm.io.datasets import class_names, local_files, test_pipeline, type_name, walk_datasets

from .attention_maps import check_attends, record_attention


class Network(nn.Module):
    """The part of a model that takes and returns tensors only.

    Args:
        model (nn.Module): A classifier of mmpretrain, a segmentor of mmseg, or a detector of mmdet, of which it is
            backbone and neck; it is put into evaluation mode.
        attention (bool): Whether the attention of a classifier's class token is an output, too. Defaults to False.

    Raises:
        UserError: If ``attention`` is asked of what is not a classifier with a vision transformer.
    """

    def __init__(self, model: nn.Module, attention: bool = False) -> None:
        super().__init__()
        self.model = model
        self.detector, self.segmentor = is_detector(model), is_segmentor(model)
        self.attention = attention
        self.eval()
        if attention:
            if self.task not in ('classes', 'labels'):
                raise UserError(f'--attention: {type(model).__name__} is not a classifier; expected one')
            check_attends(model.backbone)

    @property
    def task(self) -> str | None:
        """What the outputs decide: ``'classes'``, ``'labels'`` (several for an image), ``'pixels'``, or None."""
        if self.detector:
            return None
        if self.segmentor:
            return 'pixels'
        kinds = {base.__name__ for base in type(getattr(self.model, 'head', None)).__mro__}
        if kinds & {'MultiLabelClsHead', 'CSRAClsHead'}:
            return 'labels'
        return 'classes' if 'ClsHead' in kinds else None

    def output_names(self, images: Tensor) -> list[str]:
        """Names of the outputs for some images.

        Returns:
            list[str]: ``logits``, and ``attention`` behind it; a detector's ``map0``, ``map1``...; or ``output0``...
        """
        if self.attention:
            return ['logits', 'attention']
        with torch.no_grad():
            outs = self._outputs(images)
        if len(outs) == 1 and self.task:
            return ['logits']
        if all(isinstance(name, str) for name, _ in outs):
            return [name for name, _ in outs]
        return [f'{"map" if self.detector else "output"}{i}' for i in range(len(outs))]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs in single precision, whatever the weights are kept in.

        Args:
            images (Tensor): Normalized images, shape (B, C, H, W).

        Returns:
            tuple[Tensor]: The logits, shape (B, classes), or a detector's maps, shape (B, C, H_i, W_i) each. A
            segmentor's logits are resized to the images, as mmseg does before it takes the largest: shape
            (B, classes, H, W). With ``attention`` the weights of the class token for the patches are behind the
            logits, shape (B, layers, heads, rows, columns).
        """
        if not self.attention:
            return tuple(out.float() for _, out in self._outputs(images))
        with record_attention(self.model.backbone) as record:
            [(_, logits)] = self._outputs(images)
        return logits.float(), record.maps().float()

    def _outputs(self, images: Tensor) -> list[tuple[str | int, Tensor]]:
        """Each tensor of the output, which may be one, a sequence or a mapping of them, and its name or number."""
        images = images.to(next(self.model.parameters()).dtype)
        if self.segmentor:
            size = images.shape[-2:]
            return [(0, self.model.encode_decode(images, [dict(img_shape=size, pad_shape=size)] * images.shape[0]))]
        outs = self.model.extract_feat(images) if self.detector else self.model(images)
        return [*_flatten(outs)]


def _flatten(outs: Any, name: str | int = 0) -> Iterator[tuple[str | int, Tensor]]:
    if isinstance(outs, Tensor):
        yield name, outs
    elif isinstance(outs, Mapping):
        for key, out in outs.items():
            yield from _flatten(out, key)
    else:
        for i, out in enumerate(outs):
            yield from _flatten(out, i)


class FlatLinear(nn.Linear):
    """A linear layer that multiplies tokens in two dimensions, as the tied layers do: a Gemm in an ONNX graph."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.reshape(-1, self.in_features), self.weight, self.bias).view(*x.shape[:-1], -1)


class PadAlways(nn.Module):
    """The corner padding of mmcv's and mmdet's ``AdaptivePadding``, without its test that an export would freeze.

    It pads by the kernel's width less one pixel, whatever the size. The convolution behind leaves out what it does not
    need.

    Args:
        padding (nn.Module): The ``AdaptivePadding``.
    """

    def __init__(self, padding: nn.Module) -> None:
        super().__init__()
        rows, columns = (d * (k - 1) for k, d in zip(padding.kernel_size, padding.dilation, strict=True))
        self.amount = (0, columns, 0, rows)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amount)


def drop_idle_parts(network: Network, images: Tensor) -> None:
    """Take the parts out of a model that its outputs do not need: a detector's heads, a segmentor's auxiliary head.

    Files of torch.export and TorchScript would hold their weights.

    Args:
        network (Network): The network; it is changed.
        images (Tensor): What it is run on, shape (B, C, H, W).
    """
    used = set()
    hooks = [part.register_forward_hook(lambda module, *_: used.add(module)) for part in network.model.modules()]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    for name, part in network.model.named_children():
        if any(True for _ in part.parameters()) and used.isdisjoint(part.modules()):
            setattr(network.model, name, None)


class AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products, with bins of the size that an image has when the file runs.

    Args:
        pool (nn.AdaptiveAvgPool2d): The layer, of a fixed number of bins.
    """

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        size = pool.output_size
        self.bins = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_bins(bins, size, x) for bins, size in zip(self.bins, x.shape[-2:], strict=True))
        return rows @ x @ columns.mT


def _bins(bins: int, size: int, like: Tensor) -> Tensor:
    """The weight of each of ``size`` places in each bin, shape (bins, size); bins may overlap, as torch's do."""
    i, place = torch.arange(bins, device=like.device)[:, None], torch.arange(size, device=like.device)
    inside = (place >= i * size // bins) & (place < ((i + 1) * size + bins - 1) // bins)
    inside = inside.to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def make_exportable(network: Network, flat: bool, open_size: bool) -> None:
    """Put modules that compute the same, and are exported better, in place of others.

    Args:
        network (Network): The network; it is changed.
        flat (bool): Whether linear layers become :class:`FlatLinear`.
        open_size (bool): Whether paddings become :class:`PadAlways` and pools :class:`AdaptivePool`, for images of any
            size.
    """

    def put(kind: Callable[[nn.Module], bool], stand_in: Callable[[nn.Module], nn.Module]) -> None:
        for parent in [*network.modules()]:
            for name, module in parent.named_children():
                if kind(module):
                    setattr(parent, name, stand_in(module))

    if flat:
        put(lambda module: type(module) in (nn.Linear, mmcv.cnn.Linear), FlatLinear)
    if open_size:
        put(lambda m: type(m).__name__ == 'AdaptivePadding' and m.padding == 'corner', PadAlways)
        put(lambda m: type(m) is nn.AdaptiveAvgPool2d and m.output_size not in (1, (1, 1)), AdaptivePool)


def load_network(cfg: Config, checkpoint: str | None = None, attention: bool = False) -> Network:
    """The :class:`Network` of the model that :func:`~halvit_mm.io.build.load_model` returns for these arguments."""
    return Network(load_model(cfg, checkpoint), attention)


def input_shape(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the images that a config's test pipeline makes.

    A detector's images have many shapes; for a detector it is the largest in landscape. For a segmentor it is the size
    that its preprocessor pads the training's crops to.

    Raises:
        UserError: If the pipeline has no fixed size.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:
        height, width = preprocessor.size
        return height, width
    for transform in reversed(test_pipeline(cfg)):
        size = transform.get('crop_size', transform.get('scale'))
        if isinstance(size, int):
            return size, size
        if size is not None:
            width, height = size
            divisor = preprocessor.get('pad_size_divisor', 1)
            return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
    raise UserError(f'{cfg.filename} has no size for its test images; name one with --shape HEIGHT WIDTH')


def missing_data(cfg: Config, loader: str) -> str | None:
    """What of a data loader does not exist: the first file or folder, or ``loader`` itself; None if all is there."""
    datasets = [dataset for _, dataset in walk_datasets(cfg.get(loader))]
    if not datasets:
        return loader
    return next((str(path) for dataset in datasets for path in local_files(dataset) if not path.exists()), None)


def read_images(cfg: Config, model: nn.Module, loader: str, number: int, shape: tuple[int, int]) -> Tensor:
    """Read images of a config's dataset through its test pipeline and the model's preprocessor.

    Wrappers of the dataset are left out: their repetitions, and the images that they mix.

    Args:
        cfg (Config): The config.
        model (nn.Module): Its model.
        loader (str): ``'train_dataloader'`` or ``'test_dataloader'``.
        number (int): Most images to read, at equal distances in the dataset.
        shape (tuple[int, int]): Height and width. A classifier's images of another shape are resized. A detector's and
            a segmentor's are padded, and made smaller before if they do not fit.

    Returns:
        Tensor: Normalized images, shape (N, C, H, W).

    Raises:
        UserError: If the dataset or its images cannot be read.
    """
    padded = is_detector(model) or is_segmentor(model)
    collate = pseudo_collate if padded else default_collate
    images = []
    with DefaultScope.overwrite_default_scope(scope_of(cfg)), torch.no_grad():
        parts = []
        for key, dataset in walk_datasets(cfg[loader], loader):
            with in_one_line(key):
                parts.append(DATASETS.build({**dataset, 'pipeline': test_pipeline(cfg)}))
        dataset = ConcatDataset(parts)
        for index in torch.linspace(0, len(dataset) - 1, min(number, len(dataset))).long().tolist():
            try:
                image = model.data_preprocessor(collate([dataset[index]]))['inputs'].float()
            except Exception as error:
                reason = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
                raise UserError(f'{loader}: image {index} cannot be read for this model: {reason}') from error
            images.append(_fit(image, shape) if padded else _resize(image, shape))
    return torch.cat(images)


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == shape:
        return image
    return F.interpolate(image, shape, mode='bilinear', antialias=True)


def _fit(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pad an image by zeros at the right and at the bottom; make it smaller before if it does not fit."""
    factor = min(1.0, *(most / side for most, side in zip(shape, image.shape[-2:], strict=True)))
    image = _resize(image, tuple(max(1, int(side * factor)) for side in image.shape[-2:]))
    return F.pad(image, (0, shape[1] - image.shape[-1], 0, shape[0] - image.shape[-2]))


def description(cfg: Config, network: Network, checkpoint: str | None = None) -> dict[str, Any]:
    """Metadata for the users of an exported file: all that turns an image into the input, and logits into classes.

    Args:
        cfg (Config): The config.
        network (Network): Of its model.
        checkpoint (str, optional): The model's weights. Defaults to None.

    Returns:
        dict[str, Any]: ``config``; ``task``, that of the network; ``channels``, their order: ``'RGB'``, ``'BGR'``
        or ``'grey'``; ``mean`` and ``std`` in this order, of values from 0 to 255; ``pipeline``, the transforms of the
        test pipeline between the reading of an image and its packing; and, if the config or the checkpoint names
        them, ``classes``.
    """
    model = network.model
    metadata = dict(config=Path(cfg.filename).name, task=network.task)
    metadata['channels'] = 'grey' if input_channels(model) == 1 else 'RGB' if _to_rgb(model) else 'BGR'
    metadata['pipeline'] = [
        {**transform, 'type': type_name(transform)}
        for transform in test_pipeline(cfg)
        if not type_name(transform).startswith(('Load', 'Pack'))
    ]
    for key in ('mean', 'std'):
        if (values := getattr(model.data_preprocessor, key, None)) is not None:
            metadata[key] = values.flatten().tolist()
    if classes := class_names(cfg) or trained_classes(checkpoint):
        metadata['classes'] = list(classes)
    return metadata


def _to_rgb(model: nn.Module) -> bool:
    """Whether a data preprocessor turns BGR, as upstream reads images, into RGB: mmpretrain's, or mmengine's."""
    preprocessor = model.data_preprocessor
    return bool(getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False)))
