import math

import torch
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from halvit_mm.arguments import Expect
from halvit_mm.layers import share_matrices
from halvit_mm.registry import MODELS

# Of the relative positions: the authors' ratio, and the multiples of it in image RPE (arXiv 2107.14222, equation 18)
RATIO = 1.9
ALPHA, BETA, GAMMA = RATIO, 2 * RATIO, 8 * RATIO


class MultiplexedAttention(MultiheadAttention):
    """Attention whose heads are mixed by linear maps, before the softmax and after it, with relative positions.

    Arguments are those of mmpretrain's ``MultiheadAttention``, and besides:

    Args:
        resolution (tuple[int, int]): Height and width of the map of patches.
    """

    def __init__(self, *args, resolution: tuple[int, int], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.before = nn.Conv2d(self.num_heads, self.num_heads, 1, bias=False)
        self.after = nn.Conv2d(self.num_heads, self.num_heads, 1, bias=False)
        buckets = relative_buckets(*resolution)
        self.register_buffer('buckets', buckets, persistent=False)
        # A vector for each bucket, which all heads use
        self.positions = nn.Parameter(torch.zeros(self.head_dims, (2 * int(BETA) + 1) ** 2))

    def init_weights(self) -> None:
        super().init_weights()
        for mixing in (self.before, self.after):
            trunc_normal_(mixing.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Attend.

        Args:
            x (Tensor): Shape (B, N, D), N patches of a map of ``resolution``.

        Raises:
            ValueError: If there are other patches than those of ``resolution``.
        """
        batch, tokens, _ = x.shape
        if tokens != len(self.buckets):
            raise ValueError(f'{tokens} patches are not those of the map; expected {len(self.buckets)}: set img_size')
        # Each of shape (B, H, N, D / H)
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dims).permute(2, 0, 3, 1, 4)
        q = q * self.head_dims**-0.5
        scores = q @ k.transpose(-2, -1)
        scores = scores + (q @ self.positions).gather(-1, self.buckets.expand(*scores.shape))
        weights = self.after(self.before(scores).softmax(-1))
        weights = nn.functional.dropout(weights, self.attn_drop, self.training)
        out = (weights @ v).transpose(1, 2).reshape(batch, tokens, self.embed_dims)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(out))))


def relative_buckets(height: int, width: int) -> Tensor:
    """Which vector stands for the way from each patch to each other, shape (N, N).

    The method "product" of image RPE: rows and columns have (2 int(BETA) + 1) buckets each, exact for near patches.
    """
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    beta = int(BETA)

    def bucket(places: Tensor) -> Tensor:
        way = places.flatten()[:, None] - places.flatten()
        far = ALPHA + (way.abs().clamp(min=1) / ALPHA).log() / math.log(GAMMA / ALPHA) * (BETA - ALPHA)
        return torch.where(way.abs() <= ALPHA, way, way.sign() * far.round().clamp(max=beta).long()) + beta

    return bucket(rows) * (2 * beta + 1) + bucket(columns)


@MODELS.register_module()
class MiniDeiT(VisionTransformer):
    """Mini-DeiT: pairs of layers share the matrices of attention and of the feed-forward network, and each layer has
    its own norms, linear maps across heads before and after the softmax, and relative positions.

    Source: MiniViT (CVPR 2022, `arXiv 2204.07154 <https://arxiv.org/abs/2204.07154>`_) and the authors' code of
    Mini-DeiT in ``microsoft/Cream``, which has no class token, and no convolution within the feed-forward network.
    Written from these, it departs in one place: biases are each layer's own.

    Args:
        share (int): Consecutive layers that share. Defaults to 2.
        **kwargs: Arguments of mmpretrain's ``VisionTransformer``; images have the size ``img_size``, there is no class
            token, and ``out_type`` is ``'featmap'`` by default.

    Raises:
        ValueError: If ``with_cls_token`` is True.
    """

    def __init__(self, share: int = 2, out_type: str = 'featmap', with_cls_token: bool = False, **kwargs) -> None:
        Expect(self).positive(share=share)
        if with_cls_token:
            raise ValueError(f'MiniDeiT: with_cls_token={with_cls_token} has no relative position; expected False')
        super().__init__(out_type=out_type, with_cls_token=False, **kwargs)
        self.share = share
        for layer in self.layers:
            plain = layer.attn
            layer.attn = MultiplexedAttention(
                self.embed_dims, plain.num_heads, attn_drop=plain.attn_drop, resolution=self.patch_resolution
            )
            layer.attn.load_state_dict(plain.state_dict(), strict=False)
            layer.attn.out_drop, layer.attn.proj_drop, layer.attn.gamma1 = plain.out_drop, plain.proj_drop, plain.gamma1
        for start in range(0, self.num_layers, share):
            share_matrices(self.layers[start : start + share])
