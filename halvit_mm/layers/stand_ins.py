"""Tied forms of upstream's projections: each takes the place of one linear map or 1x1 convolution.

Upstream's attention or feed-forward module keeps its own ``forward``. The module on the way out has no matrix of its
own; it uses that of the module on the way in.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .shared import TiedModule, conv1x1, linear, transposed_conv1x1, transposed_linear, transposed_view


def by_token(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear map from shape (T, in) to (T, out) to x of shape (..., in); torch would split a strided x."""
    return apply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


class WayIn(TiedModule, nn.Module):
    """Owner of shared matrices of one shape and of one bias for all features that they make."""

    def __init__(self, shape: tuple[int, ...], out_features: int, bias: bool) -> None:
        super().__init__()
        for name in self.matrices:
            setattr(self, name, nn.Parameter(torch.empty(shape)))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()


class TiedLinear(WayIn):
    """``W x + b``, the way in of a pair.

    Args:
        in_features (int): Features of the input.
        out_features (int): Features of the output.
        bias (bool): Whether there is a bias. Defaults to True.

    Attributes:
        weight (nn.Parameter): W, shape (out, in).
        bias (nn.Parameter or None): Shape (out, ).
    """

    matrices = ('weight',)

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__((out_features, in_features), out_features, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., in) to (..., out)."""
        return by_token(x, lambda tokens: linear(tokens, self.matrix('weight'), self.bias))


class TiedConv1x1(WayIn):
    """A 1x1 convolution by W, the way in of a pair.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int or tuple): Stride. Defaults to 1.
        bias (bool): Whether there is a bias. Defaults to False.

    Attributes:
        weight (nn.Parameter): W, shape (out, in, 1, 1).
        bias (nn.Parameter or None): Shape (out, ).
    """

    matrices = ('weight',)
    draw = staticmethod(nn.init.xavier_normal_)

    def __init__(
        self, in_channels: int, out_channels: int, stride: int | tuple[int, int] = 1, bias: bool = False
    ) -> None:
        super().__init__((out_channels, in_channels, 1, 1), out_channels, bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, in, H, W) to (N, out, H / stride, W / stride), rounded up."""
        return conv1x1(x, self.matrix('weight'), self.bias, self.stride)


class TiedKeyValue(WayIn):
    """Keys ``W_kv x`` and values ``W_kv^T x``, in this order, in place of a linear map from D to 2D features.

    Args:
        embed_dims (int): Features of a token, D.
        bias (bool): Whether there are biases. Defaults to True.

    Attributes:
        kv_weight (nn.Parameter): W_kv, shape (D, D).
        bias (nn.Parameter or None): b_k, b_v, shape (2D, ).
    """

    matrices = ('kv_weight',)

    def __init__(self, embed_dims: int, bias: bool = True) -> None:
        # W_kv makes keys and values, any other matrix D features.
        super().__init__((embed_dims, embed_dims), (len(self.matrices) + 1) * embed_dims, bias)

    def maps(self) -> tuple[Tensor, ...]:
        """The matrices of the linear maps, each of shape (D, D)."""
        key, value = self.matrix('kv_weight'), self.way_out('kv_weight')
        return key, transposed_view(value)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., D) to (..., D times the number of maps)."""
        maps = self.maps()

        def apply(tokens: Tensor) -> Tensor:
            # Concatenates either the matrices or their outputs: the smaller of the two.
            if tokens.shape[0] > tokens.shape[1]:
                return linear(tokens, torch.cat(maps), self.bias)
            out = torch.cat([linear(tokens, weight) for weight in maps], -1)
            return out if self.bias is None else out + self.bias

        return by_token(x, apply)


class TiedQueryKeyValue(TiedKeyValue):
    """Queries ``W_q x`` in front of keys and values, in place of a linear map from D to 3D features.

    Arguments are those of :class:`TiedKeyValue`.

    Attributes:
        q_weight (nn.Parameter): W_q, shape (D, D); its transpose is the output projection.
        kv_weight (nn.Parameter): W_kv, shape (D, D).
        bias (nn.Parameter or None): b_q, b_k, b_v, shape (3D, ).
    """

    matrices = ('q_weight', 'kv_weight')

    def maps(self) -> tuple[Tensor, ...]:
        return self.matrix('q_weight'), *super().maps()


class TransposedLinear(nn.Module):
    """``W^T x + b``, the way out of a pair.

    Args:
        way_in (TiedModule): The module that owns W; it must be a part of the same model.
        matrix (str): Name of W there. Defaults to ``'weight'``.
        bias (bool): Whether there is a bias. Defaults to True.

    Attributes:
        bias (nn.Parameter or None): Shape (in, ), where W has the shape (out, in).
    """

    def __init__(self, way_in: TiedModule, matrix: str = 'weight', bias: bool = True) -> None:
        super().__init__()
        # A tuple hides the owner of W from this module's children, so that W is in the state dict once.
        self._way_in = (way_in,)
        self.matrix = matrix
        self.bias = nn.Parameter(torch.zeros(getattr(way_in, matrix).shape[1])) if bias else None

    @property
    def transposed(self) -> Tensor:
        """Tensor: W of the way out, shape (out, in, ...)."""
        return self._way_in[0].way_out(self.matrix)

    @property
    def weight(self) -> Tensor:
        """Tensor: ``W^T``, shape (in, out, ...), a view."""
        return transposed_view(self.transposed)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., out) to (..., in)."""
        return by_token(x, lambda tokens: transposed_linear(tokens, self.transposed, self.bias))


class TransposedConv1x1(TransposedLinear):
    """A 1x1 convolution by ``W^T``, the way out of a pair; arguments as of :class:`TransposedLinear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, out, H, W) to (N, in, H, W), where W has the shape (out, in, 1, 1)."""
        return transposed_conv1x1(x, self.transposed, self.bias)


class TiedTorchAttention(TiedModule, nn.MultiheadAttention):
    """torch's ``nn.MultiheadAttention`` with two matrices instead of four, for self- and cross-attention.

    Query ``W_q x``, key ``W_kv y``, value ``W_kv^T z``, output ``W_q^T concat(heads)``, each with its own bias.

    Args:
        embed_dim (int): Features of a token, D.
        num_heads (int): Number of heads; must divide D.
        dropout (float): Dropout rate of the attention weights. Defaults to 0.
        bias (bool): Whether there are biases. Defaults to True.
        batch_first (bool): Whether inputs have the shape (B, N, D) rather than (N, B, D). Defaults to False.

    Attributes:
        q_weight (nn.Parameter): W_q, shape (D, D).
        kv_weight (nn.Parameter): W_kv, shape (D, D).
        in_proj_bias (nn.Parameter or None): b_q, b_k, b_v, shape (3D, ).
    """

    matrices = ('q_weight', 'kv_weight')
    in_proj_weight = bias_k = bias_v = None
    add_zero_attn = False

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, batch_first: bool = False
    ) -> None:
        # Upstream's own constructor would make the untied matrices.
        nn.Module.__init__(self)
        # With False upstream's forward asks for a matrix each of query, key and value.
        self._qkv_same_embed_dim = False
        self.embed_dim = self.kdim = self.vdim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.q_weight = nn.Parameter(torch.empty(embed_dim, embed_dim))
        self.kv_weight = nn.Parameter(torch.empty(embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim)) if bias else None
        self.out_proj = TransposedLinear(self, 'q_weight', bias)
        self.reset_parameters()

    @property
    def q_proj_weight(self) -> Tensor:
        return self.matrix('q_weight')

    @property
    def k_proj_weight(self) -> Tensor:
        return self.matrix('kv_weight')

    @property
    def v_proj_weight(self) -> Tensor:
        return transposed_view(self.way_out('kv_weight'))
