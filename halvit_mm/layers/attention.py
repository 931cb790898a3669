from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halvit_mm.arguments import Expect

from .recompute import recompute_but_products
from .shared import TiedModule


class TiedAttention(TiedModule, nn.Module):
    """Multi-head self-attention with two matrices instead of four.

    With x one token of D features, and heads split off after each product as usual:

    - query ``W_q x + b_q``, key ``W_kv x + b_k``, value ``W_kv^T x + b_v``,
    - output ``W_q^T concat(heads) + b_o``.

    Source and initialization: see :mod:`halvit_mm.layers`.

    Args:
        embed_dims (int): Features of a token, D.
        num_heads (int): Number of heads H; must divide D.
        attn_drop (float): Dropout rate of the attention weights. Defaults to 0.
        proj_drop (float): Dropout rate after the output projection. Defaults to 0.
        qkv_bias (bool): Whether query, key and value have biases. Defaults to True.
        qk_scale (float, optional): Factor on the products of queries and keys. Defaults to None, which
            means ``(D / H) ** -0.5``.
        proj_bias (bool): Whether the output projection has a bias. Defaults to True.
        device (torch.device, optional): Where the parameters are. Defaults to None, which means torch's default.
        dtype (torch.dtype, optional): Type of the parameters. Defaults to None, which means torch's default.

    Attributes:
        q_weight (nn.Parameter): W_q, shape (D, D).
        kv_weight (nn.Parameter): W_kv, shape (D, D).
        qkv_bias (nn.Parameter or None): b_q, b_k, b_v in this order, shape (3D, ).
        proj_bias (nn.Parameter or None): b_o, shape (D, ).

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``.
    """

    matrices = ('q_weight', 'kv_weight')

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        expect = Expect(self)
        expect.positive(embed_dims=embed_dims)
        expect.whole(num_heads=num_heads)
        expect.fraction(attn_drop=attn_drop, proj_drop=proj_drop)
        expect.flag(qkv_bias=qkv_bias, proj_bias=proj_bias)
        if qk_scale is not None:
            expect.number(qk_scale=qk_scale)
        super().__init__()
        if num_heads < 1 or embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} cannot be split into num_heads={num_heads} heads of equal width')
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.head_dims = embed_dims // num_heads
        self.qk_scale = qk_scale
        self.attn_drop = attn_drop

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.q_weight = parameter(embed_dims, embed_dims)
        self.kv_weight = parameter(embed_dims, embed_dims)
        self.qkv_bias = parameter(3 * embed_dims) if qkv_bias else None
        self.proj_bias = parameter(embed_dims) if proj_bias else None
        self.reset_parameters()

        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Attend from every token to every token.

        Args:
            x (Tensor): Shape (B, N, D), or, with ``norm``, what ``norm`` takes.
            norm (Callable, optional): Applied to x first. Its output is not kept for the backward pass but computed
                again. Defaults to None.

        Returns:
            Tensor: Shape (B, N, D), without the shortcut.
        """
        return self.project_out(self.attend(x, norm))

    def attend(
        self,
        x: Tensor,
        norm: Callable[[Tensor], Tensor] | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The part of :meth:`forward` in front of :meth:`project_out`.

        Args:
            x (Tensor): As in :meth:`forward`.
            norm (Callable, optional): As in :meth:`forward`. Defaults to None.
            attn_mask (Tensor, optional): Which tokens attend to which, as ``scaled_dot_product_attention`` takes it.
                Defaults to None.
            is_causal (bool): Whether a token attends to none behind it. Defaults to False.

        Returns:
            Tensor: The heads' outputs, shape (B, N, D).
        """
        if norm is None:
            q, k, v = self._project(x)
        else:
            q, k, v = recompute_but_products(lambda x: self._project(norm(x)), x)
        attn_drop = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask, attn_drop, is_causal, scale=self.qk_scale)
        return out.transpose(1, 2).flatten(2)

    def project_out(self, heads: Tensor) -> Tensor:
        """The rest of :meth:`forward`: shape (B, N, D) to (B, N, D)."""
        out = heads.reshape(-1, self.embed_dims)
        out = self.transposed_linear('q_weight', out, self.proj_bias).view(heads.shape)  # output: W_q^T concat(heads)
        return self.proj_drop(out)

    def attention_weights(self, x: Tensor) -> Tensor:
        """The weights that :meth:`forward` attends with, which fused attention does not return; without dropout.

        Args:
            x (Tensor): Shape (B, N, D).

        Returns:
            Tensor: Weight of token j for token i at ``[..., i, j]``, shape (B, H, N, N).
        """
        q, k, _ = self._project(x)
        scale = self.head_dims**-0.5 if self.qk_scale is None else self.qk_scale
        return (q @ k.mT * scale).softmax(-1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x, shape (B, N, D): views of shape (B, H, N, D / H)."""
        B, N, D = x.shape
        q_bias, k_bias, v_bias = (None,) * 3 if self.qkv_bias is None else self.qkv_bias.chunk(3)

        tokens = x.reshape(B * N, D)
        q = self.linear('q_weight', tokens, q_bias)  # query: W_q x
        tokens = tokens.to(q.dtype)  # once; autocast would do it for each product
        k = self.linear('kv_weight', tokens, k_bias)  # key: W_kv x
        v = self.transposed_linear('kv_weight', tokens, v_bias)  # value: W_kv^T x
        return tuple(t.view(B, N, self.num_heads, self.head_dims).transpose(1, 2) for t in (q, k, v))
