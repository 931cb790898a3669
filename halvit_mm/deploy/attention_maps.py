"""Attention of a vision transformer's class token over an image."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from halvit_mm.errors import UserError
from halvit_mm.io.datasets import class_names, test_pipeline
from halvit_mm.io.images import find_image_damage
from halvit_mm.layers import TiedMultiheadAttention


def attention_weights(attention: TiedMultiheadAttention | MultiheadAttention, x: Tensor) -> Tensor:
    """Attention weights of a layer, which fused attention does not return.

    Args:
        attention (TiedMultiheadAttention or MultiheadAttention): The layer.
        x (Tensor): Its input, shape (B, N, D).

    Returns:
        Tensor: Shape (B, H, N, N), with queries in the third dimension and keys in the fourth.
    """
    if isinstance(attention, TiedMultiheadAttention):
        return attention.attention_weights(x)
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


class AttentionRecord:
    """What the layers of a vision transformer attended with in a forward pass; see :func:`record_attention`.

    Attributes:
        weights (list[Tensor]): Of each layer, shape (B, heads, patches).
        size (tuple[int, int]): Rows and columns of the patches.
    """

    def __init__(self) -> None:
        self.weights = []
        self.size = None

    def maps(self) -> Tensor:
        """The weights as maps over the image, shape (B, layers, heads, H / patch, W / patch)."""
        return torch.stack(self.weights, 1).unflatten(-1, self.size)


def check_attends(backbone: nn.Module) -> None:
    """Refuse a backbone that has no attention of a class token over the whole image.

    Raises:
        UserError: If it is not a vision transformer, or if layers attend within windows.
    """
    if not isinstance(backbone, VisionTransformer):
        raise UserError(f'{type(backbone).__name__} is not a vision transformer; expected ViT or HaLViT')
    if getattr(backbone, 'window_size', 0):
        raise UserError(
            f'window_size={backbone.window_size} is not a model whose tokens attend to the whole image; expected '
            'window_size=0'
        )


@contextmanager
def record_attention(backbone: VisionTransformer) -> Iterator[AttentionRecord]:
    """Note the attention of the class token over the patches in a forward pass.

    Args:
        backbone (VisionTransformer): mmpretrain's, or ``halvit_mm.HaLViT`` with any tie.

    Yields:
        AttentionRecord: It is filled by the next forward pass. Without a class token the weights are the mean over the
        attention of all patches.
    """
    record = AttentionRecord()

    def keep(attention: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        weights = attention_weights(attention, inputs[0])
        extra = backbone.num_extra_tokens
        record.weights.append(weights[:, :, 0, extra:] if extra else weights.mean(2))

    def keep_size(embed: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, tuple[int, int]]) -> None:
        # An image whose size is not a multiple of the patch size is padded.
        record.size = outputs[1]

    hooks = [layer.attn.register_forward_pre_hook(keep) for layer in backbone.layers]
    hooks.append(backbone.patch_embed.register_forward_hook(keep_size))
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def class_attention(backbone: VisionTransformer, images: Tensor) -> Tensor:
    """Attention of the class token over the patches, in every head and layer.

    Args:
        backbone (VisionTransformer): mmpretrain's, or ``halvit_mm.HaLViT`` with any tie.
        images (Tensor): Normalized images, shape (B, 3, H, W).

    Returns:
        Tensor: Shape (layers, B, heads, H / patch, W / patch), without the attention of the class token to itself. Of
        a backbone without a class token it is the mean over the attention of all patches.

    Raises:
        UserError: If layers attend within windows, because no token attends to the whole image then.
    """
    check_attends(backbone)
    backbone.eval()  # which returns None in mmpretrain's
    with record_attention(backbone) as record, torch.no_grad():
        backbone(images)
    return record.maps().transpose(0, 1)


def visualize(
    cfg: Config, model: nn.Module, images: Sequence[str], out: Path, layers: Sequence[int] | None = None
) -> Iterator[Path]:
    """Draw the attention of a classifier over images.

    Args:
        cfg (Config): The classifier's config.
        model (nn.Module): The classifier.
        images (Sequence[str]): Image files.
        out (Path): Folder for the pictures; made if it does not exist.
        layers (Sequence[int], optional): Layers to draw, from 0; negative ones count from the end. Defaults to None,
            which means all.

    Yields:
        Path: A PNG file for each image.

    Raises:
        UserError: If the backbone is not a vision transformer, if a layer does not exist, or if an image cannot be
            read.
    """
    check_attends(model.backbone)
    number = len(model.backbone.layers)
    for layer in layers or ():
        if not -number <= layer < number:
            raise UserError(f'--layers {layer} is not a layer of this model; expected 0 to {number - 1}')
    layers = range(number) if layers is None else [layer % number for layer in layers]
    for path in images:
        if damage := find_image_damage(path, decode=True):
            raise UserError(f'{path} {damage}')
    out.mkdir(parents=True, exist_ok=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(test_pipeline(cfg))
    for path in map(Path, images):
        sample = pipeline(dict(img_path=str(path)))
        # OpenCV's order of channels is BGR.
        picture = sample['inputs'].flip(0).permute(1, 2, 0).numpy()
        inputs = model.data_preprocessor(default_collate([sample]))['inputs']
        attention = class_attention(model.backbone, inputs)
        target = out / f'{path.stem}_attention.png'
        draw_attention(picture, attention[:, 0], target, layers, f'{path.name}: {predicted_class(cfg, model, inputs)}')
        yield target


def predicted_class(cfg: Config, model: nn.Module, images: Tensor) -> str:
    """The class that a classifier predicts for the first of some normalized images, and its score, for a title."""
    with torch.no_grad():
        [sample, *_] = model(images, mode='predict')
    if 'pred_score' not in sample:
        return ''
    label = int(sample.pred_score.argmax())
    classes = class_names(cfg)
    return f'predicted {classes[label] if classes else f"class {label}"}, score {sample.pred_score[label]:.2f}'


def draw_attention(picture: np.ndarray, attention: Tensor, path: Path, layers: Sequence[int], title: str = '') -> None:
    """Draw an image with its attention, in a row for each layer and a column for each head.

    Args:
        picture (np.ndarray): The image, shape (H, W, 3), RGB from 0 to 255.
        attention (Tensor): Of this image, shape (layers, heads, rows, columns).
        path (Path): The PNG file.
        layers (Sequence[int]): The layers to draw.
        title (str): Title of the whole picture. Defaults to ``''``.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    heads = attention.shape[1]
    figure, axes = pyplot.subplots(
        len(layers), heads + 1, figsize=(1.6 * (heads + 1), 1.7 * len(layers)), layout='constrained', squeeze=False
    )
    size = picture.shape[:2]
    for row, layer in zip(axes, layers, strict=True):
        row[0].imshow(picture)
        row[0].set_ylabel(f'layer {layer}')
        maps = F.interpolate(attention[layer][None], size, mode='bilinear')[0]
        for head, (place, weights) in enumerate(zip(row[1:], maps, strict=True)):
            place.imshow(picture)
            place.imshow(weights, cmap='inferno', alpha=0.65)
            if row[0] is axes[0, 0]:
                place.set_title(f'head {head}', fontsize='small')
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    axes[0, 0].set_title('image', fontsize='small')
    figure.suptitle(title, fontsize='medium')
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
