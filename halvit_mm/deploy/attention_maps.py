"""Where a vision transformer looks: attention of its class token over an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from mmpretrain.registry import TRANSFORMS
from torch import Tensor, nn

from halvit_mm.errors import UserError
from halvit_mm.io.images import find_image_damage
from halvit_mm.layers import TiedMultiheadAttention


def attention_weights(attention: TiedMultiheadAttention | MultiheadAttention, x: Tensor) -> Tensor:
    """Attention weights of a layer, which fused attention does not return.

    Args:
        attention (TiedMultiheadAttention or MultiheadAttention): The layer, tied or not.
        x (Tensor): Its input, shape (B, N, D).

    Returns:
        Tensor: Of each head the weights of tokens (last) for tokens (last but one), shape (B, H, N, N).
    """
    if isinstance(attention, TiedMultiheadAttention):
        return attention.attention_weights(x)
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


def class_attention(backbone: VisionTransformer, images: Tensor) -> Tensor:
    """Attention of the class token over the patches, in every head and layer.

    Args:
        backbone (VisionTransformer): mmpretrain's, or ``halvit_mm.HaLViT`` with any tie.
        images (Tensor): Normalized images, shape (B, 3, H, W).

    Returns:
        Tensor: Shape (layers, B, heads, H / patch, W / patch). What the class token pays itself is left out. Of a
        backbone without a class token it is the mean of what all patches pay.

    Raises:
        UserError: If layers attend within windows: no token sees the image then.
    """
    if getattr(backbone, 'window_size', 0):
        raise UserError(f'window_size={backbone.window_size}: attention over the image needs a model without windows')
    found = []

    def keep(attention: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        weights = attention_weights(attention, inputs[0])
        extra = backbone.num_extra_tokens
        found.append(weights[:, :, 0, extra:] if extra else weights.mean(2))

    backbone.eval()  # which returns nothing in mmpretrain's
    hooks = [layer.attn.register_forward_pre_hook(keep) for layer in backbone.layers]
    try:
        with torch.no_grad():
            backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    # The patches of an image that is not a multiple of them are those of the padding too.
    rows = backbone.patch_embed(images[:1])[1][0]
    return torch.stack(found).unflatten(-1, (rows, -1))


def visualize(
    cfg: Config, model: nn.Module, images: Sequence[str], out: Path, layers: Sequence[int] | None = None
) -> Iterator[Path]:
    """Draw the attention of a classifier over images.

    Args:
        cfg (Config): The classifier's config.
        model (nn.Module): The classifier.
        images (Sequence[str]): Image files.
        out (Path): Folder for the pictures; made if it is not there.
        layers (Sequence[int], optional): Layers to draw, from 0; negative ones count from the end. Defaults to None,
            which means all.

    Yields:
        Path: A PNG file for each image.

    Raises:
        UserError: If the backbone is no vision transformer, if there is no such layer, or if an image cannot be read.
    """
    if not isinstance(model.backbone, VisionTransformer):
        raise UserError(f'the backbone is a {type(model.backbone).__name__}; attention is that of vision transformers')
    number = len(model.backbone.layers)
    for layer in layers or ():
        if not -number <= layer < number:
            raise UserError(f'--layers {layer}: there are {number} layers, 0 to {number - 1}')
    layers = None if layers is None else [layer % number for layer in layers]
    for path in images:
        if damage := find_image_damage(path, decode=True):
            raise UserError(f'{path} {damage}')
    out.mkdir(parents=True, exist_ok=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])
    for path in map(Path, images):
        sample = pipeline(dict(img_path=str(path)))
        # The pipeline's channels are in OpenCV's order.
        picture = sample['inputs'].flip(0).permute(1, 2, 0).numpy()
        attention = class_attention(model.backbone, model.data_preprocessor(default_collate([sample]))['inputs'])
        target = out / f'{path.stem}_attention.png'
        draw_attention(picture, attention[:, 0], target, layers)
        yield target


def draw_attention(picture: np.ndarray, attention: Tensor, path: Path, layers: Sequence[int] | None = None) -> None:
    """Draw an image and, layer by layer and head by head, where it is looked at.

    Args:
        picture (np.ndarray): The image, shape (H, W, 3), RGB from 0 to 255.
        attention (Tensor): Of this image, shape (layers, heads, rows, columns).
        path (Path): The PNG file.
        layers (Sequence[int], optional): Which layers are drawn. Defaults to None, which means all.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    layers = range(len(attention)) if layers is None else layers
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
            if row is axes[0]:
                place.set_title(f'head {head}', fontsize='small')
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
